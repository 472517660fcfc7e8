//! Placement: which clusters an object is to be in.

use std::collections::{BTreeMap, BTreeSet};

use kubefed_apimachinery::labels::Selector;
use kubefed_apimachinery::meta;
use serde_json::Value;

/// A cluster as placement sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

impl Cluster {
    /// Of a KubeFedCluster; a label that is no text is an empty one.
    pub fn of(cluster: &Value) -> Self {
        let labels = cluster["metadata"]["labels"].as_object().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let labels = labels.map(|(key, value)| (key.clone(), text(value))).collect();
        Cluster { name: meta::name(cluster).to_owned(), labels }
    }
}

/// The clusters among `clusters` that `spec.placement` of an object selects: those that are named, even if that is
/// none; else those that the selector matches; without either none.
///
/// # Errors
/// What is wrong with the selector.
pub fn selected(object: &Value, clusters: &[Cluster]) -> Result<BTreeSet<String>, String> {
    let placement = &object["spec"]["placement"];
    if let Some(named) = placement["clusters"].as_array() {
        let named: BTreeSet<&str> =
            named.iter().filter_map(|entry| entry["name"].as_str()).collect();
        return Ok(clusters
            .iter()
            .filter(|cluster| named.contains(cluster.name.as_str()))
            .map(|c| c.name.clone())
            .collect());
    }
    let selector = &placement["clusterSelector"];
    if !selector.is_object() {
        return Ok(BTreeSet::new());
    }
    let selector = Selector::from_label_selector(selector)
        .map_err(|why| format!("spec.placement.clusterSelector: {why}"))?;
    let matching = clusters
        .iter()
        .filter(|cluster| selector.matches(|key| cluster.labels.get(key).map(String::as_str)));
    Ok(matching.map(|cluster| cluster.name.clone()).collect())
}

/// The named clusters that are not there: a typo, or a cluster that was not joined yet.
pub fn unknown(object: &Value, clusters: &[Cluster]) -> Vec<String> {
    let named = object["spec"]["placement"]["clusters"].as_array().into_iter().flatten();
    named
        .filter_map(|entry| entry["name"].as_str())
        .filter(|name| clusters.iter().all(|cluster| cluster.name != *name))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cluster(name: &str, zone: &str) -> Cluster {
        Cluster { name: name.into(), labels: BTreeMap::from([("zone".into(), zone.into())]) }
    }

    #[test]
    fn names_go_before_the_selector() {
        let clusters = [cluster("a", "1"), cluster("b", "2")];
        for (placement, wanted) in [
            (json!(null), vec![]),
            (json!({}), vec![]),
            (json!({"clusters": []}), vec![]),
            (json!({"clusters": [], "clusterSelector": {}}), vec![]),
            (json!({"clusters": [{"name": "b"}, {"name": "zzz"}]}), vec!["b"]),
            (json!({"clusterSelector": {}}), vec!["a", "b"]),
            (json!({"clusterSelector": {"matchLabels": {}}}), vec!["a", "b"]),
            (json!({"clusterSelector": {"matchLabels": {"zone": "1"}}}), vec!["a"]),
            (
                json!({"clusters": [{"name": "b"}], "clusterSelector": {"matchLabels": {"zone": "1"}}}),
                vec!["b"],
            ),
        ] {
            let object = json!({"spec": {"placement": placement}});
            let found: Vec<String> = selected(&object, &clusters).unwrap().into_iter().collect();
            assert_eq!(found, wanted, "{object}");
        }
        let wrong = json!({"spec": {"placement": {"clusterSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}}});
        assert!(selected(&wrong, &clusters).is_err());
        let typo = json!({"spec": {"placement": {"clusters": [{"name": "b"}, {"name": "zzz"}]}}});
        assert_eq!(unknown(&typo, &clusters), ["zzz"]);
    }
}
