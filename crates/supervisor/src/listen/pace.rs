//! How often balancing programs are exchanged at most.
//!
//! The kernel frees a replaced program later, all those of one grace period together, on a work
//! queue of 1024 places, under a lock that the same queue may be needed to give back. More than that
//! many exchanges in a moment can stop every process of the machine that wants a filter or a
//! program, for ever (seen on Linux 6.18). An exchange that has to wait is caught up on by
//! [`super::Listeners::settle`].

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// So many at once.
const BURST: u64 = 128;
/// Milliseconds for one more.
const EACH_MS: u64 = 10;

/// What may be spent, as the moment from which on it would have been saved up.
#[derive(Debug, Default)]
struct Pace {
    full_at_ms: u64,
}

impl Pace {
    /// Whether one more may happen now.
    fn take(&mut self, now_ms: u64) -> bool {
        let full_at = self.full_at_ms.max(now_ms);
        let is_allowed = full_at - now_ms <= (BURST - 1) * EACH_MS;
        if is_allowed {
            self.full_at_ms = full_at + EACH_MS;
        }
        is_allowed
    }
}

/// Whether this process may exchange one more program now.
pub(super) fn take() -> bool {
    static PACE: Mutex<(Option<Instant>, Pace)> = Mutex::new((None, Pace { full_at_ms: 0 }));
    let mut pace = PACE.lock().unwrap_or_else(PoisonError::into_inner);
    let began = *pace.0.get_or_insert_with(Instant::now);
    let now = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    pace.1.take(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_one_more_does_not() {
        let mut pace = Pace::default();
        assert!((0..BURST).all(|_| pace.take(5)));
        assert!(!pace.take(5));
        assert!(!pace.take(5 + EACH_MS - 1));
        assert!(pace.take(5 + EACH_MS));
        assert!(!pace.take(5 + EACH_MS));
    }

    #[test]
    fn no_more_than_the_rate_pass_however_often_it_is_tried() {
        let mut pace = Pace::default();
        let passed = (0..10_000).filter(|now| pace.take(*now)).count() as u64;
        assert!(passed <= BURST + 10_000 / EACH_MS, "{passed}");
        assert!(passed >= 10_000 / EACH_MS, "{passed}");
    }
}
