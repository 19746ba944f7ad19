//! Memory that a process shares with those it forks.

use std::io;
use std::sync::atomic::AtomicU64;

/// An anonymous shared mapping, zeroed. Forked processes inherit it at the same address.
pub(crate) struct Mapping {
    base: *mut u8,
    len: usize,
}

// SAFETY: the mapping is plain memory of the process; what is done with its address is up to the
// users.
unsafe impl Send for Mapping {}
// SAFETY: as above; `word` hands out atomics only.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn new(len: usize) -> Self {
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that
        // exists.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        assert!(base != libc::MAP_FAILED, "{}", io::Error::last_os_error());
        Self {
            base: base.cast(),
            len,
        }
    }

    /// The address of a byte of it.
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.len);
        // SAFETY: inside the mapping (asserted).
        unsafe { self.base.add(offset) }
    }

    /// Word number `index`.
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.len / 8);
        let word: *const AtomicU64 = self.at(index * 8).cast();
        // SAFETY: mapped as long as `self` lives, aligned, zeroed at first and only used as an
        // atomic.
        unsafe { &*word }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly this, and what `word` handed out can't outlive `self`.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}
