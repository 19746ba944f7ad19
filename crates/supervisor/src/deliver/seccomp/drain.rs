//! Draining Node where there is no channel to it: it runs beneath `npm` or a shell, and the preload
//! in it waits for a signal that means nothing to anybody else.

use super::target::Target;
use rustix::process::{pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// The signal. Its default is to do nothing, so one too many hurts nobody.
const DRAIN: Signal = Signal::URG;
/// Processes of a worker that may have a listener.
const PROCESSES_MAX: usize = 256;

/// The processes of a worker that listen, if they may be drained.
#[derive(Debug, Clone)]
pub(in super::super) struct Drainable {
    has_preload: bool,
    processes: Arc<Mutex<Vec<(Pid, OwnedFd)>>>,
}

impl Drainable {
    pub(in super::super) fn new(has_preload: bool) -> Self {
        Self {
            has_preload,
            processes: Arc::default(),
        }
    }

    /// Notes the process of a thread that listens.
    pub(super) fn add(&self, target: &Target) {
        let Some(pid) = target.pid().filter(|_| self.has_preload) else {
            return;
        };
        let mut processes = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if processes.len() < PROCESSES_MAX && processes.iter().all(|(known, _)| *known != pid) {
            if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
                processes.push((pid, pidfd));
            }
        }
    }

    /// Asks those for a drain that wait for the signal. Whether any does.
    pub(in super::super) fn drain(&self) -> bool {
        let processes = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut is_asked = false;
        for (pid, pidfd) in processes.iter() {
            is_asked |= waits_for_it(*pid) && pidfd_send_signal(pidfd, DRAIN).is_ok();
        }
        is_asked
    }
}

/// Whether a process is Node and has a handler for the signal, which only the preload sets.
fn waits_for_it(pid: Pid) -> bool {
    let pid = pid.as_raw_nonzero();
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let is_node = program
        .file_name()
        .is_some_and(|name| name == "node" || name == "nodejs");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(0);
    is_node && caught & (1 << (DRAIN.as_raw() - 1)) != 0
}
