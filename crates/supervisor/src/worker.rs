//! The life of a worker as a state machine: time and what happened are arguments, what is to be
//! done is the answer. One machine is one place behind the listeners; its process may be replaced
//! many times.
//!
//! ```text
//!            Start             Ready            Drain             Settled
//!  (new) ----------> starting -------> ready ---------> draining ---------> stopping
//!                     |   ^              |                  |                  |
//!               crash |   | wait is over | crash            | exit             | exit
//!                     v   |              v                  v                  v
//!                    backoff <-----------+               stopped <-------------+
//!                     |
//!                     v  too often
//!                    failed
//! ```
//!
//! `Stop` leads to stopping from wherever there is a process, and to stopped where there is none.

use crate::config::{Restart, Stop};
use crate::policy::{Decision, Policy};
use crate::report::WorkerState;

/// `SIGABRT`: what a worker that hangs gets first, so that it can leave a trace.
const SIGABRT: i32 = 6;
/// How long a worker that hangs may take to die of it.
const ABORT_MS: u64 = 2_000;
/// How long a worker that has finished what it had may take to end by itself.
const AFTER_MS: u64 = 200;
/// How long a worker that did not drain in time has for the signal that asks it to stop.
const LAST_WORD_MS: u64 = 1_000;

/// Something that happened to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// It is wanted.
    Start,
    /// Its process runs.
    Spawned,
    /// It could not be started: the command is wrong (no such file, not executable).
    SpawnFailed(String),
    /// It could not be started: the system had no process, memory or descriptor to give.
    SpawnRefused(String),
    /// It serves.
    Ready,
    /// It shall not become ready any more: why.
    NotReady(String),
    /// Its process ended.
    Exited {
        /// Its exit code, if it exited.
        code: Option<i32>,
        /// The signal that ended it, if one did.
        signal: Option<i32>,
    },
    /// It is to finish what it has: it gets nothing new from now on.
    Drain,
    /// Its queue is empty. `is_asked`: it was asked in its own language to finish and end; if not,
    /// the signal asks it.
    Settled {
        /// Whether it was.
        is_asked: bool,
    },
    /// It has finished what it had (as far as it was asked in its own language).
    Finished,
    /// It is to stop now: politely.
    Stop,
    /// It is to be gone at once.
    Hasten,
    /// It does not answer: how that was seen.
    Hung(String),
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start a process.
    Spawn,
    /// Send this signal (and `SIGCONT`, so that a stopped process sees it).
    Signal(i32),
    /// Kill the process and all that belongs to it.
    Kill,
}

/// A worker.
#[derive(Debug, Clone)]
pub struct Worker {
    state: WorkerState,
    since_ms: u64,
    reason: Option<String>,
    stop: Stop,
    expected_codes: Vec<i32>,
    policy: Policy,
    /// On trial: its first crash is its last.
    is_on_trial: bool,
    /// Whether it is to be started again when its process ends.
    is_wanted: bool,
    has_process: bool,
    /// Whether it has finished what it had when it was drained.
    has_finished: bool,
    process_since_ms: u64,
    deadline_ms: Option<u64>,
    starts: u64,
}

impl Worker {
    /// A worker that nobody started yet. On trial, its first crash makes it failed, until
    /// [`Worker::prove`].
    pub fn new(stop: Stop, restart: Restart, is_on_trial: bool, now_ms: u64) -> Self {
        Self {
            state: WorkerState::Stopped,
            since_ms: now_ms,
            reason: None,
            stop,
            expected_codes: restart.expected_codes.clone(),
            policy: Policy::new(restart),
            is_on_trial,
            is_wanted: false,
            has_process: false,
            has_finished: false,
            process_since_ms: now_ms,
            deadline_ms: None,
            starts: 0,
        }
    }

    /// Where it is in its life.
    pub fn state(&self) -> WorkerState {
        self.state
    }

    /// Since when.
    pub fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// Why, where that is not plain.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// How often its process was started again.
    pub fn restarts(&self) -> u64 {
        self.starts.saturating_sub(1)
    }

    /// When it wants a [`Input::Tick`].
    pub fn deadline_ms(&self) -> Option<u64> {
        self.deadline_ms
    }

    /// Whether it has come to an end and has no process.
    pub fn is_over(&self) -> bool {
        matches!(self.state, WorkerState::Failed | WorkerState::Stopped)
    }

    /// It did what it was on trial for: from now on it is started again when it crashes.
    pub fn prove(&mut self) {
        self.is_on_trial = false;
    }

