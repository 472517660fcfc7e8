use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::planner::{self, Candidate, Plan, Preference};
use super::strategy;

/// Derived by `testdata/scheduling/derive.py`.
fn table(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

fn candidates(case: &Value) -> BTreeMap<String, Candidate> {
    let of = |name: &String| Candidate {
        current: case["current"][name].as_i64().unwrap_or(0),
        capacity: case["capacity"][name].as_i64(),
    };
    case["clusters"].as_object().unwrap().keys().map(|name| (name.clone(), of(name))).collect()
}

fn assert_is_derived(case: &Value, plan: &Plan) {
    let found = json!({"plan": plan.replicas, "overflow": plan.overflow});
    let wanted = json!({"plan": case["plan"], "overflow": case["overflow"]});
    assert_eq!(found, wanted, "{case}");
}

#[test]
fn weights_divide_as_they_do_in_kubefed() {
    let table = table(include_str!("../../testdata/scheduling/planner.json"));
    assert!(table.len() >= 200);
    for case in table {
        let key = case["key"].as_str().unwrap();
        let plan = planner::plan(&Preference::of(&case), &candidates(&case), key);
        assert_is_derived(&case, &plan);
    }
}

#[test]
fn strategies_spread_as_they_say() {
    let table = table(include_str!("../../testdata/scheduling/strategy.json"));
    assert!(table.len() >= 60);
    for case in table {
        let key = case["key"].as_str().unwrap();
        let cluster = |name: &str| case["clusters"].get(name);
        let by = strategy::Strategy::of(&case["strategy"]);
        let plan = strategy::plan(&by, &Preference::of(&case), &candidates(&case), cluster, key);
        assert_is_derived(&case, &plan);
    }
}

#[test]
fn a_field_of_a_cluster_is_its_status_or_its_label() {
    let cluster = json!({
        "metadata": {"name": "c", "labels": {
            "topology.kubernetes.io/region": "l", "topology.kubernetes.io/rack": "r1", "rack": "r2", "tier": "t", "zone": "z2",
        }},
        "status": {"region": "s", "zones": ["z1", "z0"]},
    });
    for (name, wanted) in [
        ("cluster", "c"),
        ("region", "s"),
        ("zone", "z1"),
        ("rack", "r1"),
        ("tier", "t"),
        ("x", ""),
    ] {
        assert_eq!(strategy::field(&cluster, name), wanted, "{name}");
    }
    let unprobed =
        json!({"metadata": {"labels": {"region": "l"}}, "status": {"region": "", "zones": []}});
    assert_eq!(strategy::field(&unprobed, "region"), "l");
    assert_eq!(strategy::field(&unprobed, "zone"), "");
}

/// Much that runs already and little that is left: rounds that change hardly anything are passed over.
#[test]
fn two_thousand_million_replicas_are_divided_at_once() {
    let many = |current| Candidate { current, capacity: None };
    let spec = |total: i64| json!({"spec": {"totalReplicas": total}});
    let all = BTreeMap::from([
        ("a".to_owned(), many(1_000_000_000)),
        ("b".to_owned(), many(1_000_000_000)),
        ("c".to_owned(), many(0)),
    ]);
    let plan = planner::plan(&Preference::of(&spec(2_000_000_001)), &all, "");
    assert_eq!(plan.replicas.values().sum::<i64>(), 2_000_000_001);
    assert!(plan.replicas.values().all(|count| [0, 1, 1_000_000_000].contains(count)), "{plan:?}");

    let even = strategy::Strategy { spread_by: "cluster".into(), ..strategy::Strategy::default() };
    let named = [json!({"metadata": {"name": "a"}}), json!({"metadata": {"name": "b"}})];
    let cluster = |name: &str| named.iter().find(|cluster| cluster["metadata"]["name"] == name);
    let plan = strategy::plan(
        &even,
        &Preference::of(&json!({"spec": {"totalReplicas": i32::MAX, "rebalance": true}})),
        &all,
        cluster,
        "",
    );
    let (most, least) = (plan.replicas.values().max(), plan.replicas.values().min());
    assert!(most.unwrap() - least.unwrap() <= 1, "{plan:?}");
}

/// A number as somebody may write it, or a member may tell it.
fn number() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        2 => Just(None),
        6 => (0..25_i64).prop_map(Some),
        1 => any::<i64>().prop_map(Some),
        1 => prop::sample::select(vec![i64::MIN, -1, i32::MAX.into(), i64::MAX]).prop_map(Some),
    ]
}

