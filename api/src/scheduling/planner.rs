//! How many replicas each cluster is to have, by weights: KubeFed's planner (`pkg/controller/util/planner`), to the last
//! replica.
//!
//! What is given out and what is left are always the total together. Nothing here overflows: the total is an `int32`,
//! nobody is given more than what is left of it, and products are taken in 128 bits.

use std::collections::BTreeMap;

use serde_json::Value;

/// What a ReplicaSchedulingPreference asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preference {
    /// The federated kind.
    pub target: String,
    /// The replicas of all clusters together.
    pub total: i64,
    /// Whether running replicas may be moved.
    pub rebalance: bool,
    /// Whether only clusters count that the object's selector matches.
    pub intersects: bool,
    /// The ReplicaSchedulingStrategy that divides in place of the weights.
    pub strategy: Option<String>,
    shares: BTreeMap<String, Share>,
}

/// What it asks for one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Share {
    min: i64,
    max: i64,
    weight: i64,
}

/// Stands for the clusters without an entry.
const OTHERS: &str = "*";

impl Preference {
    /// Reads a preference. What validation refuses counts as nothing asked.
    pub fn of(preference: &Value) -> Self {
        let spec = &preference["spec"];
        let given = spec["clusters"].as_object().into_iter().flatten();
        let mut shares: BTreeMap<String, Share> =
            given.map(|(name, share)| (name.clone(), Share::of(share))).collect();
        if shares.is_empty() {
            shares.insert(OTHERS.into(), Share { min: 0, max: i64::MAX, weight: 1 });
        }
        let strategy = spec["strategyName"].as_str().filter(|name| !name.is_empty());
        Preference {
            target: spec["targetKind"].as_str().unwrap_or("").to_owned(),
            total: natural(&spec["totalReplicas"]).unwrap_or(0).min(i32::MAX.into()),
            rebalance: spec["rebalance"] == true,
            intersects: spec["intersectWithClusterSelector"] == true,
            strategy: strategy.map(str::to_owned),
            shares,
        }
    }

    fn share(&self, cluster: &str) -> Option<&Share> {
        self.shares.get(cluster).or_else(|| self.shares.get(OTHERS))
    }
}

impl Share {
    fn of(share: &Value) -> Self {
        let max = natural(&share["maxReplicas"]).unwrap_or(i64::MAX);
        Share {
            min: natural(&share["minReplicas"]).unwrap_or(0).min(max),
            max,
            weight: natural(&share["weight"]).unwrap_or(0),
        }
    }
}

fn natural(number: &Value) -> Option<i64> {
    number.as_i64().map(|number| number.max(0))
}

/// What is known of a cluster that may have replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// The replicas that run there.
    pub current: i64,
    /// How many can run there, if it is known that not all could.
    pub capacity: Option<i64>,
}

/// Who is to have how many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Of each candidate, which may be none.
    pub replicas: BTreeMap<String, i64>,
    /// What is wanted beyond that where it can't run yet. It waits there: otherwise nobody would see when it can.
    pub overflow: BTreeMap<String, i64>,
    /// What nobody was given.
    pub left: i64,
}

impl Plan {
    /// The replicas to ask each candidate for.
    pub fn wanted(&self) -> BTreeMap<String, i64> {
        let more = |name: &String| self.overflow.get(name).copied().unwrap_or(0);
        self.replicas.iter().map(|(name, count)| (name.clone(), count + more(name))).collect()
    }
}

/// A candidate that the preference has something for.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    pub(super) name: &'a str,
    pub(super) hash: u32,
    weight: i64,
    pub(super) min: i64,
    pub(super) max: i64,
    pub(super) capacity: i64,
    current: i64,
    pub(super) given: i64,
}

impl Place<'_> {
    /// The same where everything could run.
    pub(super) fn unbounded(&self) -> Self {
        Place { capacity: i64::MAX, ..self.clone() }
    }

    pub(super) fn ceiling(&self) -> i64 {
        self.max.min(self.capacity)
    }

    /// What runs there and may stay.
    pub(super) fn kept(&self) -> i64 {
        self.current.min(self.ceiling())
    }
}

