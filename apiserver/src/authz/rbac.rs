//! `rbac.authorization.k8s.io`: an index over the stored roles and bindings, rebuilt when one of them changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::future::select_all;
use kubefed_apimachinery::labels::Selector;
use kubefed_apimachinery::status::Status;
use kubefed_storage::cacher::{At, ListQuery, Watcher};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use super::{Attributes, Authorizer, Decision};
use crate::registry::{Registry, Resource};
use crate::request::RequestInfo;
use crate::user::UserInfo;

pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";
const RETRY: Duration = Duration::from_millis(100);
/// How long a request waits for the index to come to a role that is stored already.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a request waits for the first index: before it is there, nobody has rights.
const FIRST: Duration = Duration::from_secs(10);

/// What a role allows.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, serde::Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    pub verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", rename = "apiGroups")]
    pub api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", rename = "nonResourceURLs")]
    pub non_resource_urls: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Rule {
    fn allows(&self, request: &RequestInfo) -> bool {
        if !has(&self.verbs, &request.verb) {
            return false;
        }
        if !request.is_resource {
            return self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                Some(prefix) => request.path.starts_with(prefix),
                None => *url == request.path,
            });
        }
        let resource = if request.subresource.is_empty() {
            has(&self.resources, &request.resource)
        } else {
            let full = format!("{}/{}", request.resource, request.subresource);
            let any_parent = format!("*/{}", request.subresource);
            self.resources.iter().any(|item| item == "*" || *item == full || *item == any_parent)
        };
        resource
            && has(&self.api_groups, &request.group)
            && (self.resource_names.is_empty() || self.resource_names.contains(&request.name))
    }
}

/// The rules that a role states itself.
pub(super) fn rules_of(role: &Value) -> Vec<Rule> {
    let rules = role["rules"].as_array();
    rules.into_iter().flatten().filter_map(|rule| Rule::deserialize(rule).ok()).collect()
}

/// Whom a binding names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// The rules of every subject, by namespace; those of the whole cluster under the empty one.
#[derive(Debug, Default)]
pub struct Index {
    rules: HashMap<(Subject, String), Vec<Arc<[Rule]>>>,
    /// What each role gives, by namespace and name.
    roles: HashMap<(String, String), Arc<[Rule]>>,
}

impl Index {
    /// The index over roles and bindings as they are stored.
    pub fn new(objects: &[Value]) -> Self {
        let of_kind =
            |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
        let mut roles: HashMap<(String, String), Arc<[Rule]>> = HashMap::new();
        for role in of_kind("Role").chain(of_kind("ClusterRole")) {
            let mut rules = rules_of(role);
            for selector in
                role["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten()
            {
                let Ok(selector) = Selector::from_label_selector(selector) else { continue };
                let selected = of_kind("ClusterRole").filter(|other| {
                    let labels = &other["metadata"]["labels"];
                    selector.matches(|key| labels.get(key).and_then(Value::as_str))
                });
                rules.extend(selected.flat_map(rules_of));
            }
            let namespace = role["metadata"]["namespace"].as_str().unwrap_or("").to_owned();
            let name = role["metadata"]["name"].as_str().unwrap_or("").to_owned();
            roles.insert((namespace, name), rules.into());
        }
        let mut index = Index::default();
        for binding in of_kind("RoleBinding").chain(of_kind("ClusterRoleBinding")) {
            let namespace = binding["metadata"]["namespace"].as_str().unwrap_or("").to_owned();
            let role = &binding["roleRef"];
            let place = match role["kind"].as_str() {
                Some("ClusterRole") => String::new(),
                Some("Role") if !namespace.is_empty() => namespace.clone(),
                _ => continue,
            };
            let Some(rules) = roles.get(&(place, role["name"].as_str().unwrap_or("").to_owned()))
            else {
                continue;
            };
            for subject in binding["subjects"].as_array().into_iter().flatten() {
                let name = subject["name"].as_str().unwrap_or("").to_owned();
                let subject = match subject["kind"].as_str() {
                    Some("User") => Subject::User(name),
                    Some("Group") => Subject::Group(name),
                    Some("ServiceAccount") => {
                        let of = subject["namespace"].as_str().unwrap_or(&namespace);
                        Subject::User(format!("system:serviceaccount:{of}:{name}"))
                    }
                    _ => continue,
                };
                index
                    .rules
                    .entry((subject, namespace.clone()))
                    .or_default()
                    .push(Arc::clone(rules));
            }
        }
        index.roles = roles;
        index
    }

    /// What a role gives; `namespace` is empty for a ClusterRole.
    pub fn role(&self, namespace: &str, name: &str) -> Option<&[Rule]> {
        self.roles.get(&(namespace.to_owned(), name.to_owned())).map(AsRef::as_ref)
    }

    /// The rules that hold for a user in a namespace.
    pub fn rules_for<'a>(
        &'a self,
        user: &'a UserInfo,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Rule> {
        let subjects = std::iter::once(Subject::User(user.name.clone()))
            .chain(user.groups.iter().map(|group| Subject::Group(group.clone())));
        let places = if namespace.is_empty() { vec![""] } else { vec!["", namespace] };
        subjects
            .flat_map(move |subject| {
                places.clone().into_iter().map(move |place| (subject.clone(), place.to_owned()))
            })
            .filter_map(|key| self.rules.get(&key))
            .flatten()
            .flat_map(|rules| rules.iter())
    }

