//! What is to be, decided without touching anything: where an object is to be, and what one member needs for that.

use std::collections::BTreeSet;
use std::sync::Arc;

use kubefed_api::federatedtypeconfig::FederatedTypeConfig;
use kubefed_api::{MANAGED_LABEL, deletion, placement, status, template, versions};
use kubefed_apimachinery::meta;
use serde_json::Value;

use super::lane::handover;
use crate::cache::Key;
use crate::control::Control;

/// What is to become of one federated object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) selected: BTreeSet<String>,
    /// The clusters that there were to select from.
    pub(super) clusters: Arc<Vec<placement::Cluster>>,
    /// Named clusters that are not joined.
    pub(super) unknown: Vec<String>,
    pub(super) template_hash: String,
    pub(super) overrides_hash: String,
    /// Each member keeps something of its object, whatever the template says.
    pub(super) retains: bool,
    /// Why it is not placed as it says; empty: it is.
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// It is none that we have to do with.
    pub(super) ignored: bool,
    pub(super) deleting: bool,
    pub(super) orphan: bool,
    /// How it is to be deleted; none if what is said of that can't be understood.
    pub(super) delete_options: Option<Value>,
}

impl Plan {
    /// Whether a cluster was to be selected as it is among `clusters`, with the labels that it has there.
    pub(super) fn saw(&self, cluster: &str, clusters: &[placement::Cluster]) -> bool {
        let now = clusters.iter().find(|known| known.name == cluster);
        now.is_some_and(|now| self.clusters.iter().any(|known| known == now))
    }

    /// Whether this plan asks of each member that it selects what the other asks, and the same of each that it does not.
    pub(super) fn asks_the_same(&self, other: &Plan) -> bool {
        let asked = |plan: &Plan| {
            let unclear = plan.reason == status::COMPUTE_PLACEMENT_FAILED;
            (plan.retains, plan.ignored, plan.deleting, plan.orphan, unclear)
        };
        asked(self) == asked(other)
            && self.template_hash == other.template_hash
            && self.overrides_hash == other.overrides_hash
            && self.delete_options == other.delete_options
    }
}

pub(super) fn plan(
    control: &Control,
    config: &FederatedTypeConfig,
    key: &Key,
    object: &Value,
) -> Plan {
    let clusters = control.placeable();
    let mut plan = Plan {
        template_hash: versions::template_hash(object),
        overrides_hash: versions::overrides_hash(object),
        deleting: meta::deletion_timestamp(object).is_some(),
        retains: template::retains(object, config),
        orphan: deletion::orphans(object),
        delete_options: deletion::options(object).ok(),
        unknown: placement::unknown(object, &clusters),
        clusters: Arc::clone(&clusters),
        ..Plan::default()
    };
    if config.is_namespaces()
        && let Some(why) = unpropagated(key, &control.namespace)
    {
        plan.ignored = true;
        plan.reason = status::COMPUTE_PLACEMENT_FAILED;
        plan.message = why;
        return plan;
    }
    match placement::selected(object, &clusters) {
        Ok(selected) => plan.selected = selected,
        Err(why) => {
            plan.reason = status::COMPUTE_PLACEMENT_FAILED;
            plan.message = why;
            return plan;
        }
    }
    if config.is_namespaces() || !config.target.is_namespaced() {
        return plan;
    }
    // An object is only where its namespace is.
    let namespace = meta::namespace(object);
    let key = Key { namespace: namespace.into(), name: namespace.into() };
    match control.namespaces.get(&key).filter(|ns| meta::deletion_timestamp(ns).is_none()) {
        Some(federated) => match placement::selected(&federated, &clusters) {
            Ok(of_namespace) => plan.selected.retain(|name| of_namespace.contains(name)),
            Err(why) => {
                plan.reason = status::COMPUTE_PLACEMENT_FAILED;
                plan.message = format!("FederatedNamespace {namespace}: {why}");
            }
        },
        None if control.is_namespaced => {}
        None => {
            plan.selected.clear();
            plan.reason = status::NAMESPACE_NOT_FEDERATED;
            plan.message = format!("there is no FederatedNamespace {namespace}/{namespace}");
        }
    }
    plan
}

/// Why a federated namespace is not propagated whatever it says.
fn unpropagated(key: &Key, control_plane: &str) -> Option<String> {
    if key.name != key.namespace {
        let text =
            "The name of a federated namespace must match the name of its containing namespace.";
        return Some(text.into());
    }
    let system = ["kube-system", "kube-public", "default", control_plane];
    system.contains(&key.name.as_str()).then(|| format!("{} is each cluster's own", key.name))
}

/// What a member's watch tells of an object there.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Observed {
    pub(super) version: String,
    pub(super) uid: String,
    pub(super) labels: Value,
    pub(super) annotations: Value,
    pub(super) deleting: bool,
    /// KubeFed has written it, and we have not.
    pub(super) is_kubefeds: bool,
    /// The status, if it is collected.
    pub(super) remote: Option<Value>,
}

