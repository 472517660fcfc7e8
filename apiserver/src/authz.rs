//! May they? By the roles and bindings that are stored, or by the word of a host.

use async_trait::async_trait;
use kubefed_apimachinery::gvk::GroupResource;
use kubefed_apimachinery::status::Status;

use crate::request::RequestInfo;
use crate::user::{MASTERS, UserInfo};

pub mod bootstrap;
pub mod delegated;
pub(crate) mod escalation;
pub mod rbac;

/// What somebody wants to do.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    pub user: &'a UserInfo,
    pub request: &'a RequestInfo,
}

/// The answer. Nothing allows by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// With the reason, which may be empty.
    Deny(String),
}

/// Decides what a user may do.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// # Errors
    /// If it can't be told: nothing is allowed then.
    async fn authorize(&self, attributes: &Attributes<'_>) -> Result<Decision, Status>;
}

impl<'a> Attributes<'a> {
    pub fn of(user: &'a UserInfo, request: &'a RequestInfo) -> Self {
        Attributes { user, request }
    }

    /// Whether the user needs no role.
    pub fn is_master(&self) -> bool {
        self.user.is_in(MASTERS)
    }

    /// 403 in Kubernetes' words.
    pub fn forbidden(&self, reason: &str) -> Status {
        let (user, request) = (&self.user.name, self.request);
        let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        if !request.is_resource {
            let why =
                format!("User {user:?} cannot {} path {:?}{because}", request.verb, request.path);
            return Status::forbidden(&GroupResource::default(), "", why);
        }
        let resource = if request.subresource.is_empty() {
            request.resource.clone()
        } else {
            format!("{}/{}", request.resource, request.subresource)
        };
        let place = if request.namespace.is_empty() || request.resource == "namespaces" {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {:?}", request.namespace)
        };
        let why = format!(
            "User {user:?} cannot {} resource {resource:?} in API group {:?} {place}{because}",
            request.verb, request.group
        );
        let resource =
            GroupResource { group: request.group.clone(), resource: request.resource.clone() };
        Status::forbidden(&resource, &request.name, why)
    }
}
