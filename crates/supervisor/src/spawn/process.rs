//! Signals and the end of processes, by pidfd.

use rustix::io::Errno;
use rustix::process::{
    kill_process_group, pidfd_send_signal, waitid, Pid, Signal, WaitId, WaitIdOptions,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
}

/// Sends a signal to the process of a pidfd. One that has ended is no error, for it was on its way
/// to that.
///
/// # Errors
///
/// The system's: no such signal, or not permitted.
pub fn signal(pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
    let signal = Signal::from_named_raw(signal).ok_or(Errno::INVAL)?;
    gone_is_fine(pidfd_send_signal(pidfd, signal))
}

/// Sends a signal to a worker's whole process group. Only while its leader is not reaped
/// ([`try_reap`]): the number may be another group's afterwards.
///
/// # Errors
///
/// The system's: no such signal, or not permitted.
pub fn signal_group(leader: Pid, signal: i32) -> io::Result<()> {
    let signal = Signal::from_named_raw(signal).ok_or(Errno::INVAL)?;
    gone_is_fine(kill_process_group(leader, signal))
}

/// Waits until the process has ended. It stays a zombie, and its group a name, until
/// [`try_reap`]. May be dropped and called again.
///
/// # Errors
///
/// The system's, for a descriptor that is no pidfd.
pub async fn ended(pidfd: &OwnedFd) -> io::Result<()> {
    let watched = watch(pidfd.as_fd(), Interest::READABLE)?;
    loop {
        let mut ready = watched.readable().await?;
        if is_over(pidfd)? {
            return Ok(());
        }
        ready.clear_ready();
    }
}

/// Takes the remains of a child that has ended: `None` while it has not.
///
/// # Errors
///
/// `ECHILD` if it is not our child or was reaped before.
pub fn try_reap(pidfd: &OwnedFd) -> io::Result<Option<Ended>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = retry(|| waitid(WaitId::PidFd(pidfd.as_fd()), options))?;
    Ok(status.map(|status| Ended {
        code: status.exit_status(),
        signal: status.terminating_signal(),
    }))
}

/// Ends a child at once and waits for it: for one that never came to run its program.
pub(super) fn end_now(pid: Pid) {
    let _ = rustix::process::kill_process(pid, Signal::KILL);
    let _ = retry(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED));
}

/// A descriptor that can be waited for.
pub(crate) fn watch<Fd: AsFd + AsRawFd>(fd: Fd, interest: Interest) -> io::Result<AsyncFd<Fd>> {
    // SAFETY: `AsFd` vouches for an open descriptor, and for its being the same, as long as the
    // value lives, and the result owns the value.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

fn is_over(pidfd: &OwnedFd) -> io::Result<bool> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match retry(|| waitid(WaitId::PidFd(pidfd.as_fd()), options)) {
        Ok(status) => Ok(status.is_some()),
        // Somebody reaped it, so it has ended.
        Err(Errno::CHILD) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

fn gone_is_fine(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
