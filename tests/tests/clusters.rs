//! How clusters are reached: through proxies, and with certificates that do not fit.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kubefed_api::kubefedcluster;
use kubefed_tests::proxy::{AskedProxy, Language, Proxy};
use kubefed_tests::{Federation, NAMESPACE, a_federation_of, a_member, eventually, join};
use serde_json::{Value, json};

fn cluster_path(name: &str) -> String {
    format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedclusters/{name}")
}

async fn change(federation: &Federation, name: &str, spec: Value) {
    let changed = federation.admin().merge(&cluster_path(name), &json!({"spec": spec})).await;
    changed.expect("the cluster is changed");
}

/// Waits until a cluster's condition of this type is true; what it says.
async fn is_told(federation: &Federation, name: &str, kind: &str) -> String {
    let admin = federation.admin();
    eventually(&format!("{name} is {kind}"), async || {
        let cluster = admin.get(&cluster_path(name)).await.ok()?;
        let conditions = cluster["status"]["conditions"].as_array()?.clone();
        let condition = conditions.into_iter().find(|c| c["type"] == kind)?;
        (condition["status"] == "True")
            .then(|| condition["message"].as_str().unwrap_or("").to_owned())
    })
    .await
}

/// Waits for an event that tells this of a cluster; its message.
async fn is_warned(federation: &Federation, name: &str, reason: &str) -> String {
    let admin = federation.admin();
    let path = format!("/api/v1/namespaces/{NAMESPACE}/events");
    let event = eventually(&format!("an event tells {reason} of {name}"), async || {
        let events = admin.get(&path).await.ok()?;
        let mut events = events["items"].as_array()?.iter();
        events.find(|e| e["reason"] == reason && e["involvedObject"]["name"] == name).cloned()
    })
    .await;
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["source"]["component"], "kubefedcluster-controller");
    assert_eq!(event["involvedObject"]["kind"], "KubeFedCluster");
    event["message"].as_str().expect("a message").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cluster_is_is_told_and_stays_told_while_it_is_away() {
    let federation = a_federation_of(&[]).await;
    let member = a_member().await;
    let there = member.admin();
    for (name, zone) in [("n1", "b"), ("n2", "a")] {
        let labels =
            json!({"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": zone});
        let metadata = json!({"name": name, "labels": labels});
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata});
        there.create("/api/v1/nodes", &node).await.expect("created");
    }
    let road = Proxy::start(member.server.address).await;
    join(&federation.api, "one", &road.url(), &member).await;
    federation.wait_ready("one").await;
    let system = there.get("/api/v1/namespaces/kube-system").await.expect("it is there");
    let version: Value = serde_json::from_slice(&member.raw(None).await.get("/version").await.body)
        .expect("a version");
    let describes = |status: &Value| {
        assert_eq!(status["kubernetesVersion"], version["gitVersion"]);
        assert_eq!((&status["region"], &status["zones"]), (&json!("r"), &json!(["a", "b"])));
        assert_eq!(status["clusterUID"], system["metadata"]["uid"]);
    };
    let path = cluster_path("one");
    let ready = federation.admin().get(&path).await.expect("it is there");
    describes(&ready["status"]);

    road.block();
    change(&federation, "one", json!({"disabledTLSValidations": ["ValidityPeriod"]})).await;
    is_told(&federation, "one", "Offline").await;
    let away = federation.admin().get(&path).await.expect("it is there");
    describes(&away["status"]);
    let message = is_warned(&federation, "one", "RetrievingClusterHealthFailed").await;
    assert!(message.starts_with("Failed to retrieve health of the cluster: "), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_behind_a_proxy_is_reached_by_the_name_that_its_certificate_does_not_have() {
    let federation = a_federation_of(&[]).await;
    let far = a_member().await;
    let proxy = AskedProxy::start(&far, Language::Http).await;
    // Nobody resolves this name but the proxy.
    join(&federation.api, "far", "https://far.invalid:6443", &far).await;
    is_told(&federation, "far", "Offline").await;
    assert!(proxy.asked.borrow().is_empty());

    change(&federation, "far", json!({"proxyURL": format!("http://me:wrong@{}", proxy.address)}))
        .await;
    let told = eventually("the proxy's refusal is told", async || {
        let told = is_told(&federation, "far", "Offline").await;
        told.contains("proxy authorization required").then_some(told)
    })
    .await;
    assert!(told.contains(&proxy.address.to_string()) && !told.contains("wrong"), "{told}");

    let url = format!("http://me:p%40ss@{}", proxy.address);
    change(&federation, "far", json!({"proxyURL": url})).await;
    eventually("the certificate's name is told not to fit", async || {
        is_told(&federation, "far", "Offline").await.contains("not valid for name").then_some(())
    })
    .await;

    change(&federation, "far", json!({"disabledTLSValidations": ["SubjectName"]})).await;
    federation.wait_ready("far").await;
    let asked = proxy.asked.borrow().clone();
    assert!(asked.iter().all(|host| host == "far.invalid:6443"), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_over_tls_and_by_socks_are_gone_through() {
    let federation = a_federation_of(&[]).await;
    let far = a_member().await;
    join(&federation.api, "far", "https://far.invalid:6443", &far).await;
    is_told(&federation, "far", "Offline").await;
    for (language, scheme) in [(Language::Https, "https"), (Language::Socks5, "socks5")] {
        let proxy = AskedProxy::start(&far, language).await;
        let url = format!("{scheme}://me:p%40ss@{}", proxy.address);
        let spec = json!({"proxyURL": url, "disabledTLSValidations": ["SubjectName"]});
        change(&federation, "far", spec).await;
        let mut asked = proxy.asked.clone();
        eventually(&format!("{language:?} is asked"), async || {
            asked.borrow_and_update().first().filter(|host| *host == "far.invalid:6443").map(drop)
        })
        .await;
        federation.wait_ready("far").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_an_unknown_authority_is_reached_only_without_any_check() {
    let federation = a_federation_of(&[]).await;
    let (member, stranger) = (a_member().await, a_member().await);
    join(&federation.api, "one", &member.url(), &member).await;
    federation.wait_ready("one").await;

    let others = std::fs::read(stranger.ca_file()).expect("the CA");
    let checks = json!({"caBundle": BASE64_STANDARD.encode(others), "disabledTLSValidations": ["SubjectName", "ValidityPeriod"]});
    change(&federation, "one", checks).await;
    let told = is_told(&federation, "one", "Offline").await;
    assert!(told.contains("certificate"), "{told}");

    change(&federation, "one", json!({"disabledTLSValidations": ["*"]})).await;
    let admin = federation.admin();
    eventually("the cluster is ready", async || {
        let cluster = admin.get(&cluster_path("one")).await.ok()?;
        kubefedcluster::is_ready(&cluster).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_cannot_be_understood_is_told_to_be_malformed_with_the_field() {
    let federation = a_federation_of(&[]).await;
    let member = a_member().await;
    join(&federation.api, "one", &member.url(), &member).await;
    federation.wait_ready("one").await;
    let proxy = json!({"proxyURL": "http://me:hunter2@proxy:port"});
    change(&federation, "one", proxy).await;
    let told = is_told(&federation, "one", "ConfigMalformed").await;
    assert!(told.contains("spec.proxyURL") && !told.contains("hunter2"), "{told}");
    let message = is_warned(&federation, "one", "MalformedClusterConfig").await;
    assert!(
        message.starts_with("The configuration for this cluster may be malformed: spec.proxyURL"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_rotated_is_taken_up_at_once() {
    let federation = a_federation_of(&[]).await;
    let admin = federation.admin();
    // After the first probe nobody asks by himself.
    let config = json!({
        "apiVersion": "core.kubefed.io/v1beta1", "kind": "KubeFedConfig", "metadata": {"name": "kubefed"},
        "spec": {"scope": "Cluster", "clusterHealthCheck": {"period": "1h"}},
    });
    let configs = format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedconfigs");
    admin.create(&configs, &config).await.expect("a config");
    let member = a_member().await;
    join(&federation.api, "one", &member.url(), &member).await;
    federation.wait_ready("one").await;

    let secrets = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    let good = admin.get(&format!("{secrets}/one")).await.expect("the secret");
    let token = |token: &Value| json!({"data": {"token": token}});
    admin.delete(&format!("{secrets}/one"), &json!({})).await.expect("deleted");
    change(&federation, "one", json!({"secretRef": {"name": "other"}})).await;
    let told = is_told(&federation, "one", "ConfigMalformed").await;
    assert!(told.contains("there is no secret \"other\""), "{told}");

    let other = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "other"}, "stringData": {"note": "x"}});
    admin.create(&secrets, &other).await.expect("created");
    eventually("the secret is told to have no token", async || {
        let told = is_told(&federation, "one", "ConfigMalformed").await;
        told.contains("nothing under the key token").then_some(())
    })
    .await;
    let other = format!("{secrets}/other");
    admin
        .merge(&other, &token(&json!(BASE64_STANDARD.encode("no.such.token"))))
        .await
        .expect("changed");
    is_told(&federation, "one", "Offline").await;
    admin.merge(&other, &token(&good["data"]["token"])).await.expect("changed");
    federation.wait_ready("one").await;
}
