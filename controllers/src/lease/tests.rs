//! Candidates over a keeper in memory that can hang, be slow to answer, or be written to by others.

use std::sync::Arc;

use kubefed_apimachinery::gvk::GroupResource;
use kubefed_apimachinery::status::Status;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::*;

const TIMING: LeaderElection = LeaderElection {
    lease: Duration::from_secs(15),
    renew: Duration::from_secs(10),
    retry: Duration::from_secs(2),
};

#[derive(Default)]
struct State {
    lease: Option<Value>,
    version: u64,
    writes: Vec<(String, Instant)>,
    hangs: bool,
    /// So many writes are refused.
    failures: usize,
    answers_after: Duration,
    /// Tells of each write.
    written: watch::Sender<()>,
}

#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<State>>);

fn error(status: Status) -> Error {
    Error::Status(Box::new(status))
}

fn leases() -> GroupResource {
    GroupResource { group: "coordination.k8s.io".into(), resource: "leases".into() }
}

impl Shelf {
    /// Writes as any client of the keeper does; refuses what was read before another wrote.
    fn put(&self, lease: &Value) -> Result<Value, Error> {
        let mut state = self.0.lock();
        let current =
            state.lease.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone());
        if current.unwrap_or_default() != lease["metadata"]["resourceVersion"] {
            return Err(error(Status::modified(&leases(), NAME)));
        }
        state.version += 1;
        let mut lease = lease.clone();
        lease["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or("").to_owned();
        state.writes.push((holder, Instant::now()));
        state.lease = Some(lease.clone());
        state.written.send_replace(());
        Ok(lease)
    }

    async fn waits(&self) {
        if self.0.lock().hangs {
            std::future::pending::<()>().await;
        }
    }

    async fn answers(&self) {
        let after = self.0.lock().answers_after;
        tokio::time::sleep(after).await;
    }

    fn holder(&self) -> String {
        let state = self.0.lock();
        let lease = state.lease.as_ref().expect("a lease");
        lease["spec"]["holderIdentity"].as_str().expect("a holder").to_owned()
    }

    /// When `who` wrote last.
    fn last_write_of(&self, who: &str) -> Instant {
        let state = self.0.lock();
        state.writes.iter().rev().find(|(holder, _)| holder == who).expect("a write").1
    }

    fn candidate(&self, name: &str) -> Lease<Shelf> {
        Lease::new(self.clone(), name.to_owned(), TIMING)
    }
}

impl Keeper for Shelf {
    async fn get(&self) -> Result<Value, Error> {
        self.waits().await;
        let lease = self.0.lock().lease.clone();
        lease.ok_or_else(|| error(Status::not_found(&leases(), NAME)))
    }

    async fn create(&self, lease: &Value) -> Result<Value, Error> {
        self.replace(lease).await
    }

    async fn replace(&self, lease: &Value) -> Result<Value, Error> {
        self.waits().await;
        {
            let mut state = self.0.lock();
            if state.failures > 0 {
                state.failures -= 1;
                return Err(Error::Transport("killed".into()));
            }
        }
        let written = self.put(lease);
        self.answers().await;
        written
    }

    async fn changed(&self, seen: &Value) {
        let mut written = self.0.lock().written.subscribe();
        loop {
            let version = self.0.lock().version.to_string();
            if seen["metadata"]["resourceVersion"] != version.as_str() {
                return;
            }
            let _it_lives_as_long_as_we = written.changed().await;
        }
    }
}