    pub(super) fn allows(&self, user: &UserInfo, request: &RequestInfo) -> bool {
        self.rules_for(user, &request.namespace).any(|rule| rule.allows(request))
    }
}

/// Decides by the index.
#[derive(Default)]
pub struct Rbac {
    index: ArcSwap<Index>,
    /// How often the index was made.
    made: watch::Sender<u64>,
}

impl Rbac {
    pub fn index(&self) -> Arc<Index> {
        self.index.load_full()
    }

    /// Waits until the index is as `wanted`, not for long.
    pub(crate) async fn until(&self, wanted: impl Fn(&Index) -> bool) {
        let mut made = self.made.subscribe();
        let _in_time = tokio::time::timeout(PATIENCE, async {
            while !wanted(&self.index.load()) && made.changed().await.is_ok() {}
        })
        .await;
    }

    /// Whether all roles and bindings were read once.
    pub fn is_ready(&self) -> bool {
        *self.made.borrow() > 0
    }

    /// Follows roles and bindings for as long as it is polled.
    pub async fn follow(&self, registry: &Registry) {
        let plurals = ["roles", "rolebindings", "clusterroles", "clusterrolebindings"];
        let Some(resources) = plurals
            .map(|plural| registry.resource(GROUP, plural))
            .into_iter()
            .collect::<Option<Vec<_>>>()
        else {
            return;
        };
        loop {
            let mut watchers: Vec<Watcher> = Vec::new();
            for resource in &resources {
                if let Ok(watcher) = resource.watch().await {
                    watchers.push(watcher);
                }
            }
            if watchers.len() < resources.len() {
                tokio::time::sleep(RETRY).await;
                continue;
            }
            loop {
                for watcher in &mut watchers {
                    while watcher.try_next().is_some() {}
                }
                // An index without some of them would take rights away.
                let Some(objects) = stored(&resources).await else {
                    tokio::time::sleep(RETRY).await;
                    break;
                };
                self.index.store(Arc::new(Index::new(&objects)));
                self.made.send_modify(|made| *made += 1);
                let (event, ..) =
                    select_all(watchers.iter_mut().map(|watcher| Box::pin(watcher.next()))).await;
                if event.is_none() {
                    // When the server ends, every watch does at once; whoever polls must get to see that.
                    tokio::task::yield_now().await;
                    break;
                }
            }
        }
    }
}

