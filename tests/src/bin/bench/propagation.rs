//! From a federated object to its members, by the clock.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use kubefed_controllers::client::{Client, Watch};
use kubefed_tests::{Federation, a_federation_of, a_namespace_everywhere};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::row;

const MEMBERS: &[&str] = &["cluster1", "cluster2"];
const ROUNDS: usize = 50;
const FEDERATED: &str = "/apis/types.kubefed.io/v1beta1/namespaces/bench/federatedconfigmaps";
const TARGET: &str = "/api/v1/namespaces/bench/configmaps";
const JSON: &str = "application/json";
/// No change may take longer to be seen.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn run() -> anyhow::Result<()> {
    let federation = a_federation_of(MEMBERS).await;
    let admin = federation.admin();
    a_namespace_everywhere(&admin, "bench").await;

    let member = federation.member(MEMBERS[0]).admin();
    let mut watch = watch(&member).await?;
    admin.create(FEDERATED, &map("first")).await?;
    until(&mut watch, |kind, object| kind == "ADDED" && is(object, "first")).await?;
    let edits = edits(&admin, &mut watch).await?;
    row("an override is edited until it is seen in the member, p50 of 50", edits, 15.0, "ms");
    let drifts = drifts(&member, &mut watch).await?;
    row("an object is deleted in the member until it is back, p50 of 50", drifts, 3.0, "ms");
    // In proportion to 1,000 × 3 in 5 s.
    let all = many(&federation, "map", 200).await?;
    row("200 FederatedConfigMaps, the first create until the last object", all, 667.0, "ms");
    let alone = many(&federation, "alone", 100).await?;
    row("100 FederatedConfigMaps, the same", alone, 333.0, "ms");
    let _silent = federation.join_silent("silent").await;
    let beside = many(&federation, "beside", 100).await?;
    row("100 beside a member that never answers, which delays no other", beside, 1.2 * alone, "ms");
    Ok(())
}

fn map(name: &str) -> Value {
    json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedConfigMap",
        "metadata": {"name": name},
        "spec": {
            "template": {"data": {"key": "value", "text": "0123456789abcdef".repeat(60)}},
            "placement": {"clusterSelector": {}},
        },
    })
}

/// Watches the ConfigMaps of a member from now on.
async fn watch(member: &Client) -> anyhow::Result<Watch> {
    let version = member.list(TARGET, "", JSON, drop).await?;
    Ok(member.watch(TARGET, "", JSON, &version).await?)
}

async fn until(watch: &mut Watch, wanted: impl FnMut(&str, &Value) -> bool) -> anyhow::Result<()> {
    let mut wanted = wanted;
    let seen = async {
        loop {
            let event = watch.next().await.context("the watch has ended")??;
            if wanted(event["type"].as_str().unwrap_or(""), &event["object"]) {
                return Ok(());
            }
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.context("a change does not come")?
}

fn is(object: &Value, name: &str) -> bool {
    object["metadata"]["name"] == name
}

async fn edits(admin: &Client, watch: &mut Watch) -> anyhow::Result<f64> {
    let path = format!("{FEDERATED}/first");
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let value = format!("value of round {round}");
        let overrides = json!([{"clusterName": MEMBERS[0], "clusterOverrides": [{"path": "/data/key", "value": value}]}]);
        let started = Instant::now();
        admin.merge(&path, &json!({"spec": {"overrides": overrides}})).await?;
        until(watch, |_, object| is(object, "first") && object["data"]["key"] == value).await?;
        times.push(started.elapsed());
        rest().await;
    }
    Ok(p50(times))
}

async fn drifts(member: &Client, watch: &mut Watch) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        member.delete(&format!("{TARGET}/first"), &json!({})).await?;
        until(watch, |kind, object| kind == "ADDED" && is(object, "first")).await?;
        times.push(started.elapsed());
        rest().await;
    }
    Ok(p50(times))
}

/// Between two rounds the status is written and the system is at rest again.
async fn rest() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// The time from the first create to the last arrival in a member, in ms.
async fn many(federation: &Federation, prefix: &'static str, count: usize) -> anyhow::Result<f64> {
    let mut arrivals = JoinSet::new();
    for name in MEMBERS {
        let mut watch = watch(&federation.member(name).admin()).await?;
        arrivals.spawn(async move {
            let mut arrived = 0;
            until(&mut watch, |kind, object| {
                let name = object["metadata"]["name"].as_str().unwrap_or("");
                arrived += usize::from(kind == "ADDED" && name.starts_with(prefix));
                arrived == count
            })
            .await
        });
    }
    let admin = federation.admin();
    let started = Instant::now();
    let mut creates = JoinSet::new();
    for index in 0..count {
        let admin = admin.clone();
        creates.spawn(
            async move { admin.create(FEDERATED, &map(&format!("{prefix}-{index}"))).await },
        );
    }
    while let Some(created) = creates.join_next().await {
        created?.map_err(|error| anyhow!(error))?;
    }
    while let Some(arrived) = arrivals.join_next().await {
        arrived??;
    }
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

/// The median, in ms.
fn p50(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}
