//! Two servers that extend a real Kubernetes are restarted one after the other, as a rollout does: nobody who comes
//! through the host notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kubefed_controllers::client::Client;
use kubefed_tests::control_plane::a_control_plane;
use kubefed_tests::replicas::Replicas;
use kubefed_tests::{Kubectl, NAMESPACE, eventually, federated_config};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

const TYPES: &str = "/apis/types.kubefed.io/v1beta1";
const MAPS: &str = "/apis/types.kubefed.io/v1beta1/namespaces/default/federatedconfigmaps";
/// What the host says of a write that it did not send: Go's HTTP/2 client closes the body of a request whose connection
/// was chosen, and told to go away before the request's stream began (`cleanupWriteRequest`), and then has no body for
/// another connection. No server can keep it from that; whoever writes has to ask again.
const UNSENT: &str = "cannot rewind body after connection loss";
/// From one request of a caller to its next.
const PACE: Duration = Duration::from_millis(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_request_and_loses_no_event_of_a_watch_through_the_host() {
    let Some(host) = a_control_plane().await else { return };
    let mut servers = Replicas::extending(&host, 2, "1s").await;
    let ca = servers.authority.cert_pem().expect("PEM");
    host.register_at(servers.balancer.address.port(), ca.as_bytes()).await;
    let admin = host.admin();
    let configs =
        format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/federatedtypeconfigs");
    admin.create(&configs, &federated_config("configmaps")).await.expect("created");
    for address in &servers.addresses {
        let url = format!("https://{address}");
        let past = host.client_of(url, &servers.authority, "admin", &["system:masters"]);
        let kind = format!("{TYPES}/federatedconfigmaps");
        eventually("the kind is served", async || past.get(&kind).await.ok()).await;
    }
    let map = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedConfigMap", "metadata": {"name": "counter"},
        "spec": {"template": {"data": {"n": "0"}}, "placement": {"clusterSelector": {}}},
    });
    let created = admin.create(MAPS, &map).await.expect("created");
    let began = revision(&created);

    let stop = CancellationToken::new();
    let writes = Arc::new(AtomicUsize::new(0));
    let writer = tokio::spawn(count(host.admin(), stop.clone(), Arc::clone(&writes)));
    let readers: Vec<JoinHandle<()>> =
        (0..2).map(|_| tokio::spawn(read(host.admin(), stop.clone()))).collect();
    let kubectl = host.kubectl("admin", &["system:masters"]);
    let watched = tokio::spawn(watch(kubectl, began, stop.clone()));
    let goes_on = async |until: &str| {
        let before = writes.load(Ordering::Relaxed);
        eventually(until, async || {
            assert!(!writer.is_finished() && readers.iter().all(|reader| !reader.is_finished()));
            (writes.load(Ordering::Relaxed) >= before + 20).then_some(())
        })
        .await;
    };
    goes_on("the load begins").await;
    for server in [0, 1] {
        restart(&mut servers, server, || goes_on("one server is enough")).await;
        goes_on("both are there again").await;
    }
    stop.cancel();
    let acknowledged = writer.await.expect("no write fails");
    for reader in readers {
        reader.await.expect("no request fails");
    }
    // The last watch ends as those before it.
    for server in [0, 1] {
        restart(&mut servers, server, || std::future::ready(())).await;
    }
    let (seen, watches) = watched.await.expect("each watch ends well");
    // Each restart has ended one of them.
    assert!(watches >= 3, "{watches}");
    assert_eq!(seen, acknowledged);
}

/// Ends a server, sees what goes on without it, and starts it again.
async fn restart<F: Future<Output = ()>>(
    servers: &mut Replicas,
    server: usize,
    without: impl FnOnce() -> F,
) {
    let ended = servers.apiservers[server].end().await;
    assert!(ended.success(), "{}", servers.apiservers[server].log());
    without().await;
    servers.apiservers[server].start();
    servers.wait_ready(server).await;
}

/// What was not asked in time is not asked all at once then.
fn pace() -> Interval {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

/// Writes numbers until it is told to stop; returns them with their revisions.
async fn count(
    client: Client,
    stop: CancellationToken,
    writes: Arc<AtomicUsize>,
) -> Vec<(u64, u64)> {
    let (mut acknowledged, path) = (Vec::new(), format!("{MAPS}/counter"));
    let mut pace = pace();
    while !stop.is_cancelled() {
        pace.tick().await;
        let n = acknowledged.len() as u64 + 1;
        let change = json!({"spec": {"template": {"data": {"n": n.to_string()}}}});
        let write = || client.merge(&path, &change);
        let written = match write().await {
            Err(error) if error.to_string().contains(UNSENT) => write().await,
            written => written,
        };
        let written = written.unwrap_or_else(|error| panic!("write {n}: {error}"));
        acknowledged.push((revision(&written), n));
        writes.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}

/// Reads and lists until it is told to stop.
async fn read(client: Client, stop: CancellationToken) {
    let mut pace = pace();
    while !stop.is_cancelled() {
        for path in [MAPS.to_owned(), format!("{MAPS}/counter")] {
            pace.tick().await;
            client.get(&path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    }
}

/// Watches with kubectl, again and again after the last version that it saw, until some time after `stop`. Returns the
/// revisions and numbers that it saw, and how many watches there were.
async fn watch(
    kubectl: Kubectl,
    mut from: u64,
    stop: CancellationToken,
) -> (Vec<(u64, u64)>, usize) {
    let (mut seen, mut watches) = (Vec::new(), 0);
    loop {
        let is_last = stop.is_cancelled();
        let end = if is_last { "&timeoutSeconds=1" } else { "" };
        let get = format!("get --raw {MAPS}?watch=1&resourceVersion={from}{end}");
        let text = kubectl.ok(&get, "").await;
        assert!(text.is_empty() || text.ends_with('\n'), "cut in the middle: {text}");
        for line in text.lines() {
            let event: Value = serde_json::from_str(line).expect("a whole event");
            assert_eq!(event["type"], "MODIFIED", "{event}");
            from = revision(&event["object"]);
            let n = event["object"]["spec"]["template"]["data"]["n"].as_str();
            seen.push((from, n.expect("a number").parse().expect("a number")));
        }
        watches += 1;
        if is_last {
            return (seen, watches);
        }
    }
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().expect("a version").parse().expect("a number")
}
