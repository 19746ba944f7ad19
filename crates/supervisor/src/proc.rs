//! What the kernel tells of processes, by `/proc`.

use rustix::process::Pid;
use std::fs;

/// What the kernel tells of a process.
pub(crate) struct Stat {
    /// Whether it is more than a zombie, which only waits for its parent.
    pub(crate) is_alive: bool,
    /// Its parent.
    pub(crate) parent: i32,
    /// Its process group; 0 for one that is none of this pid namespace's.
    pub(crate) group: i32,
    /// Whether its session has a terminal, and still has it.
    pub(crate) has_terminal: bool,
}

/// What the kernel tells of a process, while there is one.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, so the fields are counted from its end.
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    Some(Stat {
        is_alive: !matches!(fields.next()?, "Z" | "X"),
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        has_terminal: fields.nth(1)? != "0",
    })
}

/// The numbers of all processes.
pub(crate) fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether there is such a process, and it is more than a zombie.
pub(crate) fn is_alive(pid: Pid) -> bool {
    stat(pid.as_raw_nonzero().get()).is_some_and(|stat| stat.is_alive)
}

/// Whether a process has a handler for a signal. It is not known of a process that is gone.
pub(crate) fn catches(pid: i32, signal: i32) -> bool {
    is_in_set(pid, "SigCgt:", signal)
}

/// Whether a process ignores a signal. It is not known of a process that is gone.
pub(crate) fn ignores(pid: i32, signal: i32) -> bool {
    is_in_set(pid, "SigIgn:", signal)
}

fn is_in_set(pid: i32, set: &str, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix(set));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1).clamp(0, 63)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_of_signals_are_known() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        // The runtime of Rust handles SIGSEGV and ignores SIGPIPE, nobody here handles SIGUSR2.
        assert!(catches(own, 11) && !ignores(own, 11));
        assert!(ignores(own, 13) && !catches(own, 13));
        assert!(!catches(own, 12));
        assert!(!catches(-1, 15) && !ignores(-1, 15));
    }

    #[test]
    fn this_process_is_alive_in_its_group() {
        let own = stat(std::process::id().cast_signed()).unwrap();
        assert!(own.is_alive);
        let group = rustix::process::getpgrp().as_raw_nonzero().get();
        assert_eq!(own.group, group);
        assert!(stat(-1).is_none());
    }
}
