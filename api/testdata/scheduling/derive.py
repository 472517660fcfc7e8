#!/usr/bin/env python3
"""Derives planner.json and strategy.json, which the tests of api/src/scheduling read.

Written from what KubeFed documents of its planner, and from what a ReplicaSchedulingStrategy is to mean: counting with
Python's unbounded integers and fractions, one replica at a time where the meaning says so. Run it here to write both files.
"""

import json
import random
from fractions import Fraction
from math import ceil


def fnv1(text):
    value = 2166136261
    for byte in text.encode():
        value = value * 16777619 % 2**32 ^ byte
    return value


def preferences(spec, clusters):
    """The entry for each cluster that has one."""
    entries = spec.get("clusters") or {"*": {"weight": 1}}
    found = {name: entries.get(name, entries.get("*")) for name in clusters}
    return {name: entry for name, entry in found.items() if entry is not None}


def by_weights(spec, clusters, current, capacity, key):
    entries = preferences(spec, clusters)
    weight = {name: entry.get("weight", 0) for name, entry in entries.items()}
    most = {name: entry.get("maxReplicas", float("inf")) for name, entry in entries.items()}
    can = {name: capacity.get(name, float("inf")) for name in entries}
    order = sorted(entries, key=lambda name: (-weight[name], fnv1(name + key)))
    plan = {name: 0 for name in clusters}
    overflow = {}
    remaining = spec["totalReplicas"]
    for name in order:
        plan[name] = min(entries[name].get("minReplicas", 0), remaining, can[name])
        remaining -= plan[name]
    reserved = {name: 0 for name in order}
    if not spec.get("rebalance", False):
        for name in order:
            goal = min(current.get(name, 0), most[name], can[name])
            reserved[name] = max(0, min(goal - plan[name], remaining))
            plan[name] += reserved[name]
            remaining -= reserved[name]
    active = list(order)
    progress = True
    while progress and remaining > 0:
        progress = False
        whole, at_start = sum(weight[name] for name in active), remaining
        if whole == 0:
            break
        still = []
        for name in active:
            extra = min(ceil(Fraction(at_start * weight[name], whole)), remaining)
            used = min(extra, reserved[name])
            reserved[name] -= used
            goal, full = plan[name] + extra - used, False
            if goal > most[name]:
                goal, full = most[name], True
            if goal > can[name]:
                overflow[name], goal, full = goal - can[name], can[name], True
            if used > 0 or goal > plan[name]:
                progress = True
            remaining -= goal - plan[name]
            plan[name] = goal
            if not full:
                still.append(name)
        active = still
    return plan, waiting(spec, overflow, remaining)


def waiting(spec, overflow, left):
    """What waits for room in the clusters: no more than is left over, unless all may be moved."""
    most = float("inf") if spec.get("rebalance", False) else left
    return {name: min(count, most) for name, count in overflow.items() if min(count, most) > 0}


def field(cluster, name):
    if name == "cluster":
        return cluster["metadata"]["name"]
    status, labels = cluster.get("status", {}), cluster["metadata"].get("labels", {})
    told = {"region": status.get("region"), "zone": (status.get("zones") or [None])[0]}.get(name)
    return told or labels.get("topology.kubernetes.io/" + name) or labels.get(name) or ""


def by_strategy(spec, policy, clusters, current, capacity, key):
    entries = preferences(spec, clusters)
    weighted = policy.get("weightedFields", [])

    def divide(can):
        plan = {name: 0 for name in clusters}
        left = spec["totalReplicas"]
        top = {name: min(entry.get("maxReplicas", float("inf")), can.get(name, float("inf"))) for name, entry in entries.items()}

        def having(name, what):
            value = field(clusters[name], what)
            return sum(plan[other] for other in entries if field(clusters[other], what) == value)

        def urgency(name):
            pull = sum((Fraction(f["weight"], 1 + having(name, f["name"])) for f in weighted), Fraction(0))
            return having(name, policy["spreadByField"]), -pull, plan[name], fnv1(name + key)

        steps = [{name: min(entries[name].get("minReplicas", 0), top[name]) for name in entries}]
        if not spec.get("rebalance", False):
            steps.append({name: min(current.get(name, 0), top[name]) for name in entries})
        steps.append(top)
        for goal in steps:
            while left > 0:
                open_ = [name for name in entries if plan[name] < goal[name]]
                if not open_:
                    break
                plan[min(open_, key=urgency)] += 1
                left -= 1
        return plan, left

    plan, left = divide(capacity)
    wish, _ = divide({})
    overflow = {name: wish[name] - can for name, can in capacity.items() if name in entries}
    return plan, waiting(spec, overflow, left)