    /// Takes what happened and tells what is to be done. `random` is any number, for jitter. What
    /// does not fit the state (a late word of a process that is gone) changes nothing.
    pub fn handle(&mut self, now_ms: u64, random: u64, input: Input) -> Option<Action> {
        use WorkerState as S;
        match (input, self.state) {
            (Input::Start, S::Stopped | S::Failed | S::Backoff) => {
                self.is_wanted = true;
                self.spawn(now_ms)
            }
            (Input::Spawned, S::Starting) if !self.has_process => {
                self.policy.started();
                self.has_process = true;
                self.process_since_ms = now_ms;
                None
            }
            (Input::SpawnFailed(why), S::Starting) if !self.has_process => {
                // A command that never ran will not run the next time either.
                if self.starts == 1 {
                    self.enter(S::Failed, now_ms, Some(why));
                } else {
                    self.crashed(now_ms, random, why);
                }
                None
            }
            (Input::SpawnRefused(why), S::Starting) if !self.has_process => {
                let wait = self.policy.refused(random);
                self.enter(S::Backoff, now_ms, Some(why));
                self.deadline_ms = Some(now_ms.saturating_add(wait));
                None
            }
            (Input::Ready, S::Starting) if self.has_process => {
                self.enter(S::Ready, now_ms, None);
                None
            }
            (Input::NotReady(why), S::Starting) if self.has_process => {
                Some(self.ask(now_ms, self.stop.grace_ms, Some(why)))
            }
            (Input::Exited { code, signal }, _) if self.has_process => {
                self.has_process = false;
                self.exited(now_ms, random, code, signal);
                None
            }
            (Input::Drain, S::Ready) => {
                self.is_wanted = false;
                self.has_finished = false;
                self.enter(S::Draining, now_ms, None);
                self.deadline_ms = Some(now_ms.saturating_add(self.stop.grace_ms));
                None
            }
            (Input::Settled { is_asked: true }, S::Draining) => None,
            (Input::Settled { is_asked: false }, S::Draining) => {
                Some(self.ask(now_ms, self.stop.grace_ms, None))
            }
            (Input::Finished, S::Draining) => {
                self.has_finished = true;
                self.deadline_ms = Some(now_ms.saturating_add(AFTER_MS));
                None
            }
            (Input::Drain | Input::Stop, _) => self.stop(now_ms),
            (Input::Hasten, _) => {
                self.is_wanted = false;
                if !self.has_process {
                    return self.stop(now_ms);
                }
                if self.state != S::Stopping {
                    self.enter(S::Stopping, now_ms, None);
                }
                self.deadline_ms = None;
                Some(Action::Kill)
            }
            (Input::Hung(why), S::Ready) => {
                self.enter(S::Stopping, now_ms, Some(why));
                self.deadline_ms = Some(now_ms.saturating_add(ABORT_MS));
                Some(Action::Signal(SIGABRT))
            }
            (Input::Tick, _) => self.tick(now_ms),
            _ => None,
        }
    }

    fn tick(&mut self, now_ms: u64) -> Option<Action> {
        use WorkerState as S;
        self.deadline_ms.filter(|deadline| *deadline <= now_ms)?;
        self.deadline_ms = None;
        match self.state {
            S::Backoff => self.spawn(now_ms),
            // A timer or a connection to somewhere else keeps it.
            S::Draining if self.has_finished => Some(self.ask(now_ms, self.stop.grace_ms, None)),
            S::Draining => {
                let why = "it did not finish in time".to_owned();
                Some(self.ask(now_ms, LAST_WORD_MS.min(self.stop.grace_ms), Some(why)))
            }
            S::Stopping => Some(Action::Kill),
            _ => None,
        }
    }

    fn spawn(&mut self, now_ms: u64) -> Option<Action> {
        let reason = self.reason.take().filter(|_| self.starts > 0);
        self.enter(WorkerState::Starting, now_ms, reason);
        self.process_since_ms = now_ms;
        self.starts += 1;
        Some(Action::Spawn)
    }

    fn stop(&mut self, now_ms: u64) -> Option<Action> {
        self.is_wanted = false;
        match self.state {
            WorkerState::Stopping => None,
            _ if self.has_process => Some(self.ask(now_ms, self.stop.grace_ms, None)),
            // It stays visible why it failed.
            WorkerState::Failed | WorkerState::Stopped => None,
            _ => {
                self.enter(WorkerState::Stopped, now_ms, None);
                None
            }
        }
    }

    /// Asks it to stop by the signal, and kills it `grace_ms` later.
    fn ask(&mut self, now_ms: u64, grace_ms: u64, why: Option<String>) -> Action {
        self.enter(WorkerState::Stopping, now_ms, why);
        self.deadline_ms = Some(now_ms.saturating_add(grace_ms));
        Action::Signal(self.stop.signal)
    }

