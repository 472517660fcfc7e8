//! Behind a host: the host decides (`SubjectAccessReview`), and what it decided is good for a little while.

use async_trait::async_trait;
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::Api;
use kubefed_apimachinery::status::Status;
use moka::future::Cache;

use super::{Attributes, Authorizer, Decision};
use crate::host::reviews;

/// As Kubernetes: how many answers are kept, and how large a question may be, in bytes, whose answer is kept.
const DECISIONS: u64 = 8192;
const LARGE: usize = 10_000;

/// Rights as the host sees them.
pub struct Delegated {
    host: Api<SubjectAccessReview>,
    known: Cache<String, Decision>,
}

impl Delegated {
    pub fn new(host: kube::Client) -> Self {
        let known =
            Cache::builder().max_capacity(DECISIONS).time_to_live(reviews::REMEMBERED).build();
        Delegated { host: Api::all(host), known }
    }

    async fn ask(&self, spec: SubjectAccessReviewSpec) -> Result<Decision, String> {
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let status = reviews::ask(&self.host, &review).await?.status.unwrap_or_default();
        Ok(if status.allowed && status.denied != Some(true) {
            Decision::Allow
        } else {
            Decision::Deny(status.reason.unwrap_or_default())
        })
    }
}

#[async_trait]
impl Authorizer for Delegated {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Result<Decision, Status> {
        if attributes.is_master() {
            return Ok(Decision::Allow);
        }
        let spec = question(attributes);
        let key = serde_json::to_string(&spec).map_err(Status::internal)?;
        let answer = if key.len() >= LARGE {
            self.ask(spec).await
        } else {
            self.known.try_get_with(key, self.ask(spec)).await.map_err(|why| (*why).clone())
        };
        answer.map_err(|why| {
            tracing::error!(%why, "the host cannot be asked for rights");
            Status::internal("the host cluster cannot be asked whether this is allowed; try again")
        })
    }
}

fn question(attributes: &Attributes<'_>) -> SubjectAccessReviewSpec {
    let (user, request) = (attributes.user, attributes.request);
    let given = |text: &str| Some(text).filter(|text| !text.is_empty()).map(str::to_owned);
    let verb = given(&request.verb);
    let mut spec = SubjectAccessReviewSpec {
        user: given(&user.name),
        uid: given(&user.uid),
        groups: Some(user.groups.clone()),
        extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
        ..SubjectAccessReviewSpec::default()
    };
    if request.is_resource {
        spec.resource_attributes = Some(ResourceAttributes {
            verb,
            group: given(&request.group),
            version: given(&request.version),
            resource: given(&request.resource),
            subresource: given(&request.subresource),
            namespace: given(&request.namespace),
            name: given(&request.name),
            ..ResourceAttributes::default()
        });
    } else {
        spec.non_resource_attributes =
            Some(NonResourceAttributes { verb, path: given(&request.path) });
    }
    spec
}
