//! Which webhooks are asked a second time, for those after them have changed the object.

use std::collections::HashSet;

/// Webhooks by their place in the order of calls.
#[derive(Default)]
pub(super) struct Reinvocation {
    /// Those that were asked, and want to see later changes.
    seen: HashSet<usize>,
    due: HashSet<usize>,
}

impl Reinvocation {
    /// A webhook was asked; `changed` is whether it changed the object, `again` whether it wants to see later changes.
    pub(super) fn asked(&mut self, index: usize, changed: bool, again: bool) {
        if changed {
            self.due.extend(self.seen.drain());
        }
        if again {
            self.seen.insert(index);
        }
    }

    /// Whether there is to be a second round.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Whether a webhook is asked in the second round.
    pub(super) fn has(&self, index: usize) -> bool {
        self.due.contains(&index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_sees_what_later_ones_changed_once_more() {
        for (calls, due) in [
            (vec![(true, true)], vec![]),
            (vec![(false, true), (true, false)], vec![0]),
            (vec![(false, false), (true, false)], vec![]),
            (vec![(true, true), (true, true), (false, true)], vec![0]),
            (vec![(false, true), (true, true), (true, false)], vec![0, 1]),
        ] {
            let mut rounds = Reinvocation::default();
            for (index, &(changed, again)) in calls.iter().enumerate() {
                rounds.asked(index, changed, again);
            }
            let found: Vec<usize> = (0..calls.len()).filter(|&index| rounds.has(index)).collect();
            assert_eq!((&found, rounds.is_due()), (&due, !due.is_empty()), "{calls:?}");
        }
    }
}
