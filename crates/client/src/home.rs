//! The home directory, in which the broker's socket is: which one it is, and whether it can be
//! trusted. The broker, its clients and the command line all ask here.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Environment variable with the path of the home directory.
pub const HOME_VARIABLE: &str = "GANGER_HOME";
/// The broker's socket in the home directory.
pub const SOCKET_NAME: &str = "broker.sock";

/// Longest path the kernel takes for a socket.
const SOCKET_PATH_MAX: usize = 107;
/// Mode bits that let others than the owner put a socket of theirs in our place.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why a home directory can't be used. Each names the directory.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// It is not there.
    #[error("{} is not there: is a broker running?", home.display())]
    Missing {
        /// The directory.
        home: PathBuf,
    },
    /// It is a link, a file or something else.
    #[error("{} is not a directory (a symbolic link is none either)", home.display())]
    NotADirectory {
        /// The directory.
        home: PathBuf,
    },
    /// It belongs to somebody else, who could have put anything there.
    #[error("{} belongs to user {owner}, not to user {user}", home.display())]
    Foreign {
        /// The directory.
        home: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// Others may write to it.
    #[error("{} can be written to by others (mode {mode:o}): make it 0700", home.display())]
    Writable {
        /// The directory.
        home: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The socket's path would be longer than the kernel takes.
    #[error("{} is too long: with {SOCKET_NAME} it may have {SOCKET_PATH_MAX} bytes", home.display())]
    TooLong {
        /// The directory.
        home: PathBuf,
    },
    /// It could not be made or looked at.
    #[error("{}: {error}", home.display())]
    Io {
        /// The directory.
        home: PathBuf,
        /// Why.
        #[source]
        error: Arc<io::Error>,
    },
}

/// A home directory.
///
/// ```
/// use ganger_client::Home;
///
/// let home = Home::at("/run/shop");
/// assert_eq!(home.socket().to_str(), Some("/run/shop/broker.sock"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    path: PathBuf,
}

impl Home {
    /// This directory.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The one that the environment names: `GANGER_HOME`; else `ganger` in `XDG_RUNTIME_DIR`; else
    /// `/run/ganger` for root; else a directory of this user's in the temporary directory.
    ///
    /// ```
    /// println!("{}", ganger_client::Home::find().path().display());
    /// ```
    pub fn find() -> Self {
        let variable = |name: &str| std::env::var_os(name);
        Self::choose(variable, user(), &std::env::temp_dir())
    }

    fn choose(variable: impl Fn(&str) -> Option<OsString>, user: u32, temp: &Path) -> Self {
        let set = |name| variable(name).filter(|value: &OsString| !value.is_empty());
        if let Some(path) = set(HOME_VARIABLE) {
            return Self::at(path);
        }
        if let Some(runtime) = set("XDG_RUNTIME_DIR") {
            return Self::at(Path::new(&runtime).join("ganger"));
        }
        match user {
            0 => Self::at("/run/ganger"),
            user => Self::at(temp.join(format!("ganger-{user}"))),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The broker's socket in it.
    pub fn socket(&self) -> PathBuf {
        self.path.join(SOCKET_NAME)
    }

    /// Whether what is in it can be trusted: it is a real directory of this user's (or of root's),
    /// and nobody else may write to it.
    pub fn check(&self) -> Result<(), HomeError> {
        let home = || self.path.clone();
        if self.socket().as_os_str().as_bytes().len() > SOCKET_PATH_MAX {
            return Err(HomeError::TooLong { home: home() });
        }
        let found = fs::symlink_metadata(&self.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => HomeError::Missing { home: home() },
            _ => self.io(error),
        })?;
        let (owner, user) = (found.uid(), user());
        if !found.is_dir() {
            return Err(HomeError::NotADirectory { home: home() });
        }
        if owner != user && owner != 0 {
            return Err(HomeError::Foreign {
                home: home(),
                owner,
                user,
            });
        }
        match found.mode() & 0o7777 {
            mode if mode & WRITABLE_BY_OTHERS != 0 => {
                Err(HomeError::Writable { home: home(), mode })
            }
            _ => Ok(()),
        }
    }

    /// Makes it (mode 0700) if it is not there, and checks it: for who is going to put something in
    /// it. The directories above it have to be there.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ganger-doc-home-{}", std::process::id()));
    /// let home = ganger_client::Home::at(&dir);
    /// home.create()?;
    /// home.create()?;
    /// # std::fs::remove_dir(dir).unwrap();
    /// # Ok::<(), ganger_client::HomeError>(())
    /// ```
    pub fn create(&self) -> Result<(), HomeError> {
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(self.io(error)),
            _ => self.check(),
        }
    }

