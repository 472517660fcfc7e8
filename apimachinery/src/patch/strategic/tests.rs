use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::Schemas;

/// The lists of a pod and the strategy of a deployment, as Kubernetes marks them.
fn schema() -> Schema {
    let container = json!({"type": "object", "properties": {
        "name": {"type": "string"},
        "image": {"type": "string"},
        "args": {"type": "array", "items": {"type": "string"}},
        "env": {
            "type": "array", "x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge",
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "value": {"type": "string"}}},
        },
        "ports": {
            "type": "array", "x-kubernetes-patch-merge-key": "containerPort", "x-kubernetes-patch-strategy": "merge",
            "items": {"type": "object", "properties": {
                "containerPort": {"type": "integer"}, "name": {"type": "string"},
            }},
        },
    }});
    let document = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "containers": {
            "type": "array", "x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge",
            "items": container,
        },
        "volumes": {
            "type": "array", "x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge,retainKeys",
            "items": {"type": "object", "properties": {
                "name": {"type": "string"}, "emptyDir": {"type": "object"}, "hostPath": {"type": "object"},
            }},
        },
        "tolerations": {"type": "array", "items": {"type": "object"}},
        "nodeSelector": {"type": "object", "additionalProperties": {"type": "string"}},
        "strategy": {"type": "object", "properties": {
            "type": {"type": "string"},
            "rollingUpdate": {"type": "object", "properties": {"maxSurge": {"type": "integer"}}},
        }},
    }}}});
    Schemas::new(BTreeMap::from([("Pod".to_owned(), document)])).get("Pod").unwrap()
}

/// Patches `spec` and compares it with what is wanted; an error is a text that the message contains.
fn check(rows: Vec<(Value, Value, Result<Value, &str>)>) {
    for (spec, patch, wanted) in rows {
        let mut object = json!({"spec": spec});
        let outcome = apply(&mut object, &json!({"spec": patch}), &schema());
        match (outcome, wanted) {
            (Ok(()), Ok(wanted)) => assert_eq!(object["spec"], wanted, "{spec} and {patch}"),
            (Err(error), Err(text)) => {
                assert!(error.to_string().contains(text), "{patch} gave {error}");
            }
            (outcome, wanted) => panic!("{spec} and {patch} gave {outcome:?}, not {wanted:?}"),
        }
    }
}

/// Elements of a list that merges by name.
fn names(names: &str) -> Value {
    names.split_whitespace().map(|name| json!({"name": name})).collect()
}

#[test]
fn objects_merge_and_null_deletes() {
    check(vec![
        (
            json!({"nodeSelector": {"a": "1", "b": "2"}}),
            json!({"nodeSelector": {"b": null, "c": "3", "none": null}}),
            Ok(json!({"nodeSelector": {"a": "1", "c": "3"}})),
        ),
        (json!({"nodeSelector": {"a": "1"}}), json!({"nodeSelector": null}), Ok(json!({}))),
        (
            json!({}),
            json!({"strategy": {"type": "x", "rollingUpdate": null}}),
            Ok(json!({"strategy": {"type": "x"}})),
        ),
        (
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"$patch": "replace", "b": "2"}}),
            Ok(json!({"nodeSelector": {"b": "2"}})),
        ),
        (
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"$patch": "delete"}}),
            Ok(json!({"nodeSelector": {}})),
        ),
        (
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"$patch": "delte"}}),
            Err("unknown patch type: \"delte\""),
        ),
        (
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"$patch": 1}}),
            Err("unknown patch type: 1"),
        ),
    ]);
}

#[test]
fn a_list_without_a_key_is_replaced() {
    check(vec![(
        json!({"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["x"]}]}),
        json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["y"]}]}),
        Ok(json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["y"]}]})),
    )]);
}