/// The candidates that the preference has something for, and a plan that gives nobody anything.
pub(super) fn places<'a>(
    preference: &Preference,
    candidates: &'a BTreeMap<String, Candidate>,
    key: &str,
) -> (Vec<Place<'a>>, Plan) {
    let places = candidates.iter().filter_map(|(name, candidate)| {
        let Share { min, max, weight } = preference.share(name)?.clone();
        let (hash, current) = (hash(name, key), candidate.current.max(0));
        // More can be waiting than are wanted: pods of a template that is going.
        let capacity = candidate.capacity.map_or(i64::MAX, |capacity| capacity.max(0));
        Some(Place { name, hash, weight, min, max, capacity, current, given: 0 })
    });
    let replicas = candidates.keys().map(|name| (name.clone(), 0)).collect();
    let plan = Plan { replicas, left: preference.total, ..Plan::default() };
    (places.collect(), plan)
}

/// FNV-1 (not 1a): what decides between clusters that are alike, so that not always the first name wins.
fn hash(cluster: &str, key: &str) -> u32 {
    cluster
        .bytes()
        .chain(key.bytes())
        .fold(0x811c_9dc5, |hash: u32, byte| hash.wrapping_mul(0x0100_0193) ^ u32::from(byte))
}

/// Divides the replicas among the candidates by the weights of the preference. `key` is the namespace and name.
pub fn plan(preference: &Preference, candidates: &BTreeMap<String, Candidate>, key: &str) -> Plan {
    let (mut places, mut plan) = places(preference, candidates, key);
    places.sort_by(|a, b| b.weight.cmp(&a.weight).then(a.hash.cmp(&b.hash)));
    let mut left = preference.total;
    for place in &mut places {
        place.given = place.min.min(place.capacity).min(left);
        left -= place.given;
    }
    let mut sharing: Vec<Sharing<'_>> = Vec::new();
    for mut place in places {
        let stay = if preference.rebalance { 0 } else { (place.kept() - place.given).max(0) };
        let stay = stay.min(left);
        place.given += stay;
        left -= stay;
        sharing.push(Sharing { place, ahead: stay, due: 0, overflow: 0, full: false });
    }
    while left > 0 && share_out(&mut sharing, &mut left) {}

    plan.left = left;
    for Sharing { place, overflow, .. } in sharing {
        plan.replicas.insert(place.name.to_owned(), place.given);
        let overflow = if preference.rebalance { overflow } else { overflow.min(left) };
        if overflow > 0 {
            plan.overflow.insert(place.name.to_owned(), overflow);
        }
    }
    plan
}

/// A place while what is left is shared out.
struct Sharing<'a> {
    place: Place<'a>,
    /// What it was given for what runs there already, and is counted against its shares.
    ahead: i64,
    /// Its share of the last round.
    due: i64,
    overflow: i64,
    full: bool,
}

/// One round: each that is not full gets its share, rounded up. Returns whether anything came of it.
fn share_out(sharing: &mut [Sharing<'_>], left: &mut i64) -> bool {
    let active = || sharing.iter().filter(|sharing| !sharing.full);
    let weights: i128 = active().map(|sharing| i128::from(sharing.place.weight)).sum();
    if weights == 0 {
        return false;
    }
    let (portion, mut changed, mut filled) = (*left, false, false);
    for Sharing { place, ahead, due, overflow, full } in
        sharing.iter_mut().filter(|sharing| !sharing.full)
    {
        let exact = i128::from(portion) * i128::from(place.weight);
        let rounded = (exact + weights - 1) / weights;
        *due = i64::try_from(rounded).unwrap_or(i64::MAX).min(*left);
        let from_ahead = (*due).min(*ahead);
        *ahead -= from_ahead;
        let wanted = place.given + *due - from_ahead;
        let allowed = wanted.min(place.max);
        *overflow = (allowed - place.capacity).max(0);
        *full = wanted > place.ceiling();
        let given = wanted.min(place.ceiling());
        *left -= given - place.given;
        changed |= from_ahead > 0 || given > place.given;
        filled |= *full;
        place.given = given;
    }
    if *left == portion && !filled && changed {
        // Only what ran already was counted, and the next rounds would be the same until that is used up somewhere. With
        // much of it and little left that would take for ever.
        let same = sharing.iter().filter(|s| !s.full && s.due > 0).map(|s| s.ahead / s.due).min();
        let same = same.unwrap_or(0);
        sharing.iter_mut().filter(|s| !s.full).for_each(|s| s.ahead -= s.due * same);
    }
    changed
}
