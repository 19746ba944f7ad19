//! Unix sockets and their files. A file that nobody answers at is left from before and removed; the
//! own one is removed at the end. Programs that know nothing of us remove it too, before they bind
//! or when they end: a second name of the same file, hidden beside it, brings it back.

use super::{holder, Address, ListenError};
use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The file of a Unix socket of ours. Removed when dropped.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    /// Another name of it, where one could be made.
    spare: Option<PathBuf>,
    device_and_inode: Option<(u64, u64)>,
}

/// Binds and listens.
pub(super) fn open(path: &Path, backlog: u32) -> Result<(OwnedFd, File), ListenError> {
    let address = Address::Unix(path.to_owned());
    let of = |errno| ListenError::of(&address, errno);
    if path
        .symlink_metadata()
        .is_ok_and(|file| !file.file_type().is_socket())
    {
        return Err(ListenError::NoSocket {
            address: address.to_string(),
        });
    }
    let name = SocketAddrUnix::new(path).map_err(of)?;
    let fd = socket().map_err(of)?;
    match rustix::net::bind(&fd, &name) {
        Err(Errno::ADDRINUSE) if is_stale(&name) => {
            let _ = fs::remove_file(path);
            rustix::net::bind(&fd, &name).map_err(of)?;
        }
        Err(Errno::ADDRINUSE) => {
            let holder = holder::of(&address);
            return Err(ListenError::Busy {
                address: address.to_string(),
                holder: holder.unwrap_or_else(|| "a process that can't be seen".into()),
            });
        }
        result => result.map_err(of)?,
    }
    // At once: until then others take the file for one that nobody answers at.
    let listening = rustix::net::listen(&fd, i32::try_from(backlog).unwrap_or(i32::MAX));
    let file = File::new(path);
    listening.map_err(of)?;
    Ok((fd, file))
}

fn socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Whether nobody answers. A full queue (`EAGAIN`) is an answer.
fn is_stale(name: &SocketAddrUnix) -> bool {
    let connected = socket().and_then(|fd| rustix::net::connect(&fd, name));
    matches!(connected, Err(Errno::CONNREFUSED))
}

impl File {
    fn new(path: &Path) -> Self {
        let spare = path.file_name().map(|name| {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(".ganger");
            path.with_file_name(hidden)
        });
        let spare = spare.filter(|spare| {
            // Left by one that was killed; the path itself is ours now.
            let _ = fs::remove_file(spare);
            link(path, spare)
        });
        let device_and_inode = identity(path);
        Self {
            path: path.to_owned(),
            spare,
            device_and_inode,
        }
    }

    /// Brings the file back if it was removed; leaves alone what another put in its place.
    pub(super) fn restore(&self) {
        if let Some(spare) = &self.spare {
            if identity(&self.path).is_none() {
                link(spare, &self.path);
            }
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if self.device_and_inode.is_some() && identity(&self.path) == self.device_and_inode {
            let _ = fs::remove_file(&self.path);
        }
        if let Some(spare) = &self.spare {
            let _ = fs::remove_file(spare);
        }
    }
}

fn link(from: &Path, to: &Path) -> bool {
    rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty()).is_ok()
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = path.symlink_metadata().ok()?;
    Some((file.dev(), file.ino()))
}