    fn io(&self, error: io::Error) -> HomeError {
        HomeError::Io {
            home: self.path.clone(),
            error: Arc::new(error),
        }
    }
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{symlink, PermissionsExt};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory of its own, removed at the end.
    struct Temp(PathBuf);

    impl Temp {
        fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("ganger-home-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn choose(set: &[(&str, &str)], user: u32) -> String {
        let variable = |name: &str| {
            let found = set.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let home = Home::choose(variable, user, Path::new("/tmp"));
        home.path().to_str().unwrap().to_owned()
    }

    #[test]
    fn the_environment_comes_before_the_usual_places() {
        let runtime = ("XDG_RUNTIME_DIR", "/run/user/7");
        assert_eq!(choose(&[(HOME_VARIABLE, "/h"), runtime], 7), "/h");
        assert_eq!(
            choose(&[(HOME_VARIABLE, ""), runtime], 7),
            "/run/user/7/ganger"
        );
        assert_eq!(choose(&[], 0), "/run/ganger");
        assert_eq!(choose(&[], 7), "/tmp/ganger-7");
    }

    #[test]
    fn a_directory_of_our_own_is_made_once_and_is_ours_alone() {
        let temp = Temp::new();
        let home = Home::at(temp.0.join("home"));
        assert!(matches!(home.check(), Err(HomeError::Missing { .. })));
        home.create().unwrap();
        home.create().unwrap();
        let mode = fs::metadata(home.path()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_planted_link_a_file_and_a_directory_open_to_others_are_refused_by_name() {
        let temp = Temp::new();
        let real = Home::at(temp.0.join("real"));
        real.create().unwrap();
        let link = Home::at(temp.0.join("link"));
        symlink(real.path(), link.path()).unwrap();
        let file = Home::at(temp.0.join("file"));
        fs::write(file.path(), "").unwrap();
        for home in [&link, &file] {
            let error = home.create().unwrap_err();
            assert!(matches!(error, HomeError::NotADirectory { .. }), "{error}");
            assert!(error.to_string().contains(home.path().to_str().unwrap()));
        }
        for mode in [0o770, 0o702, 0o1777] {
            fs::set_permissions(real.path(), Permissions::from_mode(mode)).unwrap();
            let error = real.check().unwrap_err();
            assert!(matches!(error, HomeError::Writable { .. }), "{error}");
        }
        fs::set_permissions(real.path(), Permissions::from_mode(0o755)).unwrap();
        real.check().unwrap();
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        // Only root can make one; everybody else has nobody's `/proc/1` to look at.
        let temp = Temp::new();
        let home = Home::at(temp.0.join("foreign"));
        home.create().unwrap();
        if user() != 0 {
            return;
        }
        std::os::unix::fs::chown(home.path(), Some(12_345), None).unwrap();
        let error = home.check().unwrap_err();
        assert!(
            matches!(error, HomeError::Foreign { owner: 12_345, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_path_of_exactly_the_kernels_limit_is_taken_and_one_byte_more_is_not() {
        let temp = Temp::new();
        let room = SOCKET_PATH_MAX - SOCKET_NAME.len() - 1 - temp.0.as_os_str().len() - 1;
        let home = Home::at(temp.0.join("h".repeat(room)));
        home.create().unwrap();
        let longer = Home::at(temp.0.join("h".repeat(room + 1)));
        assert!(matches!(longer.create(), Err(HomeError::TooLong { .. })));
    }
}