    fn exited(&mut self, now_ms: u64, random: u64, code: Option<i32>, signal: Option<i32>) {
        if !self.is_wanted {
            self.enter(WorkerState::Stopped, now_ms, None);
            return;
        }
        let is_expected = code.is_some_and(|code| self.expected_codes.contains(&code));
        let was_asked = self.state == WorkerState::Stopping;
        if is_expected && !was_asked {
            self.is_wanted = false;
            let why = format!("it is done (exit code {})", code.unwrap_or_default());
            self.enter(WorkerState::Stopped, now_ms, Some(why));
            return;
        }
        let how = match (code, signal) {
            (Some(code), _) => format!("exited with code {code}"),
            (None, Some(signal)) => format!("was ended by {}", signal_name(signal)),
            (None, None) => "ended".to_owned(),
        };
        let why = match (self.reason.take(), was_asked) {
            (Some(why), true) => why,
            _ => how,
        };
        self.crashed(now_ms, random, why);
    }

    fn crashed(&mut self, now_ms: u64, random: u64, why: String) {
        let ran = now_ms.saturating_sub(self.process_since_ms);
        match self.policy.crashed(ran, random) {
            _ if self.is_on_trial => self.enter(WorkerState::Failed, now_ms, Some(why)),
            Decision::RestartIn(wait) => {
                self.enter(WorkerState::Backoff, now_ms, Some(why));
                self.deadline_ms = Some(now_ms.saturating_add(wait));
            }
            Decision::GiveUp => {
                let crashes = self.policy.crashes();
                let why = format!("{why}; it crashed {crashes} times and is left alone");
                self.enter(WorkerState::Failed, now_ms, Some(why));
            }
        }
        if self.state == WorkerState::Failed {
            self.is_wanted = false;
        }
    }

    fn enter(&mut self, state: WorkerState, now_ms: u64, reason: Option<String>) {
        self.state = state;
        self.since_ms = now_ms;
        self.reason = reason;
        self.deadline_ms = None;
    }
}

