use proptest::prelude::*;
use serde_json::json;

use super::*;

fn schema() -> Schema {
    let documents = BTreeMap::from([
        (
            "Thing".to_owned(),
            json!({
                "type": "object",
                "required": ["spec"],
                "properties": {
                    "spec": {"description": "what", "allOf": [{"$ref": "#/components/schemas/Spec"}]},
                    "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                },
            }),
        ),
        (
            "Spec".to_owned(),
            json!({
                "type": "object",
                "required": ["size"],
                "properties": {
                    "size": {"type": "integer", "minimum": 1, "format": "int32"},
                    "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
                    "port": {"x-kubernetes-int-or-string": true},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "ports": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["port", "protocol"],
                        "items": {"type": "object", "properties": {
                            "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}
                        }},
                    },
                    "tree": {"$ref": "#/components/schemas/Tree"},
                },
            }),
        ),
        (
            "Tree".to_owned(),
            json!({"type": "object", "properties": {
                "leaf": {"type": "string"},
                "branches": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}},
            }}),
        ),
    ]);
    Schemas::new(documents).get("Thing").unwrap()
}

#[test]
fn unknown_fields_are_taken_out_and_told() {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a", "creationTimestamp": null, "nam": "b"},
        "spec": {"size": 1, "siz": 2, "ports": [{"port": 1, "prot": "x"}], "mode": null, "labels": {"x": "y"},
                 "tree": {"branches": [{"leaf": "a", "leave": "b"}]}},
        "any": {"thing": {"goes": true}},
        "status": {},
    });
    let unknown = schema().prune(&mut object);
    assert_eq!(
        unknown,
        ["metadata.nam", "spec.ports[0].prot", "spec.siz", "spec.tree.branches[0].leave", "status"]
    );
    assert_eq!(
        object,
        json!({
            "apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a", "creationTimestamp": null},
            "spec": {"size": 1, "ports": [{"port": 1}], "labels": {"x": "y"}, "tree": {"branches": [{"leaf": "a"}]}},
            "any": {"thing": {"goes": true}},
        })
    );
    assert!(schema().prune(&mut object).is_empty());
}

#[test]
fn every_error_is_told() {
    for (spec, wanted) in [
        (json!({"size": 1, "port": 80}), vec![]),
        (json!({"size": 1, "port": "http"}), vec![]),
        (json!({}), vec!["spec.size: Required value"]),
        (
            json!({"size": "x", "mode": "c"}),
            vec![
                r#"spec.mode: Unsupported value: "c": supported values: "a", "b""#,
                r#"spec.size: Invalid value: "string": spec.size in body must be of type integer: "string""#,
            ],
        ),
        (
            json!({"size": 0}),
            vec![
                "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
            ],
        ),
        (
            json!({"size": 1, "ports": [{"port": 1}, {"port": 1, "protocol": "TCP"}, {"port": 1, "protocol": "UDP"}]}),
            vec![r#"spec.ports[1]: Duplicate value: {"port":1,"protocol":"TCP"}"#],
        ),
    ] {
        let errors: Vec<String> =
            schema().validate(&json!({"spec": spec})).iter().map(ToString::to_string).collect();
        assert_eq!(errors, wanted);
    }
}

#[test]
fn defaults_are_filled_in_where_their_parent_is() {
    let mut object = json!({"spec": {"ports": [{"port": 1}]}});
    schema().default(&mut object);
    assert_eq!(object, json!({"spec": {"mode": "a", "ports": [{"port": 1, "protocol": "TCP"}]}}));
    let mut empty = json!({});
    schema().default(&mut empty);
    assert_eq!(empty, json!({}));
}

/// Objects with fields that the schema knows, does not know, and of other types than it wants.
fn any_object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        (0..3i64).prop_map(Value::from),
        "[ab]".prop_map(Value::from),
    ];
    let name = prop::sample::select(vec![
        "metadata", "name", "labels", "spec", "size", "mode", "port", "ports", "protocol", "tree",
        "leaf", "branches", "any", "x",
    ]);
    leaf.prop_recursive(6, 60, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::btree_map(name.clone(), inner, 0..6).prop_map(|map| Value::Object(
                map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn what_was_pruned_has_nothing_unknown(object in any_object()) {
        let mut pruned = object;
        schema().prune(&mut pruned);
        let mut again = pruned.clone();
        prop_assert!(schema().prune(&mut again).is_empty());
        prop_assert_eq!(again, pruned);
    }

    #[test]
    fn what_has_its_defaults_gets_no_more(object in any_object()) {
        let mut filled = object;
        schema().default(&mut filled);
        let mut again = filled.clone();
        schema().default(&mut again);
        schema().validate(&again);
        prop_assert_eq!(again, filled);
    }
}
