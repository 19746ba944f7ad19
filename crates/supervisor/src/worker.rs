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
use crate::policy::{Decision, Life, Policy};
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
    /// Since when its process serves, or served.
    ready_since_ms: Option<u64>,
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
            ready_since_ms: None,
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

    /// Whether its first crash is its last.
    pub fn is_on_trial(&self) -> bool {
        self.is_on_trial
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
            (Input::SpawnRefused(why), S::Starting) if !self.has_process && self.is_on_trial => {
                // Somebody waits for the outcome, and what was there before serves on.
                self.is_wanted = false;
                self.enter(S::Failed, now_ms, Some(why));
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
                self.ready_since_ms = Some(now_ms);
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
        self.ready_since_ms = None;
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
        let served_since_ms = self.ready_since_ms.unwrap_or(now_ms);
        let life = Life {
            ran_ms: now_ms.saturating_sub(self.process_since_ms),
            served_ms: now_ms.saturating_sub(served_since_ms),
        };
        match self.policy.crashed(life, random) {
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
mod tests;