# Cases that are known from elsewhere: the vectors of KubeFed's own tests, as
# (clusters' entries "weight", "weight<max", "min+weight", "min+weight<max"; total; candidates; plan), and then optionally
# what runs, what can run, whether to rebalance, the overflow.
KNOWN = [
    ("*:1", 50, "ABC", "A16 B17 C17"),
    ("*:1", 50, "AB", "A25 B25"),
    ("*:1", 1, "AB", "A0 B1"),
    ("*:1", 1, "ABCD", "A0 B0 C0 D1"),
    ("*:1", 1, "A", "A1"),
    ("*:1", 1, "", ""),
    ("*:1", 50, "ABC", "A10 B10 C30", "C30"),
    ("*:1", 50, "AB", "A30 B20", "A30"),
    ("*:1", 15, "AB", "A7 B8", "A0 B8"),
    ("*:1", 15, "AB", "A7 B8", "A1 B8"),
    ("*:1", 15, "AB", "A7 B8", "A4 B8"),
    ("*:1", 15, "AB", "A7 B8", "A5 B8"),
    ("*:1", 15, "AB", "A7 B8", "A6 B8"),
    ("*:1", 15, "AB", "A7 B8", "A7 B8"),
    ("*:1", 500000, "AB", "A300000 B200000", "A300000"),
    ("*:1", 50, "AB", "A25 B25", "A10"),
    ("*:1", 50, "AB", "A0 B50", "A10 B70"),
    ("*:1", 1, "AB", "A1 B0", "A30"),
    ("*:1", 50, "AB", "A25 B25", "A10 B20"),
    ("*:1", 50, "ABC", "A20 B20 C10", "", "C10", True, "C7"),
    ("A:10000 B:1", 50, "BC", "B10 C0", "", "B10", True, "B40"),
    ("A:1 B:2", 60, "ABC", "A50 B10 C0", "", "B10", True, "B30"),
    ("A:10000<10 B:1 C:1<21 D:1<10", 71, "ABCD", "A10 B41 C10 D10", "", "C10", True, "C11"),
    ("A:1 B:1", 60, "ABC", "A10 B10 C0", "", "A10 B10", False, "A20 B20"),
    ("A:1 B:5", 60, "ABC", "A50 B10 C0", "", "B10", False, ""),
    ("*:20+0", 50, "ABC", "A20 B10 C20", "", "B10", False, ""),
    ("*:20+1", 60, "AB", "A50 B10", "", "B10", True, "B15"),
    ("*:2+0", 50, "ABC", "A2 B2 C2"),
    ("*:20+0", 50, "ABC", "A10 B20 C20"),
    ("*:20+0 A:100+1", 50, "ABC", "A50 B0 C0"),
    ("*:10+1<12", 50, "ABC", "A12 B12 C12"),
    ("*:1<2", 50, "ABC", "A2 B2 C2"),
    ("*:0<2", 50, "ABC", "A0 B0 C0"),
    ("A:1 B:2", 60, "ABC", "A20 B40 C0"),
    ("A:10000 B:1", 50, "ABC", "A50 B0 C0"),
    ("A:10000 B:1", 50, "BC", "B50 C0"),
    ("A:10000<10 B:1 C:1", 50, "ABC", "A10 B20 C20"),
    ("A:10000<10 B:1 C:1<10", 50, "ABC", "A10 B30 C10"),
    ("A:10000<10 B:1 C:1<21 D:1<10", 71, "ABCD", "A10 B30 C21 D10"),
    ("A:10000<10 B:1 C:1<21 D:1<10 E:1", 91, "ABCDE", "A10 B25 C21 D10 E25"),
]


def counts(text):
    return {word[0]: int(word[1:]) for word in text.split()}


def entry(text):
    found = {}
    if "<" in text:
        text, found["maxReplicas"] = text.split("<")[0], int(text.split("<")[1])
    if "+" in text:
        text, found["minReplicas"] = text.split("+")[1], int(text.split("+")[0])
    found["weight"] = int(text)
    return found


