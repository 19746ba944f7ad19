//! A `ganger run` of a test, its verbs, and what it must not leave behind.

use super::system;
use crate::harness::{wait_until, Watchdog};
use ganger_supervisor::report::{AppStatus, Status, WorkerState, WorkerStatus};
use rustix::process::{kill_process, Pid, Signal};
use std::fs;
use std::io::PipeWriter;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The name of the app in all tests.
pub(crate) const APP: &str = "app";
/// The port that apps get; each test has an address of its own.
pub(crate) const PORT: u16 = 3000;

/// A place for a test: a home directory, a folder for its files, and a loopback address that no
/// other test has.
pub(crate) struct Place {
    folder: PathBuf,
    mark: String,
    pub(crate) address: Ipv4Addr,
    user: Option<u32>,
    _watchdog: Watchdog,
}

/// What a `ganger run` is started with.
pub(crate) struct Recipe {
    place: Place,
    workers: u16,
    options: Vec<String>,
    env: Vec<(String, String)>,
    command: Vec<String>,
    has_broker: bool,
    output: Option<PipeWriter>,
    beneath: Vec<String>,
    terminal: Option<OwnedFd>,
    before_exec: Option<fn() -> std::io::Result<()>>,
}

/// A supervisor of a test. Dropping it kills it.
pub(crate) struct Ganger {
    process: Running,
    pub(crate) place: Place,
}

/// A process that is killed when dropped.
struct Running {
    child: Child,
    has_ended: bool,
}

