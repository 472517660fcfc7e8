use std::convert::Infallible;
use std::sync::Arc;

use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

const KEY: &str = "count/things.x.io";

/// A host with one quota, which somebody else changes before some of our writes.
struct Host {
    quota: Value,
    others: usize,
    writes: usize,
}

impl Host {
    fn new(limit: &str, others: usize) -> Arc<Mutex<Self>> {
        let quota = json!({
            "apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "q", "namespace": "n", "resourceVersion": "1"},
            "spec": {"hard": {KEY: limit}},
            "status": {"hard": {KEY: limit}, "used": {KEY: "0"}},
        });
        Arc::new(Mutex::new(Host { quota, others, writes: 0 }))
    }

    fn change(&mut self, status: Value) {
        let revision = self.quota["metadata"]["resourceVersion"].as_str().expect("a revision");
        let next = revision.parse::<u64>().expect("a number") + 1;
        self.quota["metadata"]["resourceVersion"] = json!(next.to_string());
        self.quota["status"] = status;
    }

    fn used(&self) -> &str {
        self.quota["status"]["used"][KEY].as_str().expect("a use")
    }

    fn answer(&mut self, method: &Method, sent: &Value) -> (u16, Value) {
        if method == Method::GET {
            return (200, self.quota.clone());
        }
        if self.others > 0 {
            self.others -= 1;
            let used = self.used().parse::<u64>().expect("a number") + 1;
            let mut status = self.quota["status"].clone();
            status["used"][KEY] = json!(used.to_string());
            self.change(status);
        }
        if sent["metadata"]["resourceVersion"] != self.quota["metadata"]["resourceVersion"] {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict", "message": "modified", "code": 409});
            return (409, status);
        }
        self.writes += 1;
        self.change(sent["status"].clone());
        (200, self.quota.clone())
    }
}

/// What charges the quota of this host, which it has seen.
fn quotas_of(host: &Arc<Mutex<Host>>) -> Quotas {
    let (host, seen) = (Arc::clone(host), host.lock().quota.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let host = Arc::clone(&host);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.expect("a body");
            let sent = serde_json::from_slice(&body).unwrap_or_default();
            let (code, answer) = host.lock().answer(&parts.method, &sent);
            let answer =
                Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
            Ok::<_, Infallible>(answer.expect("a response"))
        }
    });
    let quotas = Quotas::new(kube::Client::new(service, "default"));
    quotas.take_up(serde_json::from_value(seen).expect("a quota"));
    quotas
}

/// The answers to creates that come all at once.
async fn charge(quotas: &Quotas, dry_runs: &[bool]) -> Vec<Result<(), Refusal>> {
    let mut answers = Vec::new();
    for dry_run in dry_runs {
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter { namespace: "n".into(), key: KEY.into(), dry_run: *dry_run, answer };
        assert!(quotas.waiters.send(waiter).await.is_ok(), "there is room");
        answers.push(answered);
    }
    let receiver = quotas.receiver.lock().take().expect("nobody serves yet");
    tokio::select! {
        () = quotas.serve(receiver) => panic!("it serves until it is dropped"),
        answers = futures::future::join_all(answers) => {
            answers.into_iter().map(|answer| answer.expect("an answer")).collect()
        }
    }
}

fn granted(answers: &[Result<(), Refusal>]) -> usize {
    answers.iter().filter(|answer| answer.is_ok()).count()
}

#[tokio::test]
async fn many_creates_are_charged_by_few_writes() {
    let host = Host::new("15", 0);
    let answers = charge(&quotas_of(&host), &[false; 20]).await;
    assert_eq!(granted(&answers), 15);
    assert_eq!(host.lock().used(), "15");
    // The first goes alone, the others wait for it together.
    assert_eq!(host.lock().writes, 2);
}

#[tokio::test]
async fn a_charge_that_lost_a_race_is_decided_anew() {
    let host = Host::new("3", 2);
    let answers = charge(&quotas_of(&host), &[false, false]).await;
    assert_eq!(granted(&answers), 1, "the other servers took two");
    assert_eq!(host.lock().used(), "3");
}

#[tokio::test]
async fn a_charge_that_loses_every_race_is_refused() {
    let host = Host::new("1000", usize::MAX);
    let answers = charge(&quotas_of(&host), &[false]).await;
    assert!(matches!(&answers[0], Err(Refusal::Failed(_))));
    assert_eq!(host.lock().writes, 0);
}

#[tokio::test]
async fn a_dry_run_is_decided_and_takes_nothing() {
    let host = Host::new("1", 0);
    let answers = charge(&quotas_of(&host), &[true, true, false, true]).await;
    let answers: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(answers, [true, true, true, false]);
    assert_eq!(host.lock().used(), "1");
}

#[tokio::test(start_paused = true)]
async fn a_new_quota_is_waited_for_and_refuses_if_it_is_not_counted() {
    let host = Host::new("1", 0);
    host.lock().quota["status"] = json!({});
    let quotas = quotas_of(&host);
    let answers = charge(&quotas, &[false]).await;
    let Err(Refusal::Forbidden(why)) = &answers[0] else { panic!("it is refused") };
    assert_eq!(*why, format!("status unknown for quota: q, resources: {KEY}"));

    let quotas = quotas_of(&host);
    let counted = json!({"hard": {KEY: "1"}, "used": {KEY: "0"}});
    host.lock().change(counted);
    let seen = serde_json::from_value(host.lock().quota.clone()).expect("a quota");
    let counting = async {
        tokio::time::sleep(COUNTING / 2).await;
        quotas.take_up(seen);
    };
    let (answers, ()) = tokio::join!(charge(&quotas, &[false]), counting);
    assert_eq!(granted(&answers), 1);
}

#[tokio::test]
async fn who_went_takes_nothing() {
    let host = Host::new("5", 0);
    let quotas = quotas_of(&host);
    let (answer, answered) = oneshot::channel();
    drop(answered);
    let waiter = Waiter { namespace: "n".into(), key: KEY.into(), dry_run: false, answer };
    quotas.settle("n".into(), vec![waiter]).await;
    assert_eq!(host.lock().writes, 0);
}