impl Observed {
    pub(super) fn of(mut object: Value) -> Self {
        let remote = object.get_mut("status").map(Value::take);
        let labels = object["metadata"]["labels"].take();
        let annotations = object["metadata"]["annotations"].take();
        let object = &object;
        Observed {
            labels,
            annotations,
            remote: remote.filter(|status| !status.is_null()),
            uid: meta::uid(object).to_owned(),
            version: versions::object_version(
                meta::generation(object),
                meta::resource_version(object),
            ),
            deleting: meta::deletion_timestamp(object).is_some(),
            is_kubefeds: handover::is_due(&object["metadata"]["managedFields"]),
        }
    }
}

/// What one member needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It is as it is to be.
    Nothing,
    /// It is to have the object as planned.
    Apply,
    /// The object is to go.
    Delete,
    /// The object stays, but is no longer ours.
    Unmark,
    /// It is going; nothing can be done but wait.
    Wait,
}

/// Decides. `plan`: none if the federated object is gone. `recorded`: the version that was last written there for this
/// object; empty if that was for another template, or what came of it is not known. `metadata`: that of the object as it
/// is to be.
pub(super) fn decide(
    plan: Option<&Plan>,
    cluster: &str,
    observed: Option<&Observed>,
    recorded: Option<&str>,
    metadata: impl FnOnce() -> Option<Value>,
) -> Action {
    let is_there = observed.is_some() || recorded.is_some();
    let Some(plan) = plan else {
        return if observed.is_some() { Action::Unmark } else { Action::Nothing };
    };
    if plan.deleting && plan.orphan {
        return if is_there { Action::Unmark } else { Action::Nothing };
    }
    if plan.ignored {
        return Action::Nothing;
    }
    let is_placed = plan.selected.contains(cluster);
    let wanted = !plan.deleting && is_placed;
    match (wanted, observed) {
        // Where it is to be cannot be told: nothing is taken away for that.
        _ if !plan.deleting && plan.reason == status::COMPUTE_PLACEMENT_FAILED => Action::Nothing,
        (_, Some(observed)) if observed.deleting => Action::Wait,
        // The mark is of an object of this name that is no more, or somebody else's: this one has put nothing there,
        // so its owner has not asked for the end of it.
        (false, Some(_)) if recorded.is_none() && !is_placed => Action::Unmark,
        (false, _) if is_there => Action::Delete,
        (false, _) => Action::Nothing,
        (true, None) => Action::Apply,
        (true, Some(observed)) => {
            let same = recorded == Some(observed.version.as_str());
            let has = |there: &Value, wanted: &Value| {
                let mut wanted = wanted.as_object().into_iter().flatten();
                wanted.all(|(key, value)| there.get(key) == Some(value))
            };
            let marked = |wanted: Value| {
                has(&observed.labels, &wanted["labels"])
                    && has(&observed.annotations, &wanted["annotations"])
            };
            // A change of these does not count up the generation: they are compared by themselves.
            if same && metadata().is_none_or(marked) { Action::Nothing } else { Action::Apply }
        }
    }
}

/// Whether a member's object says that we must not touch it.
pub(super) fn refuses(object: &Value) -> bool {
    meta::label(object, MANAGED_LABEL) == Some("false")
}