impl Place {
    pub(crate) fn new(test: &'static str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let name = format!("ganger-it-s{pid}-{number}");
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir(&folder).unwrap();
        // Not 127.0.0.0/16, where everything else lives.
        let [a, b, c] = [1 + pid % 250, pid / 250 % 256, 1 + number % 250].map(|part| part as u8);
        Self {
            folder,
            mark: format!("GANGER_TEST_MARK={name}"),
            address: Ipv4Addr::new(127, a, b, c),
            user: None,
            _watchdog: Watchdog::new(test, 900),
        }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// A path for a file of the test.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes another user the owner of the place, as whom everything is run from now on.
    pub(crate) fn of(mut self, uid: u32) -> Self {
        std::os::unix::fs::chown(&self.folder, Some(uid), Some(uid)).unwrap();
        self.user = Some(uid);
        self
    }

    /// Writes a file of the test, and tells its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.file(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }

    /// A supervisor that is to be started here.
    pub(crate) fn recipe(self, command: &[impl AsRef<str>]) -> Recipe {
        Recipe {
            place: self,
            workers: 2,
            options: Vec::new(),
            env: Vec::new(),
            command: command
                .iter()
                .map(|word| word.as_ref().to_owned())
                .collect(),
            has_broker: false,
            output: None,
            beneath: Vec::new(),
            terminal: None,
            before_exec: None,
        }
    }

    /// A program that is run as the user whose place it is.
    pub(crate) fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if let Some(uid) = self.user {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// `ganger` with these arguments, in this home.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.run_here(&[env!("CARGO_BIN_EXE_ganger")], arguments)
    }

    /// A program with its arguments, in the environment of this place.
    fn run_here(&self, program: &[&str], arguments: &[&str]) -> Command {
        let mut command = self.program(program[0]);
        command.args(&program[1..]);
        let (name, value) = self.mark.split_once('=').unwrap();
        command
            .args(arguments)
            .env("GANGER_HOME", self.home())
            .env(name, value)
            .env("HOST", self.address.to_string())
            .env("PORT", PORT.to_string())
            .env_remove("NODE_OPTIONS")
            .stdin(Stdio::null());
        // The tests themselves may have been started by `nohup`.
        let heed_hangups = || {
            // SAFETY: the default of a signal has no handler that would have to live.
            unsafe { libc::signal(libc::SIGHUP, libc::SIG_DFL) };
            Ok(())
        };
        // SAFETY: between fork and exec only signal() is called, which is async-signal-safe.
        unsafe { command.pre_exec(heed_hangups) };
        command
    }

    /// What all supervisors that ran here have said.
    pub(crate) fn output(&self) -> String {
        fs::read(self.file("output")).map_or(String::new(), |bytes| {
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }

    /// Processes that were started from here and still run.
    pub(crate) fn processes(&self) -> std::collections::BTreeMap<u32, String> {
        system::marked(&self.mark)
    }

    /// Fails the test if anything is left of what ran here.
    #[track_caller]
    pub(crate) fn assert_empty(&self) {
        wait_until("all processes to be gone", || self.processes().is_empty());
        assert!(
            !system::is_listening(self.address),
            "somebody still listens on {}",
            self.address
        );
        let sockets = system::unix_sockets(self.folder.to_str().unwrap());
        assert!(sockets.is_empty(), "Unix sockets are left: {sockets:?}");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for pid in self.processes().into_keys() {
            kill(pid, Signal::KILL);
        }
        if std::thread::panicking() {
            eprintln!("the supervisor said:\n{}", last(&self.output(), 60));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Recipe {
    pub(crate) fn workers(mut self, workers: u16) -> Self {
        self.workers = workers;
        self
    }

    pub(crate) fn option(mut self, words: &[&str]) -> Self {
        self.options
            .extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Where it writes, if not to the file that [`Place::output`] reads.
    pub(crate) fn output(mut self, output: PipeWriter) -> Self {
        self.output = Some(output);
        self
    }

    pub(crate) fn with_broker(mut self) -> Self {
        self.has_broker = true;
        self
    }

    /// A program that runs it as its child: the words behind these are its command.
    pub(crate) fn beneath(mut self, words: &[&str]) -> Self {
        self.beneath = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// A terminal in whose foreground it runs, and its session with it.
    pub(crate) fn terminal(mut self, terminal: OwnedFd) -> Self {
        self.terminal = Some(terminal);
        self.before_exec(|| {
            rustix::process::setsid()?;
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            Ok(())
        })
    }

    /// What its process does before it becomes one: system calls only.
    pub(crate) fn before_exec(mut self, prepare: fn() -> std::io::Result<()>) -> Self {
        self.before_exec = Some(prepare);
        self
    }

    /// Starts it and does not wait.
    pub(crate) fn launch(self) -> Ganger {
        let workers = self.workers.to_string();
        let mut arguments = vec!["run", "-n", &workers, "--name", APP];
        if !self.has_broker {
            arguments.push("--no-broker");
        }
        arguments.extend(self.options.iter().map(String::as_str));
        arguments.push("--");
        arguments.extend(self.command.iter().map(String::as_str));
        let mut program: Vec<&str> = self.beneath.iter().map(String::as_str).collect();
        program.push(env!("CARGO_BIN_EXE_ganger"));
        let mut command = self.place.run_here(&program, &arguments);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(prepare) = self.before_exec {
            // SAFETY: between fork and exec only system calls are made, as whoever gave this says.
            unsafe { command.pre_exec(prepare) };
        }
        match (self.terminal, self.output) {
            (Some(terminal), _) => {
                let clone = || terminal.try_clone().unwrap();
                command.stdin(clone()).stdout(clone()).stderr(clone());
            }
            (None, Some(output)) => {
                command.stdout(output.try_clone().unwrap()).stderr(output);
            }
            (None, None) => {
                let mut options = fs::OpenOptions::new();
                let file = options.create(true).append(true);
                let file = file.open(self.place.file("output")).unwrap();
                command.stdout(file.try_clone().unwrap()).stderr(file);
            }
        }
        let child = spawn_bound(&mut command);
        Ganger {
            process: Running {
                child,
                has_ended: false,
            },
            place: self.place,
        }
    }

    /// Starts it and waits until all workers are ready.
    pub(crate) fn start(self) -> Ganger {
        let workers = self.workers;
        let ganger = self.launch();
        ganger.wait_ready(workers);
        ganger
    }
}

impl Ganger {
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// The address that the app serves.
    pub(crate) fn at(&self) -> SocketAddr {
        self.place.at(PORT)
    }

    /// Runs a verb and tells how it went.
    pub(crate) fn verb(&self, arguments: &[&str]) -> Output {
        self.place.command(arguments).output().unwrap()
    }

    /// Runs a verb that must do what it says.
    #[track_caller]
    pub(crate) fn must(&self, arguments: &[&str]) -> String {
        let output = self.verb(arguments);
        let said = said(&output);
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    }

    /// Runs a verb that must fail, and tells what it says.
    #[track_caller]
    pub(crate) fn must_fail(&self, arguments: &[&str]) -> String {
        let output = self.verb(arguments);
        let said = said(&output);
        assert!(!output.status.success(), "{arguments:?} succeeded: {said}");
        said
    }

    pub(crate) fn status(&self) -> Option<Status> {
        let output = self.verb(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).ok()
    }

    pub(crate) fn app(&self) -> Option<AppStatus> {
        let apps = self.status()?.apps;
        apps.into_iter().find(|app| app.name == APP)
    }

    /// Workers that are ready, by index.
    pub(crate) fn ready(&self) -> Vec<WorkerStatus> {
        let workers = self.app().map(|app| app.workers).unwrap_or_default();
        let is_ready = |worker: &WorkerStatus| worker.state == WorkerState::Ready;
        workers.into_iter().filter(is_ready).collect()
    }

    /// Their processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let ready = self.ready().into_iter();
        ready
            .filter_map(|worker| worker.pid?.try_into().ok())
            .collect()
    }

    /// Waits until so many workers are ready, and no others are left.
    #[track_caller]
    pub(crate) fn wait_ready(&self, workers: u16) {
        let mut last = None;
        let deadline = std::time::Instant::now() + 4 * crate::harness::PATIENCE;
        loop {
            if let Some(app) = self.app() {
                let is_ready = |worker: &WorkerStatus| worker.state == WorkerState::Ready;
                let all = app.workers.iter().all(is_ready);
                if all && app.workers.len() == usize::from(workers) && app.doing.is_none() {
                    return;
                }
                last = Some(app);
            }
            assert!(
                std::time::Instant::now() < deadline,
                "{workers} workers are not ready: {last:#?}"
            );
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    /// Waits for the supervisor to end by itself.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let process = &mut self.process;
        let mut status = None;
        wait_until("the supervisor to end", || {
            status = process.child.try_wait().unwrap();
            status.is_some()
        });
        process.has_ended = true;
        status.unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        let process = &mut self.process;
        process.has_ended |= process.child.try_wait().unwrap().is_some();
        process.has_ended
    }

    /// Kills it if it still runs, and keeps its place.
    pub(crate) fn into_place(self) -> Place {
        let Self { process, place } = self;
        drop(process);
        place
    }

    /// Asks it to stop as a service manager does; nothing may be left.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{status}");
        self.place.assert_empty();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Starts a process that ends with the thread that started it, so that a test that is torn down
/// leaves nothing.
pub(crate) fn spawn_bound(command: &mut Command) -> Child {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        });
    }
    command.spawn().unwrap()
}

/// Sends a signal to a process that may be gone.
pub(crate) fn kill(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// All that a verb said.
pub(crate) fn said(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    format!("{out}{error}")
}

fn last(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A copy of a fixture that a test may change, as a deployment changes a program.
pub(crate) fn deploy(place: &Place, fixture: &str, name: &str) -> String {
    let text = fs::read_to_string(super::fixtures().join(fixture)).unwrap();
    place.write(name, &text)
}

/// Replaces a file at once, as a careful deployment does.
pub(crate) fn replace(path: impl AsRef<Path>, text: &str) {
    let path = path.as_ref();
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}
