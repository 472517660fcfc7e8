//! A scene for tests of propagation: the namespace `ns` everywhere, and FederatedConfigMaps in it.

use serde_json::{Value, json};

use crate::proxy::Proxy;
use crate::{
    Cluster, Federation, a_federation_of, a_member, a_namespace_everywhere, eventually, join,
};

/// The federated kinds in the namespace `ns`.
pub const TYPES: &str = "/apis/types.kubefed.io/v1beta1/namespaces/ns";
/// The label of what is kept in a member.
pub const MANAGED: &str = "kubefed.io/managed";

/// Makes a FederatedConfigMap for every cluster; its path.
pub async fn federate_configmap(federation: &Federation, name: &str) -> String {
    let object = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedConfigMap",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"template": {"data": {"key": "first"}}, "placement": {"clusterSelector": {}}},
    });
    let collection = format!("{TYPES}/federatedconfigmaps");
    federation.admin().create(&collection, &object).await.expect("done");
    format!("{collection}/{name}")
}

/// Gives the template another value.
pub async fn edit(federation: &Federation, path: &str, value: &str) {
    let patch = json!({"spec": {"template": {"data": {"key": value}}}});
    federation.admin().merge(path, &patch).await.expect("done");
}

/// The path of a ConfigMap in a member.
pub fn there(name: &str) -> String {
    format!("/api/v1/namespaces/ns/configmaps/{name}")
}

/// Waits until a member has the ConfigMap with this value.
pub async fn has(member: &Cluster, name: &str, value: &str) -> Value {
    let admin = member.admin();
    eventually(&format!("{name} is {value} in the member"), async || {
        let found = admin.get(&there(name)).await.ok()?;
        (found["data"]["key"] == value).then_some(found)
    })
    .await
}

/// Waits until there is nothing at a path.
pub async fn is_gone(cluster: &Cluster, path: &str) {
    let admin = cluster.admin();
    eventually(&format!("{path} is gone"), async || {
        admin.get(path).await.err().filter(|error| error.is_not_found())
    })
    .await;
}

/// Waits until the status of the object's generation is this.
pub async fn told(federation: &Federation, path: &str, status: &str) -> Value {
    let admin = federation.admin();
    eventually(&format!("the status of {path} is {status}"), async || {
        let object = admin.get(path).await.ok()?;
        let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        (current && object["status"]["conditions"][0]["status"] == status).then_some(object)
    })
    .await
}

/// What the status says of a cluster; empty: all is well.
pub fn state_in<'a>(object: &'a Value, cluster: &str) -> &'a str {
    let clusters = object["status"]["clusters"].as_array().into_iter().flatten();
    let entry = clusters.into_iter().find(|entry| entry["name"] == cluster);
    entry.and_then(|entry| entry["status"].as_str()).unwrap_or("")
}

/// Two members, `near` and `far`, the second at the end of a road that can be blocked.
pub async fn near_and_far() -> (Federation, Proxy) {
    let mut federation = a_federation_of(&["near"]).await;
    let far = a_member().await;
    let road = Proxy::start(far.server.address).await;
    join(&federation.api, "far", &road.url(), &far).await;
    federation.members.push(("far".into(), far));
    federation.wait_ready("far").await;
    a_namespace_everywhere(&federation.admin(), "ns").await;
    (federation, road)
}

/// A federation of these members with the namespace `ns` in each.
pub async fn with_ns(members: &[&str]) -> Federation {
    let federation = a_federation_of(members).await;
    a_namespace_everywhere(&federation.admin(), "ns").await;
    for name in members {
        let member = federation.member(name).admin();
        // Until then the member refuses whatever is to be in it.
        eventually(&format!("{name} has the namespace"), async || {
            member.get("/api/v1/namespaces/ns").await.ok()
        })
        .await;
    }
    federation
}

/// Waits until the status says this of a cluster; the object.
pub async fn state_is(federation: &Federation, path: &str, cluster: &str, state: &str) -> Value {
    let admin = federation.admin();
    eventually(&format!("{path} is {state:?} in {cluster}"), async || {
        let object = admin.get(path).await.ok()?;
        (state_in(&object, cluster) == state).then_some(object)
    })
    .await
}

/// Waits for an event in the namespace `ns` with this reason.
pub async fn event(federation: &Federation, reason: &str) -> Value {
    let admin = federation.admin();
    eventually(&format!("an event tells {reason}"), async || {
        let events = admin.get("/api/v1/namespaces/ns/events").await.ok()?;
        events["items"].as_array()?.iter().find(|event| event["reason"] == reason).cloned()
    })
    .await
}
