use std::collections::BTreeMap;

use super::*;
use crate::schema::Schemas;

fn schema() -> Schema {
    let document = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer"},
            "paused": {"type": "boolean"},
            "selector": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
            "args": {"type": "array", "items": {"type": "string"}},
            "ports": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"type": "object", "properties": {
                    "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "name": {"type": "string"},
                }},
            },
            "strategy": {"type": "object", "properties": {"type": {"type": "string"}, "surge": {"type": "integer"}}},
        }},
        "status": {"type": "object", "properties": {"ready": {"type": "integer"}}},
    }});
    Schemas::new(BTreeMap::from([("Thing".to_owned(), document)])).get("Thing").unwrap()
}

fn manager(name: &str, operation: Operation) -> Manager {
    Manager {
        name: name.into(),
        operation,
        api_version: "v1".into(),
        subresource: String::new(),
        time: "2024-01-01T00:00:00Z".parse().unwrap(),
    }
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec})
}

fn applied(live: Option<&Value>, name: &str, spec: Value, force: bool) -> Result<Value, Status> {
    super::apply(live, &config(spec), &manager(name, Operation::Apply), &schema(), force)
}

#[test]
fn an_applied_field_belongs_to_its_manager() {
    let object =
        applied(None, "a", json!({"replicas": 1, "ports": [{"port": 80}]}), false).unwrap();
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([{
            "manager": "a", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "time": "2024-01-01T00:00:00Z",
            "fieldsV1": {"f:spec": {
                "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
                "f:replicas": {},
            }},
        }])
    );
}

#[test]
fn applying_the_same_twice_changes_nothing() {
    let spec = json!({"replicas": 1, "ports": [{"port": 80}, {"port": 443}], "selector": {"a": "b"}, "args": ["x"]});
    let once = applied(None, "a", spec.clone(), false).unwrap();
    let twice = applied(Some(&once), "a", spec, false).unwrap();
    assert!(equal_but_for_times(&once, &twice));
}

#[test]
fn a_field_of_another_manager_is_a_conflict_unless_forced() {
    let mut live = config(json!({"replicas": 1}));
    update(None, &mut live, &manager("edit", Operation::Update), &schema());
    let conflict = applied(Some(&live), "a", json!({"replicas": 2}), false).unwrap_err();
    assert_eq!(
        conflict.message,
        "Apply failed with 1 conflict: conflict with \"edit\" using v1 at 2024-01-01T00:00:00Z: .spec.replicas"
    );
    assert_eq!(conflict.details.unwrap().causes[0].field, ".spec.replicas");

    let forced = applied(Some(&live), "a", json!({"replicas": 2}), true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 2);
    let again =
        applied(Some(&forced), "b", json!({"replicas": 3, "paused": true}), false).unwrap_err();
    assert_eq!(again.message, "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas");
}

#[test]
fn the_same_value_is_shared_and_stays_when_one_manager_lets_it_go() {
    let one = applied(None, "a", json!({"replicas": 1, "paused": true}), false).unwrap();
    let both = applied(Some(&one), "b", json!({"replicas": 1}), false).unwrap();
    let left = applied(Some(&both), "a", json!({"paused": true}), false).unwrap();
    assert_eq!(left["spec"], json!({"replicas": 1, "paused": true}));
    let gone = applied(Some(&left), "b", json!({}), false).unwrap();
    assert_eq!(gone["spec"], json!({"paused": true}));
}

#[test]
fn what_a_manager_no_longer_applies_goes_with_its_containers() {
    let one = applied(
        None,
        "a",
        json!({"ports": [{"port": 80, "name": "http"}, {"port": 443}], "strategy": {"type": "x"}}),
        false,
    )
    .unwrap();
    let two = applied(Some(&one), "a", json!({"ports": [{"port": 443}]}), false).unwrap();
    assert_eq!(two["spec"], json!({"ports": [{"port": 443}]}));
}

