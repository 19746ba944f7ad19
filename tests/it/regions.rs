//! Regions as tests want them: names that go away, handles by descriptor, audits.

use crate::harness::open;
use ganger_region::layout::{header, WORD};
use ganger_region::{Options, Region};
use rustix::fs::{fcntl_add_seals, memfd_create, MemfdFlags, SealFlags};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A name that no other test uses; what has it is removed in the end, however the test ends.
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn new(test: &str) -> Self {
        static NAMES: AtomicU64 = AtomicU64::new(0);
        let number = NAMES.fetch_add(1, Ordering::Relaxed);
        Self(format!("ganger-{test}-{}-{number}", std::process::id()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = Region::remove_named(&self.0);
    }
}

/// Attaches to the region that another process named with [`crate::harness::path_of`].
pub(crate) fn handed_over(path: &str, options: Options) -> Region {
    Region::from_fd(open(path), options).unwrap()
}

/// The path of a region, for [`handed_over`] in a child.
pub(crate) fn path(region: &Region) -> String {
    crate::harness::path_of(region.fd().unwrap())
}

/// Another handle on the region, with a session of its own.
pub(crate) fn another(region: &Region) -> Region {
    handed_over(&path(region), Options::new())
}

pub(crate) fn assert_clean(region: &Region) {
    let audit = region.check().unwrap();
    assert!(audit.is_clean(), "{:#?}", audit.problems);
}

/// All the bytes of a region's file.
pub(crate) fn bytes_of(region: &Region) -> Vec<u8> {
    let file = File::from(open(&path(region)));
    let mut bytes = vec![0; usize::try_from(region.declared_len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A header word, by its index.
pub(crate) fn header_word(region: &Region, index: u64) -> u64 {
    assert!(index < header::LEN / WORD);
    let file = File::from(open(&path(region)));
    let mut word = [0; 8];
    file.read_exact_at(&mut word, index * WORD).unwrap();
    u64::from_le_bytes(word)
}

/// A memory file with these bytes, sealed as a region's.
pub(crate) fn sealed(bytes: &[u8]) -> OwnedFd {
    let fd = unsealed(bytes);
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    fd
}

/// A memory file with these bytes that anybody can truncate.
pub(crate) fn unsealed(bytes: &[u8]) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("ganger-test", flags).unwrap());
    file.write_all_at(bytes, 0).unwrap();
    file.into()
}
