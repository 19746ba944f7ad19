//! Where the region's bytes come from: the one seam between the store and the operating system.
//!
//! | backing | for |
//! |---|---|
//! | [`memfd`] | the default: anonymous, sealed, handed over by file descriptor |
//! | [`named`] | attaching by name, through the crate `shared_memory` |
//! | [`heap`] | tests: crash images, hostile bytes, simulated deaths |

pub(crate) mod file;
pub(crate) mod heap;
pub(crate) mod memfd;
pub(crate) mod named;

use crate::error::SessionError;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

/// Memory that several processes may share, and the proof that a process attached to it is alive.
///
/// # Safety
/// `base` must point at `len` bytes, aligned to 8, that stay mapped and readable (writable if
/// `writable`) until the backing is dropped, and that nobody accesses but as atomic words of 8
/// bytes.
pub(crate) unsafe trait Backing: Send + Sync {
    #[cfg_attr(loom, allow(dead_code))]
    fn base(&self) -> *mut u8;
    /// What stands for the memory in a model.
    #[cfg(loom)]
    fn words(&self) -> std::sync::Arc<crate::model::Words> {
        unreachable!("models have a backing of their own")
    }
    /// Length in bytes.
    fn len(&self) -> u64;
    fn writable(&self) -> bool;

    /// Makes sure that the bytes are backed by memory, so that touching them can't fail later.
    fn commit(&self, bytes: Range<u64>) -> io::Result<()>;
    /// Gives the memory of a page-aligned range back; `false` if this backing keeps it. The range
    /// reads as zeros afterwards.
    fn decommit(&self, bytes: Range<u64>) -> bool;

    /// Takes the liveness lock of a session; `false` if a living process has it.
    fn claim_session(&self, session: u64) -> Result<bool, SessionError>;
    /// Whether a living process has the session's liveness lock; this handle's own session counts,
    /// too.
    fn session_is_claimed(&self, session: u64) -> io::Result<bool>;
    /// Drops this handle's own liveness lock.
    fn release_session(&self, session: u64);

    /// The file behind the memory, to hand to other processes.
    fn fd(&self) -> Option<BorrowedFd<'_>>;
}
