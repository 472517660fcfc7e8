//! The server's lines of the budget.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::{Method, header};
use kubefed_api::{SYSTEM_NAMESPACE, federatedtypeconfig};
use kubefed_controllers::client::{Access, Client};
use kubefed_tests::eventually;
use serde_json::{Value, json};

use crate::load::{Ask, Load};
use crate::process::Process;
use crate::row;

const OBJECTS: usize = 10_000;
const CALLERS: usize = 32;
/// A full list is 26 MB: as many at a time as there are connections.
const LISTERS: usize = 4;
const WATCHERS: usize = 1_000;
const EVENTS: usize = 200;

const COLLECTION: &str = "/apis/types.kubefed.io/v1beta1/namespaces/bench/federateddeployments";
const JSON: &str = "application/json";
const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * 1024.0;

struct Bench {
    process: Process,
    admin: Client,
    load: Load,
}

pub(crate) async fn run() -> anyhow::Result<()> {
    let process = Process::start().await?;
    let access = Access {
        url: format!("https://{}", process.address),
        tls: process.tls("admin", &["system:masters"])?,
        token: None,
        ..Access::default()
    };
    let admin = Client::new(access.clone()).map_err(|error| anyhow!(error))?;
    prepare(&admin).await?;
    let user = Client::new(Access { tls: process.tls("bench", &[])?, ..access });
    let user = user.map_err(|error| anyhow!(error))?;
    eventually("the federated kinds are served, and the user's rights known", async || {
        user.get(COLLECTION).await.ok()
    })
    .await;
    let load = Load::connect(&process.address, &process.tls("bench", &[])?).await?;
    let bench = Bench { process, admin, load };
    bench.idle_watchers().await?;
    bench.creates().await?;
    bench.reads().await?;
    bench.lists().await?;
    bench.writes().await?;
    bench.watches().await?;
    bench.deletes().await?;
    bench.process.stop().await
}

/// Serves the federated kinds, and makes a namespace in which the user `bench` may do everything.
async fn prepare(admin: &Client) -> anyhow::Result<()> {
    let configs =
        format!("/apis/core.kubefed.io/v1beta1/namespaces/{SYSTEM_NAMESPACE}/federatedtypeconfigs");
    for mut config in federatedtypeconfig::defaults() {
        config["metadata"]["namespace"] = json!(SYSTEM_NAMESPACE);
        admin.create(&configs, &config).await?;
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}});
    admin.create("/api/v1/namespaces", &namespace).await?;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/bench";
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "bench"},
        "rules": [{"apiGroups": ["types.kubefed.io"], "resources": ["*"], "verbs": ["*"]}],
    });
    admin.create(&format!("{rbac}/roles"), &role).await?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "bench"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "bench"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bench"}],
    });
    admin.create(&format!("{rbac}/rolebindings"), &binding).await?;
    Ok(())
}

fn name(index: usize) -> String {
    format!("object-{index:05}")
}

fn path(index: usize) -> String {
    format!("{COLLECTION}/{}", name(index % OBJECTS))
}

/// A FederatedDeployment that takes 2.6 KiB with its managed fields.
fn object(index: usize) -> Value {
    let name = name(index);
    let rare = if index.is_multiple_of(100) { "yes" } else { "no" };
    let environment: Vec<Value> = (0..8)
        .map(|n| json!({"name": format!("VARIABLE_{n}"), "value": format!("value {n} of {name}")}))
        .collect();
    json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedDeployment",
        "metadata": {"name": name, "labels": {"app": name, "rare": rare, "tier": "web"}},
        "spec": {
            "template": {
                "metadata": {
                    "labels": {"app": name, "tier": "web"},
                },
                "spec": {
                    "replicas": 3,
                    "selector": {"matchLabels": {"app": name}},
                    "template": {
                        "metadata": {"labels": {"app": name}},
                        "spec": {"containers": [{
                            "name": "web", "image": "registry.example/web:1.27.3",
                            "env": environment,
                            "ports": [{"name": "http", "containerPort": 8080}],
                            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                        }]},
                    },
                },
            },
            "placement": {"clusters": [{"name": "cluster1"}, {"name": "cluster2"}]},
            "overrides": [{"clusterName": "cluster2", "clusterOverrides": [{"path": "/spec/replicas", "value": 5}]}],
        },
    })
}

fn text(value: &Value) -> Bytes {
    value.to_string().into()
}

impl Bench {
    /// The CPU of the server for each of `count` asks, in µs.
    async fn cost(
        &self,
        callers: usize,
        count: usize,
        ask: impl Fn(usize) -> Ask + Send + Sync + 'static,
    ) -> anyhow::Result<f64> {
        let before = self.process.cpu()?;
        self.load.run(callers, count, ask).await?;
        let used = self.process.cpu()? - before;
        Ok(used.as_secs_f64() * 1e6 / count as f64)
    }

    /// Comes first: later there is memory that was freed and is used again.
    async fn idle_watchers(&self) -> anyhow::Result<()> {
        let before = self.process.resident()?;
        let watchers = self.load.watch(WATCHERS, &format!("{COLLECTION}?watch=1")).await?;
        let each = (self.process.resident()? - before) / WATCHERS as f64 / KIB;
        row("memory of an idle watcher", each, 3.0, "KiB");
        drop(watchers);
        Ok(())
    }

    async fn creates(&self) -> anyhow::Result<()> {
        let started = std::time::Instant::now();
        let create = |index| Ask::send(Method::POST, COLLECTION, JSON, text(&object(index)));
        row("CREATE", self.cost(CALLERS, OBJECTS, create).await?, 200.0, "µs");
        let rate = OBJECTS as f64 / started.elapsed().as_secs_f64();
        println!("    ({rate:.0} a second)");
        row("resident memory after 10,000 objects", self.process.resident()? / MIB, 80.0, "MiB");
        Ok(())
    }