#[test]
fn a_list_with_a_key_merges_by_it() {
    let live = json!({"containers": [
        {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}], "ports": [{"containerPort": 80, "name": "http"}]},
        {"name": "b", "image": "1"},
    ]});
    let rest = json!({"name": "b", "image": "1"});
    check(vec![
        (
            live.clone(),
            json!({"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}),
            Ok(
                json!({"containers": [live["containers"][0], {"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}),
            ),
        ),
        (
            live.clone(),
            json!({"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}], "ports": [{"containerPort": 80, "name": "web"}]}]}),
            Ok(json!({"containers": [
                {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}],
                 "ports": [{"containerPort": 80, "name": "web"}]},
                rest,
            ]})),
        ),
        (
            live.clone(),
            json!({"containers": [{"$patch": "delete", "name": "a"}, {"$patch": "delete", "name": "none"}]}),
            Ok(json!({"containers": [rest]})),
        ),
        (
            live.clone(),
            json!({"containers": [{"name": "a", "image": "9"}, {"$patch": "delete", "name": "a"}]}),
            Ok(json!({"containers": [rest, {"name": "a", "image": "9"}]})),
        ),
        (
            live.clone(),
            json!({"containers": [{"$patch": "replace"}, {"name": "z"}, {"$patch": "delete", "name": "b"}]}),
            Ok(json!({"containers": [{"name": "z"}]})),
        ),
        (
            live.clone(),
            json!({"containers": [{"$patch": "replace"}]}),
            Ok(json!({"containers": []})),
        ),
        (
            json!({}),
            json!({"containers": [{"name": "a", "image": null}]}),
            Ok(json!({"containers": [{"name": "a"}]})),
        ),
        (
            live.clone(),
            json!({"containers": [{"image": "x"}]}),
            Err("does not contain declared merge key: name"),
        ),
        (
            live.clone(),
            json!({"containers": [{"$patch": "delete"}]}),
            Err("does not contain declared merge key: name"),
        ),
        (
            live.clone(),
            json!({"containers": ["a"]}),
            Err("does not contain declared merge key: name"),
        ),
        (live, json!({"containers": [{"name": "a", "$patch": "x"}]}), Err("unknown patch type")),
    ]);
}

#[test]
fn scalars_merge_as_a_set_and_can_be_taken_out() {
    let patch = |patch: Value| {
        let mut object = json!({"metadata": {"finalizers": ["a/a", "b/b"]}});
        apply(&mut object, &json!({"metadata": patch}), &schema())
            .map(|()| object["metadata"].take())
    };
    for (given, wanted) in [
        (json!({"finalizers": ["c/c", "a/a"]}), json!(["a/a", "b/b", "c/c"])),
        (json!({"$deleteFromPrimitiveList/finalizers": ["a/a", "x/x"]}), json!(["b/b"])),
        (
            json!({"$deleteFromPrimitiveList/finalizers": ["a/a"], "finalizers": ["c/c"]}),
            json!(["b/b", "c/c"]),
        ),
        (
            json!({"$setElementOrder/finalizers": ["b/b", "c/c", "a/a"], "finalizers": ["c/c"]}),
            json!(["b/b", "c/c", "a/a"]),
        ),
    ] {
        assert_eq!(patch(given.clone()).unwrap()["finalizers"], wanted, "{given}");
    }
    for (given, text) in [
        (
            json!({"$deleteFromPrimitiveList/finalizers": "a/a"}),
            "invalid patch format of primitive list",
        ),
        (
            json!({"$setElementOrder/finalizers": {}}),
            "invalid patch format of setElementOrder list",
        ),
    ] {
        assert_eq!(patch(given).unwrap_err().to_string(), text);
    }
}

#[test]
fn retained_keys_are_all_that_stays() {
    check(vec![
        (
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}, "$retainKeys": ["name", "hostPath"]}]}),
            Ok(json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]})),
        ),
        (
            json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}),
            json!({"strategy": {"type": "Recreate", "$retainKeys": ["type"]}}),
            Ok(json!({"strategy": {"type": "Recreate"}})),
        ),
        (
            json!({"strategy": {"type": "RollingUpdate"}}),
            json!({"strategy": {"type": "Recreate", "rollingUpdate": null, "$retainKeys": ["type"]}}),
            Ok(json!({"strategy": {"type": "Recreate"}})),
        ),
        (
            json!({"strategy": {"type": "RollingUpdate"}}),
            json!({"strategy": {"type": "Recreate", "$retainKeys": ["rollingUpdate"]}}),
            Err("invalid patch format of retainKeys"),
        ),
        (
            json!({"strategy": {"type": "RollingUpdate"}}),
            json!({"strategy": {"$retainKeys": "type"}}),
            Err("invalid patch format of retainKeys"),
        ),
    ]);
}