def planner_case(name, key, spec, clusters, current=None, capacity=None):
    current, capacity = current or {}, capacity or {}
    plan, overflow = by_weights(spec, clusters, current, capacity, key)
    return {"name": name, "key": key, "spec": spec, "clusters": {c: {} for c in clusters}, "current": current,
            "capacity": capacity, "plan": plan, "overflow": overflow}


def random_spec(dice, names):
    entries = {}
    for name in dice.sample(names + ["*"], dice.randint(0, len(names))):
        entries[name] = {"weight": dice.choice([0, 1, 1, 2, 3, 7, 100])}
        if dice.random() < 0.4:
            entries[name]["minReplicas"] = dice.randint(0, 8)
        if dice.random() < 0.4:
            entries[name]["maxReplicas"] = dice.randint(entries[name].get("minReplicas", 0), 25)
    spec = {"totalReplicas": dice.choice([0, 1, 2, 5, 9, 17, 40, 100]), "clusters": entries}
    if dice.random() < 0.5:
        spec["rebalance"] = True
    return spec


def some(dice, names, chance, most):
    return {name: dice.randint(0, most) for name in names if dice.random() < chance}


def planner_cases():
    cases = []
    for known in KNOWN:
        entries, total, clusters, plan, current, capacity, rebalance, overflow = *known, *("", "", False, "")[len(known) - 4:]
        spec = {"totalReplicas": total, "clusters": {e.split(":")[0]: entry(e.split(":")[1]) for e in entries.split()}}
        if rebalance:
            spec["rebalance"] = True
        case = planner_case("known from KubeFed", "", spec, list(clusters), counts(current), counts(capacity))
        assert (case["plan"], case["overflow"]) == (counts(plan), counts(overflow)), (known, case)
        cases.append(case)
    guide = {"totalReplicas": 9, "clusters": {
        "cluster1": {"minReplicas": 2, "maxReplicas": 4, "weight": 2}, "cluster2": {"minReplicas": 2, "maxReplicas": 4, "weight": 1}}}
    cases.append(planner_case("the guide's", "test-namespace/test-deployment", guide, ["cluster1", "cluster2"]))
    assert cases[-1]["plan"] == {"cluster1": 4, "cluster2": 4}
    cases.append(planner_case("the guide's, one cluster away", "test-namespace/test-deployment", guide, ["cluster2"]))
    for total in range(0, 21):
        spec = {"totalReplicas": total, "clusters": {"a": {"weight": 3}, "b": {"weight": 2}, "*": {"weight": 1}}}
        cases.append(planner_case("weights and rounding", "ns/web", spec, ["a", "b", "c", "d"]))
    for key in ["ns/a", "ns/b", "other/a", "ns/long-name-of-a-deployment", "", "ns/ünïcode"]:
        for total in [1, 2, 4]:
            cases.append(planner_case("ties by hash", key, {"totalReplicas": total}, ["c1", "c2", "c3", "c4", "c5"]))
    for left in [1, 2, 3]:
        spec = {"totalReplicas": 2000 + left, "clusters": {"*": {"weight": 1}, "c": {"weight": 1}}}
        cases.append(planner_case("much runs, little is left", "ns/web", spec, ["a", "b", "c"], {"a": 1000, "b": 1000}))
    dice = random.Random(1)
    for _ in range(160):
        names = [f"cluster{number}" for number in range(1, dice.randint(2, 6))]
        current, capacity = some(dice, names, 0.5, 30), some(dice, names, 0.3, 12)
        key = f"ns/{dice.choice(['web', 'api', 'db'])}"
        cases.append(planner_case("any", key, random_spec(dice, names), names, current, capacity))
    return cases


def cluster(name, region=None, zone=None, **labels):
    found = {"metadata": {"name": name, "labels": labels}, "status": {}}
    if region is not None:
        found["status"]["region"] = region
    if zone is not None:
        found["status"]["zones"] = [zone]
    return found


