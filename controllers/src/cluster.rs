//! Members: how they are reached, whether they are well, and what their KubeFedCluster says of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kubefed_api::kubefedconfig::HealthCheck;
use kubefed_api::placement;
use kubefed_apimachinery::{meta, time};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cache::{Key, Source, without_managed_fields};
use crate::client::Client;
use crate::control::{Control, Member, Readiness, path};
use crate::queue::Queue;

mod connect;
mod health;

use health::{Probe, Thresholds};

const GROUP_VERSION: &str = "core.kubefed.io/v1beta1";
const COMPONENT: &str = "kubefedcluster-controller";
/// When nothing else changed, the time of the last probe is refreshed this rarely: a status that is written for every
/// probe wakes everything that watches clusters.
const REFRESH: Duration = Duration::from_secs(300);

/// Follows the KubeFedClusters and keeps a task for each.
pub(crate) async fn run(control: Arc<Control>) {
    let source = Source {
        path: path(GROUP_VERSION, &control.namespace, "kubefedclusters"),
        ..Source::default()
    };
    let changes: Queue<Key> = Queue::default();
    let follow = control.clusters.follow(
        &control.host,
        &source,
        without_managed_fields,
        |key| changes.add(key.clone()),
        &control.token,
    );
    let manage = async {
        let mut known: HashMap<String, Known> = HashMap::new();
        control.clusters.wait_filled().await;
        for cluster in control.clusters.values() {
            take_up(&control, &mut known, meta::name(&cluster), Some(&cluster));
        }
        publish_all(&control, &known);
        loop {
            let key = changes.next().await;
            changes.done(&key);
            let cluster = control.clusters.get(&key);
            if take_up(&control, &mut known, &key.name, cluster.as_deref()) {
                publish_all(&control, &known);
            }
        }
    };
    tokio::select! {
        () = follow => {}
        () = manage => {}
    }
}

/// A cluster that has its task.
struct Known {
    /// How it is reached: another way makes it another member.
    reach: Value,
    placeable: placement::Cluster,
    member: Arc<Member>,
}

/// Starts or ends what a cluster needs; whether it is another one than before, or is placed by other labels.
fn take_up(
    control: &Arc<Control>,
    known: &mut HashMap<String, Known>,
    name: &str,
    cluster: Option<&Value>,
) -> bool {
    let Some(cluster) = cluster else {
        let gone = known.remove(name);
        if let Some(gone) = &gone {
            gone.member.token.cancel();
            control.metrics.forget_cluster(name);
        }
        return gone.is_some();
    };
    let reach = json!([cluster["metadata"]["uid"], cluster["spec"]]);
    let labels = cluster["metadata"]["labels"].as_object().into_iter().flatten();
    let labels = labels.map(|(key, value)| (key.clone(), value.as_str().unwrap_or("").to_owned()));
    let placeable = placement::Cluster { name: name.to_owned(), labels: labels.collect() };
    match known.get_mut(name) {
        Some(known) if known.reach == reach && known.placeable == placeable => return false,
        Some(known) => {
            if known.reach != reach {
                known.member.token.cancel();
                known.member = start(control, name);
                known.reach = reach;
            }
            known.placeable = placeable;
        }
        None => {
            let member = start(control, name);
            known.insert(name.to_owned(), Known { reach, placeable, member });
        }
    }
    true
}

/// Tells the syncs; whatever is placed by a selector is placed anew.
fn publish_all(control: &Control, known: &HashMap<String, Known>) {
    let members =
        known.iter().map(|(name, known)| (name.clone(), Arc::clone(&known.member))).collect();
    control.metrics.joined(known.len());
    control.members.send_replace(Arc::new(members));
    let placeable = known.values().map(|known| known.placeable.clone()).collect();
    control.placeable.send_replace(Some(Arc::new(placeable)));
    let _nobody_listens_yet = control.placements.send(None);
}

fn start(control: &Arc<Control>, name: &str) -> Arc<Member> {
    let member = Arc::new(Member {
        name: name.to_owned(),
        ready: watch::Sender::default(),
        token: control.token.child_token(),
    });
    let (task, control) = (Arc::clone(&member), Arc::clone(control));
    let tracker = control.tracker.clone();
    tracker.spawn(async move {
        let token = task.token.clone();
        tokio::select! {
            () = token.cancelled() => {}
            () = probe_for_ever(&control, &task) => {}
        }
        publish(&task, None);
    });
    member
}

