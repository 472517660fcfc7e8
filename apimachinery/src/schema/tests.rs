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

/// The errors of a structural schema about the value of one field.
fn structural(schema: &Value, value: &Value) -> (Value, Vec<String>) {
    let document = json!({"type": "object", "properties": {"value": schema}});
    let schemas = Schemas::structural(BTreeMap::from([("X".to_owned(), document)]));
    let (schema, mut object) = (schemas.get("X").unwrap(), json!({"value": value}));
    schema.prune(&mut object);
    let errors = schema.validate(&object).iter().map(ToString::to_string).collect();
    (object["value"].take(), errors)
}

#[test]
fn a_structural_object_has_the_fields_that_are_named() {
    for (schema, wanted) in [
        (json!({"type": "object"}), json!({})),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
            json!({"a": 1, "b": {"c": 2}}),
        ),
        (json!({"type": "object", "additionalProperties": true}), json!({"a": 1, "b": {"c": 2}})),
        (json!({"type": "object", "properties": {"b": {"type": "object"}}}), json!({"b": {}})),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"b": {"type": "object"}}}),
            json!({"a": 1, "b": {}}),
        ),
    ] {
        assert_eq!(structural(&schema, &json!({"a": 1, "b": {"c": 2}})).0, wanted, "{schema}");
    }
    let embedded = json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}});
    let object = json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "a", "nam": "b"}, "spec": {}, "x": 1});
    let kept = json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "a"}, "spec": {}});
    assert_eq!(structural(&embedded, &object), (kept, Vec::new()));
    let (_, errors) = structural(&embedded, &json!({"kind": "X"}));
    assert_eq!(errors, ["value.apiVersion: Required value"]);
}

#[test]
fn every_keyword_of_a_structural_schema_is_checked() {
    let limits =
        json!({"minimum": 1, "exclusiveMinimum": true, "maximum": 3, "exclusiveMaximum": true});
    for (schema, good, bad, text) in [
        (json!({"pattern": "^a+$"}), json!("aa"), json!("ab"), "should match '^a+$'"),
        (json!({"minItems": 1}), json!([1]), json!([]), "should have at least 1 items"),
        (
            json!({"minProperties": 1}),
            json!({"a": 1}),
            json!({}),
            "should have at least 1 properties",
        ),
        (
            json!({"maxProperties": 1}),
            json!({"a": 1}),
            json!({"a": 1, "b": 1}),
            "should have at most 1 properties",
        ),
        (limits.clone(), json!(2), json!(1), "should be greater than 1"),
        (limits, json!(1.5), json!(3), "should be less than 3"),
        (json!({"multipleOf": 0.5}), json!(1.5), json!(1.2), "should be a multiple of 0.5"),
        (
            json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}),
            json!(2),
            json!(3),
            "should be less than or equal to 2",
        ),
        (
            json!({"anyOf": [{"enum": [1]}, {"minimum": 5}]}),
            json!(6),
            json!(2),
            "must validate at least one schema (anyOf)",
        ),
        (
            json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({"a": 1}),
            json!({"a": 1, "b": 1}),
            "must validate one and only one schema (oneOf), found 2 valid",
        ),
        (
            json!({"not": {"required": ["a"]}}),
            json!({}),
            json!({"a": 1}),
            "must not validate the schema (not)",
        ),
    ] {
        let mut schema = schema;
        schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
        assert_eq!(structural(&schema, &good).1, [] as [&str; 0], "{schema}");
        let wanted = format!("value: Invalid value: {bad}: value in body {text}");
        assert_eq!(structural(&schema, &bad).1, [wanted], "{schema}");
    }
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
