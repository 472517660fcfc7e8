//! Nothing that is written makes anything here panic: each place of valid objects is given each kind of nonsense.

use super::*;
use crate::kubefedconfig::{self, HealthCheck, LeaderElection};
use crate::propagatedversion::Versions;
use crate::scheduling::planner::{self, Candidate, Preference};
use crate::scheduling::strategy::{self, Strategy};
use crate::status::Propagation;

fn nonsense() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("x"),
        json!("/metadata"),
        json!("2562047h"),
        json!("[::"),
        json!("\u{0}\u{7f}é😀"),
        json!([]),
        json!([null, 1, {}]),
        json!({}),
        json!({"": null, "name": []}),
    ]
}

/// The JSON pointers of everything in `value`.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| {
            let name = name.replace('~', "~0").replace('/', "~1");
            places(value, &format!("{at}/{name}"), found);
        }),
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(i, item)| places(item, &format!("{at}/{i}"), found));
        }
        _ => {}
    }
}

/// Everything that is ever done with an object of the kind of `valid`.
fn exercise(valid: &Value, object: &Value) {
    let (kind, version) = definition_of(valid).expect("the kind is served");
    let strategy = &kind.strategy;
    let mut written = object.clone();
    version.schema.prune(&mut written);
    version.schema.default(&mut written);
    for object in [object, &written] {
        let mut filled = object.clone();
        (strategy.defaults)(&mut filled);
        (strategy.prepare_create)(&mut filled);
        version.schema.validate(&filled);
        (strategy.validate)(&filled);
        (strategy.validate_update)(&filled, valid);
        (strategy.validate_update)(valid, &filled);
        (strategy.validate_status)(&filled, valid);
        (strategy.warnings)(&filled);
    }
    LeaderElection::of(object);
    HealthCheck::of(object);
    kubefedconfig::gate(object, "PushReconciler");
    kubefedconfig::adopts(object);
    kubefedcluster::is_ready(object);
    dns::domain_of(object);
    Versions::of(object).to_status();
    if let Ok(config) = FederatedTypeConfig::from_value(object) {
        let _some_make_no_kind = federated::definition(&config, None);
    }
    let cluster = placement::Cluster { name: "cluster1".into(), labels: BTreeMap::default() };
    let _a_selector_may_be_wrong = placement::selected(object, std::slice::from_ref(&cluster));
    placement::unknown(object, std::slice::from_ref(&cluster));
    for config in &federatedtypeconfig::defaults()[..2] {
        let config = FederatedTypeConfig::from_value(config).unwrap();
        let _an_override_may_not_fit = template::desired(object, &config, "cluster1", Some(object));
    }
    let candidates = BTreeMap::from([("cluster1".to_owned(), Candidate::default())]);
    let preference = Preference::of(object);
    planner::plan(&preference, &candidates, "");
    strategy::plan(&Strategy::of(object), &preference, &candidates, |_| Some(object), "");
    versions::template_hash(object);
    versions::overrides_hash(object);
    status::build(&object["status"], &Propagation::default(), "now");
}

#[test]
fn nonsense_anywhere_is_no_trouble() {
    let conditions = json!([{"type": "Ready", "status": "True", "lastProbeTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let mut valid: Vec<Value> = GUIDE.iter().map(|(section, _)| guide(section)).collect();
    // As stored, with what the server and the controllers add.
    for object in &mut valid {
        check(object);
        object["status"] = json!({
            "observedGeneration": 1,
            "conditions": conditions,
            "clusters": [{"name": "cluster1", "status": "UpdateFailed", "message": "why"}],
            "templateVersion": "a", "overridesVersion": "b",
            "clusterVersions": [{"clusterName": "cluster1", "version": "gen:1"}],
        });
    }
    for valid in valid {
        let mut at = Vec::new();
        places(&valid, "", &mut at);
        for place in at {
            for nonsense in nonsense() {
                let mut object = valid.clone();
                *object.pointer_mut(&place).unwrap() = nonsense;
                exercise(&valid, &object);
            }
        }
    }
}
