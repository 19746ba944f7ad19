//! Time, as an argument: what expires is decided by the caller's clock. Only waits are measured
//! with the system's.

use std::time::Instant;

/// Milliseconds since a point that all processes of the region agree on. It must never go back.
pub trait Clock: Send + Sync {
    /// Now.
    fn now_ms(&self) -> u64;
}

/// The system's clock since boot, suspend included: the same in all processes, untouched by changes
/// of the date, and read without a system call (vDSO). Only entries that have an expiry make a read
/// ask it.
#[derive(Debug, Clone, Copy, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now_ms(&self) -> u64 {
        // What this clock is.
        #[allow(clippy::disallowed_methods)]
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // Both fields are never negative for this clock.
        #[allow(clippy::cast_sign_loss)]
        let ms = now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000;
        ms
    }
}

/// The beginning of a wait, to see how long it took.
#[allow(clippy::disallowed_methods)]
pub(crate) fn wait_begins() -> Instant {
    Instant::now()
}

impl<F: Fn() -> u64 + Send + Sync> Clock for F {
    fn now_ms(&self) -> u64 {
        self()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_runs_forward_in_milliseconds() {
        let first = BootClock.now_ms();
        let started = wait_begins();
        while BootClock.now_ms() < first + 3 {
            assert!(started.elapsed().as_secs() < 5);
        }
        assert!(started.elapsed().as_millis() >= 2);
    }
}
