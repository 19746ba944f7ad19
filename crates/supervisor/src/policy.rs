//! When a dead worker is started again, and when no more. No clock and no randomness of its own.
//!
//! Crashes are counted in a window of *running* time: what a worker spends waiting for its next
//! start does not age its crashes. So a program that dies at once, again and again, is given up
//! even though its starts lie ever further apart, and one that crashes once a day never is.
//!
//! The wait grows with the lives in a row that were no good: a worker that served for a moment
//! before it died is back at once, so that whoever is killed once in a while leaves no gap.

use crate::config::Restart;
use std::collections::VecDeque;

/// The first step of a wait that grows from nothing.
const STEP_MS: u64 = 100;
/// Who served at least this long begins again with the shortest wait.
const SERVED_MS: u64 = 1_000;
/// Crashes that are remembered where none of them is the last.
const REMEMBERED: usize = 64;

/// What follows a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is started again after so many milliseconds.
    RestartIn(u64),
    /// It crashed too often: it is left alone.
    GiveUp,
}

/// The life of a process that is dead, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// From its start.
    pub ran_ms: u64,
    /// From when it was ready; 0 if it never was.
    pub served_ms: u64,
}

/// The crashes of one worker.
#[derive(Debug, Clone)]
pub struct Policy {
    restart: Restart,
    /// The running time at which each crash of the window happened, oldest first.
    crashes: VecDeque<u64>,
    run_ms: u64,
    /// Lives in a row, up to the last, that were no good.
    bad_lives: u32,
    refusals: u32,
}

impl Policy {
    /// No crash so far.
    pub fn new(restart: Restart) -> Self {
        Self {
            restart,
            crashes: VecDeque::new(),
            run_ms: 0,
            bad_lives: 0,
            refusals: 0,
        }
    }

    /// A process is dead. `random` is any number: the wait's jitter.
    pub fn crashed(&mut self, life: Life, random: u64) -> Decision {
        self.refusals = 0;
        self.bad_lives = match life.served_ms {
            0..SERVED_MS => self.bad_lives.saturating_add(1),
            _ => 1,
        };
        self.run_ms = self.run_ms.saturating_add(life.ran_ms);
        let oldest = self.run_ms.saturating_sub(self.restart.window_ms);
        while self.crashes.front().is_some_and(|at| *at < oldest) {
            self.crashes.pop_front();
        }
        let max = usize::try_from(self.restart.crashes_max).unwrap_or(usize::MAX);
        if self.crashes.len() >= max.clamp(REMEMBERED, 1 << 16) {
            self.crashes.pop_front();
        }
        self.crashes.push_back(self.run_ms);
        if max > 0 && self.crashes.len() >= max {
            return Decision::GiveUp;
        }
        Decision::RestartIn(self.wait(self.bad_lives, random))
    }

    /// The system had no process to give (too many, no memory): that is not the worker's fault, so
    /// it never gives up. The wait in milliseconds.
    pub fn refused(&mut self, random: u64) -> u64 {
        let wait = grown(self.restart.delay_ms, self.refusals);
        self.refusals = self.refusals.saturating_add(1);
        // However impatient the app is: at once again, the answer would be the same.
        let longest = self.restart.delay_max_ms.max(STEP_MS);
        jittered(wait.min(longest), random)
    }

    /// A process could be started.
    pub fn started(&mut self) {
        self.refusals = 0;
    }

    /// Crashes in the window.
    pub fn crashes(&self) -> usize {
        self.crashes.len()
    }

    /// The wait after the `nth` failure in a row: the first is as configured, then twice as long
    /// each time; none ever where none was asked for.
    fn wait(&self, nth: u32, random: u64) -> u64 {
        let first = self.restart.delay_ms;
        let wait = match (first, nth) {
            (Some(0), _) => 0,
            (first, 0 | 1) => first.unwrap_or_default(),
            (first, nth) => grown(first, nth - 2),
        };
        jittered(wait.min(self.restart.delay_max_ms), random)
    }
}

/// The second wait, doubled so often.
fn grown(first_ms: Option<u64>, doublings: u32) -> u64 {
    let second = first_ms.unwrap_or_default().saturating_mul(2).max(STEP_MS);
    second.saturating_mul(1 << doublings.min(32))
}

