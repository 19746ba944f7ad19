//! Nothing is left running when the supervisor is killed.
//!
//! Theory of operation: before anything else, while the process has one thread, the supervisor forks
//! a guard that holds the reading end of a pipe. The supervisor alone holds the other end, so the
//! guard reads the end of the file exactly when the supervisor is gone, whatever ended it, and then
//! kills whatever the supervisor had started: by process group, which it is told of, and by the mark
//! in the environment (see [`crate::leftovers`]). A supervisor that ends in good order dismisses it.
//!
//! Workers also have a parent-death signal, which is faster; the guard is for what they started in
//! turn. A guard that is itself killed is missed by nobody but those.

use crate::leftovers::{kill_until_gone, Whose};
use crate::proc::{stat, Stat};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{pipe_with, PipeFlags};
use rustix::process::{setsid, waitpid, Pid, WaitOptions};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

/// How long the guard goes on killing.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the supervisor tells: one byte, and the number of a process group.
const RECORD_LEN: usize = 5;
const WATCH: u8 = b'+';
const FORGET: u8 = b'-';
const DISMISS: u8 = b'.';

/// The guard of this supervisor. Dropping it is not an end in good order: it kills.
#[derive(Debug)]
pub struct Guard {
    pid: Pid,
    pipe: OwnedFd,
}

impl Guard {
    /// Forks the guard. `supervisor` is the first half of the mark that all workers get.
    ///
    /// Fails if the process has more than one thread: a lock that another holds at the fork would
    /// never be free in the guard.
    ///
    /// `clear` is called by the guard when it has ended what a killed supervisor left.
    pub fn start(supervisor: &str, clear: impl FnOnce()) -> io::Result<Self> {
        if fs::read_dir("/proc/self/task")?.count() != 1 {
            return Err(io::Error::other(
                "the guard must be forked by a process of one thread",
            ));
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        // SAFETY: the process has one thread, as was just seen, so the child has all of it: no lock
        // of the allocator or of anything else is held by a thread that the child lacks.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                drop(writer);
                // The frames above are copies of the supervisor's: nothing may unwind into them.
                let guarding = AssertUnwindSafe(|| keep_guard(&reader, supervisor, clear));
                let _ = std::panic::catch_unwind(guarding);
                // SAFETY: `_exit` has no obligations; unlike `exit` it runs no handlers of the
                // supervisor, whose copy this process is.
                unsafe { libc::_exit(0) }
            }
            child => {
                // A full pipe must not stop the supervisor.
                rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK)?;
                let pid = Pid::from_raw(child).ok_or(Errno::SRCH)?;
                Ok(Self { pid, pipe: writer })
            }
        }
    }

    /// The guard's process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// From here on, this process group is to be killed.
    pub fn watch(&self, group: Pid) {
        self.tell(WATCH, group.as_raw_nonzero().get());
    }

    /// This process group is gone: to be told before its leader is reaped, and its number free.
    pub fn forget(&self, group: Pid) {
        self.tell(FORGET, group.as_raw_nonzero().get());
    }

    /// The supervisor ends in good order.
    pub fn dismiss(self) {
        self.tell(DISMISS, 0);
        drop(self.pipe);
        let _ = waitpid(Some(self.pid), WaitOptions::empty());
    }

    /// What does not fit a pipe of thousands of records is lost: marks still find those workers.
    fn tell(&self, what: u8, group: i32) {
        let mut record = [what, 0, 0, 0, 0];
        record[1..].copy_from_slice(&group.to_ne_bytes());
        let _ = rustix::io::write(&self.pipe, &record);
    }
}

/// The guard's whole life.
fn keep_guard(pipe: &OwnedFd, supervisor: &str, clear: impl FnOnce()) {
    // Ctrl-C at the terminal is meant for the supervisor.
    let _ = setsid();
    let _ = rustix::thread::set_name(c"ganger-guard");
    close_all_but(pipe);
    if let Some(groups) = listen(pipe) {
        let whose = Whose::Supervisor(supervisor);
        let killed = kill_until_gone(
            |pid| {
                let stat = || stat(pid.as_raw_nonzero().get());
                let is_of_group = |stat: Stat| {
                    let group = Pid::from_raw(stat.group);
                    stat.is_alive && group.is_some_and(|group| groups.contains(&group))
                };
                whose.has(pid) || stat().is_some_and(is_of_group)
            },
            PATIENCE,
        );
        clear();
        if killed > 0 {
            eprintln!(
                "ganger: the supervisor was killed; {killed} processes that it left were ended"
            );
        }
    }
}

/// Listens until the supervisor is gone, and returns the groups that it left; `None` if it dismissed
/// the guard.
fn listen(pipe: &OwnedFd) -> Option<HashSet<Pid>> {
    let mut groups = HashSet::new();
    loop {
        let mut record = [0; RECORD_LEN];
        // Records are written in one piece, so they are read in one.
        match rustix::io::read(pipe, &mut record) {
            Err(Errno::INTR) => {}
            Ok(RECORD_LEN) => {
                let group = [record[1], record[2], record[3], record[4]];
                match (record[0], Pid::from_raw(i32::from_ne_bytes(group))) {
                    (WATCH, Some(group)) => drop(groups.insert(group)),
                    (FORGET, Some(group)) => drop(groups.remove(&group)),
                    _ => return None,
                }
            }
            Ok(_) | Err(_) => return Some(groups),
        }
    }
}

/// Whatever the guard held open would stay open: a listener, a terminal's other end. Standard error
/// stays, for the one line that the guard may have to say.
fn close_all_but(pipe: &OwnedFd) {
    let kept = pipe.as_raw_fd().cast_unsigned();
    let ranges = [(3, kept.saturating_sub(1)), (kept + 1, u32::MAX)];
    for (first, last) in ranges {
        if first <= last {
            // SAFETY: closes descriptors by number, of which this process uses none again: it only
            // reads `pipe`, which is in neither range, and writes to standard error.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
    if let Ok(null) = fs::File::open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
    }
    if let Ok(null) = fs::OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}