    async fn reads(&self) -> anyhow::Result<()> {
        let count = 20_000;
        let get = |index| Ask::get(&path(index * 7));
        row("GET, consistent", self.cost(CALLERS, count, get).await?, 50.0, "µs");
        let get = |index| Ask::get(&format!("{}?resourceVersion=0", path(index * 7)));
        row("GET, resourceVersion=0", self.cost(CALLERS, count, get).await?, 30.0, "µs");
        Ok(())
    }

    async fn lists(&self) -> anyhow::Result<()> {
        let size = self.load.run(1, 1, |_| Ask::get(COLLECTION)).await?;
        let all = format!("LIST of all ({:.1} MB)", size as f64 / 1e6);
        let ms = |cost: f64| cost / 1e3;
        let full = |_| Ask::get(COLLECTION);
        row(&all, ms(self.cost(LISTERS, 24, full).await?), 90.0, "ms");
        let gzip = |_| Ask::get(COLLECTION).with(header::ACCEPT_ENCODING, "gzip");
        let smaller = self.load.run(1, 1, gzip).await?;
        let all = format!("LIST of all, gzip asked for ({:.1} MB)", smaller as f64 / 1e6);
        row(&all, ms(self.cost(LISTERS, 12, gzip).await?), 110.0, "ms");
        let page = |_| Ask::get(&format!("{COLLECTION}?limit=500"));
        row("LIST, a page of 500", ms(self.cost(CALLERS, 400, page).await?), 5.0, "ms");
        let rare = |_| Ask::get(&format!("{COLLECTION}?labelSelector=rare%3Dyes"));
        row("LIST by a label that 1 % carry", ms(self.cost(CALLERS, 600, rare).await?), 1.5, "ms");
        let table = |_| {
            let form = "application/json;as=Table;v=v1;g=meta.k8s.io";
            Ask::get(COLLECTION).with(header::ACCEPT, form)
        };
        row("LIST as Table", ms(self.cost(LISTERS, 12, table).await?), 60.0, "ms");
        let metadata = |_| {
            let form = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
            Ask::get(COLLECTION).with(header::ACCEPT, form)
        };
        row("LIST as metadata only", ms(self.cost(LISTERS, 24, metadata).await?), 60.0, "ms");
        Ok(())
    }

    async fn writes(&self) -> anyhow::Result<()> {
        let count = 4_000;
        let mut objects = Vec::new();
        self.admin.list(COLLECTION, "", JSON, |object| objects.push(object)).await?;
        for object in &mut objects {
            object["spec"]["template"]["spec"]["replicas"] = json!(4);
        }
        let bodies: Arc<[Bytes]> = objects.iter().map(text).collect();
        let put = move |index| Ask::send(Method::PUT, &path(index), JSON, bodies[index].clone());
        row("PUT", self.cost(CALLERS, count, put).await?, 200.0, "µs");
        let patch = |index| self::patch(index, 6);
        row("PATCH, merge", self.cost(CALLERS, count, patch).await?, 200.0, "µs");
        let apply = |index: usize| {
            let path = format!("{}?fieldManager=applier&force=true", path(index));
            Ask::send(Method::PATCH, &path, "application/apply-patch+yaml", text(&object(index)))
        };
        row("PATCH, server-side apply", self.cost(CALLERS, count, apply).await?, 400.0, "µs");
        Ok(())
    }

    /// Writes what 1,000 watchers see, one by one and all at once. The cost of the writes themselves is taken off.
    async fn watches(&self) -> anyhow::Result<()> {
        let write = self.cost(CALLERS, 2 * EVENTS, |index| patch(index, 7)).await?;
        let list = self.admin.get(&format!("{COLLECTION}?limit=1")).await?;
        let version = list["metadata"]["resourceVersion"].as_str().context("a version")?;
        let watch =
            format!("{COLLECTION}?watch=1&allowWatchBookmarks=true&resourceVersion={version}");
        let watchers = self.load.watch(WATCHERS, &watch).await?;

        let delivery = |cost: f64| (cost - write) / WATCHERS as f64;
        let before = self.process.cpu()?;
        for event in 0..EVENTS {
            self.load.run(1, 1, move |_| patch(event, 8)).await?;
            watchers.seen(event + 1).await?;
        }
        let steady = (self.process.cpu()? - before).as_secs_f64() * 1e6 / EVENTS as f64;
        row("one event to one of 1,000 watchers, steady", delivery(steady), 10.0, "µs");

        let before = self.process.cpu()?;
        self.load.run(CALLERS, EVENTS, |index| patch(index, 9)).await?;
        watchers.seen(2 * EVENTS).await?;
        let bursts = (self.process.cpu()? - before).as_secs_f64() * 1e6 / EVENTS as f64;
        row("one event to one of 1,000 watchers, in bursts", delivery(bursts), 8.0, "µs");
        Ok(())
    }

    async fn deletes(&self) -> anyhow::Result<()> {
        let delete = |index| Ask { method: Method::DELETE, ..Ask::get(&path(index)) };
        row("DELETE", self.cost(CALLERS, 4_000, delete).await?, 120.0, "µs");
        Ok(())
    }
}

fn patch(index: usize, replicas: usize) -> Ask {
    let patch = json!({"spec": {"template": {"spec": {"replicas": replicas}}}});
    Ask::send(Method::PATCH, &path(index), "application/merge-patch+json", text(&patch))
}
