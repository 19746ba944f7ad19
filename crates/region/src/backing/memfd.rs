//! The default backing: an anonymous memory file. It has no name to guess, to squat or to leave
//! behind, no 64-MB limit in containers, and its seals keep anybody from truncating it under the
//! others (SIGBUS).

use super::file::SharedFile;
use super::Backing;
use crate::error::SessionError;
use rustix::fs::{fchmod, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create};
use rustix::fs::{MemfdFlags, Mode, SealFlags};
use rustix::mm::{madvise, mmap, munmap, Advice, MapFlags, ProtFlags};
use std::io;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr;

pub(crate) struct MemfdBacking {
    base: *mut u8,
    len: u64,
    writable: bool,
    file: SharedFile,
}

// SAFETY: the mapping belongs to this value and is accessed through atomics only.
unsafe impl Send for MemfdBacking {}
// SAFETY: as above.
unsafe impl Sync for MemfdBacking {}

impl MemfdBacking {
    /// A new file of `len` zero bytes that can neither shrink nor grow.
    pub(crate) fn create(len: u64) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = memfd_create("ganger-region", flags)?;
        fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
        ftruncate(&fd, len)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::map(fd, len, true, true)
    }

    /// Whether nobody can shrink the file any more.
    pub(crate) fn is_sealed(fd: &OwnedFd) -> bool {
        fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SealFlags::SHRINK))
    }

    /// Maps the first `len` bytes of any file of shared memory. `gives_back` says whether memory
    /// that is not used goes back to the system.
    pub(crate) fn map(fd: OwnedFd, len: u64, writable: bool, gives_back: bool) -> io::Result<Self> {
        let bytes = usize::try_from(len).map_err(io::Error::other)?;
        let protection = if writable {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe { mmap(ptr::null_mut(), bytes, protection, flags, &fd, 0)? };
        // SAFETY: the range was just mapped; DONTDUMP keeps its contents and changes only core
        // dumps.
        unsafe { madvise(base, bytes, Advice::LinuxDontDump)? };
        Ok(Self {
            base: base.cast(),
            len,
            writable,
            file: SharedFile::new(fd, gives_back),
        })
    }
}

// SAFETY: `base` maps `len` bytes, page aligned, from `map` to `drop`; only `Memory` reaches it, as
// atomics.
unsafe impl Backing for MemfdBacking {
    fn base(&self) -> *mut u8 {
        self.base
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn writable(&self) -> bool {
        self.writable
    }

    fn commit(&self, bytes: Range<u64>) -> io::Result<()> {
        self.file.commit(&bytes)?;
        if let (Ok(start), Ok(len)) = (
            usize::try_from(bytes.start),
            usize::try_from(bytes.end - bytes.start),
        ) {
            // Only saves page faults: the memory is there already, so a failure does not matter.
            // SAFETY: the range is inside the mapping; populating changes no contents.
            let _ = unsafe {
                madvise(
                    self.base.wrapping_add(start).cast(),
                    len,
                    Advice::LinuxPopulateWrite,
                )
            };
        }
        Ok(())
    }

    fn decommit(&self, bytes: Range<u64>) -> bool {
        self.file.decommit(&bytes)
    }

    fn claim_session(&self, session: u64) -> Result<bool, SessionError> {
        self.file.claim_session(session)
    }

    fn session_is_claimed(&self, session: u64) -> io::Result<bool> {
        self.file.session_is_claimed(session)
    }

    fn release_session(&self, session: u64) {
        self.file.release_session(session);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.fd())
    }
}

impl Drop for MemfdBacking {
    fn drop(&mut self) {
        let Ok(bytes) = usize::try_from(self.len) else {
            return;
        };
        // SAFETY: the mapping was made by `map` with this length, and nothing outlives this value.
        let _ = unsafe { munmap(self.base.cast(), bytes) };
    }
}
