//! Commands, deadlines and connections.

use ganger_supervisor::config::Command;
use ganger_supervisor::spawn::{signal, spawn, try_reap, Ended, Output, SpawnSpec, Spawned};
use std::cell::Cell;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// Longest wait for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A command in this environment.
pub(crate) fn command(program: &str, args: &[&str]) -> Command {
    Command {
        program: program.to_owned(),
        args: args.iter().map(|text| (*text).to_owned()).collect(),
        cwd: std::env::temp_dir(),
        env: std::env::vars().collect(),
    }
}

/// What runs a command, with pipes and nothing else.
pub(crate) fn spec(command: &Command) -> SpawnSpec<'_> {
    SpawnSpec {
        command,
        env: Vec::new(),
        fds: Vec::new(),
        output: Output::Pipes,
        has_seccomp: false,
        cgroup: None,
    }
}

/// A shell script as a command.
pub(crate) fn shell(script: &str) -> Command {
    command("sh", &["-c", script])
}

/// Held by all who fork: until a child executes its program it has open whatever this process has.
static FORKS: RwLock<()> = RwLock::new(());

thread_local! {
    static IS_ALONE: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, no child of another test has open what this test closes.
pub(crate) struct Alone {
    _guard: RwLockWriteGuard<'static, ()>,
}

pub(crate) fn alone() -> Alone {
    let _guard = FORKS.write().unwrap_or_else(PoisonError::into_inner);
    IS_ALONE.set(true);
    Alone { _guard }
}

impl Drop for Alone {
    fn drop(&mut self) {
        IS_ALONE.set(false);
    }
}

/// Starts a process, as all tests do: see [`alone`].
pub(crate) fn forking<T>(fork: impl FnOnce() -> T) -> T {
    let is_alone = IS_ALONE.get();
    let _others = (!is_alone).then(|| FORKS.read().unwrap_or_else(PoisonError::into_inner));
    fork()
}

/// A process that is killed at the end of its test, whatever comes.
pub(crate) struct Child(pub(crate) Spawned);

impl Child {
    pub(crate) fn new(spec: SpawnSpec<'_>) -> Self {
        Self(forking(|| spawn(spec)).unwrap())
    }

    /// Waits for its end.
    pub(crate) fn wait(&self) -> Ended {
        until("the process ends", || try_reap(&self.0.pidfd).unwrap())
    }

    /// All it writes, till its end.
    pub(crate) fn read(&mut self) -> String {
        all(self.0.stdout.take().unwrap())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Ok(None) = try_reap(&self.0.pidfd) {
            let _ = ganger_supervisor::spawn::signal_group(self.0.pid, libc::SIGKILL);
            let _ = signal(&self.0.pidfd, libc::SIGKILL);
            self.wait();
        }
    }
}

/// All that can be read.
pub(crate) fn all(fd: OwnedFd) -> String {
    let mut text = String::new();
    std::fs::File::from(fd).read_to_string(&mut text).unwrap();
    text
}

/// Waits until there is something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A folder of the test's own, removed at its end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ganger-sup-{}-{next}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
