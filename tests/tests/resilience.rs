//! What does not answer, and what is killed.

use std::time::Duration;

use kubefed_controllers::client::Client;
use kubefed_tests::up::Up;
use kubefed_tests::{PATIENCE, a_federation_of, a_namespace_everywhere, eventually};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

const MAPS: &str = "/apis/types.kubefed.io/v1beta1/namespaces/many/federatedconfigmaps";
const RECORDS: &str = "/apis/core.kubefed.io/v1alpha1/namespaces/many/propagatedversions";
const CONFIG_MAPS: &str = "/api/v1/namespaces/many/configmaps";

fn map(n: usize) -> Value {
    json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedConfigMap", "metadata": {"name": format!("map-{n}")},
        "spec": {"template": {"data": {"n": n.to_string()}}, "placement": {"clusterSelector": {}}},
    })
}

async fn wait_for_maps(member: &Client, count: usize) {
    eventually(&format!("{count} maps"), async || {
        let path = format!("{CONFIG_MAPS}?labelSelector=kubefed.io/managed%3Dtrue");
        let list = member.get(&path).await.ok()?;
        (list["items"].as_array()?.len() == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_never_answers_delays_no_other() {
    let federation = a_federation_of(&["cluster1", "cluster2"]).await;
    a_namespace_everywhere(&federation.admin(), "many").await;
    let _silent = federation.join_silent("silent").await;
    let admin = federation.admin();
    for n in 0..100 {
        admin.create(MAPS, &map(n)).await.unwrap();
    }
    for cluster in ["cluster1", "cluster2"] {
        wait_for_maps(&federation.member(cluster).admin(), 100).await;
    }
    eventually("the status says which cluster is not there", async || {
        let object = admin.get(&format!("{MAPS}/map-0")).await.ok()?;
        let clusters = object["status"]["clusters"].as_array()?;
        clusters
            .iter()
            .any(|c| c["name"] == "silent" && c["status"] == "ClusterNotReady")
            .then_some(())
    })
    .await;
}

const LOOK: Duration = Duration::from_millis(10);
const CREATES: usize = 500;
const WRITERS: usize = 16;

/// Creates an object until that is acknowledged. That it is there already tells that an earlier request came through
/// whose answer did not.
async fn create_surely(client: Client, path: &str, object: Value) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = client.create(path, &object).await
        && !error.is_conflict()
    {
        assert!(Instant::now() < deadline, "not acknowledged: {error}");
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_object_is_lost_when_processes_are_killed() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut up = Up::start(dir.path());
    let federation = up.client("federation");
    a_namespace_everywhere(&federation, "many").await;
    let mut writers = JoinSet::new();
    let mut todo = 0..CREATES;
    for acknowledged in 0..CREATES {
        while writers.len() < WRITERS
            && let Some(n) = todo.next()
        {
            writers.spawn(create_surely(federation.clone(), MAPS, map(n)));
        }
        writers.join_next().await.expect("a writer").expect("acknowledged");
        match acknowledged {
            100 => up.kill("kubefed-apiserver"),
            250 => up.kill("kubefed-controller-manager"),
            400 => up.kill("kubefed-localcluster"),
            _ => {}
        }
    }
    // What was acknowledged is there, once, in both members; also after a restart of everything.
    for round in 0..2 {
        for cluster in ["cluster1", "cluster2"] {
            wait_for_maps(&up.client(cluster), CREATES).await;
        }
        for (path, what) in [(MAPS, "maps"), (RECORDS, "records")] {
            eventually(&format!("{what}, each once"), async || {
                let list = up.client("federation").get(path).await.ok()?;
                let names = list["items"]
                    .as_array()?
                    .iter()
                    .filter_map(|item| item["metadata"]["name"].as_str());
                (names.filter(|name| name.contains("map-")).count() == CREATES).then_some(())
            })
            .await;
        }
        if round == 0 {
            assert!(Up::down(dir.path()).status.success());
            up = Up::start(dir.path());
        }
    }
}
