//! What an operator's tools look at: probes, metrics, and how a server ends.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kubefed_storage::{
    Commit, Entry, Error, Page, Range, Revision, Store, StoreStatus, Watch, embedded,
};
use kubefed_tests::raw::{ADMIN, Answer, Raw};
use kubefed_tests::{a_federation, a_federation_with, eventually};
use tokio::sync::watch;

/// A store that does not tell of bindings before it is let.
struct Held {
    inner: Arc<dyn Store>,
    released: watch::Receiver<bool>,
}

#[async_trait]
impl Store for Held {
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), Error> {
        self.inner.get(key).await
    }
    async fn range(&self, range: Range) -> Result<Page, Error> {
        if range.prefix.contains("bindings") {
            let mut released = self.released.clone();
            released.wait_for(|released| *released).await.expect("the test goes on");
        }
        self.inner.range(range).await
    }
    async fn commit(&self, commit: Commit) -> Result<Revision, Error> {
        self.inner.commit(commit).await
    }
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, Error> {
        self.inner.watch(prefix, from).await
    }
    async fn request_progress(&self) -> Result<(), Error> {
        self.inner.request_progress().await
    }
    async fn current_revision(&self) -> Result<Revision, Error> {
        self.inner.current_revision().await
    }
    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.inner.compact(revision).await
    }
    async fn status(&self) -> Result<StoreStatus, Error> {
        self.inner.status().await
    }
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_ready_only_when_it_knows_the_rights() {
    let (release, released) = watch::channel(false);
    let store = Arc::new(Held { inner: embedded::in_memory(), released });
    let federation = a_federation_with(|config| config.store = store).await;
    let mut nobody = federation.raw(None).await;
    assert_eq!(nobody.get("/livez").await.code, 200);
    let waiting = nobody.get("/readyz").await;
    assert_eq!(waiting.code, 500);
    for line in [
        "[+]ping ok\n",
        "[+]store ok\n",
        "[-]informer-sync failed: reason withheld\n",
        "[-]poststarthook/rbac failed: reason withheld\n",
        "[+]shutdown ok\n",
        "readyz check failed\n",
    ] {
        assert!(text(&waiting).contains(line), "{line} in {}", text(&waiting));
    }
    assert_eq!(nobody.get("/readyz/poststarthook/rbac").await.code, 500);
    assert_eq!(nobody.get("/readyz/store").await.code, 200);
    assert_eq!(nobody.get("/readyz/nothing").await.code, 404);
    let excluded = "/readyz?verbose&exclude=informer-sync&exclude=poststarthook/rbac";
    let excluded = nobody.get(excluded).await;
    assert_eq!(excluded.code, 200);
    assert!(text(&excluded).contains("[+]poststarthook/rbac excluded: ok\n"), "{excluded:?}");

    // Who asks before that is not refused what they may do, but waits.
    let mut alice = federation.raw_h2(Some(("alice", &[]))).await;
    let early = tokio::spawn(async move { alice.get("/apis").await.code });
    eventually("it is there", async || {
        let metrics = federation.server.metrics.render();
        let under_way = r#"apiserver_current_inflight_requests{request_kind="readOnly"} 1"#;
        metrics.contains(under_way).then_some(())
    })
    .await;
    release.send(true).expect("the store waits");
    assert_eq!(early.await.expect("an answer"), 200);
    eventually("the server is ready", async || {
        (nobody.get("/readyz").await.code == 200).then_some(())
    })
    .await;
    let ready = text(&nobody.get("/readyz?verbose").await);
    assert!(ready.ends_with("readyz check passed\n") && !ready.contains("[-]"), "{ready}");
    let mut alice = federation.raw_h2(Some(("alice", &[]))).await;
    assert_eq!(alice.get("/apis").await.code, 200);
}

