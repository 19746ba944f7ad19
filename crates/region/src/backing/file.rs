//! What the memfd and the named backing share: committing, giving back and liveness locks on a file
//! of shared memory.
//!
//! # Liveness
//! Each handle opens the file anew (through `/proc/self/fd`), because the locks used here (OFD
//! locks, fcntl(2)) belong to the open file description: one that came over a socket is shared with
//! the sender. Byte `s` of the file is locked while session `s` lives. The kernel drops the lock
//! when the last descriptor of the description is closed, which it does for every process that
//! ends, whatever ended it and in whatever pid namespace.
//!
//! A forked child inherits the descriptor and would keep its dead parent alive. So every session
//! descriptor stands in [`SESSION_FDS`], and a `pthread_atfork` handler closes them all in the
//! child, which registers anew when it first writes. Other threads of the parent may be just opening
//! or closing one, or hold a mutex that nobody would unlock in the child: so they are at the
//! [`ForkGate`] meanwhile, and a fork waits until nobody is.

use crate::error::SessionError;
use crate::limits::HANDLES_MAX;
use crate::sync::local::{AtomicI32, AtomicU64, Ordering};
use rustix::fs::{fallocate, FallocateFlags, Mode, OFlags};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Once;

const NO_FD: i32 = -1;

static SESSION_FDS: [AtomicI32; HANDLES_MAX] = [const { AtomicI32::new(NO_FD) }; HANDLES_MAX];
static FORKS: AtomicU64 = AtomicU64::new(0);
/// Threads inside the [`ForkGate`], or [`FORKING`].
static GATE: AtomicI32 = AtomicI32::new(0);
const FORKING: i32 = -1;

/// How many times this process image was forked into being: a handle that remembers another number
/// lives in a child and has no session.
#[inline(always)]
pub(crate) fn forks() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// While a thread has one, no other thread of this process forks.
pub(crate) struct ForkGate(());

impl ForkGate {
    /// Waits while another thread is forking. One thread may have several.
    pub(crate) fn enter() -> Self {
        install_fork_handlers();
        // Acquire pairs with the Release stores of those who forked, or left.
        let enter = |inside| (inside != FORKING).then_some(inside + 1);
        while GATE
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, enter)
            .is_err()
        {
            std::thread::yield_now();
        }
        Self(())
    }
}

impl Drop for ForkGate {
    fn drop(&mut self) {
        GATE.fetch_sub(1, Ordering::Release);
    }
}

/// A file of shared memory with this handle's own liveness locks.
pub(crate) struct SharedFile {
    fd: OwnedFd,
    /// Index into [`SESSION_FDS`], plus the fork count it belongs to.
    liveness: std::sync::Mutex<Option<(usize, u64)>>,
    gives_back: bool,
}