/// Whether a member's object is marked as ours.
pub(super) fn is_ours(object: &Value) -> bool {
    meta::label(object, MANAGED_LABEL) == Some("true")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan_for(selected: &[&str]) -> Plan {
        Plan { selected: selected.iter().map(|&name| name.into()).collect(), ..Plan::default() }
    }

    fn observed(version: &str) -> Observed {
        let metadata = json!({"generation": 1, "labels": {"app": "web"}, "annotations": {"by": "us", "and": "others"}});
        Observed { version: version.into(), ..Observed::of(json!({"metadata": metadata})) }
    }

    #[test]
    fn a_member_gets_just_what_it_needs() {
        let selected = plan_for(&["a"]);
        let elsewhere = plan_for(&["b"]);
        let deleting = Plan { deleting: true, ..plan_for(&["a"]) };
        let going_elsewhere = Plan { deleting: true, ..elsewhere.clone() };
        let orphaned = Plan { orphan: true, ..deleting.clone() };
        let unclear = Plan { reason: status::COMPUTE_PLACEMENT_FAILED, ..Plan::default() };
        let going = Observed { deleting: true, ..observed("gen:1") };
        for (name, plan, there, recorded, wanted) in [
            ("new", Some(&selected), None, None, Action::Apply),
            (
                "as it is to be",
                Some(&selected),
                Some(observed("gen:1")),
                Some("gen:1"),
                Action::Nothing,
            ),
            (
                "changed there",
                Some(&selected),
                Some(observed("gen:2")),
                Some("gen:1"),
                Action::Apply,
            ),
            ("changed here", Some(&selected), Some(observed("gen:1")), Some(""), Action::Apply),
            ("deleted there", Some(&selected), None, Some("gen:1"), Action::Apply),
            ("being deleted there", Some(&selected), Some(going), Some("gen:1"), Action::Wait),
            (
                "no longer selected",
                Some(&elsewhere),
                Some(observed("gen:1")),
                Some("gen:1"),
                Action::Delete,
            ),
            ("never selected", Some(&elsewhere), None, None, Action::Nothing),
            (
                "deleted here",
                Some(&deleting),
                Some(observed("gen:1")),
                Some("gen:1"),
                Action::Delete,
            ),
            (
                "deleted here before it was seen there",
                Some(&deleting),
                None,
                Some("gen:1"),
                Action::Delete,
            ),
            (
                "deleted here before it was recorded",
                Some(&deleting),
                Some(observed("gen:1")),
                None,
                Action::Delete,
            ),
            ("gone everywhere", Some(&deleting), None, None, Action::Nothing),
            (
                "of a namesake that is placed elsewhere",
                Some(&elsewhere),
                Some(observed("gen:1")),
                None,
                Action::Unmark,
            ),
            (
                "of a namesake that was placed elsewhere and goes",
                Some(&going_elsewhere),
                Some(observed("gen:1")),
                None,
                Action::Unmark,
            ),
            (
                "of a namesake that is placed here",
                Some(&selected),
                Some(observed("gen:1")),
                None,
                Action::Apply,
            ),
            (
                "no longer selected, written without an answer",
                Some(&elsewhere),
                Some(observed("gen:1")),
                Some(""),
                Action::Delete,
            ),
            (
                "no longer selected, written without an answer, not seen",
                Some(&elsewhere),
                None,
                Some(""),
                Action::Delete,
            ),
            (
                "deleted here after it was taken from the placement",
                Some(&going_elsewhere),
                Some(observed("gen:1")),
                Some("gen:1"),
                Action::Delete,
            ),
            ("orphaned", Some(&orphaned), Some(observed("gen:1")), Some("gen:1"), Action::Unmark),
            ("nobody's", None, Some(observed("gen:1")), None, Action::Unmark),
            (
                "placement that can't be computed",
                Some(&unclear),
                Some(observed("gen:1")),
                Some("gen:1"),
                Action::Nothing,
            ),
        ] {
            assert_eq!(decide(plan, "a", there.as_ref(), recorded, || None), wanted, "{name}");
        }
    }

    #[test]
    fn a_plan_knows_the_clusters_that_it_was_made_for() {
        let cluster = |name: &str, color: &str| placement::Cluster {
            name: name.into(),
            labels: [("color".to_owned(), color.to_owned())].into(),
        };
        let plan = Plan { clusters: Arc::new(vec![cluster("a", "blue")]), ..Plan::default() };
        assert!(plan.saw("a", &[cluster("b", "red"), cluster("a", "blue")]));
        assert!(!plan.saw("a", &[cluster("a", "red")]), "it has other labels now");
        assert!(!plan.saw("b", &[cluster("b", "red")]), "it was joined since");
        assert!(!plan.saw("a", &[]) && !plan.saw("b", &[]), "it is no longer joined");
    }

    #[test]
    fn what_changes_nothing_for_the_members_asks_the_same() {
        let plan = Plan { template_hash: "1".into(), ..plan_for(&["a"]) };
        let unclear = Plan { reason: status::COMPUTE_PLACEMENT_FAILED, ..plan.clone() };
        for (name, other, same) in [
            ("itself", plan.clone(), true),
            ("elsewhere", Plan { selected: BTreeSet::new(), ..plan.clone() }, true),
            ("a typo", Plan { unknown: vec!["x".into()], ..plan.clone() }, true),
            ("another template", Plan { template_hash: "2".into(), ..plan.clone() }, false),
            ("other overrides", Plan { overrides_hash: "2".into(), ..plan.clone() }, false),
            ("going", Plan { deleting: true, ..plan.clone() }, false),
            ("left alone", Plan { orphan: true, ..plan.clone() }, false),
            ("unclear", unclear, false),
        ] {
            assert_eq!(plan.asks_the_same(&other), same, "{name}");
        }
    }

    #[test]
    fn a_namespace_of_each_cluster_itself_is_not_propagated() {
        let key =
            |namespace: &str, name: &str| Key { namespace: namespace.into(), name: name.into() };
        assert_eq!(unpropagated(&key("a", "a"), "kubefed"), None);
        for (namespace, name) in [
            ("a", "b"),
            ("default", "default"),
            ("kube-system", "kube-system"),
            ("kubefed", "kubefed"),
        ] {
            assert!(unpropagated(&key(namespace, name), "kubefed").is_some(), "{namespace}/{name}");
        }
    }

    #[test]
    fn a_label_or_annotation_that_was_changed_there_is_put_back() {
        let plan = plan_for(&["a"]);
        for (metadata, wanted) in [
            (json!({}), Action::Nothing),
            (json!({"labels": {"app": "web"}, "annotations": {"by": "us"}}), Action::Nothing),
            (json!({"labels": {"app": "web", MANAGED_LABEL: "true"}}), Action::Apply),
            (json!({"annotations": {"by": "nobody"}}), Action::Apply),
            (json!({"annotations": {"new": ""}}), Action::Apply),
        ] {
            assert_eq!(
                decide(Some(&plan), "a", Some(&observed("gen:1")), Some("gen:1"), || Some(
                    metadata
                )),
                wanted
            );
        }
    }
}
