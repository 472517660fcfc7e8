//! The garbage collector of a server that stands alone, where its view of one kind lags behind that of another.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use futures::stream;
use kubefed_controllers::client::Client;
use kubefed_storage::{
    Commit, Entry, Error, Page, Range, Revision, Store, StoreStatus, Watch, embedded,
};
use kubefed_tests::{Cluster, a_member_with, eventually};
use serde_json::{Value, json};

const OWNERS: &str = "/api/v1/namespaces/default/configmaps";
const DEPENDENTS: &str = "/api/v1/namespaces/default/secrets";
const HOLD: &str = "example.com/hold";
/// How much later each change of a Secret is told than that of any other object.
const LATE: Duration = Duration::from_millis(30);

/// A store whose watch of Secrets is slow.
struct Late(Arc<dyn Store>);

#[async_trait]
impl Store for Late {
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), Error> {
        self.0.get(key).await
    }
    async fn range(&self, range: Range) -> Result<Page, Error> {
        self.0.range(range).await
    }
    async fn commit(&self, commit: Commit) -> Result<Revision, Error> {
        self.0.commit(commit).await
    }
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, Error> {
        let watch = self.0.watch(prefix, from).await?;
        if !prefix.contains("/secrets/") {
            return Ok(watch);
        }
        Ok(Watch::new(stream::unfold(watch, async |mut watch| {
            let batch = watch.next().await?;
            tokio::time::sleep(LATE).await;
            Some((batch, watch))
        })))
    }
    async fn request_progress(&self) -> Result<(), Error> {
        self.0.request_progress().await
    }
    async fn current_revision(&self) -> Result<Revision, Error> {
        self.0.current_revision().await
    }
    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.0.compact(revision).await
    }
    async fn status(&self) -> Result<StoreStatus, Error> {
        self.0.status().await
    }
}

async fn a_late_member() -> Cluster {
    a_member_with(|config| config.store = Arc::new(Late(embedded::in_memory()))).await
}

/// Creates an owner with this name and Secrets that depend on it; the paths of those.
async fn a_family(admin: &Client, name: &str, finalizers: &[&str]) -> Vec<String> {
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let owner = admin.create(OWNERS, &owner).await.expect("created");
    let names: Vec<String> = (0..20).map(|number| format!("{name}-{number}")).collect();
    join_all(names.iter().map(async |dependent| {
        let reference = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "name": name,
            "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true,
        });
        let metadata =
            json!({"name": dependent, "ownerReferences": [reference], "finalizers": finalizers});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata});
        admin.create(DEPENDENTS, &secret).await.expect("created");
        format!("{DEPENDENTS}/{dependent}")
    }))
    .await
}

async fn delete(admin: &Client, name: &str, policy: &str) {
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
    admin.delete(&format!("{OWNERS}/{name}"), &options).await.expect("deleted");
}

async fn until_gone(admin: &Client, path: &str) {
    eventually(&format!("{path} is gone"), async || {
        admin.get(path).await.err().filter(|error| error.is_not_found())
    })
    .await;
}

/// Waits until the garbage collector has come to what was made last: it goes, as its owner never was.
async fn until_collected(admin: &Client) {
    let reference =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "no-such-uid"});
    let metadata = json!({"name": "last", "ownerReferences": [reference]});
    let last = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata});
    admin.create(DEPENDENTS, &last).await.expect("created");
    until_gone(admin, &format!("{DEPENDENTS}/last")).await;
}

fn owners(object: &Value) -> &Value {
    &object["metadata"]["ownerReferences"]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_owner_orphans_right_after_it_was_made_is_not_lost() {
    let member = a_late_member().await;
    let admin = member.admin();
    for round in 0..5 {
        let name = format!("owner-{round}");
        let dependents = a_family(&admin, &name, &[]).await;
        delete(&admin, &name, "Orphan").await;
        until_gone(&admin, &format!("{OWNERS}/{name}")).await;
        until_collected(&admin).await;
        for path in dependents {
            let stays = admin.get(&path).await.expect("it is there");
            assert!(owners(&stays).is_null(), "{path}: {stays}");
            assert!(stays["metadata"]["deletionTimestamp"].is_null(), "{path}: {stays}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_in_the_foreground_waits_for_what_was_made_right_before() {
    let member = a_late_member().await;
    let admin = member.admin();
    let dependents = a_family(&admin, "owner", &[HOLD]).await;
    delete(&admin, "owner", "Foreground").await;
    for path in &dependents {
        eventually(&format!("the deletion of {path}"), async || {
            let there = admin.get(path).await.expect("it is held");
            there["metadata"]["deletionTimestamp"].is_string().then_some(())
        })
        .await;
        admin.get(&format!("{OWNERS}/owner")).await.expect("it waits");
    }
    for path in &dependents {
        let released = json!({"metadata": {"finalizers": null}});
        admin.merge(path, &released).await.expect("released");
    }
    until_gone(&admin, &format!("{OWNERS}/owner")).await;
    for path in &dependents {
        until_gone(&admin, path).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_background_all_go_after_their_owner() {
    let member = a_late_member().await;
    let admin = member.admin();
    let dependents = a_family(&admin, "owner", &[]).await;
    delete(&admin, "owner", "Background").await;
    for path in &dependents {
        until_gone(&admin, path).await;
    }
}
