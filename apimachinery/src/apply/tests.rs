use std::collections::BTreeMap;

use super::*;
use crate::schema::Schemas;

pub(super) fn schema() -> Schema {
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
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "units": {"type": "object", "additionalProperties": {"type": "object", "properties": {
                "size": {"type": "integer"}, "mode": {"type": "string"},
            }}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "strategy": {"type": "object", "properties": {"type": {"type": "string"}, "surge": {"type": "integer"}}},
        }},
        "status": {"type": "object", "properties": {"ready": {"type": "integer"}}},
    }});
    Schemas::new(BTreeMap::from([("Thing".to_owned(), document)])).get("Thing").unwrap()
}

pub(super) fn manager(name: &str, operation: Operation) -> Manager {
    Manager {
        name: name.into(),
        operation,
        api_version: "v1".into(),
        subresource: String::new(),
        time: "2024-01-01T00:00:00Z".parse().unwrap(),
    }
}

pub(super) fn config(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec})
}

pub(super) fn applied(
    live: Option<&Value>,
    name: &str,
    spec: Value,
    force: bool,
) -> Result<Value, Status> {
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
    let ancient: Vec<_> =
        fields.iter().filter(|entry| entry["manager"] == "ancient-changes").collect();
    assert_eq!(ancient.len(), 1);
    assert_eq!(ancient[0]["fieldsV1"]["f:metadata"]["f:labels"].as_object().unwrap().len(), 21);
}