async fn metrics(admin: &mut Raw) -> String {
    text(&admin.get("/metrics").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_as_kubernetes_counts_them() {
    let federation = a_federation().await;
    let mut admin = federation.raw_h2(ADMIN).await;
    let configmaps = "/api/v1/namespaces/default/configmaps";
    let configmap =
        serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    admin.create(configmaps, &configmap).await;
    admin.json("POST", &format!("{configmaps}?dryRun=All"), &configmap).await;
    let apply = [("content-type", "application/apply-patch+yaml")];
    let path = format!("{configmaps}/c?fieldManager=t");
    assert_eq!(admin.send("PATCH", &path, &apply, configmap.to_string()).await.code, 200);
    admin.get(configmaps).await;
    let found = metrics(&mut admin).await;
    let labels = |verb: &str, dry_run: &str, scope: &str| {
        format!(
            r#"verb="{verb}",dry_run="{dry_run}",group="",version="v1",resource="configmaps",subresource="",scope="{scope}",component="apiserver""#
        )
    };
    for (verb, dry_run, scope, code) in [
        ("POST", "", "resource", 201),
        ("POST", "All", "resource", 409),
        ("APPLY", "", "resource", 200),
        ("LIST", "", "namespace", 200),
    ] {
        let labels = labels(verb, dry_run, scope);
        for line in [
            format!("apiserver_request_total{{{labels},code=\"{code}\"}} 1"),
            format!("apiserver_request_duration_seconds_count{{{labels}}} 1"),
        ] {
            assert!(found.lines().any(|found| found == line), "{line} in {found}");
        }
    }
    for name in [
        "process_cpu_seconds_total ",
        "process_resident_memory_bytes ",
        "process_open_fds ",
        "process_start_time_seconds ",
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1",
    ] {
        assert!(found.lines().any(|line| line.starts_with(name)), "{name} in {found}");
    }

    let watches = |found: &str| {
        let line =
            format!("apiserver_longrunning_requests{{{}}} ", labels("WATCH", "", "namespace"));
        found.lines().find_map(|found| found.strip_prefix(&line)?.parse::<u32>().ok())
    };
    let mut watcher = federation.raw_h2(ADMIN).await;
    let path = format!("{configmaps}?watch=1&timeoutSeconds=30");
    let watch = tokio::spawn(async move { watcher.get(&path).await });
    eventually("the watch is counted", async || {
        (watches(&metrics(&mut admin).await) == Some(1)).then_some(())
    })
    .await;
    watch.abort();
    eventually("the watch is no longer counted", async || {
        (watches(&metrics(&mut admin).await) == Some(0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_is_first_unready_then_closed_and_its_watches_end_well() {
    let federation = a_federation_with(|config| {
        config.serving.shutdown_delay = Duration::from_secs(3);
    })
    .await;
    let mut admin = federation.raw_h2(ADMIN).await;
    let mut prober = federation.raw(None).await;
    let mut watches = Vec::new();
    for mut watcher in [federation.raw(ADMIN).await, federation.raw_h2(ADMIN).await] {
        let path = "/api/v1/namespaces?watch=1&timeoutSeconds=600";
        // The answer is read to its end: a connection that breaks off would be an error.
        watches.push(tokio::spawn(async move { watcher.get(path).await }));
    }
    eventually("both watch", async || {
        let line =
            "resource=\"namespaces\",subresource=\"\",scope=\"cluster\",component=\"apiserver\"} 2";
        let found = metrics(&mut admin).await;
        let watched =
            |found: &str| found.starts_with("apiserver_longrunning") && found.ends_with(line);
        found.lines().any(watched).then_some(())
    })
    .await;

    federation.server.ending.cancel();
    let unready = prober.get("/readyz").await;
    assert_eq!(unready.code, 500);
    assert!(text(&unready).contains("[-]shutdown failed"), "{}", text(&unready));
    // A client by HTTP/1.1 cannot be told later, when its next request may be on its way.
    assert_eq!(unready.headers["connection"], "close");
    assert_eq!(federation.raw(None).await.get("/livez").await.code, 200);
    let mut late = federation.raw(ADMIN).await;
    let namespace =
        serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "late"}});
    late.create("/api/v1/namespaces", &namespace).await;

    for watch in watches {
        let answer = watch.await.expect("the watch ends well");
        assert_eq!(answer.code, 200);
        assert!(text(&answer).contains("\"late\""), "{}", text(&answer));
    }
    tokio::time::timeout(Duration::from_secs(5), federation.server.drained())
        .await
        .expect("nothing holds the server up");
    assert!(tokio::net::TcpStream::connect(federation.server.address).await.is_err());
}
