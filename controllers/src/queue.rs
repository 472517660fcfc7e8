//! A queue of keys: each key at most once, never two at a time, back-off after failures alone.

use std::collections::{HashMap, HashSet, VecDeque};
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
    later: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        let state = State {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            working: HashSet::new(),
            again: HashSet::new(),
            later: HashMap::new(),
            failures: HashMap::new(),
        };
        Queue { state: Mutex::new(state), wake: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// Puts a key in line, at once.
    pub fn add(&self, key: K) {
        let mut state = self.state.lock();
        state.later.remove(&key);
        if state.working.contains(&key) {
            state.again.insert(key);
        } else if state.queued.insert(key.clone()) {
            state.ready.push_back(key);
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Puts a key in line after a pause, unless it comes sooner.
    pub fn add_after(&self, key: K, pause: Duration) {
        let at = Instant::now() + pause;
        let mut state = self.state.lock();
        if state.queued.contains(&key) {
            return;
        }
        let known = state.later.entry(key).or_insert(at);
        *known = (*known).min(at);
        drop(state);
        self.wake.notify_one();
    }

    /// The next key. It is this worker's until [`done`](Self::done) or [`failed`](Self::failed).
    pub async fn next(&self) -> K {
        loop {
            let due = {
                let mut state = self.state.lock();
                let now = Instant::now();
                let due: Vec<K> = state
                    .later
                    .iter()
                    .filter(|(_, at)| **at <= now)
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in due {
                    state.later.remove(&key);
                    if state.working.contains(&key) {
                        state.again.insert(key);
                    } else if state.queued.insert(key.clone()) {
                        state.ready.push_back(key);
                    }
                }
                if let Some(key) = state.ready.pop_front() {
                    state.queued.remove(&key);
                    state.working.insert(key.clone());
                    if !state.ready.is_empty() {
                        self.wake.notify_one();
                    }
                    return key;
                }
                state.later.values().min().copied()
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

    /// The work on a key failed: it comes again after a pause that grows.
    pub fn failed(&self, key: &K) {
        let failures = {
            let mut state = self.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures += 1;
            *failures
        };
        self.finish(key, false);
        let pause = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(16)).min(LAST_PAUSE);
        self.add_after(key.clone(), pause);
    }

    fn finish(&self, key: &K, forget: bool) {
        let mut state = self.state.lock();
        state.working.remove(key);
        if forget {
            state.failures.remove(key);
        }
        if state.again.remove(key) && state.queued.insert(key.clone()) {
            state.ready.push_back(key.clone());
            drop(state);
            self.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_never_worked_on_twice_at_a_time() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert!(tokio::time::timeout(Duration::from_secs(60), queue.next()).await.is_err());
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        assert!(tokio::time::timeout(Duration::from_secs(60), queue.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_waits_longer_each_time_and_a_change_does_not_wait() {
        let queue = Queue::default();
        queue.add("a");
        let mut waits = Vec::new();
        for _ in 0..4 {
            let began = Instant::now();
            queue.next().await;
            waits.push(began.elapsed().as_millis());
            queue.failed(&"a");
        }
        assert_eq!(waits[0], 0);
        assert!(waits.windows(2).skip(1).all(|pair| pair[1] >= pair[0] * 2 - 2), "{waits:?}");
        queue.add("a");
        let began = Instant::now();
        queue.next().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
