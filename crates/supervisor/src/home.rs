//! The supervisor's home directory: one supervisor at a time, and the sockets in it.

use ganger_client::{Home, HomeError};
use rustix::fs::{flock, FlockOperation, OFlags};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The supervisor's own socket in the home directory.
pub const CONTROL_NAME: &str = "control.sock";
/// Held locked by the supervisor of this home; its content says who that is.
const LOCK_NAME: &str = "supervisor.lock";
/// Longest path the kernel takes for a socket.
const SOCKET_PATH_MAX: usize = 107;
/// Bytes of a lock file that are looked at.
const OWNER_MAX: u64 = 256;

/// Why a supervisor can't have a home.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeError {
    /// The directory is not to be trusted, or not to be made.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Another supervisor has it.
    #[error(
        "a supervisor is running on {} already ({owner}): add an app to it with `ganger start`, or \
         choose another home with --home", home.display()
    )]
    Running {
        /// The directory.
        home: PathBuf,
        /// Who it is, by its own word.
        owner: String,
    },
    /// Something answers on a socket's path though no supervisor has the home.
    #[error("{} is in use: another program listens there (a broker without supervisor?)", path.display())]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// There is a file, a directory or a link where the socket should be.
    #[error("{} is no socket: move it away", path.display())]
    NotASocket {
        /// What is there.
        path: PathBuf,
    },
    /// The path is longer than a socket's may be.
    #[error("{} is too long: the path of a socket may have {SOCKET_PATH_MAX} bytes", path.display())]
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

/// A home directory that belongs to this supervisor until it is dropped; then its sockets are gone.
#[derive(Debug)]
pub struct TakenHome {
    home: Home,
    lock: File,
    bound: Vec<PathBuf>,
}

impl TakenHome {
    /// Takes a home, which is made if it is not there.
    pub fn take(home: Home) -> Result<Self, TakeError> {
        home.create()?;
        let path = home.path().join(LOCK_NAME);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        // A link instead of the file is refused, not followed.
        options
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let mut lock = options
            .open(&path)
            .map_err(|error| io_error(&path, error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(TakeError::Running {
                    home: home.path().into(),
                    owner: owner(&mut lock),
                });
            }
            Err(error) => return Err(io_error(&path, error.into())),
        }
        let mut taken = Self {
            home,
            lock,
            bound: Vec::new(),
        };
        taken.say(&[]);
        Ok(taken)
    }

    /// Where it is.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Writes into the lock file who has the home, for whoever wants it too.
    pub fn say(&mut self, apps: &[&str]) {
        let mut text = format!("pid {}", std::process::id());
        if !apps.is_empty() {
            text = format!("{text}, running {}", apps.join(", "));
        }
        // It is only for people: what can't be written is not missed by the lock.
        let _ = self.lock.set_len(0);
        let _ = self.lock.rewind();
        let _ = self.lock.write_all(text.as_bytes());
    }

    /// Listens on a socket of this name, which only this user can use, in place of one that nobody
    /// answers on.
    pub fn bind(&mut self, name: &str) -> Result<UnixListener, TakeError> {
        let path = self.home.path().join(name);
        if path.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(TakeError::TooLong { path });
        }
        clear_away(&path)?;
        // The directory lets nobody else in, so nobody sees the mode that it has at first.
        let listener = UnixListener::bind(&path).map_err(|error| io_error(&path, error))?;
        self.bound.push(path.clone());
        fs::set_permissions(&path, Permissions::from_mode(0o600))
            .map_err(|error| io_error(&path, error))?;
        Ok(listener)
    }
}

impl Drop for TakenHome {
    fn drop(&mut self) {
        for path in self.bound.drain(..) {
            // Gone already is as good.
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes a socket that nobody answers on.
fn clear_away(path: &Path) -> Result<(), TakeError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(path, error)),
    };
    if !found.file_type().is_socket() {
        return Err(TakeError::NotASocket { path: path.into() });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        // A full queue means that somebody listens, too.
        _ => return Err(TakeError::SocketInUse { path: path.into() }),
    }
    fs::remove_file(path).map_err(|error| io_error(path, error))
}

fn owner(lock: &mut File) -> String {
    let mut text = Vec::new();
    let read = lock.take(OWNER_MAX).read_to_end(&mut text);
    match read {
        Ok(len) if len > 0 => String::from_utf8_lossy(&text).escape_debug().to_string(),
        _ => "it did not say which".to_owned(),
    }
}

fn io_error(path: &Path, error: io::Error) -> TakeError {
    TakeError::Io {
        path: path.into(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, Instant};

    struct Temp(PathBuf);

    impl Temp {
        fn new(name: &str) -> Self {
            let name = format!("ganger-taken-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
            Self(path)
        }

        fn home(&self) -> Home {
            Home::at(self.0.join("home"))
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_second_is_told_who_the_first_is_and_takes_it_when_it_is_gone() {
        let temp = Temp::new("second");
        let mut first = TakenHome::take(temp.home()).unwrap();
        first.say(&["web", "jobs"]);
        let error = TakenHome::take(temp.home()).unwrap_err().to_string();
        let owner = format!("(pid {}, running web, jobs)", std::process::id());
        assert!(error.contains(&owner), "{error}");
        drop(first);
        // A process that another test is about to start holds a copy of the lock until its exec.
        let deadline = Instant::now() + Duration::from_secs(30);
        while TakenHome::take(temp.home()).is_err() {
            assert!(Instant::now() < deadline, "the home is still taken");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let temp = Temp::new("socket");
        let mut taken = TakenHome::take(temp.home()).unwrap();
        let path = taken.home().path().join(CONTROL_NAME);
        drop(UnixListener::bind(&path).unwrap());
        let listener = taken.bind(CONTROL_NAME).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let error = taken.bind(CONTROL_NAME).unwrap_err();
        assert!(matches!(error, TakeError::SocketInUse { .. }), "{error}");
        drop(listener);
        drop(taken);
        assert!(!path.exists());
    }

    #[test]
    fn a_link_or_a_file_in_the_place_of_a_socket_or_of_the_lock_is_refused() {
        let temp = Temp::new("planted");
        let home = temp.home();
        home.create().unwrap();
        symlink("/dev/null", home.path().join(LOCK_NAME)).unwrap();
        let error = TakenHome::take(temp.home()).unwrap_err();
        assert!(matches!(error, TakeError::Io { .. }), "{error}");
        fs::remove_file(home.path().join(LOCK_NAME)).unwrap();

        let mut taken = TakenHome::take(temp.home()).unwrap();
        fs::write(home.path().join("file.sock"), "").unwrap();
        symlink("/nowhere", home.path().join("link.sock")).unwrap();
        for name in ["file.sock", "link.sock"] {
            let error = taken.bind(name).unwrap_err();
            assert!(matches!(error, TakeError::NotASocket { .. }), "{error}");
        }
    }

    #[test]
    fn a_path_one_byte_too_long_is_refused_and_the_longest_is_not() {
        let temp = Temp::new("long");
        let mut taken = TakenHome::take(temp.home()).unwrap();
        let room = SOCKET_PATH_MAX - taken.home().path().as_os_str().len() - 1;
        taken.bind(&"s".repeat(room)).unwrap();
        let error = taken.bind(&"s".repeat(room + 1)).unwrap_err();
        assert!(matches!(error, TakeError::TooLong { .. }), "{error}");
    }
}
