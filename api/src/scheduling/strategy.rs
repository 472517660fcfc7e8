//! How many replicas each cluster is to have, by a ReplicaSchedulingStrategy: spread evenly over the values of one field
//! of the clusters, and inside that by the weights of others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::planner::{Candidate, Place, Plan, Preference, places};

/// Replicas are given one by one, unless more than this are left: then in portions of what is left divided by this. The
/// last ones are given one by one in any case, so that what was uneven is even again.
const STEPS: i64 = 16_384;

/// What a ReplicaSchedulingStrategy says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strategy {
    /// The field over whose values replicas are spread.
    pub spread_by: String,
    /// Fields and their weights.
    pub weighted: Vec<(String, i64)>,
}

impl Strategy {
    /// Reads a strategy.
    pub fn of(strategy: &Value) -> Self {
        let policy = &strategy["spec"]["spreadPolicy"];
        let weighted = policy["weightedFields"].as_array().into_iter().flatten().map(|field| {
            let name = field["name"].as_str().unwrap_or("").to_owned();
            (name, field["weight"].as_i64().unwrap_or(0).max(0))
        });
        Strategy {
            spread_by: policy["spreadByField"].as_str().unwrap_or("").to_owned(),
            weighted: weighted.collect(),
        }
    }
}

/// The value of a field of a KubeFedCluster; empty if it has none, which is a value like others.
pub fn field<'a>(cluster: &'a Value, name: &str) -> &'a str {
    let status = &cluster["status"];
    let known = match name {
        "cluster" => &cluster["metadata"]["name"],
        "region" => &status["region"],
        "zone" => &status["zones"][0],
        _ => &Value::Null,
    };
    let labels = &cluster["metadata"]["labels"];
    let values = [known, &labels[format!("topology.kubernetes.io/{name}")], &labels[name]];
    values.into_iter().filter_map(Value::as_str).find(|value| !value.is_empty()).unwrap_or("")
}

/// Divides the replicas among the candidates. `clusters` are the KubeFedClusters by name, `key` is the namespace and name.
///
/// The next replica goes where the value of the spread field has the fewest; then where the weights of the other fields,
/// each divided by one more than what its value has, are the most together; then where the cluster has the fewest; then by
/// KubeFed's hash. First each cluster is brought to its minimum, then, unless all may be moved, to what runs there.
pub fn plan<'a>(
    strategy: &Strategy,
    preference: &Preference,
    candidates: &BTreeMap<String, Candidate>,
    clusters: impl Fn(&str) -> Option<&'a Value>,
    key: &str,
) -> Plan {
    let (places, mut plan) = places(preference, candidates, key);
    let divided = divide(strategy, preference, &places, &clusters);
    plan.left = preference.total - divided.iter().map(|place| place.given).sum::<i64>();
    for place in &divided {
        plan.replicas.insert(place.name.to_owned(), place.given);
    }
    if places.iter().any(|place| place.capacity < i64::MAX) {
        let everywhere: Vec<Place<'_>> = places.iter().map(Place::unbounded).collect();
        let wished = divide(strategy, preference, &everywhere, &clusters);
        let capacities: HashMap<&str, i64> =
            places.iter().map(|place| (place.name, place.capacity)).collect();
        for place in &wished {
            let overflow = place.given.saturating_sub(capacities[place.name]);
            let overflow = if preference.rebalance { overflow } else { overflow.min(plan.left) };
            if overflow > 0 {
                plan.overflow.insert(place.name.to_owned(), overflow);
            }
        }
    }
    plan
}

/// The places with what they are given.
fn divide<'a, 'b>(
    strategy: &Strategy,
    preference: &Preference,
    places: &[Place<'a>],
    clusters: impl Fn(&str) -> Option<&'b Value>,
) -> Vec<Place<'a>> {
    let mut places = places.to_vec();
    places.sort_by_key(|place| place.hash);
    let field_of = |name: &str| {
        let mut known: HashMap<&str, usize> = HashMap::new();
        let of = |place: &Place<'_>| {
            let value = clusters(place.name).map_or("", |cluster| field(cluster, name));
            let next = known.len();
            *known.entry(value).or_insert(next)
        };
        let of: Vec<usize> = places.iter().map(of).collect();
        Field { given: vec![0; known.len()], of }
    };
    let spread = field_of(&strategy.spread_by);
    let weighted = strategy.weighted.iter().map(|(name, weight)| (field_of(name), *weight));
    let weighted = weighted.collect();
    let mut division = Division { places, spread, weighted, left: preference.total };
    division.pour(|place| place.min.min(place.ceiling()));
    if !preference.rebalance {
        division.pour(Place::kept);
    }
    division.pour(Place::ceiling);
    division.places
}

/// A field of the clusters.
struct Field {
    /// Which of the values each place has.
    of: Vec<usize>,
    /// What each value has.
    given: Vec<i64>,
}

impl Field {
    fn given(&self, place: usize) -> i64 {
        self.given[self.of[place]]
    }
}

struct Division<'a> {
    places: Vec<Place<'a>>,
    spread: Field,
    weighted: Vec<(Field, i64)>,
    left: i64,
}

impl<'a> Division<'a> {
    /// Gives replicas to the places until each has what `limit` says, or none is left.
    fn pour(&mut self, limit: impl Fn(&Place<'a>) -> i64) {
        let steps = STEPS.max(i64::try_from(self.places.len()).unwrap_or(STEPS).saturating_mul(8));
        while self.left > 0 {
            let open = (0..self.places.len())
                .filter(|&index| self.places[index].given < limit(&self.places[index]));
            // Of those that are alike the first, which has the lesser hash.
            let next = open.min_by_key(|&index| {
                let score = Reverse(self.score(index));
                (self.spread.given(index), score, self.places[index].given)
            });
            let Some(next) = next else { return };
            let room = limit(&self.places[next]) - self.places[next].given;
            let portion = (self.left / steps).clamp(1, room);
            self.left -= portion;
            self.places[next].given += portion;
            for field in std::iter::once(&mut self.spread)
                .chain(self.weighted.iter_mut().map(|(field, _)| field))
            {
                field.given[field.of[next]] += portion;
            }
        }
    }

    /// How much the weights speak for a place. A fixed-point number that is rounded at the end: sums that are equal as
    /// fractions are to be equal here.
    fn score(&self, place: usize) -> u128 {
        let sum = self.weighted.iter().fold(0_u128, |sum, (field, weight)| {
            let weight = u128::from(weight.unsigned_abs()) << 64;
            sum.saturating_add(weight / (1 + u128::from(field.given(place).unsigned_abs())))
        });
        sum.saturating_add(1 << 15) >> 16
    }
}
