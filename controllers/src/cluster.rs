//! Members: how they are reached, whether they are well, and what their KubeFedCluster says of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kubefed_api::kubefedconfig::HealthCheck;
use kubefed_api::placement;
use kubefed_apimachinery::{meta, time};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::cache::{Source, without_managed_fields};
use crate::client::Client;
use crate::control::{Control, Member, Readiness, path};
use crate::queue::Queue;

mod connect;
mod health;

pub(crate) use connect::Token;

use health::{Probe, Thresholds};

const GROUP_VERSION: &str = "core.kubefed.io/v1beta1";
const COMPONENT: &str = "kubefedcluster-controller";
/// Helm keeps its releases in secrets beside the control plane: each may be a megabyte, and none is a token.
const NO_RELEASES: &str = "&fieldSelector=type%21%3Dhelm.sh%2Frelease.v1";
/// When nothing else changed, the time of the last probe is refreshed this rarely: a status that is written for every
/// probe wakes everything that watches clusters.
const REFRESH: Duration = Duration::from_secs(300);

/// What may concern a cluster, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Change {
    Cluster(String),
    Secret(String),
}

/// Follows the KubeFedClusters and keeps a task for each. The secrets beside them are followed too, for their tokens: one
/// that is rotated is taken up at once.
pub(crate) async fn run(control: Arc<Control>) {
    let of = |group_version: &str, plural: &str| Source {
        path: path(group_version, &control.namespace, plural),
        ..Source::default()
    };
    let changes: Arc<Queue<Change>> = Arc::default();
    let clusters = of(GROUP_VERSION, "kubefedclusters");
    let follow = control.clusters.follow(
        &control.federation,
        &clusters,
        without_managed_fields,
        |key| {
            changes.add(Change::Cluster(key.name.clone()));
            control.clusters_seen.send_replace(());
        },
        &control.token,
    );
    let secrets = Source { query: NO_RELEASES.into(), ..of("v1", "secrets") };
    let follow_secrets = control.tokens.follow(
        &control.host,
        &secrets,
        |secret| connect::token(&secret),
        |key| changes.add(Change::Secret(key.name.clone())),
        &control.token,
    );
    let manage = async {
        let mut known: HashMap<String, Known> = HashMap::new();
        control.clusters.wait_filled().await;
        for cluster in control.clusters.values() {
            take_up(&control, &changes, &mut known, meta::name(&cluster), Some(&cluster));
        }
        publish_all(&control, &known);
        loop {
            let change = changes.next().await;
            changes.done(&change);
            match change {
                Change::Cluster(name) => {
                    let cluster = control.clusters.get(&control.key_of(&name));
                    if take_up(&control, &changes, &mut known, &name, cluster.as_deref()) {
                        publish_all(&control, &known);
                    }
                }
                Change::Secret(name) => known
                    .values()
                    .filter(|known| known.spec["secretRef"]["name"] == *name)
                    .for_each(|known| known.member.probe.notify_one()),
            }
        }
    };
    tokio::select! {
        () = follow => {}
        () = follow_secrets => {}
        () = manage => {}
    }
}

/// A cluster that has its task.
struct Known {
    /// Which one it is: one at another place is another member.
    identity: Value,
    /// How it is reached.
    spec: Value,
    placeable: placement::Cluster,
    member: Arc<Member>,
}