#[test]
fn ancient_changes_are_kept_for_each_version() {
    let mut live = config(json!({"replicas": 0}));
    update(None, &mut live, &manager("m0", Operation::Update), &schema());
    for n in 1..12 {
        let mut next = live.clone();
        next["metadata"]["labels"][format!("l{n}")] = json!("x");
        let mut manager = manager(&format!("m{n}"), Operation::Update);
        manager.api_version = format!("v{}", n % 2 + 1);
        manager.time += jiff::SignedDuration::from_secs(n);
        update(Some(&live), &mut next, &manager, &schema());
        live = next;
    }
    let entries: Vec<String> = live["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| format!("{} {}", entry["manager"], entry["apiVersion"]).replace('"', ""))
        .collect();
    assert_eq!(
        entries,
        [
            "ancient-changes v1",
            "ancient-changes v2",
            "m4 v1",
            "m5 v2",
            "m6 v1",
            "m7 v2",
            "m8 v1",
            "m9 v2",
            "m10 v1",
            "m11 v2",
        ]
    );
}

/// What a manager owns of an object, by `apply` or `update`.
fn owned_by(object: &Value, name: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    entries
        .iter()
        .find(|entry| entry["manager"] == name)
        .map_or(Value::Null, |entry| entry["fieldsV1"].get("f:spec").cloned().unwrap_or_default())
}

fn updated(live: Option<&Value>, name: &str, spec: Value) -> Value {
    let mut new = live.map_or_else(|| config(json!({})), Clone::clone);
    new["spec"] = spec;
    update(live, &mut new, &manager(name, Operation::Update), &schema());
    new
}

#[test]
fn lists_merge_in_the_order_of_the_configuration_around_what_others_added() {
    let ports = |text: &str| -> Value {
        text.split_whitespace().map(|n| json!({"port": n.parse::<i32>().unwrap()})).collect()
    };
    for (live, applied_ports, wanted) in [
        ("1 2 3", "3 1", "2 3 1"),
        ("1 2 3", "1 4 2", "1 4 2 3"),
        ("1 2", "4 1", "4 1 2"),
        ("9 1", "1 2", "9 1 2"),
        ("1 9 2", "2 1", "9 2 1"),
        ("1 2 3 4", "4 3 2 1", "4 3 2 1"),
        ("", "2 1", "2 1"),
        ("1 2", "", "1 2"),
    ] {
        let live = updated(None, "other", json!({"ports": ports(live)}));
        let object =
            applied(Some(&live), "a", json!({"ports": ports(applied_ports)}), false).unwrap();
        assert_eq!(object["spec"]["ports"], ports(wanted), "{live} and {applied_ports}");
    }
}

#[test]
fn parts_are_owned_as_the_schema_says() {
    for (spec, wanted) in [
        (json!({"selector": {"a": "b"}}), json!({"f:selector": {}})),
        (json!({"args": ["x", "y"]}), json!({"f:args": {}})),
        (json!({"tags": ["x"]}), json!({"f:tags": {"v:\"x\"": {}}})),
        (json!({"strategy": {"type": "x"}}), json!({"f:strategy": {"f:type": {}}})),
        (json!({"strategy": {}}), json!({"f:strategy": {}})),
        (
            json!({"units": {"u": {"size": 1}}}),
            json!({"f:units": {"f:u": {".": {}, "f:size": {}}}}),
        ),
        (json!({"free": {"x": {"y": [1, 2]}}}), json!({"f:free": {"f:x": {".": {}, "f:y": {}}}})),
        (json!({"replicas": null, "paused": true}), json!({"f:paused": {}})),
        (json!({"ports": []}), json!({"f:ports": {}})),
    ] {
        let object = applied(None, "a", spec.clone(), false).unwrap();
        assert_eq!(owned_by(&object, "a"), wanted, "{spec}");
    }
}

#[test]
fn an_update_owns_the_containers_that_it_made() {
    let object = updated(None, "u", json!({"strategy": {"type": "x"}, "ports": [{"port": 1}]}));
    assert_eq!(
        owned_by(&object, "u"),
        json!({
            ".": {},
            "f:strategy": {".": {}, "f:type": {}},
            "f:ports": {".": {}, "k:{\"port\":1,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
        })
    );
}

#[test]
fn what_is_no_longer_applied_goes_unless_another_manager_has_it() {
    for (first, other, second, wanted) in [
        // A struct stays for the field that another manager has in it.
        (
            json!({"strategy": {"type": "x"}}),
            json!({"strategy": {"type": "x", "surge": 1}}),
            json!({}),
            json!({"strategy": {"surge": 1}}),
        ),
        // An element goes with what an update put into it, as nobody else has the element.
        (
            json!({"ports": [{"port": 1}, {"port": 2}]}),
            json!({"ports": [{"port": 1, "name": "x"}, {"port": 2}]}),
            json!({"ports": [{"port": 2}]}),
            json!({"ports": [{"port": 2}]}),
        ),
        (
            json!({"units": {"a": {"size": 1}, "b": {"size": 2}}}),
            json!({"units": {"a": {"size": 1, "mode": "m"}, "b": {"size": 2}}}),
            json!({"units": {"b": {"size": 2}}}),
            json!({"units": {"b": {"size": 2}}}),
        ),
        (
            json!({"tags": ["a", "b"]}),
            json!({"tags": ["a", "b", "c"]}),
            json!({"tags": ["b"]}),
            json!({"tags": ["b", "c"]}),
        ),
        // What the update changed is the update's.
        (
            json!({"replicas": 1, "paused": true}),
            json!({"replicas": 5, "paused": true}),
            json!({}),
            json!({"replicas": 5}),
        ),
        (
            json!({"selector": {"a": "1"}, "args": ["x"]}),
            json!({"selector": {"a": "1"}, "args": ["x"], "paused": true}),
            json!({"args": ["y"]}),
            json!({"args": ["y"], "paused": true}),
        ),
        (
            json!({"replicas": 1, "paused": true}),
            json!({"replicas": 1, "paused": true}),
            json!({"replicas": null}),
            json!({}),
        ),
    ] {
        let live = applied(None, "a", first.clone(), false).unwrap();
        let live = updated(Some(&live), "u", other.clone());
        let object = applied(Some(&live), "a", second.clone(), false).unwrap();
        assert_eq!(object["spec"], wanted, "{first}, {other}, {second}");
    }
}

#[test]
fn every_conflict_is_told_by_manager() {
    let live = applied(None, "a", json!({"replicas": 1, "tags": ["x"]}), false).unwrap();
    let mut live = updated(
        Some(&live),
        "u",
        json!({"replicas": 1, "tags": ["x"], "paused": true, "ports": [{"port": 1, "name": "n"}]}),
    );
    let with_status = Manager { subresource: "status".into(), ..manager("s", Operation::Update) };
    let before = live.clone();
    live["status"] = json!({"ready": 1});
    update(Some(&before), &mut live, &with_status, &schema());

    let mut wanted = config(
        json!({"replicas": 2, "tags": ["y"], "paused": false, "ports": [{"port": 1, "name": "m"}]}),
    );
    wanted["status"] = json!({"ready": 2});
    let status =
        super::apply(Some(&live), &wanted, &manager("b", Operation::Apply), &schema(), false)
            .unwrap_err();
    assert_eq!(
        status.message,
        "Apply failed with 4 conflicts: conflicts with \"a\":\n- .spec.replicas\n\
         conflicts with \"s\" with subresource \"status\" using v1 at 2024-01-01T00:00:00Z:\n- .status.ready\n\
         conflicts with \"u\" using v1 at 2024-01-01T00:00:00Z:\n- .spec.paused\n\
         - .spec.ports[port=1,protocol=\"TCP\"].name"
    );
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    let causes = status.details.unwrap().causes;
    assert_eq!(causes.len(), 4);
    assert_eq!(causes[0].reason, "FieldManagerConflict");
    assert_eq!(causes[0].message, "conflict with \"a\"");
}

#[test]
fn a_configuration_that_can_not_be_merged_is_refused_with_every_reason() {
    for (spec, wanted) in [
        (json!({"nope": 1}), ".spec.nope: field not declared in schema"),
        (
            json!({"ports": [{"port": 1, "nam": "x"}]}),
            ".spec.ports[port=1,protocol=\"TCP\"].nam: field not declared in schema",
        ),
        (
            json!({"ports": [{"port": 1}, {"port": 1, "protocol": "TCP"}]}),
            ".spec.ports: duplicate entries for key [port=1,protocol=\"TCP\"]",
        ),
        (json!(5), ".spec: expected map, got integer"),
        (json!({"ports": {"port": 1}}), ".spec.ports: expected list, got object"),
        (json!({"replicas": "1"}), ".spec.replicas: expected integer, got string"),
        (json!({"tags": ["x", "x"]}), ".spec.tags: duplicate entries for key [=\"x\"]"),
        (
            json!({"a": 1, "b": 1}),
            "errors:\n  .spec.a: field not declared in schema\n  .spec.b: field not declared in schema",
        ),
    ] {
        let status = applied(None, "a", spec, false).unwrap_err();
        let head = "failed to create typed patch object (a; v1, Kind=Thing): ";
        assert_eq!(status.message.strip_prefix(head), Some(wanted));
    }
}

#[test]
fn an_element_without_its_keys_is_refused() {
    let document = json!({"type": "object", "properties": {"list": {
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"],
        "items": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
    }}});
    let schema = Schemas::new(BTreeMap::from([("X".to_owned(), document)])).get("X").unwrap();
    let manager = manager("a", Operation::Apply);
    let apply = |list| {
        let config =
            json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}, "list": list});
        super::apply(None, &config, &manager, &schema, false)
    };
    assert!(apply(json!([{"a": "x"}])).is_ok());
    assert_eq!(
        apply(json!([{}])).unwrap_err().message,
        "failed to create typed patch object (x; v1, Kind=X): .list: element 0: associative list with keys has an element \
         that omits all key fields [\"a\" \"b\"] (and doesn't have default values for any key fields)"
    );
}

