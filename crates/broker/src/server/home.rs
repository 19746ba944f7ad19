//! The home directory: where clients find the socket, and nobody else can put anything.

use rustix::fs::{flock, FlockOperation};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The socket's name in the home directory.
pub const SOCKET: &str = "broker.sock";
/// Held locked by the broker of this home.
const LOCK: &str = "broker.lock";
/// Environment variable that names the home directory.
pub const HOME_VARIABLE: &str = "GANGER_HOME";

/// Why a home can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// It is not safe.
    #[error("{} can't be the home: {why}", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Another broker is there.
    #[error("a broker is running on {} already", path.display())]
    Running {
        /// The directory.
        path: PathBuf,
    },
    /// The path is longer than a socket's may be.
    #[error("{} is too long: the path of a socket may have 107 bytes", path.display())]
    TooLong {
        /// The socket.
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
    _lock: File,
    /// Whether the socket is of our making.
    is_bound: bool,
}

/// Where the home is, if nobody says: `variable` looks up the environment.
pub fn default_home(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    if let Some(home) = set(HOME_VARIABLE) {
        return home.into();
    }
    if let Some(runtime) = set("XDG_RUNTIME_DIR") {
        return Path::new(&runtime).join("ganger");
    }
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return "/run/ganger".into();
    }
    let temp = set("TMPDIR").map_or_else(|| "/tmp".into(), PathBuf::from);
    temp.join(format!("ganger-{}", uid.as_raw()))
}

impl Home {
    /// Takes a directory, which is made if it is not there.
    pub fn take(path: &Path) -> Result<Self, HomeError> {
        let failed = |error| io_error(path, error);
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error))
            }
            _ => {}
        }
        check(path)?;
        let lock_path = path.join(LOCK);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        // A link instead of the file is refused, not followed.
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        let lock = options
            .open(&lock_path)
            .map_err(|error| io_error(&lock_path, error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(HomeError::Running { path: path.into() });
            }
            Err(error) => return Err(io_error(&lock_path, error.into())),
        }
        Ok(Self {
            path: path.into(),
            _lock: lock,
            is_bound: false,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket in it.
    pub fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// Makes the socket, in place of one that nobody answers on. Members of the group may use it.
    pub fn bind(&mut self, group: Option<u32>) -> Result<UnixListener, HomeError> {
        let path = self.socket();
        let failed = |error| io_error(&path, error);
        if path.as_os_str().len() > 107 {
            return Err(HomeError::TooLong { path });
        }
        self.clear_away(&path)?;
        let listener = UnixListener::bind(&path).map_err(failed)?;
        self.is_bound = true;
        let (directory_mode, socket_mode) = match group {
            Some(_) => (0o710, 0o660),
            None => (0o700, 0o600),
        };
        if group.is_some() {
            for path in [&self.path, &path] {
                std::os::unix::fs::chown(path, None, group).map_err(failed)?;
            }
        }
        for (path, mode) in [(&path, socket_mode), (&self.path, directory_mode)] {
            fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
        }
        Ok(listener)
    }

    /// Takes the socket away, if it is of our making.
    pub fn unbind(&mut self) {
        if std::mem::take(&mut self.is_bound) {
            // Gone already is as good.
            let _ = fs::remove_file(self.socket());
        }
    }

    fn clear_away(&self, path: &Path) -> Result<(), HomeError> {
        let failed = |error| io_error(path, error);
        let unsafe_because = |why: &str| HomeError::Unsafe {
            path: self.path.clone(),
            why: format!("{SOCKET} in it is {why}"),
        };
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        if !found.file_type().is_socket() {
            return Err(unsafe_because("no socket"));
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
        fs::remove_file(path).map_err(failed)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.unbind();
    }
}

/// Refuses a directory in which others could put something, or that somebody else put there.
fn check(path: &Path) -> Result<(), HomeError> {
    let found = fs::symlink_metadata(path).map_err(|error| io_error(path, error))?;
    let unsafe_because = |why: String| HomeError::Unsafe {
        path: path.into(),
        why,
    };
    if found.file_type().is_symlink() {
        return Err(unsafe_because("it is a symbolic link".into()));
    }
    if !found.is_dir() {
        return Err(unsafe_because("it is no directory".into()));
    }
    let uid = rustix::process::geteuid().as_raw();
    if found.uid() != uid {
        let why = format!("it belongs to user {}, not to user {uid}", found.uid());
        return Err(unsafe_because(why));
    }
    if found.mode() & 0o022 != 0 {
        let why = format!(
            "others may write to it (mode {:04o})",
            found.mode() & 0o7777
        );
        return Err(unsafe_because(why));
    }
    Ok(())
}

fn io_error(path: &Path, error: io::Error) -> HomeError {
    HomeError::Io {
        path: path.into(),
        error,
    }
}
