//! What holds for every object and every configuration.

use proptest::prelude::*;

use super::tests::{applied, config, manager, schema};
use super::*;

fn spec() -> impl Strategy<Value = Value> {
    let text = || "[ab]".prop_map(Value::from);
    let number = || (0..3i64).prop_map(Value::from);
    let port = (0..4i64, prop::option::of("TCP|UDP"), prop::option::of("[ab]")).prop_map(
        |(port, protocol, name)| {
            let mut item = json!({"port": port});
            for (field, value) in [("protocol", protocol), ("name", name)] {
                if let Some(value) = value {
                    item[field] = json!(value);
                }
            }
            item
        },
    );
    let ports = prop::collection::vec(port, 0..4).prop_map(|ports| {
        let key = |port: &Value| {
            format!("{}{}", port["port"], port["protocol"].as_str().unwrap_or("TCP"))
        };
        let mut seen = Vec::new();
        let fresh = |port: &Value| {
            let key = key(port);
            let fresh = !seen.contains(&key);
            seen.push(key);
            fresh
        };
        ports.into_iter().filter(fresh).collect()
    });
    let map = |value: BoxedStrategy<Value>| {
        prop::collection::btree_map("[a-c]", value, 0..3)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    };
    let unit = (prop::option::of(number()), prop::option::of(text())).prop_map(|(size, mode)| {
        let fields = [("size", size), ("mode", mode)];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    });
    let tags = prop::sample::subsequence(vec!["a", "b", "c"], 0..=3).prop_shuffle();
    let fields: Vec<(&str, BoxedStrategy<Value>)> = vec![
        ("replicas", number().boxed()),
        ("paused", any::<bool>().prop_map(Value::from).boxed()),
        ("selector", map(text().boxed()).boxed()),
        ("args", prop::collection::vec(text(), 0..3).prop_map(Value::Array).boxed()),
        ("ports", ports.boxed()),
        ("tags", tags.prop_map(|tags| json!(tags)).boxed()),
        ("units", map(unit.boxed()).boxed()),
        ("free", map(map(number().boxed()).boxed()).boxed()),
        ("strategy", (text()).prop_map(|text| json!({"type": text})).boxed()),
    ];
    let fields: Vec<_> = fields
        .into_iter()
        .map(|(name, value)| {
            prop::option::of(value).prop_map(move |value| Some((name.to_owned(), value?)))
        })
        .collect();
    fields.prop_map(|fields| Value::Object(fields.into_iter().flatten().collect()))
}