def strategy_case(name, key, spec, policy, clusters, current=None, capacity=None):
    current, capacity = current or {}, capacity or {}
    clusters = {c["metadata"]["name"]: c for c in clusters}
    plan, overflow = by_strategy(spec, policy, clusters, current, capacity, key)
    return {"name": name, "key": key, "spec": spec, "strategy": {"spec": {"spreadPolicy": policy}}, "clusters": clusters,
            "current": current, "capacity": capacity, "plan": plan, "overflow": overflow}


def strategy_cases():
    guide = {"spreadByField": "region", "weightedFields": [{"name": "zone", "weight": 2}, {"name": "rack", "weight": 1}]}
    world = [cluster("eu1", "eu", "eu-a", rack="r1"), cluster("eu2", "eu", "eu-b", rack="r1"), cluster("us1", "us", "us-a", rack="r2"),
             cluster("us2", "us", "us-a", rack="r3"), cluster("us3", "us", "us-b", rack="r3")]
    cases = []
    for total in [0, 1, 2, 3, 5, 9, 10, 31]:
        cases.append(strategy_case("the guide's", "test-namespace/test-deployment", {"totalReplicas": total, "rebalance": True}, guide, world))
        cases.append(strategy_case("without weighted fields", "ns/web", {"totalReplicas": total}, {"spreadByField": "region"}, world))
        cases.append(strategy_case("by cluster", "ns/web", {"totalReplicas": total}, {"spreadByField": "cluster"}, world))
    bounded = {"totalReplicas": 20, "rebalance": True, "clusters": {"*": {}, "eu1": {"maxReplicas": 2}, "eu2": {"maxReplicas": 3}}}
    cases.append(strategy_case("a region that is full", "ns/web", bounded, guide, world))
    assert sum(cases[-1]["plan"][c] for c in ["eu1", "eu2"]) == 5
    least = {"totalReplicas": 10, "rebalance": True, "clusters": {"*": {}, "us1": {"minReplicas": 8}}}
    cases.append(strategy_case("a minimum goes before", "ns/web", least, guide, world))
    assert cases[-1]["plan"]["us1"] == 8
    cases.append(strategy_case("who is not named has none", "ns/web", {"totalReplicas": 7, "clusters": {"eu1": {}, "us1": {}}}, guide, world))
    cases.append(strategy_case("one that is full waits", "ns/web", {"totalReplicas": 12, "rebalance": True}, guide, world, {}, {"eu1": 1}))
    cases.append(strategy_case("what runs stays", "ns/web", {"totalReplicas": 12}, guide, world, {"us3": 9}))
    cases.append(strategy_case("what runs may be moved", "ns/web", {"totalReplicas": 12, "rebalance": True}, guide, world, {"us3": 9}))
    plain = [cluster("a", tier="x"), cluster("b", tier="y"), cluster("c")]
    cases.append(strategy_case("a value that is missing is a value", "ns/web", {"totalReplicas": 9}, {"spreadByField": "tier"}, plain))
    assert cases[-1]["plan"] == {"a": 3, "b": 3, "c": 3}
    dice = random.Random(2)
    for _ in range(70):
        names = [f"c{number}" for number in range(1, dice.randint(2, 7))]
        clusters = []
        for name in names:
            labels = {"rack": dice.choice(["r1", "r2", "r3"])} if dice.random() < 0.8 else {}
            if dice.random() < 0.3:
                labels["topology.kubernetes.io/zone"] = dice.choice(["z1", "z2"])
            clusters.append(cluster(name, dice.choice(["eu", "us", "", None]), dice.choice(["z1", "z2", "z3", None]), **labels))
        policy = {"spreadByField": dice.choice(["region", "zone", "rack", "cluster"])}
        if dice.random() < 0.8:
            fields = dice.sample(["region", "zone", "rack", "cluster"], dice.randint(1, 3))
            policy["weightedFields"] = [{"name": f, "weight": dice.choice([0, 1, 2, 3, 10])} for f in fields]
        current, capacity = some(dice, names, 0.5, 20), some(dice, names, 0.25, 8)
        cases.append(strategy_case("any", f"ns/{dice.choice(['web', 'api'])}", random_spec(dice, names), policy, clusters, current, capacity))
    return cases


def write(name, cases):
    with open(name, "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(case, separators=(",", ":"), ensure_ascii=False) for case in cases) + "\n]\n")
    print(name, len(cases))


if __name__ == "__main__":
    write("planner.json", planner_cases())
    write("strategy.json", strategy_cases())
