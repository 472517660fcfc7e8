//! What a federation asks of its members when there is nothing to do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kubefed_apiserver::audit;
use kubefed_tests::scene::{TYPES, told};
use kubefed_tests::{
    Federation, a_federation_of, a_member_with, a_namespace_everywhere, eventually_within, join,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const OBJECTS: usize = 1_000;
const MEMBERS: [&str; 3] = ["one", "two", "three"];
const CORE: &str = "/apis/core.kubefed.io/v1beta1/namespaces/kube-federation-system";
const PATIENCE: Duration = Duration::from_secs(60);
/// The account that the controllers have in a member.
const CONTROLLERS: &str = "system:serviceaccount:kube-federation-system:kubefed";

/// How often the controllers asked for what since a line of the log: the verb and the resource.
fn asked(log: &Path, since: usize) -> BTreeMap<(String, String), usize> {
    let text = std::fs::read_to_string(log).expect("the log");
    let lines =
        text.lines().skip(since).filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut asked = BTreeMap::new();
    for line in lines {
        // A watch is told when it begins and when it ends, anything else at its end. A long list comes in pages.
        let begins = line["stage"] == "ResponseStarted";
        let is_page = line["requestURI"].as_str().is_some_and(|uri| uri.contains("continue="));
        let counts = !is_page && (begins == (line["verb"] == "watch"));
        if line["user"]["username"] == CONTROLLERS && counts {
            let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
            let what = (text(&line["verb"]), text(&line["objectRef"]["resource"]));
            *asked.entry(what).or_default() += 1;
        }
    }
    asked
}

fn length(log: &Path) -> usize {
    std::fs::read_to_string(log).expect("the log").lines().count()
}

async fn all_told(federation: &Federation) {
    let admin = federation.admin();
    eventually_within(PATIENCE, "all statuses are told", async || {
        let list = admin.get(&format!("{TYPES}/federatedconfigmaps")).await.ok()?;
        let items = list["items"].as_array()?;
        let told = |item: &&Value| {
            item["status"]["observedGeneration"] == item["metadata"]["generation"]
                && item["status"]["conditions"][0]["status"] == "True"
        };
        (items.iter().filter(told).count() == OBJECTS).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_a_thousand_objects_writes_nothing_and_lists_each_kind_once() {
    let mut federation = a_federation_of(&[]).await;
    let admin = federation.admin();
    // Health is looked at more often, to see soon that nothing else is.
    let config = json!({
        "apiVersion": "core.kubefed.io/v1beta1", "kind": "KubeFedConfig", "metadata": {"name": "kubefed"},
        "spec": {"scope": "Cluster", "clusterHealthCheck": {"period": "1s"}},
    });
    let configs = format!("{CORE}/kubefedconfigs");
    admin.create(&configs, &config).await.expect("a config");
    let logs = tempfile::tempdir().expect("a directory");
    let log = |name: &str| -> PathBuf { logs.path().join(name) };
    for name in MEMBERS {
        let options = audit::Options {
            path: log(name),
            max_size: u64::MAX,
            max_backups: 0,
            policy: audit::Policy::default(),
        };
        let member = a_member_with(|config| config.audit = Some(options)).await;
        join(&federation.api, name, &member.url(), &member).await;
        federation.members.push((name.into(), member));
        federation.wait_ready(name).await;
    }
    a_namespace_everywhere(&admin, "ns").await;
    told(&federation, &format!("{TYPES}/federatednamespaces/ns"), "True").await;
    let mut creates = JoinSet::new();
    for number in 0..OBJECTS {
        let admin = admin.clone();
        creates.spawn(async move {
            let object = json!({
                "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedConfigMap",
                "metadata": {"name": format!("c{number}")},
                "spec": {"template": {"data": {"key": "value"}}, "placement": {"clusterSelector": {}}},
            });
            admin.create(&format!("{TYPES}/federatedconfigmaps"), &object).await.expect("created");
        });
    }
    creates.join_all().await;
    all_told(&federation).await;
    for name in MEMBERS {
        eventually_within(PATIENCE, "each object was written once", async || {
            let asked = asked(&log(name), 0);
            (asked.get(&("patch".into(), "configmaps".into())) == Some(&OBJECTS)).then_some(())
        })
        .await;
    }
    federation.stop_manager().await;
    let kinds = kubefed_api::federatedtypeconfig::defaults().len();

    let before = MEMBERS.map(|name| length(&log(name)));
    federation.start_manager();
    // Ready again, and each kind is followed again: by then it has looked at all.
    for (name, since) in MEMBERS.into_iter().zip(before) {
        federation.wait_ready(name).await;
        eventually_within(PATIENCE, "every kind is watched", async || {
            let asked = asked(&log(name), since);
            (asked.keys().filter(|(verb, _)| verb == "watch").count() == kinds).then_some(())
        })
        .await;
    }
    // What is written afterwards has passed through the same queues: nothing before it is still to come.
    let namespaces = format!("{TYPES}/federatednamespaces/ns");
    let marker = json!({"spec": {"template": {"metadata": {"labels": {"seen": "yes"}}}}});
    admin.merge(&namespaces, &marker).await.expect("edited");
    let last = format!("{TYPES}/federatedconfigmaps/c{}", OBJECTS - 1);
    let edited = json!({"spec": {"template": {"data": {"key": "edited"}}}});
    admin.merge(&last, &edited).await.expect("edited");
    all_told(&federation).await;
    for (name, since) in MEMBERS.into_iter().zip(before) {
        let asked = eventually_within(PATIENCE, "both edits arrive", async || {
            let asked = asked(&log(name), since);
            let arrived = |kind: &str| asked.contains_key(&("patch".into(), kind.into()));
            (arrived("configmaps") && arrived("namespaces")).then_some(asked)
        })
        .await;
        for ((verb, resource), count) in &asked {
            match verb.as_str() {
                "list" | "watch" => assert_eq!(*count, 1, "{name}: {verb} {resource}: {asked:?}"),
                // The two edits.
                "patch" => assert_eq!(*count, 1, "{name}: {verb} {resource}: {asked:?}"),
                // A cluster is known by one of its namespaces, which is asked for when it becomes ready.
                "get" if resource == "namespaces" => assert_eq!(*count, 1, "{name}: {asked:?}"),
                // Nor is any other object looked at: this is its health.
                "get" => assert_eq!(resource, "", "{name}: {asked:?}"),
                _ => panic!("{name}: {verb} {resource}: {asked:?}"),
            }
        }
    }
}
