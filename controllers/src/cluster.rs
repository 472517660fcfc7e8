//! Members: how they are reached, whether they are well, and what their KubeFedCluster says of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kubefed_api::kubefedcluster::endpoint_url;
use kubefed_api::kubefedconfig::HealthCheck;
use kubefed_apimachinery::time;
use kubefed_certs::ClientTls;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cache::{Key, Source};
use crate::client::{Access, Client};
use crate::control::{Control, Member};

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
        path: control.path(GROUP_VERSION, &control.namespace, "kubefedclusters"),
        ..Source::default()
    };
    let (changed, mut changes) = tokio::sync::mpsc::unbounded_channel::<Key>();
    let follow = control.clusters.follow(
        &control.host,
        &source,
        |cluster| cluster,
        |key| drop(changed.send(key.clone())),
        &control.token,
    );
    let manage = async {
        let mut known: HashMap<String, (Value, Arc<Member>)> = HashMap::new();
        while let Some(key) = changes.recv().await {
            let cluster = control.clusters.get(&key);
            let identity = cluster.as_deref().map(identity);
            match (known.get(&key.name), identity) {
                (Some((old, _)), Some(new)) if *old == new => continue,
                (old, new) => {
                    if let Some((_, member)) = old {
                        member.token.cancel();
                    }
                    match new {
                        Some(new) => {
                            let member = start(&control, &key.name);
                            known.insert(key.name.clone(), (new, member));
                        }
                        None => drop(known.remove(&key.name)),
                    }
                }
            }
            let members = known
                .iter()
                .map(|(name, (_, member))| (name.clone(), Arc::clone(member)))
                .collect();
            control.members.send_replace(Arc::new(members));
            // Labels may have changed as well: whatever is placed by a selector is placed anew.
            let _nobody_listens_yet = control.placements.send(None);
        }
    };
    tokio::select! {
        () = follow => {}
        () = manage => {}
    }
}

/// What makes a cluster another one: how it is reached, and its labels, by which it is placed.
fn identity(cluster: &Value) -> Value {
    json!([cluster["metadata"]["uid"], cluster["spec"], cluster["metadata"]["labels"]])
}

fn start(control: &Arc<Control>, name: &str) -> Arc<Member> {
    let member = Arc::new(Member {
        name: name.to_owned(),
        ready: watch::Sender::new(None),
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
        task.ready.send_replace(None);
    });
    member
}

/// Probes one cluster; no other cluster's trouble delays it.
async fn probe_for_ever(control: &Control, member: &Member) {
    let key = Key { namespace: control.namespace.clone(), name: member.name.clone() };
    let mut thresholds = Thresholds::default();
    let mut connected: Option<(Value, Client)> = None;
    loop {
        let check = HealthCheck::of(&control.config.borrow().clone());
        let Some(cluster) = control.clusters.get(&key) else { return };
        let probe = match connect(control, &cluster, &mut connected).await {
            Ok(client) => health::probe(&client, check.timeout).await,
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
        let settled = thresholds.take(probe, &check);
        let client = connected.as_ref().map(|(_, client)| client.clone());
        publish(member, client.filter(|_| settled.is_ready()));
        write_status(control, &cluster, &settled).await;
        tokio::time::sleep(check.period).await;
    }
}

/// Tells the syncs when the cluster becomes ready, or no longer is.
fn publish(member: &Member, client: Option<Client>) {
    member.ready.send_if_modified(|known| {
        let changed = known.is_some() != client.is_some();
        if changed {
            *known = client;
        }
        changed
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
    let disabled = spec["disabledTLSValidations"].as_array().is_some_and(|list| !list.is_empty());
    if disabled || spec["proxyURL"].as_str().is_some_and(|proxy| !proxy.is_empty()) {
        return Err("disabledTLSValidations and proxyURL are not supported".into());
    }
    let client = Client::new(Access {
        url: endpoint_url(spec["apiEndpoint"].as_str().unwrap_or(""))?,
        tls: ClientTls { ca_pem: decode(&spec["caBundle"])?, ..ClientTls::default() },
        token: Some(token.trim().to_owned()),
    })?;
    *connected = Some((identity, client.clone()));
    Ok(client)
}

async fn write_status(control: &Control, cluster: &Value, settled: &Probe) {
    let now = control.now();
    let Some(status) = health::status(&cluster["status"], settled, now, REFRESH) else { return };
    let name = cluster["metadata"]["name"].as_str().unwrap_or("");
    let path = format!(
        "{}/{name}/status",
        control.path(GROUP_VERSION, &control.namespace, "kubefedclusters")
    );
    if let Err(error) = control.host.merge(&path, &json!({"status": status})).await {
        tracing::warn!(cluster = name, %error, at = time::rfc3339(now), "the status of a cluster was not written");
    }
}
