//! Broker processes for tests: each with a home directory of its own, both gone at the end.

use crate::harness::wait_until;
use ganger_client::{Client, ClientBuilder};
use rustix::process::{kill_process, Pid, Signal};
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long the async body of a test may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A home directory, and the broker in it, if it runs.
pub(crate) struct Broker {
    pub(crate) home: PathBuf,
    options: Vec<String>,
    process: Option<Child>,
}

impl Broker {
    /// Starts one.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with more options.
    pub(crate) fn with(options: &[&str]) -> Self {
        let mut broker = Self::idle(options);
        broker.restart();
        broker
    }

    /// A home only.
    pub(crate) fn idle(options: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ganger-it-{}-{number}", std::process::id());
        let home = std::env::temp_dir().join(name);
        ganger_client::Home::at(&home).create().unwrap();
        Self {
            home,
            options: options.iter().map(|&option| option.to_owned()).collect(),
            process: None,
        }
    }

    /// The command that starts it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ganger"));
        command.args(["broker", "--home"]);
        command.arg(&self.home).args(&self.options);
        if !self.options.iter().any(|option| option == "--region-size") {
            command.args(["--region-size", "64MiB"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let log = fs::File::create(self.home.join("log")).unwrap();
        command.stderr(log);
        command
    }

    pub(crate) fn restart(&mut self) {
        let command = self.command();
        self.run(command);
    }

    /// Starts it by a command of the test's own.
    pub(crate) fn run(&mut self, mut command: Command) {
        assert!(self.process.is_none());
        self.process = Some(command.spawn().unwrap());
    }

    /// What it wrote to its standard error since it was last started.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.home.join(ganger_client::SOCKET_NAME)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.process.as_ref().unwrap());
        // It is not reaped yet, so the pid is still its own.
        kill_process(pid, signal).unwrap();
    }

    /// Kills it, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let process = self.process.as_mut().unwrap();
        let mut status = None;
        wait_until("the broker to end", || {
            status = process.try_wait().unwrap();
            status.is_some()
        });
        self.process = None;
        status.unwrap()
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    pub(crate) fn client(&self) -> ClientBuilder {
        builder(&self.home)
    }

    pub(crate) async fn connect(&self) -> Client {
        self.client().connect().await.unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// A client that waits until the broker of a home is there.
pub(crate) fn builder(home: &Path) -> ClientBuilder {
    ClientBuilder::new()
        .home(home)
        .patience(Duration::from_secs(20))
}

/// Runs a test, for two minutes at most.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let done = tokio::time::timeout(LIMIT, test).await;
        done.expect("the test hangs");
    });
}
