//! A limit on the rate of requests, for whoever asks for one.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How many requests may be sent: so many in a second in the long run, so many at once after a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    interval: Duration,
    burst: u32,
}

impl Rate {
    /// A rate; none if `per_second` is not more than nothing.
    pub fn new(per_second: f32, burst: u32) -> Option<Self> {
        // Less than one in an hour is as good as none, and no time can hold it.
        let interval = (per_second > 1.0 / 3600.0).then(|| 1.0 / per_second)?;
        Some(Rate { interval: Duration::from_secs_f32(interval), burst: burst.max(1) })
    }
}

/// Gives each request its time.
pub(super) struct Limiter {
    rate: Rate,
    /// When all that was let through would have been sent at an even pace.
    even: Mutex<Option<Instant>>,
}

impl Limiter {
    pub(super) fn new(rate: Rate) -> Self {
        Limiter { rate, even: Mutex::new(None) }
    }

    /// When the next request may be sent.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let mut even = self.even.lock();
        let at = even.unwrap_or(now).max(now);
        *even = Some(at + self.rate.interval);
        let ahead = self.rate.interval * (self.rate.burst - 1);
        at.checked_sub(ahead).unwrap_or(now).max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_an_even_pace() {
        let limiter = Limiter::new(Rate::new(10.0, 3).unwrap());
        let start = Instant::now();
        let wait = |now: Instant| (limiter.next(now) - now).as_millis();
        assert_eq!([0; 6].map(|_| wait(start)), [0, 0, 0, 100, 200, 300]);
        // Who was told to wait is let through by then; a second of rest is a whole burst again.
        let later = start + Duration::from_secs(2);
        assert_eq!([0; 4].map(|_| wait(later)), [0, 0, 0, 100]);
    }

    #[test]
    fn no_rate_is_no_limit() {
        for nothing in [0.0, -1.0, f32::NAN, f32::MIN_POSITIVE] {
            assert_eq!(Rate::new(nothing, 1), None);
        }
        let fast = Limiter::new(Rate::new(f32::MAX, 0).unwrap());
        let now = Instant::now();
        assert_eq!([0; 9].map(|_| fast.next(now)), [now; 9]);
    }
}
