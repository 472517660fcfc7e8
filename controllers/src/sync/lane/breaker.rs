//! Keeps a lane from asking and asking a member that fails whatever it is asked. Pure: it is told what time it is.
//!
//! After some failures in a row the lane pauses: what would be asked of the member is parked. When the pause is over one
//! request goes out. If it fails too, the next pause is twice as long; any success ends the pausing for all.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::cache::Key;

/// Failures in a row after which a member is believed to fail whatever it is asked.
const FAILURES: u32 = 5;
/// The pauses: from the first, doubled up to the last. Whoever comes back should not be waited for much longer than the
/// probes of its health take to find out.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// A member may wish for a longer pause, but not for any.
const LONGEST_WISH: Duration = Duration::from_secs(300);

#[derive(Default)]
pub(super) struct Breaker {
    state: State,
    /// In a row.
    failures: u32,
    /// The last pause; none before the first.
    pause: Duration,
    /// What the last failure said.
    why: String,
    /// What waits for the end of the pause; what failed by itself stands behind what was not tried.
    parked: VecDeque<Key>,
    known: HashSet<Key>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Paused {
        until: Instant,
    },
    /// The pause is over, and one request is out to see.
    Trying,
}

impl Breaker {
    /// Whether something may be asked of the member for this key; if not, the key is parked.
    pub(super) fn admits(&mut self, key: &Key, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            State::Paused { until } if until <= now => {
                self.state = State::Trying;
                true
            }
            State::Paused { .. } | State::Trying => {
                if self.known.insert(key.clone()) {
                    self.parked.push_front(key.clone());
                }
                false
            }
        }
    }

    /// Parks a key whose own try failed; false if there is no pause.
    pub(super) fn parks(&mut self, key: &Key) -> bool {
        if self.state == State::Closed {
            return false;
        }
        if self.known.insert(key.clone()) {
            self.parked.push_back(key.clone());
        }
        true
    }

    /// The member has answered as it should. Returns what was parked.
    pub(super) fn succeeded(&mut self) -> Vec<Key> {
        let parked = std::mem::take(self).parked;
        parked.into()
    }

    /// The member has failed; whether a pause begins with that.
    pub(super) fn failed(&mut self, why: &str, wish: Option<Duration>, now: Instant) -> bool {
        why.clone_into(&mut self.why);
        self.failures = self.failures.saturating_add(1);
        let begins = match self.state {
            State::Closed => self.failures >= FAILURES,
            // What was asked before the pause began tells nothing new.
            State::Paused { .. } => false,
            State::Trying => true,
        };
        if begins {
            self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
            let wish = wish.unwrap_or_default().min(LONGEST_WISH);
            self.state = State::Paused { until: now + self.pause.max(wish) };
        }
        begins
    }

    /// Whether there is a pause, or one that was just over is tried.
    pub(super) fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// When the pause is over, if there is one.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        match self.state {
            State::Paused { until } => Some(until),
            State::Closed | State::Trying => None,
        }
    }

    /// Whether there was a pause whose end nothing has tried yet.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.paused_until().is_some_and(|until| until <= now)
    }

    /// Some of what is parked, to see whether the pause can end: not all of it needs a request.
    pub(super) fn some(&mut self, most: usize) -> Vec<Key> {
        let some: Vec<Key> = self.parked.drain(..most.min(self.parked.len())).collect();
        some.iter().for_each(|key| {
            self.known.remove(key);
        });
        some
    }

    /// Why nothing is asked of the member now.
    pub(super) fn trouble(&self) -> String {
        format!(
            "the cluster failed {} times in a row and is asked again after a pause: {}",
            self.failures, self.why
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { namespace: String::new(), name: name.into() }
    }

    fn names(keys: Vec<Key>) -> Vec<String> {
        keys.into_iter().map(|key| key.name).collect()
    }

    /// A breaker that pauses from `now` on.
    fn paused(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for n in 1..=FAILURES {
            assert!(breaker.admits(&key("a"), now));
            assert_eq!(breaker.failed("503", None, now), n == FAILURES);
        }
        breaker
    }

    #[test]
    fn only_failures_in_a_row_make_a_pause() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for n in 0..100 {
            assert!(breaker.admits(&key("a"), now));
            if n % FAILURES == 0 {
                breaker.succeeded();
            } else {
                assert!(!breaker.failed("503", None, now));
            }
        }
        assert!(!paused(now).admits(&key("a"), now));
    }

    #[test]
    fn after_a_pause_one_request_goes_out_and_the_next_pause_is_longer() {
        let mut now = Instant::now();
        let mut breaker = paused(now);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            // A straggler makes no pause longer.
            assert!(!breaker.failed("503", None, now));
            let until = breaker.paused_until().unwrap();
            pauses.push(until - now);
            assert!(!breaker.is_over(now));
            now = until;
            assert!(breaker.is_over(now));
            assert!(breaker.admits(&key("probe"), now));
            assert!(!breaker.is_over(now));
            assert!(!breaker.admits(&key("other"), now));
            assert!(breaker.failed("503", None, now));
        }
        assert_eq!(pauses[0], FIRST_PAUSE);
        assert!(pauses.windows(2).all(|pair| pair[1] == (pair[0] * 2).min(LAST_PAUSE)));
        assert_eq!(pauses[9], LAST_PAUSE);
        assert!(breaker.trouble().contains("503"));
    }

    #[test]
    fn a_success_lets_everything_go_on_and_is_forgiving() {
        let now = Instant::now();
        let mut breaker = paused(now);
        assert!(!breaker.admits(&key("a"), now));
        assert!(!breaker.admits(&key("a"), now));
        assert!(!breaker.admits(&key("b"), now));
        assert_eq!(names(breaker.succeeded()), ["b", "a"]);
        assert_eq!(breaker.paused_until(), None);
        assert!(breaker.admits(&key("a"), now));
        assert!(!breaker.failed("503", None, now));
    }

    #[test]
    fn a_member_may_wish_for_a_pause_but_not_for_any() {
        let now = Instant::now();
        for (wish, pause) in
            [(0, FIRST_PAUSE), (7, Duration::from_secs(7)), (1 << 30, LONGEST_WISH)]
        {
            let mut breaker = Breaker::default();
            for _ in 0..FAILURES {
                breaker.failed("429", Some(Duration::from_secs(wish)), now);
            }
            assert_eq!(breaker.paused_until(), Some(now + pause));
        }
    }

    #[test]
    fn what_failed_by_itself_is_tried_after_what_was_not_tried() {
        let now = Instant::now();
        let mut breaker = paused(now);
        assert!(breaker.parks(&key("failed")));
        assert!(!breaker.admits(&key("new"), now));
        assert_eq!(names(breaker.some(1)), ["new"]);
        assert_eq!(names(breaker.some(9)), ["failed"]);
        assert!(breaker.some(9).is_empty());
        assert!(!Breaker::default().parks(&key("failed")));
    }
}