prop_compose! {
    fn share()(min in number(), max in number(), weight in number()) -> Value {
        json!({"minReplicas": min, "maxReplicas": max, "weight": weight})
    }
}

prop_compose! {
    fn situation()(
        total in number(),
        rebalance in any::<bool>(),
        shares in prop::collection::btree_map("[a-e*]", share(), 0..6),
        candidates in prop::collection::btree_map("[a-e]", (number(), number()), 0..6),
        places in prop::collection::vec(("[x-z]", "[x-z]"), 5),
        weights in (number(), number()),
    ) -> (Value, BTreeMap<String, Candidate>, Vec<Value>, Value) {
        let preference = json!({"spec": {"totalReplicas": total, "rebalance": rebalance, "clusters": shares}});
        let of = |(current, capacity): (Option<i64>, Option<i64>)| {
            Candidate { current: current.unwrap_or(0), capacity }
        };
        let candidates = candidates.into_iter().map(|(name, known)| (name, of(known))).collect();
        let cluster = |(name, (region, rack)): (&str, (String, String))| {
            json!({"metadata": {"name": name, "labels": {"rack": rack}}, "status": {"region": region}})
        };
        let clusters = ["a", "b", "c", "d", "e"].into_iter().zip(places).map(cluster).collect();
        let policy = json!({"spreadByField": "region", "weightedFields": [
            {"name": "rack", "weight": weights.0}, {"name": "cluster", "weight": weights.1},
        ]});
        (preference, candidates, clusters, json!({"spec": {"spreadPolicy": policy}}))
    }
}

/// The least and the most that a candidate may be given, and whether its share has a weight; none without a share.
fn bounds(preference: &Value, name: &str, candidate: &Candidate) -> Option<(i64, i64, bool)> {
    let shares = preference["spec"]["clusters"].as_object().unwrap();
    let natural = |value: &Value| value.as_i64().map(|number| number.max(0));
    let (min, max, weight) = match shares.get(name).or_else(|| shares.get("*")) {
        Some(share) => (
            natural(&share["minReplicas"]).unwrap_or(0),
            natural(&share["maxReplicas"]).unwrap_or(i64::MAX),
            natural(&share["weight"]).unwrap_or(0),
        ),
        None if shares.is_empty() => (0, i64::MAX, 1),
        None => return None,
    };
    let most = max.min(candidate.capacity.map_or(i64::MAX, |capacity| capacity.max(0)));
    Some((min.min(most), most, weight > 0))
}

