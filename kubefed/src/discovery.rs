//! Which kinds a cluster has, and which of them a name means.

use anyhow::bail;
use kubefed_api::federatedtypeconfig::ApiResource;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::members;
use crate::rest::{Cluster, Error};

mod builtin;

/// A kind in one of its versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) api: ApiResource,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) verbs: Vec<String>,
    /// Whether the cluster prefers this version to its others.
    pub(crate) preferred: bool,
}

/// What a cluster tells of its kinds.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    pub(crate) resources: Vec<Resource>,
    /// Why something may be missing.
    pub(crate) troubles: Vec<String>,
}

/// Asks a cluster for its kinds.
pub(crate) async fn kinds(cluster: &Cluster) -> Result<Kinds, Error> {
    let versions = versions(&cluster.get("/apis").await?);
    let mut asked = JoinSet::new();
    for (at, (group, version)) in versions.iter().enumerate() {
        let path = match group.as_str() {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        };
        let cluster = cluster.clone();
        asked.spawn(async move { (at, cluster.get(&path).await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(at, _)| *at);
    let mut kinds = Kinds::default();
    for (at, answer) in answers {
        let (group, version) = &versions[at];
        match answer {
            Ok(list) => add(&mut kinds.resources, &list, group, version),
            Err(error) => kinds.troubles.push(format!("{group}/{version}: {error}")),
        }
    }
    Ok(kinds)
}

/// Every group and version, the preferred version of a group before its others.
fn versions(groups: &Value) -> Vec<(String, String)> {
    let mut versions = vec![(String::new(), "v1".to_owned())];
    for group in groups["groups"].as_array().into_iter().flatten() {
        let name = group["name"].as_str().unwrap_or("");
        let preferred = group["preferredVersion"]["version"].as_str();
        let all = group["versions"].as_array().into_iter().flatten();
        let others = all
            .filter_map(|version| version["version"].as_str())
            .filter(|version| preferred != Some(*version));
        versions.extend(
            preferred.into_iter().chain(others).map(|version| (name.into(), version.into())),
        );
    }
    versions
}

/// Adds the kinds of one group and version behind those of the versions that come before it.
fn add(resources: &mut Vec<Resource>, list: &Value, group: &str, version: &str) {
    for found in list["resources"].as_array().into_iter().flatten() {
        let text = |field: &str| found[field].as_str().unwrap_or("").to_owned();
        let texts = |field: &str| {
            let texts = found[field].as_array().into_iter().flatten();
            texts.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let plural = text("name");
        if plural.is_empty() || plural.contains('/') {
            continue;
        }
        let known = |known: &Resource| known.api.group == group && known.api.plural_name == plural;
        let preferred = !resources.iter().any(known);
        let scope = if found["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let api = ApiResource {
            group: group.into(),
            version: version.into(),
            kind: text("kind"),
            plural_name: plural,
            scope: scope.into(),
        };
        resources.push(Resource {
            api,
            singular: text("singularName"),
            short_names: texts("shortNames"),
            verbs: texts("verbs"),
            preferred,
        });
    }
}

impl Resource {
    /// Whether a name means this kind: plural, singular, kind or short name, or plural and group.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        let short = |short: &String| short.to_lowercase() == name;
        !name.is_empty()
            && (name == self.api.plural_name
                || name == self.singular
                || name == self.api.kind.to_lowercase()
                || name == format!("{}.{}", self.api.plural_name, self.api.group)
                || self.short_names.iter().any(short))
    }

    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

/// The kind that a name means, in a version if one is asked for; an error if it means several.
pub(crate) fn find<'a>(
    resources: &'a [Resource],
    name: &str,
    version: Option<&str>,
) -> Result<Option<&'a Resource>, String> {
    let mut found: Vec<&Resource> = Vec::new();
    for resource in resources.iter().filter(|resource| resource.is_called(name)) {
        let wanted = match version {
            Some(version) => resource.api.version == version,
            None => resource.preferred,
        };
        if wanted && resource.api.group.is_empty() {
            return Ok(Some(resource));
        }
        if wanted {
            found.push(resource);
        }
    }
    if found.len() < 2 {
        return Ok(found.pop());
    }
    let names: Vec<String> = found.iter().map(|found| found.api.qualified_name()).collect();
    Err(format!(
        "Multiple resources are matched by {name:?}: {}. A group-qualified plural name must be provided.",
        names.join(", ")
    ))
}

/// The kind of the host that a name means.
pub(crate) fn on_host(kinds: &Kinds, name: &str) -> anyhow::Result<Resource> {
    match find(&kinds.resources, name, None).map_err(anyhow::Error::msg)? {
        Some(found) => Ok(found.clone()),
        None => bail!("{}", unknown(name, &kinds.troubles)),
    }
}

fn unknown(name: &str, troubles: &[String]) -> String {
    let mut text = format!("Unable to find api resource named {name:?}.");
    for trouble in troubles {
        text += &format!("\nIt may be one of those that were not told: {trouble}");
    }
    text
}

/// The kind that a name means as a target: in the host, else in the first ready member that has it, else one of
/// Kubernetes' own. A control plane that stands alone has few kinds itself.
pub(crate) async fn target(
    host: &Cluster,
    namespace: &str,
    name: &str,
    version: Option<&str>,
) -> anyhow::Result<Resource> {
    let Kinds { resources, mut troubles } = kinds(host).await?;
    if let Some(found) = find(&resources, name, version).map_err(anyhow::Error::msg)? {
        return Ok(found.clone());
    }
    match members::ready(host, namespace).await {
        Ok(members) => {
            for (member, cluster) in members {
                let told = match cluster {
                    Ok(cluster) => kinds(&cluster).await.map_err(anyhow::Error::from),
                    Err(error) => Err(error),
                };
                match told {
                    Ok(told) => {
                        let found = find(&told.resources, name, version);
                        let found = found.map_err(|why| anyhow::anyhow!("cluster {member}: {why}"));
                        if let Some(found) = found? {
                            return Ok(found.clone());
                        }
                        let told = told.troubles.iter();
                        troubles.extend(told.map(|trouble| format!("cluster {member}: {trouble}")));
                    }
                    Err(error) => troubles.push(format!("cluster {member}: {error:#}")),
                }
            }
        }
        Err(error) => troubles.push(format!("the KubeFedClusters: {error}")),
    }
    match find(&builtin::kinds(), name, version).map_err(anyhow::Error::msg)? {
        Some(found) => Ok(found.clone()),
        None => bail!("{}", unknown(name, &troubles)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What a cluster with two versions of a group tells.
    fn cluster() -> Vec<Resource> {
        let groups = json!({"groups": [
            {"name": "apps", "versions": [{"version": "v1"}], "preferredVersion": {"version": "v1"}},
            {"name": "autoscaling", "versions": [{"version": "v1"}, {"version": "v2"}], "preferredVersion": {"version": "v2"}},
            {"name": "events.k8s.io", "versions": [{"version": "v1"}], "preferredVersion": {"version": "v1"}},
            {"name": "a.example.com", "versions": [{"version": "v1"}], "preferredVersion": {"version": "v1"}},
            {"name": "b.example.com", "versions": [{"version": "v1"}], "preferredVersion": {"version": "v1"}},
        ]});
        let hpa = json!({"name": "horizontalpodautoscalers", "singularName": "horizontalpodautoscaler", "kind": "HorizontalPodAutoscaler", "namespaced": true, "shortNames": ["hpa"]});
        let widget =
            json!({"name": "widgets", "singularName": "", "kind": "Widget", "namespaced": false});
        let mut resources = Vec::new();
        for (group, version) in versions(&groups) {
            let found = match (group.as_str(), version.as_str()) {
                ("", _) => vec![
                    json!({"name": "namespaces", "singularName": "", "kind": "Namespace", "namespaced": false, "shortNames": ["ns"]}),
                    json!({"name": "namespaces/status", "kind": "Namespace"}),
                    json!({"name": "events", "singularName": "event", "kind": "Event", "namespaced": true, "shortNames": ["ev"]}),
                ],
                ("apps", _) => vec![
                    json!({"name": "deployments", "singularName": "deployment", "kind": "Deployment", "namespaced": true, "shortNames": ["deploy"], "verbs": ["get", "list"]}),
                ],
                ("autoscaling", "v1") => vec![hpa.clone(), json!({"name": "olds", "kind": "Old"})],
                ("autoscaling", _) => vec![hpa.clone()],
                ("events.k8s.io", _) => vec![
                    json!({"name": "events", "singularName": "event", "kind": "Event", "namespaced": true, "shortNames": ["ev"]}),
                ],
                _ => vec![widget.clone()],
            };
            add(&mut resources, &json!({"resources": found}), &group, &version);
        }
        resources
    }

    #[test]
    fn every_name_of_a_kind_means_it() {
        let cluster = cluster();
        for (name, version, wanted) in [
            ("deployments", None, Some("deployments.apps/v1")),
            ("Deployment", None, Some("deployments.apps/v1")),
            ("deployment", None, Some("deployments.apps/v1")),
            ("deploy", None, Some("deployments.apps/v1")),
            ("deployments.apps", None, Some("deployments.apps/v1")),
            ("deployment.apps", None, None),
            ("deployments.extensions", None, None),
            ("deployments", Some("v1"), Some("deployments.apps/v1")),
            ("deployments", Some("v2"), None),
            ("ns", None, Some("namespaces/v1")),
            ("namespaces/status", None, None),
            ("hpa", None, Some("horizontalpodautoscalers.autoscaling/v2")),
            ("hpa", Some("v1"), Some("horizontalpodautoscalers.autoscaling/v1")),
            // No other version has it.
            ("old", None, Some("olds.autoscaling/v1")),
            // The core group comes first.
            ("events", None, Some("events/v1")),
            ("events.events.k8s.io", None, Some("events.events.k8s.io/v1")),
            ("widgets.a.example.com", None, Some("widgets.a.example.com/v1")),
            ("", None, None),
        ] {
            let found = find(&cluster, name, version).unwrap();
            let found = found.map(|r| format!("{}/{}", r.api.qualified_name(), r.api.version));
            assert_eq!(found.as_deref(), wanted, "{name} {version:?}");
        }
        let several = find(&cluster, "widget", None).unwrap_err();
        assert!(several.contains("widgets.a.example.com, widgets.b.example.com"), "{several}");
    }

    #[test]
    fn scope_and_verbs_are_those_that_are_told() {
        let cluster = cluster();
        let found = |name: &str| find(&cluster, name, None).unwrap().unwrap().clone();
        assert!(found("deploy").api.is_namespaced() && !found("ns").api.is_namespaced());
        assert!(found("deploy").can("list") && !found("deploy").can("create"));
    }

    #[test]
    fn kubernetes_own_kinds_are_known_without_a_cluster() {
        let kinds = builtin::kinds();
        for (name, wanted, namespaced) in [
            ("deploy", "deployments.apps", true),
            ("netpol", "networkpolicies.networking.k8s.io", true),
            ("resourcequota", "resourcequotas", true),
            ("clusterrole", "clusterroles.rbac.authorization.k8s.io", false),
            ("ns", "namespaces", false),
        ] {
            let found = find(&kinds, name, None).unwrap().unwrap();
            assert_eq!(found.api.qualified_name(), wanted);
            assert_eq!(found.api.is_namespaced(), namespaced, "{name}");
        }
        for kind in &kinds {
            let same = find(&kinds, &kind.api.qualified_name(), None).unwrap().unwrap();
            assert_eq!(same, kind);
        }
    }
}
