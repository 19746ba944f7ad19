//! When to try again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(10);
const MOST: Duration = Duration::from_secs(1);

/// What happens when the connection is lost.
///
/// ```
/// use ganger_client::Reconnect;
/// use std::time::Duration;
///
/// let patient = Reconnect::default();
/// let hasty = Reconnect::for_at_most(Duration::from_secs(5));
/// let never = Reconnect::never();
/// # let _ = (patient, hasty, never);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reconnect {
    /// After so long without a connection the client gives up; `None`: never.
    pub(crate) give_up: Option<Duration>,
}

impl Reconnect {
    /// It tries again for ever: 10 ms after the loss, then at intervals that double, up to a second,
    /// each shortened at random by up to a half so that not all clients come at once.
    pub fn for_ever() -> Self {
        Self::default()
    }

    /// It gives up after so long.
    pub fn for_at_most(time: Duration) -> Self {
        Self {
            give_up: Some(time),
        }
    }

    /// The client is closed when its connection is lost.
    pub fn never() -> Self {
        Self::for_at_most(Duration::ZERO)
    }
}

/// The intervals between attempts.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// How long to wait before the next attempt. `random` is any number.
    pub(crate) fn next(&mut self, random: u32) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.attempts.min(16)).min(MOST);
        self.attempts += 1;
        whole.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
    }
}

/// A number nobody can guess, or the clock's if the system has none to give.
pub(crate) fn random() -> u32 {
    let mut bytes = [0; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(4) => u32::from_ne_bytes(bytes),
        _ => std::time::UNIX_EPOCH
            .elapsed()
            .map_or(0, |time| time.subsec_nanos() << 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_double_up_to_a_second_and_are_cut_by_half_at_most() {
        let intervals = |random| {
            let mut backoff = Backoff::default();
            (0..40).map(|_| backoff.next(random)).collect::<Vec<_>>()
        };
        let (longest, shortest) = (intervals(u32::MAX), intervals(0));
        assert_eq!(longest[..3], [10, 20, 40].map(Duration::from_millis));
        assert!(longest[7..].iter().all(|interval| *interval == MOST));
        for (longest, shortest) in longest.iter().zip(&shortest) {
            assert_eq!(*longest, *shortest * 2);
        }
    }
}
