//! Processes that a worker left behind: found by the mark in the environment they were started
//! with, so that neither a new session nor a new process group hides them.
//!
//! A process that wiped its environment, or that belongs to somebody else, is not found this way;
//! the process group and the control group are there for those.

use crate::proc::pids;
use rustix::process::{getpid, pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// Environment variable with the mark: `SUPERVISOR.NUMBER`.
pub const MARK_VARIABLE: &str = "GANGER_INSTANCE";

/// Pause between two looks at a process table that is not empty yet.
const PAUSE: Duration = Duration::from_millis(5);

/// Which processes are meant.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    /// Those of all workers of a supervisor.
    Supervisor(&'a str),
    /// Those of one worker process.
    Worker(&'a str),
}

impl Whose<'_> {
    /// Whether a process has the mark. The environment of a zombie is empty, and of somebody else's
    /// process unreadable.
    pub(crate) fn has(self, pid: Pid) -> bool {
        let environ = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero()));
        environ.is_ok_and(|environ| self.is_in(&environ))
    }

    /// Whether an environment, as `/proc/PID/environ` shows it, has the mark.
    fn is_in(self, environ: &[u8]) -> bool {
        let value = environ.split(|byte| *byte == 0).find_map(|variable| {
            let value = variable.strip_prefix(MARK_VARIABLE.as_bytes())?;
            value.strip_prefix(b"=")
        });
        match (value, self) {
            (Some(value), Self::Worker(mark)) => value == mark.as_bytes(),
            (Some(value), Self::Supervisor(supervisor)) => {
                let number = value.strip_prefix(supervisor.as_bytes());
                number.is_some_and(|number| number.starts_with(b"."))
            }
            (None, _) => false,
        }
    }
}

/// Kills all of them until none is left, and returns how many were killed. Blocks, for `patience`
/// at most: what does not die by then hangs in the kernel.
pub fn kill_all(whose: Whose<'_>, patience: Duration) -> usize {
    kill_until_gone(|pid| whose.has(pid), patience)
}

/// Kills what `is_meant` says, but never this process, again and again until nothing is left.
pub(crate) fn kill_until_gone(is_meant: impl Fn(Pid) -> bool, patience: Duration) -> usize {
    let (own, deadline) = (getpid(), Instant::now() + patience);
    let mut killed = std::collections::BTreeSet::new();
    loop {
        let others = pids().filter_map(Pid::from_raw).filter(|pid| *pid != own);
        let found: Vec<Pid> = others.filter(|pid| kill_if(*pid, &is_meant)).collect();
        if found.is_empty() || Instant::now() >= deadline {
            return killed.len();
        }
        killed.extend(found.into_iter().map(Pid::as_raw_nonzero));
        thread::sleep(PAUSE);
    }
}

/// Whether there was something to kill. A number may go to another process between a look and a
/// signal, a pidfd can't: so it is looked at after the pidfd was got.
fn kill_if(pid: Pid, is_meant: impl Fn(Pid) -> bool) -> bool {
    if !is_meant(pid) {
        return false;
    }
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return false;
    };
    is_meant(pid) && pidfd_send_signal(pidfd, Signal::KILL).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Command, Stdio};

    #[test]
    fn the_mark_is_one_variable_and_all_of_it() {
        let environ = b"PATH=/bin\0GANGER_INSTANCE=abc.7\0X=GANGER_INSTANCE=abc.8\0";
        assert!(Whose::Worker("abc.7").is_in(environ));
        assert!(Whose::Supervisor("abc").is_in(environ));
        for other in ["abc", "abc.", "abc.70", "bc.7", "abc.8"] {
            assert!(!Whose::Worker(other).is_in(environ), "{other}");
        }
        for other in ["ab", "abc.7", "abc.", ""] {
            assert!(!Whose::Supervisor(other).is_in(environ), "{other}");
        }
        assert!(!Whose::Supervisor("abc").is_in(b""));
    }

    #[test]
    fn a_process_in_a_session_of_its_own_is_found_and_others_are_left_alone() {
        let supervisor = format!("test-{}", std::process::id());
        let spawn = |mark: String| {
            let mut child = Command::new("setsid")
                .args(["sh", "-c", "echo up; exec sleep 1000"])
                .env(MARK_VARIABLE, mark)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut up = [0; 3];
            child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
            child
        };
        let mut ours = spawn(format!("{supervisor}.1"));
        let mut other = spawn(format!("{supervisor}0.1"));
        let whose = Whose::Supervisor(&supervisor);
        assert_eq!(kill_all(whose, Duration::from_secs(30)), 1);
        assert!(!ours.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
