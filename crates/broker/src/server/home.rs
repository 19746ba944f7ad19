//! The broker's place in its home directory: one broker for each, and its socket.
//!
//! Which directory that is, and whether it can be trusted, its caller has settled.

use rustix::fs::{flock, FlockOperation};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Held locked by the broker of this home.
const LOCK: &str = "broker.lock";

/// Why a home can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// Something else is where the socket is to be.
    #[error("{} is there and is no socket: remove it, or choose another home", path.display())]
    NoSocket {
        /// Where.
        path: PathBuf,
    },
    /// Another broker is there.
    #[error("a broker is running in {} already", path.display())]
    Running {
        /// The directory.
        path: PathBuf,
    },
    /// The system.
    #[error("{}: {error}", path.display())]
    Io {
        /// Of what.
        path: PathBuf,
        /// What it says.
        #[source]
        error: io::Error,
    },
}

/// A home directory that belongs to this broker, until it is dropped.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    socket: PathBuf,
    _lock: File,
    /// Whether the socket is of our making.
    is_bound: bool,
}

impl Home {
    /// Takes a directory in which nobody but this user can put anything, and where its socket is to
    /// be in it.
    pub fn take(path: &Path, socket: PathBuf) -> Result<Self, HomeError> {
        let lock_path = path.join(LOCK);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        // A link instead of the file is refused, not followed.
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        let lock = options
            .open(&lock_path)
            .map_err(|error| io_error(&lock_path, error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                path: path.into(),
                socket,
                _lock: lock,
                is_bound: false,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(HomeError::Running { path: path.into() }),
            Err(error) => Err(io_error(&lock_path, error.into())),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket in it.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Makes the socket, in place of one that nobody answers on. Members of the group may use it.
    pub fn bind(&mut self, group: Option<u32>) -> Result<UnixListener, HomeError> {
        let failed = |error| io_error(&self.socket, error);
        self.clear_away()?;
        let listener = UnixListener::bind(&self.socket).map_err(failed)?;
        self.is_bound = true;
        let (directory_mode, socket_mode) = match group {
            Some(_) => (0o710, 0o660),
            None => (0o700, 0o600),
        };
        if group.is_some() {
            for path in [&self.path, &self.socket] {
                std::os::unix::fs::chown(path, None, group).map_err(failed)?;
            }
        }
        for (path, mode) in [(&self.socket, socket_mode), (&self.path, directory_mode)] {
            fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
        }
        Ok(listener)
    }

    /// Takes the socket away, if it is of our making.
    pub fn unbind(&mut self) {
        if std::mem::take(&mut self.is_bound) {
            // Gone already is as good.
            let _ = fs::remove_file(&self.socket);
        }
    }

    fn clear_away(&self) -> Result<(), HomeError> {
        let path = &self.socket;
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_error(path, error)),
        };
        if !found.file_type().is_socket() {
            return Err(HomeError::NoSocket { path: path.clone() });
        }
        match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            // A full queue means that somebody listens, too.
            _ => {
                return Err(HomeError::Running {
                    path: self.path.clone(),
                })
            }
        }
        fs::remove_file(path).map_err(|error| io_error(path, error))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.unbind();
    }
}

fn io_error(path: &Path, error: io::Error) -> HomeError {
    HomeError::Io {
        path: path.into(),
        error,
    }
}