/// Starts or ends what a cluster needs; whether it is another one than before, or is placed by other labels.
fn take_up(
    control: &Arc<Control>,
    changes: &Arc<Queue<Change>>,
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
    let spec = cluster["spec"].clone();
    let identity = json!([cluster["metadata"]["uid"], spec["apiEndpoint"]]);
    let placeable = placement::Cluster::of(cluster);
    let Some(known) = known.get_mut(name) else {
        let member = start(control, changes, name, false);
        known.insert(name.to_owned(), Known { identity, spec, placeable, member });
        return true;
    };
    // Its task has ended by itself where another cluster has answered at the same place.
    let moved = known.identity != identity || known.member.token.is_cancelled();
    if moved {
        known.member.token.cancel();
        known.member = start(control, changes, name, true);
        known.identity = identity;
    } else if known.spec != spec {
        known.member.probe.notify_one();
    }
    known.spec = spec;
    let other = moved || known.placeable != placeable;
    known.placeable = placeable;
    other
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

/// Starts the task of a member; `moved`: another was known by its name until now.
fn start(
    control: &Arc<Control>,
    changes: &Arc<Queue<Change>>,
    name: &str,
    moved: bool,
) -> Arc<Member> {
    let member = Arc::new(Member {
        name: name.to_owned(),
        ready: watch::Sender::default(),
        probe: Notify::new(),
        believed_since: Mutex::new(Timestamp::MIN),
        token: control.token.child_token(),
    });
    let (task, control, changes) = (Arc::clone(&member), Arc::clone(control), Arc::clone(changes));
    let tracker = control.tracker.clone();
    tracker.spawn(async move {
        let token = task.token.clone();
        tokio::select! {
            () = token.cancelled() => {}
            () = probe_for_ever(&control, &task, moved) => {
                if !token.is_cancelled() {
                    token.cancel();
                    changes.add(Change::Cluster(task.name.clone()));
                }
            }
        }
        publish(&task, None);
    });
    member
}

/// Probes one cluster; no other cluster's trouble delays it. Ends when it is no longer joined, or is another than it was.
async fn probe_for_ever(control: &Control, member: &Member, moved: bool) {
    let key = control.key_of(&member.name);
    let mut thresholds = Thresholds::default();
    let mut connected: Option<Connection> = None;
    let mut spec = Value::Null;
    let mut described: Option<Instant> = None;
    // Which cluster it was when it was first described.
    let mut uid: Option<String> = None;
    let mut first: Option<Arc<Value>> = None;
    let mut configs = control.config.clone();
    // Without the list a secret that is there could not be told from one that is not.
    control.tokens.wait_filled().await;
    loop {
        let began = Instant::now();
        let check = HealthCheck::of(&configs.borrow_and_update().clone());
        let Some(cluster) = control.clusters.get(&key) else { return };
        let first = first.get_or_insert_with(|| Arc::clone(&cluster));
        if spec != cluster["spec"] {
            // Reached in another way, it is judged anew.
            thresholds = Thresholds::default();
            spec = cluster["spec"].clone();
            described = None;
        }
        let describe = described.is_none_or(|at| at.elapsed() >= REFRESH);
        let probe = match connect(control, &spec, &mut connected) {
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
        if probe.is_ready() && describe {
            match &uid {
                Some(uid) if !probe.uid.is_empty() && *uid != probe.uid => return,
                Some(_) => {}
                None => {
                    *member.believed_since.lock() =
                        health::believed_since(first, &probe.uid, moved);
                    uid = Some(probe.uid.clone());
                }
            }
        }
        control.metrics.probed(began.elapsed());
        let settled = thresholds.take(probe, &check);
        control.metrics.cluster(&member.name, settled.state());
        let client = connected.as_ref().map(|connection| connection.client.clone());
        publish(member, client.filter(|_| settled.is_ready()));
        write_status(control, &cluster, &settled).await;
        tokio::select! {
            () = tokio::time::sleep(check.period) => {}
            () = member.probe.notified() => {}
            // The period may be another one.
            Ok(()) = configs.changed() => {}
        }
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

/// A client, and what it was made of.
struct Connection {
    spec: Value,
    token: Arc<Token>,
    client: Client,
}

/// The client of a cluster; a new one when its spec or its token changed.
fn connect(
    control: &Control,
    spec: &Value,
    connected: &mut Option<Connection>,
) -> Result<Client, String> {
    let name = spec["secretRef"]["name"].as_str().unwrap_or("");
    let token = control.tokens.get(&control.key_of(name)).ok_or_else(|| {
        format!(
            "spec.secretRef.name: there is no secret {name:?} in namespace {}",
            control.namespace
        )
    })?;
    if let Some(known) = connected
        && known.spec == *spec
        && *known.token == *token
    {
        return Ok(known.client.clone());
    }
    let text = token.text().map_err(|why| format!("secret {name:?}: {why}"))?;
    let access = connect::access(spec, text.to_owned())?;
    let client = Client::new(access).map_err(|why| format!("spec.caBundle: {why}"))?;
    *connected = Some(Connection { spec: spec.clone(), token, client: client.clone() });
    Ok(client)
}

async fn write_status(control: &Control, cluster: &Value, settled: &Probe) {
    let now = control.now();
    let Some(status) = health::status(&cluster["status"], settled, now, REFRESH) else { return };
    let name = cluster["metadata"]["name"].as_str().unwrap_or("");
    let collection = path(GROUP_VERSION, &control.namespace, "kubefedclusters");
    let path = format!("{collection}/{name}/status");
    let mut patch = json!({"status": status});
    if !status["clusterUID"].is_null() {
        // What is joined under this name by now may be another cluster.
        patch["metadata"] = json!({"resourceVersion": meta::resource_version(cluster)});
    }
    if let Err(error) = control.federation.merge(&path, &patch).await {
        tracing::warn!(cluster = name, %error, at = time::rfc3339(now), "the status of a cluster was not written");
    }
}