/// `SIGKILL` for 9; a number where there is no name.
pub fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use WorkerState as S;

    fn worker(is_on_trial: bool) -> Worker {
        let restart = Restart {
            crashes_max: 3,
            expected_codes: vec![42],
            ..Restart::default()
        };
        Worker::new(Stop::default(), restart, is_on_trial, 0)
    }

    fn exited(code: i32) -> Input {
        Input::Exited {
            code: Some(code),
            signal: None,
        }
    }

    fn ready(is_on_trial: bool) -> Worker {
        let mut worker = worker(is_on_trial);
        assert_eq!(worker.handle(0, 0, Input::Start), Some(Action::Spawn));
        assert_eq!(worker.handle(1, 0, Input::Spawned), None);
        assert_eq!(worker.handle(2, 0, Input::Ready), None);
        assert_eq!(worker.state(), S::Ready);
        worker
    }

    #[test]
    fn a_crash_is_followed_by_a_wait_and_a_new_process() {
        let mut worker = ready(false);
        assert_eq!(worker.handle(10, 0, exited(1)), None);
        assert_eq!(worker.state(), S::Backoff);
        assert_eq!(worker.reason(), Some("exited with code 1"));
        assert_eq!(worker.deadline_ms(), Some(10));
        assert_eq!(worker.handle(10, 0, Input::Tick), Some(Action::Spawn));
        assert_eq!(worker.restarts(), 1);
        worker.handle(11, 0, Input::Spawned);
        worker.handle(12, 0, exited(1));
        assert_eq!(worker.deadline_ms(), Some(112));
        assert_eq!(worker.handle(111, 0, Input::Tick), None);
        assert_eq!(worker.handle(112, 0, Input::Tick), Some(Action::Spawn));
    }

    #[test]
    fn too_many_crashes_make_it_failed_and_a_start_begins_anew() {
        let mut worker = ready(false);
        for _ in 0..2 {
            worker.handle(10, 0, exited(1));
            worker.handle(10_000, 0, Input::Tick);
            worker.handle(10_000, 0, Input::Spawned);
        }
        worker.handle(10_001, 0, exited(7));
        assert_eq!(worker.state(), S::Failed);
        assert!(worker
            .reason()
            .unwrap()
            .starts_with("exited with code 7; it crashed 3 times"));
        assert_eq!(worker.handle(99_999, 0, Input::Tick), None);
        assert_eq!(worker.handle(99_999, 0, Input::Start), Some(Action::Spawn));
    }

    #[test]
    fn an_expected_code_is_an_end() {
        let mut worker = ready(false);
        worker.handle(10, 0, exited(42));
        assert_eq!(worker.state(), S::Stopped);
        assert_eq!(worker.deadline_ms(), None);
    }

    #[test]
    fn on_trial_the_first_crash_is_the_last_until_it_is_proven() {
        let mut worker = ready(true);
        let mut proven = worker.clone();
        worker.handle(10, 0, exited(1));
        assert_eq!(worker.state(), S::Failed);
        proven.prove();
        proven.handle(10, 0, exited(1));
        assert_eq!(proven.state(), S::Backoff);
    }

    #[test]
    fn a_wrong_command_fails_at_once_and_a_full_system_is_waited_for() {
        let mut wrong = worker(false);
        wrong.handle(0, 0, Input::Start);
        wrong.handle(0, 0, Input::SpawnFailed("no such file".into()));
        assert_eq!(
            (wrong.state(), wrong.reason()),
            (S::Failed, Some("no such file"))
        );

        let mut refused = worker(false);
        refused.handle(0, 0, Input::Start);
        for now in 0..100 {
            refused.handle(now * 20_000, 0, Input::SpawnRefused("EAGAIN".into()));
            assert_eq!(refused.state(), S::Backoff);
            let action = refused.handle((now + 1) * 20_000, 0, Input::Tick);
            assert_eq!(action, Some(Action::Spawn));
        }
    }

    #[test]
    fn a_command_that_vanished_after_it_ran_is_a_crash() {
        let mut worker = ready(false);
        worker.handle(10, 0, exited(1));
        worker.handle(10, 0, Input::Tick);
        worker.handle(10, 0, Input::SpawnFailed("no such file".into()));
        assert_eq!(worker.state(), S::Backoff);
    }

    #[test]
    fn draining_ends_by_the_signal_once_the_queue_is_empty() {
        let mut worker = ready(false);
        assert_eq!(worker.handle(10, 0, Input::Drain), None);
        let action = worker.handle(20, 0, Input::Settled { is_asked: false });
        assert_eq!(action, Some(Action::Signal(15)));
        assert_eq!(worker.deadline_ms(), Some(10_020));
        assert_eq!(worker.handle(10_020, 0, Input::Tick), Some(Action::Kill));
        worker.handle(
            10_021,
            0,
            Input::Exited {
                code: None,
                signal: Some(9),
            },
        );
        assert_eq!(worker.state(), S::Stopped);
    }

    #[test]
    fn what_drains_in_its_own_language_gets_the_signal_when_it_is_done_or_out_of_time() {
        let mut worker = ready(false);
        worker.handle(10, 0, Input::Drain);
        assert_eq!(
            worker.handle(20, 0, Input::Settled { is_asked: true }),
            None
        );
        let mut late = worker.clone();
        assert_eq!(worker.handle(500, 0, Input::Finished), None);
        assert_eq!(worker.handle(699, 0, Input::Tick), None);
        assert_eq!(worker.handle(700, 0, Input::Tick), Some(Action::Signal(15)));
        assert_eq!(
            late.handle(10_010, 0, Input::Tick),
            Some(Action::Signal(15))
        );
        assert_eq!(late.handle(11_010, 0, Input::Tick), Some(Action::Kill));
    }

    #[test]
    fn one_that_hangs_is_aborted_then_killed_then_replaced() {
        let mut worker = ready(false);
        let hung = Input::Hung("no heartbeat for 5 s".into());
        assert_eq!(worker.handle(10, 0, hung), Some(Action::Signal(6)));
        assert_eq!(worker.handle(2_010, 0, Input::Tick), Some(Action::Kill));
        worker.handle(
            2_011,
            0,
            Input::Exited {
                code: None,
                signal: Some(9),
            },
        );
        assert_eq!(worker.state(), S::Backoff);
        assert_eq!(worker.reason(), Some("no heartbeat for 5 s"));
    }

    #[test]
    fn a_start_that_takes_too_long_is_a_crash() {
        let mut worker = worker(true);
        worker.handle(0, 0, Input::Start);
        worker.handle(0, 0, Input::Spawned);
        let action = worker.handle(30_000, 0, Input::NotReady("not ready within 30 s".into()));
        assert_eq!(action, Some(Action::Signal(15)));
        worker.handle(30_001, 0, exited(0));
        assert_eq!(
            (worker.state(), worker.reason()),
            (S::Failed, Some("not ready within 30 s"))
        );
    }

    #[test]
    fn a_second_stop_changes_nothing_and_haste_kills() {
        let mut worker = ready(false);
        assert_eq!(worker.handle(10, 0, Input::Stop), Some(Action::Signal(15)));
        assert_eq!(worker.handle(11, 0, Input::Stop), None);
        assert_eq!(worker.deadline_ms(), Some(10_010));
        assert_eq!(worker.handle(12, 0, Input::Hasten), Some(Action::Kill));
    }

    fn inputs() -> impl Strategy<Value = Input> {
        prop_oneof![
            Just(Input::Start),
            Just(Input::Spawned),
            Just(Input::SpawnFailed("wrong".into())),
            Just(Input::SpawnRefused("full".into())),
            Just(Input::Ready),
            Just(Input::NotReady("late".into())),
            (0..50_i32).prop_map(exited),
            Just(Input::Exited {
                code: None,
                signal: Some(9)
            }),
            Just(Input::Drain),
            any::<bool>().prop_map(|is_asked| Input::Settled { is_asked }),
            Just(Input::Finished),
            Just(Input::Stop),
            Just(Input::Hasten),
            Just(Input::Hung("hung".into())),
            Just(Input::Tick),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order: a process is only asked for when there is none and
        /// none is under way, only by a start or when a wait is over, and everything but a start
        /// leaves a worker that is over as it is.
        #[test]
        fn never_two_processes_and_no_start_after_the_end(
            steps in prop::collection::vec((inputs(), 0..5_000_u64, any::<u64>()), 1..200),
            is_on_trial in any::<bool>(),
        ) {
            let mut worker = worker(is_on_trial);
            let (mut now, mut is_under_way, mut has_process, mut was_stopped) = (0, false, false, false);
            for (input, passed, random) in steps {
                now += passed;
                // A driver tells these only of what it did.
                let possible = match &input {
                    Input::Spawned | Input::SpawnFailed(_) | Input::SpawnRefused(_) => is_under_way,
                    Input::Exited { .. } => has_process,
                    _ => !is_under_way,
                };
                if !possible {
                    continue;
                }
                let (before, was_over) = (worker.state(), worker.is_over());
                let action = worker.handle(now, random, input.clone());
                match &input {
                    Input::Spawned => (is_under_way, has_process) = (false, true),
                    Input::SpawnFailed(_) | Input::SpawnRefused(_) => is_under_way = false,
                    Input::Exited { .. } => has_process = false,
                    Input::Start => was_stopped = false,
                    Input::Stop | Input::Drain | Input::Hasten => was_stopped = true,
                    _ => {}
                }
                match action {
                    Some(Action::Spawn) => {
                        prop_assert!(!has_process && !is_under_way);
                        prop_assert!(!was_stopped || input == Input::Start);
                        prop_assert!(input == Input::Start || before == S::Backoff);
                        is_under_way = true;
                    }
                    Some(Action::Signal(_) | Action::Kill) => prop_assert!(has_process),
                    None => {}
                }
                if was_over && input != Input::Start {
                    prop_assert!(worker.is_over() && action.is_none());
                }
                if has_process {
                    let alive = [S::Starting, S::Ready, S::Draining, S::Stopping];
                    prop_assert!(alive.contains(&worker.state()));
                } else if !is_under_way {
                    prop_assert!(worker.is_over() || worker.state() == S::Backoff);
                }
                // Nothing that has to end waits without a bound.
                if matches!(worker.state(), S::Backoff | S::Draining) {
                    prop_assert!(worker.deadline_ms().is_some());
                }
            }
        }

        /// A stopped worker whose process dies when it is killed is over at the latest when its
        /// grace time is.
        #[test]
        fn a_stop_always_ends(inputs in prop::collection::vec(inputs(), 0..20)) {
            let mut worker = ready(false);
            let mut has_process = true;
            for input in inputs {
                if matches!(input, Input::Spawned | Input::SpawnFailed(_) | Input::SpawnRefused(_)) {
                    continue;
                }
                has_process &= !matches!(input, Input::Exited { .. });
                if worker.handle(100, 0, input) == Some(Action::Spawn) {
                    worker.handle(100, 0, Input::Spawned);
                    has_process = true;
                }
            }
            let first = worker.handle(200, 0, Input::Stop);
            let second = worker.handle(20_000, 0, Input::Tick);
            if has_process && first != Some(Action::Kill) && second != Some(Action::Kill) {
                // Killed before already.
                prop_assert_eq!(worker.state(), S::Stopping);
            }
            if has_process {
                worker.handle(20_001, 0, Input::Exited { code: None, signal: Some(9) });
            }
            prop_assert!(worker.is_over());
        }
    }
}
