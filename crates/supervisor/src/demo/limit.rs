//! A rate limit for all workers together: the generic cell rate algorithm (GCRA) on one key.
//!
//! The key holds the time at which the next request would be due if all came evenly. A request may
//! be early by as much as a burst is long; one that passes moves the time on by one interval.

use ganger_client::{Kv, KvError};
use std::time::Duration;

/// So many requests at once, and then one per interval.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) burst: u32,
    pub(super) interval: Duration,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    /// It would pass after this time.
    Retry(Duration),
}

impl Limit {
    /// Asks for one request, `now` since any fixed moment that all workers share.
    pub(super) fn ask(&self, kv: &Kv, key: &str, now: Duration) -> Result<Verdict, KvError> {
        let mut verdict = Verdict::Passed;
        kv.update(key, |old| {
            let due = old.and_then(|old| old.try_into().ok());
            // Nothing is saved up beyond a burst by who stays away for long.
            let due = Duration::from_micros(due.map_or(0, u64::from_le_bytes)).max(now);
            let early = due.saturating_sub(now);
            let allowed = self.interval * self.burst.saturating_sub(1);
            verdict = match early.checked_sub(allowed) {
                None | Some(Duration::ZERO) => Verdict::Passed,
                Some(wait) => Verdict::Retry(wait),
            };
            let next = match verdict {
                Verdict::Passed => due + self.interval,
                Verdict::Retry(_) => due,
            };
            Some(micros(next).to_le_bytes().to_vec())
        })?;
        // When the time has come the key says nothing that its absence does not.
        kv.expire(key, self.interval * self.burst.saturating_add(1))?;
        Ok(verdict)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ganger_client::Config;

    #[test]
    fn a_burst_passes_at_once_and_then_one_per_interval() {
        let kv = Kv::create(Config::new(1 << 20)).unwrap();
        let second = Duration::from_secs(1);
        let limit = Limit {
            burst: 3,
            interval: second,
        };
        let start = Duration::from_secs(1000);
        let ask = |after: f64| limit.ask(&kv, "l", start + Duration::from_secs_f64(after));
        for _ in 0..3 {
            assert_eq!(ask(0.0).unwrap(), Verdict::Passed);
        }
        assert_eq!(ask(0.0).unwrap(), Verdict::Retry(second));
        assert_eq!(ask(0.75).unwrap(), Verdict::Retry(second / 4));
        assert_eq!(ask(1.0).unwrap(), Verdict::Passed);
        assert!(matches!(ask(1.5).unwrap(), Verdict::Retry(_)));
        // After a long time: a burst, no more.
        for _ in 0..3 {
            assert_eq!(ask(60.0).unwrap(), Verdict::Passed);
        }
        assert_eq!(ask(60.0).unwrap(), Verdict::Retry(second));
    }
}