/// What holds of every plan.
fn assert_sound(preference: &Value, candidates: &BTreeMap<String, Candidate>, plan: &Plan) {
    let read = Preference::of(preference);
    assert_eq!(plan.replicas.values().sum::<i64>() + plan.left, read.total);
    assert!(plan.left >= 0);
    assert!(plan.replicas.keys().eq(candidates.keys()));
    let bounds = |name: &String| bounds(preference, name, &candidates[name]);
    let least: i128 = candidates.keys().filter_map(bounds).map(|(min, ..)| i128::from(min)).sum();
    for (name, &count) in &plan.replicas {
        let Some((min, most, _)) = bounds(name) else {
            assert_eq!(count, 0, "{name} has no share");
            continue;
        };
        assert!((0..=most).contains(&count), "{name} has {count} of at most {most}");
        assert!(least > read.total.into() || count >= min, "{name} has {count} of at least {min}");
    }
    for (name, &overflow) in &plan.overflow {
        assert!(overflow > 0 && (read.rebalance || overflow <= plan.left));
        assert!(candidates[name].capacity.is_some());
        assert!(plan.replicas[name] + overflow <= read.total);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn weights_lose_no_replica_and_pass_no_bound(
        (preference, candidates, ..) in situation(),
    ) {
        let read = Preference::of(&preference);
        let plan = planner::plan(&read, &candidates, "ns/name");
        assert_sound(&preference, &candidates, &plan);
        prop_assert_eq!(&plan, &planner::plan(&read, &candidates, "ns/name"));
        for (name, &count) in &plan.replicas {
            let open = bounds(&preference, name, &candidates[name]);
            let open = open.is_some_and(|(_, most, weighs)| weighs && count < most);
            prop_assert!(plan.left == 0 || !open, "{} could have more", name);
        }
    }

    #[test]
    fn what_runs_as_planned_is_not_moved((preference, candidates, clusters, policy) in situation()) {
        let mut preference = preference;
        preference["spec"]["rebalance"] = json!(false);
        let read = Preference::of(&preference);
        let cluster = |name: &str| clusters.iter().find(|c| c["metadata"]["name"] == name);
        let by_strategy = |candidates: &BTreeMap<String, Candidate>| {
            strategy::plan(&strategy::Strategy::of(&policy), &read, candidates, cluster, "ns/name")
        };
        let by_weights = |candidates: &BTreeMap<String, Candidate>| {
            planner::plan(&read, candidates, "ns/name")
        };
        let settled = |plan: &Plan| {
            let mut settled = candidates.clone();
            for (name, candidate) in &mut settled {
                candidate.current = plan.replicas[name];
            }
            settled
        };
        let plan = by_weights(&candidates);
        if plan.left == 0 {
            prop_assert_eq!(&by_weights(&settled(&plan)).replicas, &plan.replicas);
        }
        let plan = by_strategy(&candidates);
        prop_assert_eq!(&by_strategy(&settled(&plan)).replicas, &plan.replicas);
    }

    #[test]
    fn strategies_lose_no_replica_and_are_as_even_as_bounds_allow(
        (preference, candidates, clusters, policy) in situation(),
    ) {
        let read = Preference::of(&preference);
        let cluster = |name: &str| clusters.iter().find(|c| c["metadata"]["name"] == name);
        let plan = strategy::plan(&strategy::Strategy::of(&policy), &read, &candidates, cluster, "ns/name");
        assert_sound(&preference, &candidates, &plan);
        let shared: Vec<_> = candidates
            .iter()
            .filter_map(|(name, c)| Some((name, bounds(&preference, name, c)?)))
            .collect();
        let region = |name: &str| strategy::field(cluster(name).unwrap(), "region").to_owned();
        let mut regions: BTreeMap<String, i64> = BTreeMap::new();
        for (name, _) in &shared {
            *regions.entry(region(name)).or_default() += plan.replicas[*name];
        }
        // One that has two more than another keeps them because it must, or because the other can't have more.
        for (more, less) in regions.keys().flat_map(|a| regions.keys().map(move |b| (a, b))) {
            if !read.rebalance || regions[more] <= regions[less] + 1 {
                continue;
            }
            let of = |value: &String| shared.iter().filter(|(name, _)| region(name) == *value).collect::<Vec<_>>();
            let at_least = of(more).iter().all(|(name, (min, ..))| plan.replicas[*name] <= *min);
            let at_most = of(less).iter().all(|(name, (_, most, _))| plan.replicas[*name] == *most);
            prop_assert!(at_least || at_most, "{more} has more than {less}: {plan:?}");
        }
        if plan.left > 0 {
            prop_assert!(shared.iter().all(|(name, (_, most, _))| plan.replicas[*name] == *most));
        }
    }
}