#[test]
fn kubectl_does_not_take_over_what_others_changed_since() {
    let mut live = config(json!({"replicas": 1}));
    live["metadata"]["annotations"] =
        json!({LAST_APPLIED: config(json!({"replicas": 1})).to_string()});
    update(None, &mut live, &manager("kubectl-client-side-apply", Operation::Update), &schema());
    let scaled = {
        let mut new = live.clone();
        new["spec"]["replicas"] = json!(5);
        update(Some(&live), &mut new, &manager("scaler", Operation::Update), &schema());
        new
    };
    let status = applied(Some(&scaled), "kubectl", json!({"replicas": 2}), false).unwrap_err();
    assert!(status.message.contains("\"scaler\""), "{}", status.message);
    assert!(applied(Some(&live), "helm", json!({"replicas": 2}), false).is_err());
}

#[test]
fn times_alone_are_nothing_to_write() {
    let one = applied(None, "a", json!({"replicas": 1}), false).unwrap();
    let mut later = one.clone();
    later["metadata"]["managedFields"][0]["time"] = json!("2030-01-01T00:00:00Z");
    later["metadata"]["resourceVersion"] = json!("7");
    assert!(equal_but_for_times(&one, &later));
    for (path, value) in [
        ("/spec/replicas", json!(2)),
        ("/metadata/name", json!("b")),
        ("/metadata/managedFields/0/manager", json!("b")),
        ("/metadata/managedFields", json!([])),
        ("/metadata/managedFields/0", json!("x")),
        ("/metadata", json!(null)),
    ] {
        let mut other = later.clone();
        *other.pointer_mut(path).unwrap() = value;
        assert!(!equal_but_for_times(&one, &other), "{path}");
        assert!(equal_but_for_times(&other, &other.clone()), "{path}");
    }
    let mut more = later;
    more["status"] = json!({});
    assert!(!equal_but_for_times(&one, &more));
    assert!(!equal_but_for_times(&more, &one));
}

#[test]
fn fields_v1_comes_back_as_it_was() {
    let text = json!({"f:a": {".": {}, "f:b": {}}, "f:c": {"k:{\"port\":80}": {"f:x": {}}, "v:\"y\"": {}, "i:3": {}}});
    assert_eq!(FieldSet::from_fields_v1(&text).unwrap().to_fields_v1(), text);
}
