//! What an app tells of itself.

use super::member::{Key, Member};
use super::state::State;
use super::{App, AppError};
use crate::config::Balance;
use crate::deliver::Rung;
use crate::report::{AppStatus, LogLine, WorkerState, WorkerStatus};
use std::fs;

impl App {
    /// Everything about it and its workers.
    pub(crate) fn status(&self) -> AppStatus {
        let state = self.state();
        let command = &state.config.command;
        let mut line = vec![command.program.clone()];
        line.extend(command.args.iter().cloned());
        let addresses = state.listeners().addresses();
        AppStatus {
            name: state.config.name.clone(),
            command: line,
            cwd: command.cwd.display().to_string(),
            wanted: state.wanted,
            balance: match state.config.balance {
                Balance::Reuseport => "reuseport",
                Balance::Shared => "shared",
            }
            .to_owned(),
            deliver: match state.rung {
                Rung::Node => "node",
                Rung::ListenFds => "listen-fds",
                Rung::Seccomp => "seccomp",
                Rung::None => "none",
            }
            .to_owned(),
            deliver_notes: state.notes.clone(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            listens_nowhere: state.is_silent,
            generation: state.generation,
            doing: state.doing.clone(),
            workers: state
                .members
                .iter()
                .map(|(key, member)| worker(&state, *key, member))
                .collect(),
        }
    }

    /// Whether it was stopped, or all its workers have come to an end.
    pub(crate) fn has_ended(&self) -> bool {
        let state = self.state();
        state.is_over || state.is_at_end()
    }

    /// Why a worker failed, if one has.
    pub(crate) fn first_failure(&self) -> Option<AppError> {
        self.state().first_failure()
    }

    /// Whether all workers that are wanted serve.
    pub(crate) fn is_ready(&self) -> bool {
        let state = self.state();
        let mut members = state.members.values();
        members.all(|one| one.machine.state() == WorkerState::Ready)
    }

    /// Waits until all workers serve, or one of them has failed.
    pub(crate) async fn settled(&self) {
        self.until(|state| {
            let mut members = state.members.values();
            let is_settled = state.is_over
                || members.all(|one| {
                    matches!(
                        one.machine.state(),
                        WorkerState::Ready | WorkerState::Failed | WorkerState::Stopped
                    )
                });
            is_settled.then_some(())
        })
        .await;
    }
}

impl State {
    /// Whether all workers have come to an end by themselves.
    pub(super) fn is_at_end(&self) -> bool {
        let mut members = self.members.values();
        members.all(|one| one.machine.is_over() && one.process.is_none())
    }

    /// Why a worker failed, or is about to, if one has.
    pub(super) fn first_failure(&self) -> Option<AppError> {
        let failure = |member: &Member| {
            let why = member.machine.reason();
            match member.machine.state() {
                WorkerState::Failed => Some(member.explain(why.unwrap_or_default())),
                WorkerState::Stopping => Some(member.explain(why?)),
                _ => None,
            }
        };
        let mut members = self.members.iter();
        let (key, why) = members.find_map(|(key, member)| Some((*key, failure(member)?)))?;
        Some(AppError::Failed {
            text: format!("{}: worker {} failed: {why}", self.config.name, key.index),
            lines: self.last_lines(key),
        })
    }

    /// The last lines of a worker's present or last process.
    pub(super) fn last_lines(&self, key: Key) -> Vec<LogLine> {
        let filter = crate::logs::Filter {
            app: Some(self.config.name.clone()),
            worker: Some(key.index),
        };
        let pid = self.members.get(&key).and_then(|one| one.last_pid);
        let mut lines = self.world.logs.last(&filter, LINES_TOLD * 4);
        lines.retain(|line| pid.is_none_or(|pid| line.pid == pid));
        let surplus = lines.len().saturating_sub(LINES_TOLD);
        lines.drain(..surplus);
        lines
    }
}

/// Lines of a failed worker's output that are told.
const LINES_TOLD: usize = 20;

fn worker(state: &State, key: Key, member: &Member) -> WorkerStatus {
    let machine = &member.machine;
    let pid = member.process.as_ref().map(super::process::Process::number);
    let (cpu_ms, resident_bytes) = pid.and_then(usage).unwrap_or_default();
    WorkerStatus {
        index: key.index,
        generation: key.generation,
        pid,
        state: machine.state(),
        since_ms: state.world.epoch_ms(machine.since_ms()),
        reason: machine.reason().map(str::to_owned),
        restarts: machine.restarts(),
        last_exit: member.last_exit.clone(),
        cpu_ms,
        resident_bytes,
        queue: state.listeners().queue_len(member.slot),
        weight: state.weight(member.slot),
    }
}

/// CPU time and resident memory of a process.
pub(crate) fn usage(pid: i32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)?;
    let pages = number(21)?;
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some((ticks * 1000 / per_second, pages * page))
}

#[cfg(test)]
mod tests {
    use super::usage;

    #[test]
    fn the_usage_of_this_process_is_plausible() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let (_, resident) = usage(own).unwrap();
        assert!((100_000..1 << 34).contains(&resident), "{resident}");
        assert_eq!(usage(-1), None);
    }
}