/// A write of one of a few managers.
#[derive(Clone, Debug)]
enum Write {
    Update(&'static str, Value),
    Apply(&'static str, Value),
}

fn write() -> impl Strategy<Value = Write> {
    let names = || prop::sample::select(vec!["a", "b", "c"]);
    prop_oneof![
        (names(), spec()).prop_map(|(name, spec)| Write::Update(name, spec)),
        (names(), spec()).prop_map(|(name, spec)| Write::Apply(name, spec)),
    ]
}

/// The object that comes of some writes.
fn history(writes: Vec<Write>) -> Option<Value> {
    writes.into_iter().fold(None, |live, write| {
        Some(match write {
            Write::Apply(name, spec) => applied(live.as_ref(), name, spec, true).unwrap(),
            Write::Update(name, spec) => {
                let mut new = live.clone().unwrap_or_else(|| config(json!({})));
                new["spec"] = spec;
                update(live.as_ref(), &mut new, &manager(name, Operation::Update), &schema());
                new
            }
        })
    })
}

/// Whether `object` has all that `config` says.
fn contains(schema: &Schema, object: &Value, config: &Value) -> bool {
    let missing = compare::compare(schema, config, object);
    missing.modified.is_empty() && missing.removed.is_empty()
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        (0..4i64).prop_map(Value::from),
        prop::sample::select(vec!["Apply", "Update", "FieldsV1", "v1", "2024-01-01T00:00:00Z"])
            .prop_map(Value::from),
    ];
    let name = prop_oneof![
        prop::sample::select(vec![
            "manager",
            "operation",
            "apiVersion",
            "time",
            "fieldsType",
            "fieldsV1",
            "subresource",
            ".",
            "f:spec",
            "f:ports",
            "f:tags",
            "spec",
            "metadata",
            "managedFields",
        ])
        .prop_map(str::to_owned),
        "(f:[ab]|i:-?[0-9]|v:(1|\"a\"|\\{)|k:(\\{\"port\":[0-3]\\}|1|x)|é|)",
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(name.clone(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn applying_the_same_twice_changes_nothing(writes in prop::collection::vec(write(), 0..4), spec in spec()) {
        let live = history(writes);
        let once = applied(live.as_ref(), "a", spec.clone(), true).unwrap();
        // No force is needed: nobody else has other values now.
        let twice = applied(Some(&once), "a", spec, false).unwrap();
        prop_assert!(equal_but_for_times(&once, &twice), "{once} and {twice}");
    }

    #[test]
    fn what_is_applied_is_there(writes in prop::collection::vec(write(), 0..4), spec in spec()) {
        let object = applied(history(writes).as_ref(), "a", spec.clone(), true).unwrap();
        prop_assert!(contains(&schema(), &object, &config(spec)), "{object}");
    }

    #[test]
    fn what_is_owned_is_there(writes in prop::collection::vec(write(), 1..5)) {
        let object = history(writes).unwrap();
        let everything = compare::compare(&schema(), &Value::Null, &object).added;
        for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
            let owned = FieldSet::from_fields_v1(&entry["fieldsV1"]).unwrap();
            let gone = owned.difference(&everything);
            prop_assert!(gone.is_empty(), "{} owns {:?} of {object}", entry["manager"], gone.paths());
        }
    }

    #[test]
    fn who_applies_nothing_any_more_leaves_nothing(spec in spec()) {
        let object = applied(None, "a", spec, false).unwrap();
        let bare = json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a"}});
        let left = super::apply(Some(&object), &bare, &manager("a", Operation::Apply), &schema(), false).unwrap();
        prop_assert_eq!(left, bare);
    }

    #[test]
    fn an_apply_without_force_takes_nothing_from_others(writes in prop::collection::vec(write(), 1..4), spec in spec()) {
        let live = history(writes).unwrap();
        let Ok(object) = applied(Some(&live), "new", spec, false) else { return Ok(()) };
        for entry in live["metadata"]["managedFields"].as_array().into_iter().flatten() {
            let same = |other: &&Value| other["manager"] == entry["manager"] && other["operation"] == entry["operation"];
            let after = object["metadata"]["managedFields"].as_array().into_iter().flatten().find(same);
            prop_assert_eq!(Some(&entry["fieldsV1"]), after.map(|after| &after["fieldsV1"]));
        }
    }

    #[test]
    fn fields_v1_comes_back_as_it_was(value in any_json()) {
        if let Some(set) = FieldSet::from_fields_v1(&value) {
            prop_assert_eq!(FieldSet::from_fields_v1(&set.to_fields_v1()), Some(set));
        }
    }

    #[test]
    fn sets_obey_the_laws_of_sets(a in spec(), b in spec()) {
        let (a, b) = (set::of(&schema(), &config(a)), set::of(&schema(), &config(b)));
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert!(a.difference(&a).is_empty());
        prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a);
    }

    #[test]
    fn any_managed_fields_are_borne(fields in any_json(), live_fields in any_json(), spec in spec(), odd in any_json()) {
        let mut live = config(spec.clone());
        live["metadata"]["managedFields"] = live_fields;
        let mut new = config(odd.clone());
        new["metadata"]["managedFields"] = fields;
        prop_assert!(equal_but_for_times(&live, &live));
        equal_but_for_times(&live, &new);
        update(Some(&live), &mut new, &manager("u", Operation::Update), &schema());
        update(Some(&odd), &mut live.clone(), &manager("u", Operation::Update), &schema());
        update(Some(&live), &mut odd.clone(), &manager("u", Operation::Update), &schema());
        let _ = applied(Some(&live), "a", spec, false);
        let _ = applied(Some(&odd), "a", odd.clone(), true);
        let _ = super::apply(Some(&live), &odd, &manager("kubectl", Operation::Apply), &schema(), true);
    }
}
