//! Forked processes and memory shared with them, for tests that need thousands of processes: a fork
//! costs a fraction of starting a program.

use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};
use rustix::process::{
    kill_process, set_parent_process_death_signal, waitpid, Pid, Signal, WaitOptions, WaitStatus,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A forked child of this process. It is killed when this process ends, and its pid stays its own
/// until it was waited for.
pub(crate) struct Forked {
    pid: Pid,
    ended: bool,
}

impl Forked {
    /// Forks; the child runs `play`, which says whether all went well, and ends.
    pub(crate) fn new(play: impl FnOnce() -> bool) -> Self {
        // SAFETY: the processes that fork here do nothing on another thread, so the child finds no
        // lock held.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if let Some(pid) = Pid::from_raw(pid) {
            return Self { pid, ended: false };
        }
        let parent = rustix::process::getppid();
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        let orphaned = rustix::process::getppid() != parent;
        let good = !orphaned
            && std::panic::catch_unwind(std::panic::AssertUnwindSafe(play)).unwrap_or(false);
        // SAFETY: ends the process without running what its parent registered for its own end.
        unsafe { libc::_exit(if good { 0 } else { 101 }) }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // Not waited for, so the pid is still its own; the process may have ended by itself.
        let _ = kill_process(self.pid, signal);
    }

    /// Kills it and waits until it is gone; what it ended with, if that was not a SIGKILL.
    pub(crate) fn kill(&mut self) -> Option<WaitStatus> {
        self.signal(Signal::KILL);
        self.wait_killed()
    }

    /// Waits until it is gone; what it ended with, if that was not a SIGKILL.
    pub(crate) fn wait_killed(&mut self) -> Option<WaitStatus> {
        let status = self.wait_with(WaitOptions::empty()).unwrap();
        self.ended = true;
        (status.terminating_signal() != Some(Signal::KILL.as_raw())).then_some(status)
    }

    /// How it ended, if it did.
    pub(crate) fn try_wait(&mut self) -> Option<WaitStatus> {
        let status = self.wait_with(WaitOptions::NOHANG)?;
        self.ended = true;
        Some(status)
    }

    fn wait_with(&self, options: WaitOptions) -> Option<WaitStatus> {
        loop {
            match waitpid(Some(self.pid), options) {
                Ok(found) => return found.map(|(_, status)| status),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("waitpid: {error}"),
            }
        }
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
    }
}

/// Lets the kernel kill this process with SIGKILL after a while, whatever it is doing then.
pub(crate) fn die_in(time: Duration) {
    // SAFETY: a plain C record, of which all zeros is a valid value.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = libc::SIGKILL;
    let mut timer: libc::timer_t = ptr::null_mut();
    // SAFETY: both records are valid and outlive the call.
    let made = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
    assert_eq!(made, 0);
    let zero = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let once = libc::itimerspec {
        it_interval: zero,
        it_value: libc::timespec {
            tv_sec: time.as_secs().cast_signed(),
            // Zero would mean never.
            tv_nsec: i64::from(time.subsec_nanos()).max(1),
        },
    };
    // SAFETY: the timer was just made, and the record outlives the call.
    let set = unsafe { libc::timer_settime(timer, 0, &raw const once, ptr::null_mut()) };
    assert_eq!(set, 0);
}

/// From now on a panic of this process, or of one it forks, is counted at once: the process may be
/// killed before it can end with it.
pub(crate) fn count_panics(shared: &'static Shared, index: usize) {
    std::panic::set_hook(Box::new(move |panic| {
        shared.word(index).fetch_add(1, Ordering::Relaxed);
        eprintln!("{panic}");
    }));
}

/// Words that several processes share. They keep what a killed process stored.
pub(crate) struct Shared {
    base: *const AtomicU64,
    words: usize,
    fd: OwnedFd,
}

// SAFETY: the mapping lives as long as this value and is only accessed as atomics.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    /// `words` words, all 0, in a file without a name.
    pub(crate) fn create(words: usize) -> Self {
        let fd = rustix::fs::memfd_create("ganger-test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, words as u64 * 8).unwrap();
        Self::map(fd, words)
    }

    /// What another process created, by a path to its descriptor.
    pub(crate) fn open(path: &str) -> Self {
        let fd = super::open(path);
        let len = rustix::fs::fstat(&fd).unwrap().st_size;
        Self::map(fd, usize::try_from(len).unwrap() / 8)
    }

    fn map(fd: OwnedFd, words: usize) -> Self {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                words * 8,
                protection,
                MapFlags::SHARED,
                &fd,
                0,
            )
        };
        Self {
            base: base.unwrap().cast::<AtomicU64>().cast_const(),
            words,
            fd,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words);
        // SAFETY: the index is inside the mapping.
        let word = unsafe { self.base.add(index) };
        // SAFETY: mapped as long as `self` lives, aligned, zeroed, and accessed as atomics by
        // everyone.
        unsafe { &*word }
    }

    pub(crate) fn get(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::Release);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let base = self.base.cast_mut().cast();
        // SAFETY: mapped by `map` with this length, and nothing outlives this value.
        let _ = unsafe { munmap(base, self.words * 8) };
    }
}
