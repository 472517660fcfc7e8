//! Objects of the host that policies look at: their parameters, and namespaces.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{ParamKind, ParamRef};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, Selector};
use kube::discovery::{self, Scope};
use moka::future::Cache;
use serde_json::Value;

/// How old what policies see may be. Kubernetes follows such objects by a watch, for which this server would need more
/// rights than to read them.
const OBJECTS: Duration = Duration::from_secs(2);
/// How long the name and scope of a kind are remembered.
const KINDS: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(5);
/// How many objects are remembered.
const REMEMBERED: u64 = 1000;
/// A policy is evaluated once for each object of its parameters.
const AT_MOST: u32 = 200;

type Found = Arc<Vec<Value>>;

/// Reads objects of any kind, with what rights the host has given.
pub(crate) struct Params {
    host: kube::Client,
    kinds: Cache<GroupVersionKind, Arc<(ApiResource, Scope)>>,
    found: Cache<String, Found>,
}

impl Params {
    pub(crate) fn new(host: kube::Client) -> Self {
        let kinds = Cache::builder().max_capacity(REMEMBERED).time_to_live(KINDS).build();
        let found = Cache::builder().max_capacity(REMEMBERED).time_to_live(OBJECTS).build();
        Params { host, kinds, found }
    }

    /// A namespace as `namespaceObject` shows it.
    ///
    /// # Errors
    /// Why it is not known.
    pub(crate) async fn namespace(&self, name: &str) -> Result<Value, String> {
        let read = async {
            let api: Api<Namespace> = Api::all(self.host.clone());
            let mut namespace = in_time(api.get(name)).await?;
            namespace.metadata.managed_fields = None;
            Ok(Arc::new(vec![as_json(&namespace)?]))
        };
        let found = self.found.try_get_with(format!("namespace {name}"), read);
        let found = found.await.map_err(|why: Arc<String>| why.to_string())?;
        Ok(found.first().cloned().unwrap_or_default())
    }

    /// The objects that a binding has as parameters, for a request in `namespace`.
    ///
    /// # Errors
    /// Why they are not known, in Kubernetes' words where it has some.
    pub(crate) async fn find(
        &self,
        kind: &ParamKind,
        reference: &ParamRef,
        namespace: &str,
    ) -> Result<Found, String> {
        let kind = of(kind)?;
        let known = self.kinds.try_get_with(kind.clone(), async {
            let (resource, capabilities) =
                in_time(discovery::pinned_kind(&self.host, &kind)).await?;
            Ok(Arc::new((resource, capabilities.scope)))
        });
        let known = known.await.map_err(|why: Arc<String>| {
            format!(
                "paramKind kind `{}/{}, Kind={}` not known: {why}",
                kind.group, kind.version, kind.kind
            )
        })?;
        let (resource, scope) = &*known;
        let given = reference.namespace.as_deref().unwrap_or("");
        let namespace = match (scope, given, namespace) {
            (Scope::Cluster, "", _) => None,
            (Scope::Cluster, ..) => {
                return Err(
                    "paramRef.namespace must not be provided for a cluster-scoped `paramKind`"
                        .into(),
                );
            }
            (Scope::Namespaced, "", "") => {
                return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
            }
            (Scope::Namespaced, "", asked) => Some(asked),
            (Scope::Namespaced, given, _) => Some(given),
        };
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.host.clone(), namespace, resource),
            None => Api::all_with(self.host.clone(), resource),
        };
        let key = serde_json::to_string(&(&kind, namespace, &reference.name, &reference.selector));
        let key = key.map_err(|error| error.to_string())?;
        let found = self.found.try_get_with(key, read(api, reference)).await;
        let found = found.map_err(|why: Arc<String>| why.to_string())?;
        if found.is_empty() && reference.parameter_not_found_action.as_deref() == Some("Deny") {
            return Err(
                "no params found for policy binding with `Deny` parameterNotFoundAction".into()
            );
        }
        Ok(found)
    }
}

async fn read(api: Api<DynamicObject>, reference: &ParamRef) -> Result<Found, String> {
    let objects = match (reference.name.as_deref().unwrap_or(""), &reference.selector) {
        ("", None) => return Err("one of name or selector must be provided".into()),
        ("", Some(selector)) => {
            let selector: Selector = selector
                .clone()
                .try_into()
                .map_err(|error| format!("paramRef.selector: {error}"))?;
            let params = ListParams::default().labels_from(&selector).limit(AT_MOST);
            let list = in_time(api.list(&params)).await?;
            if list.metadata.continue_.is_some_and(|more| !more.is_empty()) {
                return Err(format!("paramRef.selector selects more than {AT_MOST} objects"));
            }
            // The members of a list do not tell their kind.
            let types = list.types;
            let member = |mut object: DynamicObject| {
                object.types = object.types.or_else(|| {
                    let mut types = types.clone();
                    types.kind = types.kind.strip_suffix("List").unwrap_or(&types.kind).to_owned();
                    Some(types)
                });
                object
            };
            list.items.into_iter().map(member).collect()
        }
        (name, _) => Vec::from_iter(in_time(api.get_opt(name)).await?),
    };
    objects.iter().map(as_json).collect::<Result<_, _>>().map(Arc::new)
}

fn of(kind: &ParamKind) -> Result<GroupVersionKind, String> {
    let version = kind.api_version.as_deref().unwrap_or("");
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = kind.kind.as_deref().unwrap_or("");
    match version.is_empty() || kind.is_empty() {
        true => Err("paramKind needs an apiVersion and a kind".into()),
        false => Ok(GroupVersionKind::gvk(group, version, kind)),
    }
}

fn as_json(object: &impl serde::Serialize) -> Result<Value, String> {
    serde_json::to_value(object).map_err(|error| error.to_string())
}

async fn in_time<T>(asked: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    let answer = tokio::time::timeout(TIMEOUT, asked).await;
    answer.map_err(|_| format!("no answer in {TIMEOUT:?}"))?.map_err(|error| match error {
        kube::Error::Api(status) => status.message,
        error => error.to_string(),
    })
}