#[test]
fn an_element_that_another_manager_completed_stays() {
    let one = applied(None, "a", json!({"ports": [{"port": 80}]}), false).unwrap();
    let two =
        applied(Some(&one), "b", json!({"ports": [{"port": 80, "name": "http"}]}), false).unwrap();
    let three = applied(Some(&two), "a", json!({}), false).unwrap();
    assert_eq!(three["spec"]["ports"], json!([{"port": 80, "name": "http"}]));
}

#[test]
fn elements_keep_the_order_of_the_configuration() {
    let one = applied(None, "a", json!({"ports": [{"port": 1}, {"port": 2}, {"port": 3}]}), false)
        .unwrap();
    let two =
        applied(Some(&one), "a", json!({"ports": [{"port": 3}, {"port": 1}, {"port": 4}]}), false)
            .unwrap();
    assert_eq!(two["spec"]["ports"], json!([{"port": 3}, {"port": 1}, {"port": 4}]));
}

#[test]
fn an_update_takes_over_what_it_changes() {
    let one = applied(None, "a", json!({"replicas": 1, "paused": true}), false).unwrap();
    let mut two = one.clone();
    two["spec"]["replicas"] = json!(5);
    update(Some(&one), &mut two, &manager("scale", Operation::Update), &schema());
    let fields = &two["metadata"]["managedFields"];
    assert_eq!(fields[0]["fieldsV1"], json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(fields[1]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(fields[1]["manager"], "scale");
}

#[test]
fn tracking_starts_anew_when_a_client_asks() {
    let one = applied(None, "a", json!({"replicas": 1}), false).unwrap();
    let mut two = one.clone();
    two["metadata"]["managedFields"] = json!([]);
    update(Some(&one), &mut two, &manager("x", Operation::Update), &schema());
    assert_eq!(two["metadata"].get("managedFields"), None);
}

#[test]
fn an_untracked_object_gets_an_owner_before_its_first_apply() {
    let live = json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a", "uid": "u"}, "spec": {"replicas": 1}});
    let conflict = applied(Some(&live), "a", json!({"replicas": 2}), false).unwrap_err();
    assert!(conflict.message.contains("\"before-first-apply\""), "{}", conflict.message);
}

#[test]
fn kubectl_takes_over_what_it_applied_on_the_client_side() {
    let mut live = config(json!({"replicas": 1}));
    live["metadata"]["annotations"] =
        json!({LAST_APPLIED: config(json!({"replicas": 1})).to_string()});
    update(None, &mut live, &manager("kubectl-client-side-apply", Operation::Update), &schema());
    let object = applied(Some(&live), "kubectl", json!({"replicas": 2}), false).unwrap();
    assert_eq!(object["spec"]["replicas"], 2);
    assert!(meta::annotation(&object, LAST_APPLIED).unwrap().contains("\"replicas\":2"));
}

#[test]
fn an_unknown_field_or_a_nameless_element_is_refused() {
    assert!(
        applied(None, "a", json!({"nope": 1}), false)
            .unwrap_err()
            .message
            .contains(".spec.nope: field not declared")
    );
    assert!(
        applied(None, "a", json!({"ports": [{"port": 1}, {"port": 1}]}), false)
            .unwrap_err()
            .message
            .contains("duplicate")
    );
}

#[test]
fn more_than_ten_updaters_become_ancient() {
    let mut live = config(json!({"replicas": 0}));
    update(None, &mut live, &manager("m0", Operation::Update), &schema());
    for n in 1..30 {
        let mut next = live.clone();
        next["metadata"]["labels"][format!("l{n}")] = json!("x");
        update(Some(&live), &mut next, &manager(&format!("m{n}"), Operation::Update), &schema());
        live = next;
    }
    let fields = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(fields.len(), 10);
    assert!(fields.iter().any(|entry| entry["manager"] == "ancient-changes"));
}

#[test]
fn fields_v1_comes_back_as_it_was() {
    let text = json!({"f:a": {".": {}, "f:b": {}}, "f:c": {"k:{\"port\":80}": {"f:x": {}}, "v:\"y\"": {}, "i:3": {}}});
    assert_eq!(FieldSet::from_fields_v1(&text).unwrap().to_fields_v1(), text);
}