impl SharedFile {
    /// `may_give_back`: whether memory of the file may be returned to the system while others may
    /// still read it.
    pub(crate) fn new(fd: OwnedFd, may_give_back: bool) -> Self {
        let gives_back = may_give_back && !overcommit_is_strict();
        Self {
            fd,
            liveness: std::sync::Mutex::default(),
            gives_back,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn commit(&self, bytes: &Range<u64>) -> io::Result<()> {
        let len = bytes.end - bytes.start;
        memory_limit_allows(len)?;
        loop {
            match fallocate(&self.fd, FallocateFlags::KEEP_SIZE, bytes.start, len) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    pub(crate) fn decommit(&self, bytes: &Range<u64>) -> bool {
        let flags = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE;
        self.gives_back && fallocate(&self.fd, flags, bytes.start, bytes.end - bytes.start).is_ok()
    }

    pub(crate) fn claim_session(&self, session: u64) -> Result<bool, SessionError> {
        let fd = self.liveness_fd()?;
        match ofd_lock(fd, libc::F_OFD_SETLK, libc::F_WRLCK, session) {
            Ok(_) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EACCES) => Ok(false),
                _ => Err(error.into()),
            },
        }
    }

    pub(crate) fn session_is_claimed(&self, session: u64) -> io::Result<bool> {
        // The handed-over descriptor does for a test: no lock was ever taken through its
        // description.
        let found = ofd_lock(
            self.fd.as_raw_fd(),
            libc::F_OFD_GETLK,
            libc::F_WRLCK,
            session,
        )?;
        Ok(i32::from(found.l_type) != libc::F_UNLCK)
    }

    pub(crate) fn release_session(&self, session: u64) {
        if let Ok(fd) = self.liveness_fd() {
            // Failing to unlock leaves the session to be found dead when the descriptor closes.
            let _ = ofd_lock(fd, libc::F_OFD_SETLK, libc::F_UNLCK, session);
        }
    }

    /// This process's own description of the file, opened at the first use and again after a fork.
    fn liveness_fd(&self) -> Result<RawFd, SessionError> {
        let _gate = ForkGate::enter();
        let mut liveness = self
            .liveness
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((index, at_forks)) = *liveness {
            if at_forks == forks() {
                return Ok(SESSION_FDS[index].load(Ordering::Relaxed));
            }
        }
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        let own = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)?;
        let raw = own.as_raw_fd();
        let index = SESSION_FDS
            .iter()
            .position(|place| {
                place
                    .compare_exchange(NO_FD, raw, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
            })
            .ok_or(SessionError::Handles { limit: HANDLES_MAX })?;
        // From here on the table owns the descriptor.
        let _ = own.into_raw_fd();
        *liveness = Some((index, forks()));
        Ok(raw)
    }
}

impl Drop for SharedFile {
    fn drop(&mut self) {
        let _gate = ForkGate::enter();
        let liveness = self
            .liveness
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((index, at_forks)) = *liveness {
            if at_forks == forks() {
                close_session_fd(&SESSION_FDS[index]);
            }
        }
    }
}

fn close_session_fd(place: &AtomicI32) {
    let fd = place.swap(NO_FD, Ordering::Relaxed);
    if fd != NO_FD {
        // SAFETY: the table owned this descriptor, and the swap made this the only place that knows
        // it.
        unsafe { libc::close(fd) };
    }
}

fn install_fork_handlers() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: the handlers of the child only store to atomics and call close(2), both allowed
        // between fork and exec; that of the parent before it may do anything.
        unsafe {
            libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(in_forked_child));
        }
    });
}

extern "C" fn before_fork() {
    while GATE
        .compare_exchange(0, FORKING, Ordering::Acquire, Ordering::Relaxed)
        .is_err()
    {
        std::thread::yield_now();
    }
}

extern "C" fn after_fork() {
    GATE.store(0, Ordering::Release);
}

extern "C" fn in_forked_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    SESSION_FDS.iter().for_each(close_session_fd);
    after_fork();
}

/// One byte-range lock call on byte `session`; the answer of `F_OFD_GETLK` is in the returned
/// record.
fn ofd_lock(fd: RawFd, command: i32, kind: i32, session: u64) -> io::Result<libc::flock> {
    // SAFETY: flock is a plain C record; all zeros is a valid value of it.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    let narrow = |value: i32| libc::c_short::try_from(value).map_err(io::Error::other);
    lock.l_type = narrow(kind)?;
    lock.l_whence = narrow(libc::SEEK_SET)?;
    lock.l_start = libc::off_t::try_from(session).map_err(io::Error::other)?;
    lock.l_len = 1;
    loop {
        // SAFETY: `fd` is an open descriptor, `lock` a valid record that outlives the call.
        let result = unsafe { libc::fcntl(fd, command, &raw mut lock) };
        if result == 0 {
            return Ok(lock);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// With strict overcommit accounting a read of a returned page may find no memory and end in
/// SIGBUS; there, memory is kept.
fn overcommit_is_strict() -> bool {
    std::fs::read_to_string("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.trim() == "2")
}

/// Refuses to grow beyond the memory limit of this process's control group: the kernel would answer
/// with its OOM killer, not with an error.
fn memory_limit_allows(len: u64) -> io::Result<()> {
    match crate::limits::memory_left() {
        Some(left) if left < len => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
        _ => Ok(()),
    }
}
