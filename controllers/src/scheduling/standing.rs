//! Which clusters count: one that goes away counts for a while yet, and one that is back has to stay first, so that
//! replicas are not moved for a moment's trouble.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

#[derive(Default)]
pub(super) struct Standings(HashMap<String, Standing>);

struct Standing {
    counts: bool,
    /// Since when it has been otherwise.
    otherwise: Option<Instant>,
}

impl Standings {
    /// Takes note of which clusters are ready; none: that was never told. Returns those that count, and when to look again.
    pub(super) fn take(
        &mut self,
        seen: &[(String, Option<bool>)],
        (available, unavailable): (Duration, Duration),
        now: Instant,
    ) -> (BTreeSet<String>, Option<Instant>) {
        self.0.retain(|name, _| seen.iter().any(|(known, _)| known == name));
        let mut again = None;
        for (name, ready) in seen {
            let Some(ready) = *ready else { continue };
            let standing =
                self.0.entry(name.clone()).or_insert(Standing { counts: ready, otherwise: None });
            if standing.counts == ready {
                standing.otherwise = None;
                continue;
            }
            let due = *standing.otherwise.get_or_insert(now)
                + if ready { available } else { unavailable };
            if due <= now {
                *standing = Standing { counts: ready, otherwise: None };
            } else {
                again = Some(again.map_or(due, |at: Instant| at.min(due)));
            }
        }
        let counting = self.0.iter().filter(|(_, standing)| standing.counts);
        (counting.map(|(name, _)| name.clone()).collect(), again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DELAYS: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(60));

    #[test]
    fn a_cluster_counts_or_not_only_after_it_has_been_so_for_a_while() {
        let (mut standings, began) = (Standings::default(), Instant::now());
        for (second, ready, counts, again) in [
            (0, None, false, None),
            (1, Some(true), true, None),
            (2, Some(false), true, Some(62)),
            (61, Some(false), true, Some(62)),
            (61, Some(true), true, None),
            (70, Some(false), true, Some(130)),
            (130, Some(false), false, None),
            (131, Some(true), false, Some(151)),
            (140, Some(false), false, None),
            (150, Some(true), false, Some(170)),
            (171, Some(true), true, None),
        ] {
            let now = began + SECOND * second;
            let (counting, at) = standings.take(&[("a".into(), ready)], DELAYS, now);
            assert_eq!(counting.contains("a"), counts, "at {second}");
            assert_eq!(at, again.map(|second| began + SECOND * second), "at {second}");
        }
        assert!(standings.take(&[], DELAYS, began).0.is_empty(), "one that is unjoined is gone");
        let back = standings.take(&[("a".into(), Some(true))], DELAYS, began);
        assert!(back.0.contains("a"), "one that is joined anew counts as it is");
    }
}
