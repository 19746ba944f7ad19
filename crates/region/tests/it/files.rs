//! Shared memory with any bytes in it, and a way to it past the region's handles.

use rustix::fs::{fcntl_add_seals, ftruncate, memfd_create, MemfdFlags, SealFlags};
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file of shared memory. One with a name loses it when this is dropped.
pub(crate) struct SharedFile {
    file: File,
    name: Option<String>,
}

impl SharedFile {
    /// Without a name, and sealed.
    pub(crate) fn anonymous(bytes: &[u8]) -> Self {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("ganger-test", flags).unwrap());
        fill(&file, bytes);
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).unwrap();
        Self { file, name: None }
    }

    /// With a name, which begins with `subject`.
    pub(crate) fn named(subject: &str, bytes: &[u8]) -> Self {
        let name = format!("ganger-test-{subject}-{}", std::process::id());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(format!("/dev/shm/{name}")).unwrap();
        let made = Self {
            file,
            name: Some(name),
        };
        fill(&made.file, bytes);
        made
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Another descriptor, of an open file of its own.
    pub(crate) fn open(&self) -> OwnedFd {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let mut options = OpenOptions::new();
        options.read(true).write(true).open(path).unwrap().into()
    }

    pub(crate) fn map(&self) -> Mapping {
        Mapping::of(&self.file)
    }
}

impl Drop for SharedFile {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = std::fs::remove_file(format!("/dev/shm/{name}"));
        }
    }
}

/// Writes all but pages of zeros, which so have no memory.
fn fill(file: &File, bytes: &[u8]) {
    ftruncate(file, bytes.len() as u64).unwrap();
    for (index, page) in (0..).zip(bytes.chunks(4096)) {
        if page.iter().any(|byte| *byte != 0) {
            file.write_all_at(page, index * 4096).unwrap();
        }
    }
}

/// Words of a file, mapped once more.
pub(crate) struct Mapping {
    base: *const AtomicU64,
    words: usize,
}

// SAFETY: the mapping lives as long as this value and is only accessed as atomics.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn of(fd: impl AsFd) -> Self {
        let len = rustix::fs::fstat(&fd).unwrap().st_size as usize;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                protection,
                MapFlags::SHARED,
                &fd,
                0,
            )
        };
        Self {
            base: base.unwrap().cast(),
            words: len / 8,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.words
    }

    pub(crate) fn load(&self, word: usize) -> u64 {
        self.word(word).load(Ordering::Relaxed)
    }

    pub(crate) fn store(&self, word: usize, value: u64) {
        self.word(word).store(value, Ordering::Relaxed);
    }

    fn word(&self, word: usize) -> &AtomicU64 {
        assert!(word < self.words);
        let word = self.base.wrapping_add(word);
        // SAFETY: inside the mapping, which is page aligned and lives as long as `self`; all who
        // have the file mapped access it as atomics.
        unsafe { &*word }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `of` with this length; no reference to its words outlives `self`.
        let _ = unsafe { munmap(self.base.cast_mut().cast(), self.words * 8) };
    }
}