/// Probes one cluster; no other cluster's trouble delays it.
async fn probe_for_ever(control: &Control, member: &Member) {
    let key = Key { namespace: control.namespace.clone(), name: member.name.clone() };
    let mut thresholds = Thresholds::default();
    let mut connected: Option<(Value, Client)> = None;
    let mut described: Option<Instant> = None;
    loop {
        let began = Instant::now();
        let check = HealthCheck::of(&control.config.borrow().clone());
        let Some(cluster) = control.clusters.get(&key) else { return };
        let describe = described.is_none_or(|at| at.elapsed() >= REFRESH);
        let probe = match connect(control, &cluster, &mut connected).await {
            Ok(client) => health::probe(&client, check.timeout, describe).await,
            Err(why) => {
                control.events.warn(
                    &cluster,
                    COMPONENT,
                    "MalformedClusterConfig",
                    &format!("The configuration for this cluster may be malformed: {why}"),
                );
                Probe::malformed(why)
            }
        };
        if let Some(why) = &probe.unreachable {
            let text = format!("Failed to retrieve health of the cluster: {why}");
            control.events.warn(&cluster, COMPONENT, "RetrievingClusterHealthFailed", &text);
        }
        if !probe.is_ready() {
            // It may come back as another version.
            described = None;
        } else if describe {
            described = Some(began);
        }
        control.metrics.probed(began.elapsed());
        let settled = thresholds.take(probe, &check);
        control.metrics.cluster(&member.name, settled.state());
        let client = connected.as_ref().map(|(_, client)| client.clone());
        publish(member, client.filter(|_| settled.is_ready()));
        write_status(control, &cluster, &settled).await;
        tokio::time::sleep(check.period).await;
    }
}

/// Tells the syncs when the cluster becomes ready, or no longer is, or has new credentials.
fn publish(member: &Member, client: Option<Client>) {
    member.ready.send_if_modified(|known| {
        let same = match (&*known, &client) {
            (Readiness::Ready(known), Some(client)) => known.is(client),
            (Readiness::Away, None) => true,
            _ => false,
        };
        if !same {
            *known = client.map_or(Readiness::Away, Readiness::Ready);
        }
        !same
    });
}

/// The client of a cluster; a new one when the credentials changed.
async fn connect(
    control: &Control,
    cluster: &Value,
    connected: &mut Option<(Value, Client)>,
) -> Result<Client, String> {
    let spec = &cluster["spec"];
    let name = spec["secretRef"]["name"]
        .as_str()
        .filter(|name| !name.is_empty())
        .ok_or("spec.secretRef.name is empty")?;
    let path = format!("/api/v1/namespaces/{}/secrets/{name}", control.namespace);
    let secret = match control.host.get(&path).await {
        Ok(secret) => secret,
        // The federation itself is not reached: that is no fault of the cluster, which keeps its client.
        Err(error) if !error.is_not_found() && connected.is_some() => {
            tracing::warn!(cluster = %cluster["metadata"]["name"], %error, "the secret cannot be read now");
            return Ok(connected.as_ref().map(|(_, client)| client.clone()).ok_or("no client")?);
        }
        Err(error) => return Err(format!("secret {name}: {error}")),
    };
    let identity = json!([secret["data"], spec]);
    if let Some((known, client)) = connected
        && *known == identity
    {
        return Ok(client.clone());
    }
    let decode = |value: &Value| {
        BASE64_STANDARD.decode(value.as_str().unwrap_or("")).map_err(|error| error.to_string())
    };
    let token = decode(&secret["data"]["token"])?;
    if token.is_empty() {
        return Err(format!("secret {name} has no token"));
    }
    let token =
        String::from_utf8(token).map_err(|_| format!("the token in secret {name} is no text"))?;
    let access = connect::access(spec, token.trim().to_owned())?;
    let client = Client::new(access).map_err(|why| format!("spec.caBundle: {why}"))?;
    *connected = Some((identity, client.clone()));
    Ok(client)
}

async fn write_status(control: &Control, cluster: &Value, settled: &Probe) {
    let now = control.now();
    let Some(status) = health::status(&cluster["status"], settled, now, REFRESH) else { return };
    let name = cluster["metadata"]["name"].as_str().unwrap_or("");
    let collection = path(GROUP_VERSION, &control.namespace, "kubefedclusters");
    let path = format!("{collection}/{name}/status");
    if let Err(error) = control.host.merge(&path, &json!({"status": status})).await {
        tracing::warn!(cluster = name, %error, at = time::rfc3339(now), "the status of a cluster was not written");
    }
}