#[test]
fn named_elements_take_their_order_and_the_others_their_places() {
    let rows = [
        // live, patched, order, wanted
        ("a b", "", "b a", Ok("b a")),
        ("a b", "c", "c a b", Ok("c a b")),
        // What an admission webhook put at the end stays there, what it put in front stays in front.
        ("a sidecar", "", "a", Ok("a sidecar")),
        ("sidecar a", "", "a", Ok("sidecar a")),
        ("a x b y", "", "b a", Ok("x b a y")),
        ("a x b y", "c", "a b c", Ok("a x b c y")),
        ("x y", "a b", "a b", Ok("a b x y")),
        ("a b", "b a", "a b", Err("doesn't match $setElementOrder/containers list")),
        ("a b", "c", "a b", Err("doesn't match $setElementOrder/containers list")),
    ];
    check(
        rows.into_iter()
            .map(|(live, patched, order, wanted)| {
                (
                    json!({"containers": names(live)}),
                    json!({"containers": names(patched), "$setElementOrder/containers": names(order)}),
                    wanted.map(|wanted| json!({"containers": names(wanted)})),
                )
            })
            .collect(),
    );
}

fn containers() -> impl Strategy<Value = Value> {
    let container = ("[a-e]", prop::option::of("[1-3]")).prop_map(|(name, image)| match image {
        Some(image) => json!({"name": name, "image": image}),
        None => json!({"name": name}),
    });
    prop::collection::vec(container, 0..5).prop_map(|mut list| {
        list.sort_by_key(|item| item["name"].to_string());
        list.dedup_by_key(|item| item["name"].to_string());
        Value::Array(list)
    })
}

/// Anything, with the words of a patch in it.
fn any_patch() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        (0..3i64).prop_map(Value::from),
        prop::sample::select(vec!["a", "delete", "replace", "merge"]).prop_map(Value::from),
    ];
    let name = prop::sample::select(vec![
        "spec",
        "containers",
        "env",
        "name",
        "strategy",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$deleteFromPrimitiveList/containers",
    ]);
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::btree_map(name.clone(), inner, 0..4).prop_map(|map| Value::Object(
                map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn any_patch_is_applied_or_refused(object in any_patch(), patch in any_patch()) {
        let mut patched = object;
        let _ = apply(&mut patched, &patch, &schema());
    }

    #[test]
    fn a_patch_changes_nothing_the_second_time(live in containers(), patch in containers()) {
        let mut once = json!({"spec": {"containers": live}});
        let patch = json!({"spec": {"containers": patch}});
        apply(&mut once, &patch, &schema()).unwrap();
        let mut twice = once.clone();
        apply(&mut twice, &patch, &schema()).unwrap();
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn an_order_loses_no_element(live in containers(), patch in containers()) {
        let count = |object: &Value| object["spec"]["containers"].as_array().map_or(0, Vec::len);
        let mut merged = json!({"spec": {"containers": live}});
        let mut ordered = merged.clone();
        apply(&mut merged, &json!({"spec": {"containers": patch}}), &schema()).unwrap();
        let patch = json!({"spec": {"containers": patch, "$setElementOrder/containers": patch}});
        apply(&mut ordered, &patch, &schema()).unwrap();
        prop_assert_eq!(count(&ordered), count(&merged));
    }
}
