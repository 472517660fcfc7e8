//! A queue of keys: each key at most once, never two at a time, back-off after failures alone.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The pauses after failures: from the first, doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// A queue of keys. Its size is bounded by that of the caches the keys come from.
pub struct Queue<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    queued: HashSet<K>,
    working: HashSet<K>,
    /// Keys that came while they were being worked on.
    again: HashSet<K>,
    /// Keys that wait for their time, the next first, and the time of each.
    later: BTreeSet<(Instant, K)>,
    times: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        let state = State {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            working: HashSet::new(),
            again: HashSet::new(),
            later: BTreeSet::new(),
            times: HashMap::new(),
            failures: HashMap::new(),
        };
        Queue { state: Mutex::new(state), wake: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord> State<K> {
    /// Puts a key in line, or behind the work on it that goes on.
    fn line_up(&mut self, key: K) {
        if self.working.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn forget_time(&mut self, key: &K) {
        if let Some(at) = self.times.remove(key) {
            self.later.remove(&(at, key.clone()));
        }
    }

    fn line_up_what_is_due(&mut self, now: Instant) {
        while self.later.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.later.pop_first() {
                self.times.remove(&key);
                self.line_up(key);
            }
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    /// Puts a key in line, at once.
    pub fn add(&self, key: K) {
        {
            let mut state = self.state.lock();
            state.forget_time(&key);
            state.line_up(key);
        }
        self.wake.notify_one();
    }

    /// Puts a key in line after a pause, unless it comes sooner.
    pub fn add_after(&self, key: K, pause: Duration) {
        let at = Instant::now() + pause;
        {
            let mut state = self.state.lock();
            if state.queued.contains(&key)
                || state.times.get(&key).is_some_and(|known| *known <= at)
            {
                return;
            }
            state.forget_time(&key);
            state.times.insert(key.clone(), at);
            state.later.insert((at, key));
        }
        self.wake.notify_one();
    }

    /// The next key. It is this worker's until [`done`](Self::done) or [`failed`](Self::failed).
    pub async fn next(&self) -> K {
        loop {
            let due = {
                let mut state = self.state.lock();
                state.line_up_what_is_due(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.queued.remove(&key);
                    state.working.insert(key.clone());
                    // Another worker takes what is left, and minds what comes due while this one is at work.
                    if !state.ready.is_empty() || !state.later.is_empty() {
                        self.wake.notify_one();
                    }
                    return key;
                }
                state.later.first().map(|(at, _)| *at)
            };
            match due {
                Some(due) => {
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
                None => self.wake.notified().await,
            }
        }
    }

    /// The work on a key is done.
    pub fn done(&self, key: &K) {
        self.finish(key, true);
    }

    /// The work on a key failed: it comes again after a pause that grows, or at once if it changed meanwhile.
    pub fn failed(&self, key: &K) {
        let failures = {
            let mut state = self.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures += 1;
            *failures
        };
        if !self.finish(key, false) {
            let pause = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(16)).min(LAST_PAUSE);
            self.add_after(key.clone(), pause);
        }
    }

    /// Returns whether the key is in line again.
    fn finish(&self, key: &K, forget: bool) -> bool {
        let mut state = self.state.lock();
        state.working.remove(key);
        if forget {
            state.failures.remove(key);
        }
        let again = state.again.remove(key);
        if again {
            state.line_up(key.clone());
            drop(state);
            self.wake.notify_one();
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn a_key_is_never_worked_on_twice_at_a_time() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert!(timeout(LONG, queue.next()).await.is_err());
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        assert!(timeout(LONG, queue.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_waits_longer_each_time_and_a_change_does_not_wait() {
        let queue = Queue::default();
        queue.add("a");
        let mut waits = Vec::new();
        for _ in 0..20 {
            let began = Instant::now();
            queue.next().await;
            waits.push(began.elapsed());
            queue.failed(&"a");
        }
        assert_eq!(waits[0], Duration::ZERO);
        assert!(waits[1] < FIRST_PAUSE * 2, "{waits:?}");
        let doubled = |pair: &[Duration]| pair[1] >= pair[0] * 2 - Duration::from_millis(2);
        assert!(waits[1..10].windows(2).all(doubled), "{waits:?}");
        assert!(waits[19] <= LAST_PAUSE + Duration::from_millis(2), "{waits:?}");

        queue.add("a");
        let began = Instant::now();
        queue.next().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_forgets_the_failures_before_it() {
        let queue = Queue::default();
        queue.add("a");
        for _ in 0..10 {
            queue.next().await;
            queue.failed(&"a");
        }
        queue.next().await;
        queue.done(&"a");
        queue.add("a");
        queue.next().await;
        queue.failed(&"a");
        let began = Instant::now();
        queue.next().await;
        assert!(began.elapsed() < FIRST_PAUSE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_during_work_that_fails_does_not_wait() {
        let queue = Queue::default();
        queue.add("a");
        queue.next().await;
        queue.add("a");
        queue.failed(&"a");
        let began = Instant::now();
        queue.next().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        queue.done(&"a");
        assert!(timeout(LONG, queue.next()).await.is_err(), "it came once more than it changed");
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_times_the_earlier_counts_and_the_key_comes_once() {
        for pauses in [[10, 2], [2, 10]] {
            let queue = Queue::default();
            let began = Instant::now();
            for pause in pauses {
                queue.add_after("a", Duration::from_secs(pause));
            }
            queue.next().await;
            assert_eq!(began.elapsed().as_secs(), 2);
            queue.done(&"a");
            assert!(timeout(LONG, queue.next()).await.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_takes_long_does_not_keep_what_comes_due() {
        let queue = Arc::new(Queue::default());
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..2 {
            let (queue, tell) = (Arc::clone(&queue), tell.clone());
            tokio::spawn(async move {
                loop {
                    let key: &str = queue.next().await;
                    tell.send((key, Instant::now())).unwrap();
                    if key == "hangs" {
                        std::future::pending::<()>().await;
                    }
                    queue.done(&key);
                }
            });
        }
        let began = Instant::now();
        queue.add_after("hangs", Duration::from_secs(1));
        queue.add_after("due", Duration::from_secs(2));
        assert_eq!(told.recv().await.unwrap().0, "hangs");
        let (key, at) = timeout(LONG, told.recv()).await.unwrap().unwrap();
        assert_eq!((key, at.duration_since(began).as_secs()), ("due", 2));
    }

    #[tokio::test(start_paused = true)]
    async fn every_key_is_worked_on_by_some_worker() {
        let queue = Arc::new(Queue::default());
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..4 {
            let (queue, tell) = (Arc::clone(&queue), tell.clone());
            tokio::spawn(async move {
                loop {
                    let key = queue.next().await;
                    tokio::time::sleep(Duration::from_millis(key % 7)).await;
                    if key % 3 == 0 && tell.is_closed() {
                        queue.failed(&key);
                        continue;
                    }
                    tell.send(key).unwrap();
                    queue.done(&key);
                }
            });
        }
        for key in 0..1000_u64 {
            if key % 2 == 0 {
                queue.add(key);
            } else {
                queue.add_after(key, Duration::from_millis(key % 50));
            }
        }
        let mut found = BTreeSet::new();
        while found.len() < 1000 {
            let key = timeout(LONG, told.recv()).await.unwrap().unwrap();
            assert!(found.insert(key), "{key} came twice");
        }
    }
}