/// Becomes the leader, and leads until the token is cancelled, as the manager does.
async fn leads(mut lease: Lease<Shelf>) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    lease.acquire().await;
    let token = CancellationToken::new();
    let until = token.clone();
    let leading = tokio::spawn(async move {
        lease.hold(&until).await;
        lease.release().await;
    });
    (token, leading)
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_given_back_is_taken_at_once() {
    let shelf = Shelf::default();
    let (token, leading) = leads(shelf.candidate("first")).await;
    let mut second = shelf.candidate("second");
    let waiting = tokio::time::timeout(Duration::from_secs(120), second.acquire());
    assert!(waiting.await.is_err(), "two lead");

    let ended = Instant::now();
    let (acquired, ()) = tokio::join!(second.acquire(), async { token.cancel() });
    let () = acquired;
    leading.await.unwrap();
    assert!(ended.elapsed() < Duration::from_millis(100), "{:?}", ended.elapsed());
    assert_eq!(shelf.holder(), "second");
    assert_eq!(shelf.0.lock().lease.as_ref().unwrap()["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_falls_silent_is_succeeded_when_its_lease_has_run_out_by_our_clock() {
    // The clock of the silent one is wrong by years, either way.
    for renewed in ["1999-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"] {
        let shelf = Shelf::default();
        let lease = json!({"metadata": {}, "spec": {
            "holderIdentity": "silent", "leaseDurationSeconds": 15, "renewTime": renewed, "acquireTime": renewed,
        }});
        shelf.put(&lease).unwrap();
        let began = Instant::now();
        shelf.candidate("next").acquire().await;
        let waited = began.elapsed();
        assert!(waited >= TIMING.lease, "{waited:?}");
        assert!(waited <= TIMING.lease + Duration::from_millis(100), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_was_killed_is_succeeded_within_the_time_of_its_lease() {
    let shelf = Shelf::default();
    let (_token, leading) = leads(shelf.candidate("first")).await;
    let mut second = shelf.candidate("second");
    let next = tokio::spawn(async move { second.acquire().await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    // Whatever the time since its last renewal.
    let killed = Instant::now();
    leading.abort();
    next.await.unwrap();
    assert!(
        killed.elapsed() <= TIMING.lease + Duration::from_millis(100),
        "{:?}",
        killed.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn one_renewal_that_fails_or_hangs_does_not_end_the_lease() {
    // The defaults of KubeFed: two renewals of that pause are the whole deadline.
    let timing = LeaderElection { retry: Duration::from_secs(5), ..TIMING };
    for hangs in [false, true] {
        let shelf = Shelf::default();
        let (token, _leading) = leads(Lease::new(shelf.clone(), "first".to_owned(), timing)).await;
        for _ in 0..5 {
            if hangs {
                shelf.0.lock().hangs = true;
                tokio::time::sleep(Duration::from_secs(3)).await;
                shelf.0.lock().hangs = false;
            } else {
                shelf.0.lock().failures = 2;
            }
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
        assert!(!token.is_cancelled(), "hangs: {hangs}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_renew_stops_before_another_may_lead() {
    let shelf = Shelf::default();
    let (token, _leading) = leads(shelf.candidate("first")).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    shelf.0.lock().hangs = true;
    token.cancelled().await;
    let since = shelf.last_write_of("first").elapsed();
    assert!(since >= TIMING.renew && since < TIMING.lease - TIMING.retry, "{since:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_late_does_not_prolong_the_lease() {
    let shelf = Shelf::default();
    let (token, _leading) = leads(shelf.candidate("first")).await;
    // One more renewal is written, is told of three seconds later, and is the last.
    shelf.0.lock().answers_after = Duration::from_secs(3);
    tokio::time::sleep(TIMING.retry + Duration::from_secs(1)).await;
    shelf.0.lock().hangs = true;
    token.cancelled().await;
    let since = shelf.last_write_of("first").elapsed();
    assert!(since >= TIMING.renew && since < TIMING.lease, "{since:?}");
}

#[tokio::test(start_paused = true)]
async fn a_note_that_somebody_writes_on_the_lease_does_not_end_it() {
    let shelf = Shelf::default();
    let (token, _leading) = leads(shelf.candidate("first")).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(7)).await;
        let mut noted = shelf.0.lock().lease.clone().unwrap();
        noted["metadata"]["annotations"] = json!({"note": "mine"});
        shelf.put(&noted).unwrap();
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!token.is_cancelled());
    assert_eq!(shelf.holder(), "first");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_another_took_is_lost_at_the_next_try() {
    let shelf = Shelf::default();
    let (token, leading) = leads(shelf.candidate("first")).await;
    let mut taken = shelf.0.lock().lease.clone().unwrap();
    taken["spec"]["holderIdentity"] = json!("thief");
    shelf.put(&taken).unwrap();
    let began = Instant::now();
    token.cancelled().await;
    assert!(began.elapsed() <= TIMING.retry);
    leading.await.unwrap();
    assert_eq!(shelf.holder(), "thief", "what is another's is not given back");
}

#[tokio::test(start_paused = true)]
async fn an_idle_leader_costs_one_request_a_renewal() {
    let shelf = Shelf::default();
    let (_token, _leading) = leads(shelf.candidate("first")).await;
    let before = shelf.0.lock().writes.len();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let writes = shelf.0.lock().writes.len() - before;
    assert!((49..=51).contains(&writes), "{writes}");
}
