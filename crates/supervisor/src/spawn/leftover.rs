//! What is left of a worker: processes that forked twice and left its group. They are found by the
//! mark in their environment, which children inherit.

use rustix::process::{pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};
use std::collections::HashSet;
use std::fs;
use std::os::fd::OwnedFd;

/// Rounds of killing: one that forks while it is looked for is found in the next.
const ROUNDS_MAX: usize = 16;
/// The variable that marks a worker process and all it starts.
const MARK: &str = "GANGER_INSTANCE";

/// The processes that carry the mark `instance`, by pidfd, but this one.
#[must_use]
pub fn leftovers(instance: &str) -> Vec<(Pid, OwnedFd)> {
    let wanted = format!("{MARK}={instance}");
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(|pid| *pid != rustix::process::getpid())
        .filter(|pid| carries(*pid, wanted.as_bytes()))
        .filter_map(|pid| {
            let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
            // The number may have changed hands before the pidfd held it fast.
            carries(pid, wanted.as_bytes()).then_some((pid, pidfd))
        })
        .collect()
}

/// Kills all processes that carry the mark `instance`. How many there were.
pub fn kill_leftovers(instance: &str) -> usize {
    let mut killed = HashSet::new();
    for _ in 0..ROUNDS_MAX {
        let mut is_quiet = true;
        for (pid, pidfd) in leftovers(instance) {
            // One that is on its way out is still found for a moment.
            if killed.insert(pid) && pidfd_send_signal(&pidfd, Signal::KILL).is_ok() {
                is_quiet = false;
            }
        }
        if is_quiet {
            break;
        }
    }
    killed.len()
}

/// Whether a process carries the mark. A zombie has no environment any more, so it does not.
fn carries(pid: Pid, wanted: &[u8]) -> bool {
    let path = format!("/proc/{}/environ", pid.as_raw_nonzero());
    fs::read(path).is_ok_and(|environment| environment.split(|b| *b == 0).any(|v| v == wanted))
}
