//! A control group of a worker's own, where this process may make one: then nothing of the worker
//! can hide from its end, however often it forks.

use crate::cpus::own_group;
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A control group (v2). Removed when it is dropped, if it is empty then.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
    procs: OwnedFd,
}

impl Cgroup {
    /// Makes the group `name` beneath that of this process.
    ///
    /// # Errors
    ///
    /// The system's; mostly that it isn't permitted, or that there is no cgroup v2. A group of
    /// that name may be there from before.
    pub fn new(name: &str) -> io::Result<Self> {
        let path = own_group().ok_or(io::ErrorKind::Unsupported)?.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Without this file (Linux 5.14) the group would be of no use.
        if !path.join("cgroup.kill").exists() {
            let _ = fs::remove_dir(&path);
            return Err(io::ErrorKind::Unsupported.into());
        }
        let open =
            |path: &Path, flags| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty());
        Ok(Self {
            directory: open(&path, OFlags::PATH | OFlags::DIRECTORY)?,
            procs: open(&path.join("cgroup.procs"), OFlags::WRONLY)?,
            path,
        })
    }

    /// Kills all that is in it.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.kill"), "1")
    }

    /// Whether a process is in it.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        fs::read_to_string(self.path.join("cgroup.procs")).is_ok_and(|text| !text.is_empty())
    }

    /// Removes it. False while something is in it: the kernel takes a moment to forget the dead.
    #[must_use]
    pub fn remove(&self) -> bool {
        gone(&self.path)
    }

    pub(super) const fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    pub(super) const fn procs(&self) -> &OwnedFd {
        &self.procs
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

/// Removes all groups beneath that of this process whose names are wanted and in which nothing is.
/// How many wanted ones are left.
pub(crate) fn sweep(is_wanted: impl Fn(&str) -> bool) -> usize {
    let Some(own) = own_group() else { return 0 };
    let inner = fs::read_dir(own).into_iter().flatten().flatten();
    inner
        .filter(|entry| entry.file_name().to_str().is_some_and(&is_wanted))
        .filter(|entry| !gone(&entry.path()))
        .count()
}

fn gone(path: &Path) -> bool {
    match fs::remove_dir(path) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}
