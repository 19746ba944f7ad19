//! Regions with a name, through the crate `shared_memory`: for attaching by name and for systems
//! without memfd. A name outlives its processes until somebody removes it, and such a file can't be
//! sealed.

use super::file::SharedFile;
use super::memfd::MemfdBacking;
use super::Backing;
use crate::error::SessionError;
use rustix::fs::Mode;
use rustix::mm::{madvise, Advice};
use rustix::shm::OFlags;
use shared_memory::{Shmem, ShmemConf, ShmemError};
use std::io;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};

pub(crate) struct NamedBacking {
    shmem: Shmem,
    file: SharedFile,
}

// SAFETY: `Shmem` is only !Send because it holds a raw pointer; the mapping behind it belongs to
// the process, not to a thread, and is accessed through atomics only.
unsafe impl Send for NamedBacking {}
// SAFETY: as above; `Shmem` itself is never changed after construction.
unsafe impl Sync for NamedBacking {}

impl NamedBacking {
    /// A new region of `len` zero bytes under `os_id` ("/name"); [`io::ErrorKind::AlreadyExists`]
    /// if there is one.
    pub(crate) fn create(os_id: &str, len: u64) -> io::Result<Self> {
        let bytes = usize::try_from(len).map_err(io::Error::other)?;
        let shmem = ShmemConf::new()
            .os_id(os_id)
            .size(bytes)
            .create()
            .map_err(io_error)?;
        Self::adopt(shmem, os_id)
    }

    /// Attaches for reading and writing; [`io::ErrorKind::WouldBlock`] if the region is not
    /// finished.
    pub(crate) fn open(os_id: &str) -> io::Result<Self> {
        expect_finished(&open_fd(os_id, OFlags::RDONLY)?)?;
        Self::adopt(
            ShmemConf::new().os_id(os_id).open().map_err(io_error)?,
            os_id,
        )
    }

    /// Attaches for reading only, which `shared_memory` can't: the descriptor itself is read-only.
    pub(crate) fn open_read_only(os_id: &str) -> io::Result<MemfdBacking> {
        let fd = open_fd(os_id, OFlags::RDONLY)?;
        expect_finished(&fd)?;
        let len = u64::try_from(rustix::fs::fstat(&fd)?.st_size).map_err(io::Error::other)?;
        MemfdBacking::map(fd, len, false, false)
    }

    fn adopt(mut shmem: Shmem, os_id: &str) -> io::Result<Self> {
        let fd = open_fd(os_id, OFlags::RDWR)?;
        if !maps_file(shmem.as_ptr(), &fd)? {
            // The name went to another region between the two opens, whose locks would prove
            // nothing about this one.
            shmem.set_owner(false);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // SAFETY: the range is the mapping `shmem` just made; DONTDUMP changes only core dumps.
        unsafe { madvise(shmem.as_ptr().cast(), shmem.len(), Advice::LinuxDontDump)? };
        // The name must outlive this process; `remove` ends it. Until here, a failed maker takes it
        // away.
        shmem.set_owner(false);
        // A name's memory may have a size limit (tmpfs), and a read of a returned page that finds
        // no memory is a SIGBUS: so nothing is returned.
        Ok(Self {
            shmem,
            file: SharedFile::new(fd, false),
        })
    }
}

/// Removes the name; processes that are attached keep the region.
pub(crate) fn remove(os_id: &str) -> io::Result<()> {
    Ok(rustix::shm::unlink(os_id)?)
}

/// Looks for the magic number without mapping the file: until it is there, nobody has made sure
/// that there is memory behind the header, and to touch a page that finds none is a SIGBUS.
fn expect_finished(fd: &OwnedFd) -> io::Result<()> {
    let mut magic = [0; 8];
    let read = rustix::io::pread(fd, &mut magic, 0)?;
    if read == 0 || magic == [0; 8] {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(())
}

/// Whether the mapping at `base` is of the file behind `fd`. The kernel tells that only in words.
fn maps_file(base: *const u8, fd: &OwnedFd) -> io::Result<bool> {
    let inode = rustix::fs::fstat(fd)?.st_ino.to_string();
    let start = format!("{:x}-", base.addr());
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    Ok(maps
        .lines()
        .find(|line| line.trim_start_matches('0').starts_with(&start))
        .is_some_and(|line| line.split_whitespace().nth(4) == Some(inode.as_str())))
}

fn open_fd(os_id: &str, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::shm::open(os_id, flags, Mode::empty())?)
}

/// The user who owns the file of this name, if it is neither this process's nor root.
pub(crate) fn foreign_owner(os_id: &str) -> io::Result<Option<u32>> {
    let owner = rustix::fs::fstat(open_fd(os_id, OFlags::RDONLY)?)?.st_uid;
    let is_trusted = owner == 0 || owner == rustix::process::geteuid().as_raw();
    Ok((!is_trusted).then_some(owner))
}

fn io_error(error: ShmemError) -> io::Error {
    match error {
        ShmemError::MappingIdExists => io::ErrorKind::AlreadyExists.into(),
        // The creator has not set the size yet.
        ShmemError::MapSizeZero => io::ErrorKind::WouldBlock.into(),
        ShmemError::MapOpenFailed(code)
        | ShmemError::MapCreateFailed(code)
        | ShmemError::UnknownOsError(code) => match i32::try_from(code) {
            // mmap of a length of 0: likewise.
            Ok(libc::EINVAL) => io::ErrorKind::WouldBlock.into(),
            Ok(code) => io::Error::from_raw_os_error(code),
            Err(_) => io::Error::other(format!("shared memory error {code}")),
        },
        other => io::Error::other(other.to_string()),
    }
}

// SAFETY: `Shmem` maps `len` bytes, page aligned, until it is dropped; only `Memory` reaches it, as
// atomics.
unsafe impl Backing for NamedBacking {
    fn base(&self) -> *mut u8 {
        self.shmem.as_ptr()
    }

    fn len(&self) -> u64 {
        self.shmem.len() as u64
    }

    fn writable(&self) -> bool {
        true
    }

    fn commit(&self, bytes: Range<u64>) -> io::Result<()> {
        self.file.commit(&bytes)
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