/// All roles and bindings, or none if a kind of them can't be read.
async fn stored(resources: &[Arc<Resource>]) -> Option<Vec<Value>> {
    let mut objects = Vec::new();
    for resource in resources {
        let query = ListQuery { prefix: String::new(), start: None, at: At::Any };
        let list = resource.cacher.list(query).await.ok()?;
        let unreadable = |error| tracing::error!(%error, "a role that gives nothing");
        objects.extend(list.iter().filter_map(|object| object.value().map_err(unreadable).ok()));
    }
    Some(objects)
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Result<Decision, Status> {
        let allows = || self.index.load().allows(attributes.user, attributes.request);
        if attributes.is_master() || allows() {
            return Ok(Decision::Allow);
        }
        if !self.is_ready() {
            let mut made = self.made.subscribe();
            let first = made.wait_for(|made| *made > 0);
            if tokio::time::timeout(FIRST, first).await.is_err() {
                return Ok(Decision::Deny("roles and bindings are not read yet".into()));
            }
            if allows() {
                return Ok(Decision::Allow);
            }
        }
        Ok(Decision::Deny(String::new()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authz::bootstrap;
    use crate::query::Query;

    fn may(index: &Index, user: &UserInfo, method: &http::Method, path: &str) -> bool {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        index.allows(user, &RequestInfo::new(method, path, &Query::parse(Some(query))))
    }

    #[test]
    fn rights_hold_where_and_for_what_they_are_given() {
        use http::Method;
        let mut objects = bootstrap::objects();
        objects.extend([
            json!({"kind": "Role", "metadata": {"name": "pods", "namespace": "a"}, "rules": [
                {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]},
                {"apiGroups": ["apps"], "resources": ["*/scale"], "verbs": ["update"]},
                {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"], "verbs": ["get"]},
            ]}),
            json!({"kind": "RoleBinding", "metadata": {"name": "b", "namespace": "a"},
                "roleRef": {"kind": "Role", "name": "pods"}, "subjects": [{"kind": "User", "name": "alice"}, {"kind": "ServiceAccount", "name": "bot"}]}),
            json!({"kind": "RoleBinding", "metadata": {"name": "c", "namespace": "b"},
                "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "Group", "name": "viewers"}]}),
        ]);
        let index = Index::new(&objects);
        let alice = UserInfo::authenticated("alice", vec![]);
        let bot = UserInfo::authenticated("system:serviceaccount:a:bot", vec![]);
        let viewer = UserInfo::authenticated("v", vec!["viewers".into()]);
        for (user, method, path, wanted) in [
            (&alice, Method::GET, "/api/v1/namespaces/a/pods", true),
            (&alice, Method::GET, "/api/v1/namespaces/b/pods", false),
            (&alice, Method::GET, "/api/v1/pods", false),
            (&alice, Method::GET, "/api/v1/namespaces/a/pods?watch=1", false),
            (&alice, Method::GET, "/api/v1/namespaces/a/pods/x/log", true),
            (&alice, Method::GET, "/api/v1/namespaces/a/pods/x/exec", false),
            (&alice, Method::PUT, "/apis/apps/v1/namespaces/a/deployments/x/scale", true),
            (&alice, Method::PUT, "/apis/apps/v1/namespaces/a/deployments/x", false),
            (&alice, Method::GET, "/api/v1/namespaces/a/secrets/one", true),
            (&alice, Method::GET, "/api/v1/namespaces/a/secrets/two", false),
            (&alice, Method::GET, "/apis", true),
            (&alice, Method::GET, "/metrics", false),
            (&bot, Method::GET, "/api/v1/namespaces/a/pods/x", true),
            (
                &viewer,
                Method::GET,
                "/apis/types.kubefed.io/v1beta1/namespaces/b/federateddeployments",
                true,
            ),
            (
                &viewer,
                Method::DELETE,
                "/apis/types.kubefed.io/v1beta1/namespaces/b/federateddeployments/x",
                false,
            ),
            (&viewer, Method::GET, "/api/v1/namespaces/b/secrets", false),
            (&UserInfo::anonymous(), Method::GET, "/version", true),
            (&UserInfo::anonymous(), Method::GET, "/apis", false),
        ] {
            assert_eq!(may(&index, user, &method, path), wanted, "{} {method} {path}", user.name);
        }
    }
}