/// Up to a fifth less, so that workers that died together do not start together.
fn jittered(wait: u64, random: u64) -> u64 {
    wait - random % (wait / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(crashes_max: u32) -> Policy {
        Policy::new(Restart {
            delay_ms: None,
            delay_max_ms: 15_000,
            crashes_max,
            window_ms: 60_000,
            expected_codes: Vec::new(),
        })
    }

    /// A life that ended before it was ready.
    fn ran(ran_ms: u64) -> Life {
        Life {
            ran_ms,
            served_ms: 0,
        }
    }

    #[test]
    fn the_wait_begins_as_configured_doubles_and_is_capped() {
        let mut policy = policy(0);
        let waits: Vec<u64> = (0..12)
            .map(|_| match policy.crashed(ran(10), 0) {
                Decision::RestartIn(wait) => wait,
                Decision::GiveUp => unreachable!("it may crash for ever"),
            })
            .collect();
        let wanted = [
            0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000, 15_000,
        ];
        assert_eq!(waits, wanted);
    }

    #[test]
    fn who_served_for_a_moment_is_back_at_once() {
        let mut policy = policy(0);
        let served = |served_ms| Life {
            ran_ms: served_ms + 500,
            served_ms,
        };
        for _ in 0..40 {
            assert_eq!(policy.crashed(served(1_000), 0), Decision::RestartIn(0));
        }
        assert_eq!(policy.crashed(served(999), 0), Decision::RestartIn(100));
        assert_eq!(policy.crashed(ran(9_000), 0), Decision::RestartIn(200));
        assert_eq!(policy.crashed(served(1_000), 0), Decision::RestartIn(0));
    }

    #[test]
    fn a_configured_delay_is_the_first_wait() {
        let mut policy = Policy::new(Restart {
            delay_ms: Some(500),
            ..Restart::default()
        });
        assert_eq!(policy.crashed(ran(0), 0), Decision::RestartIn(500));
        assert_eq!(policy.crashed(ran(0), 0), Decision::RestartIn(1000));
        assert_eq!(policy.crashed(ran(0), 0), Decision::RestartIn(2000));
    }

    #[test]
    fn a_delay_of_zero_is_none_however_often_it_crashes_and_still_crashes_are_counted() {
        let mut policy = Policy::new(Restart {
            delay_ms: Some(0),
            crashes_max: 50,
            ..Restart::default()
        });
        for _ in 0..49 {
            assert_eq!(policy.crashed(ran(0), 7), Decision::RestartIn(0));
        }
        assert_eq!(policy.crashed(ran(0), 7), Decision::GiveUp);
    }

    #[test]
    fn a_system_that_refuses_is_never_asked_again_at_once() {
        let mut policy = Policy::new(Restart {
            delay_ms: Some(0),
            delay_max_ms: 0,
            ..Restart::default()
        });
        for _ in 0..40 {
            assert_eq!(policy.refused(0), STEP_MS);
        }
    }

    #[test]
    fn crashes_that_come_slowly_because_of_the_waits_are_counted_all_the_same() {
        // With the longest wait between them, fifteen starts take minutes of time but only
        // seconds of running.
        let mut policy = policy(15);
        for _ in 0..14 {
            assert!(matches!(
                policy.crashed(ran(3_000), 0),
                Decision::RestartIn(_)
            ));
        }
        assert_eq!(policy.crashed(ran(3_000), 0), Decision::GiveUp);
    }

    #[test]
    fn exactly_as_many_crashes_as_allowed_stop_it_and_one_less_does_not() {
        let mut policy = policy(3);
        assert!(matches!(policy.crashed(ran(1), 0), Decision::RestartIn(_)));
        assert!(matches!(policy.crashed(ran(1), 0), Decision::RestartIn(_)));
        assert_eq!(policy.crashed(ran(1), 0), Decision::GiveUp);
    }

    #[test]
    fn a_window_without_a_crash_forgives_all() {
        let mut policy = policy(3);
        policy.crashed(ran(1), 0);
        policy.crashed(ran(1), 0);
        policy.crashed(ran(60_001), 0);
        assert_eq!(policy.crashes(), 1);
    }

    #[test]
    fn a_crash_a_day_never_stops_it() {
        let mut policy = policy(2);
        let day = Life {
            ran_ms: 86_400_000,
            served_ms: 86_399_000,
        };
        for _ in 0..1000 {
            assert_eq!(policy.crashed(day, 7), Decision::RestartIn(0));
        }
    }

    #[test]
    fn refusals_of_the_system_wait_longer_each_time_and_never_end_it() {
        let mut policy = policy(2);
        let waits: Vec<u64> = (0..40).map(|_| policy.refused(0)).collect();
        assert_eq!(waits[..3], [100, 200, 400]);
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(waits[39], 15_000);
        policy.started();
        assert_eq!(policy.refused(0), 100);
    }

    proptest! {
        #[test]
        fn waits_grow_within_a_window_and_never_exceed_the_cap(
            delay_ms in prop::option::of(0..20_000_u64),
            delay_max_ms in 0..20_000_u64,
            random in any::<[u64; 20]>(),
        ) {
            let restart = Restart { delay_ms, delay_max_ms, crashes_max: 0, ..Restart::default() };
            let mut policy = Policy::new(restart);
            let mut last = 0;
            for random in random {
                let Decision::RestartIn(wait) = policy.crashed(ran(0), random) else {
                    return Err(TestCaseError::fail("gave up"));
                };
                prop_assert!(wait <= delay_max_ms);
                // Jitter takes a fifth, doubling gives all of it: a wait is shorter than the one
                // before it only at the cap.
                prop_assert!(wait >= last || wait >= delay_max_ms - delay_max_ms / 5 - 1);
                last = wait;
            }
        }

        #[test]
        fn the_memory_of_a_policy_is_bounded(crashes in 1..5_000_usize, max in 0..20_000_u32) {
            let mut policy = policy(max);
            for _ in 0..crashes {
                policy.crashed(ran(0), 0);
            }
            prop_assert!(policy.crashes() <= (max as usize).max(REMEMBERED));
        }
    }
}
