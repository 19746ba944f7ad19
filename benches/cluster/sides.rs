//! The app under each of those who can run it.

use crate::nginx;
use crate::system::{self, Folder};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Workers of every side but the one that is alone.
pub(crate) const WORKERS: u32 = 2;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who runs the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ganger,
    GangerShared,
    ClusterRr,
    ClusterNone,
    Pm2,
    /// As a proxy before single processes, which it neither starts nor replaces.
    Nginx,
    Single,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Ganger,
        Self::GangerShared,
        Self::ClusterRr,
        Self::ClusterNone,
        Self::Pm2,
        Self::Nginx,
        Self::Single,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ganger => "ganger reuseport",
            Self::GangerShared => "ganger shared",
            Self::ClusterRr => "node:cluster rr",
            Self::ClusterNone => "node:cluster none",
            Self::Pm2 => "pm2",
            Self::Nginx => "nginx before",
            Self::Single => "single process",
        }
    }

    pub(crate) fn is_ganger(self) -> bool {
        matches!(self, Self::Ganger | Self::GangerShared)
    }

    /// Why this side can't take part, if so.
    pub(crate) fn lacks(self) -> Option<&'static str> {
        match self {
            Self::Pm2 if !pm2().exists() => Some("pm2 is left out: run scripts/fixtures"),
            Self::Nginx if !nginx::is_installed() => Some("nginx is left out: it is not installed"),
            _ => None,
        }
    }

    /// Whether it starts workers, and replaces them.
    pub(crate) fn is_manager(self) -> bool {
        !matches!(self, Self::Nginx | Self::Single)
    }
}

/// The app, run by somebody; gone when dropped.
pub(crate) struct Side {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    folder: Folder,
    child: Option<Child>,
    /// The app's processes, where nobody else starts them.
    alone: Vec<Child>,
    workers: u32,
}

impl Side {
    /// Starts it and waits for the first answer; tells how long that took.
    pub(crate) fn start(kind: Kind, workers: u32, slow_ms: u32) -> (Self, Duration) {
        let folder = Folder::new();
        let address = free_address();
        let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/cluster/app.js");
        let mut command = command(kind, &folder, address, workers, &app);
        let complete = |command: &mut Command, address: SocketAddr| {
            command
                .env("BENCH_FOLDER", folder.path())
                .env("BENCH_WORKERS", workers.to_string())
                .env("BENCH_SLOW_MS", slow_ms.to_string())
                .env("GANGER_HOME", folder.path().join("home"))
                .env("PM2_HOME", folder.path().join("pm2"))
                .env("HOST", address.ip().to_string())
                .env("PORT", address.port().to_string())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            if kind != Kind::Pm2 {
                bind_to_this_thread(command);
            }
        };
        complete(&mut command, address);
        let started = Instant::now();
        let mut behind = Vec::new();
        if kind == Kind::Nginx {
            for address in nginx::behind(address, workers) {
                let mut command = alone(&app);
                complete(&mut command, address);
                behind.push(command.spawn().unwrap());
            }
        }
        let child = command.spawn().unwrap();
        let side = Self {
            kind,
            address,
            folder,
            child: Some(child),
            alone: behind,
            workers: if kind == Kind::Single { 1 } else { workers },
        };
        side.wait_answer(|_| true);
        (side, started.elapsed())
    }

    /// Waits until each worker has answered, and tells their processes.
    pub(crate) fn wait_workers(&self) -> Vec<u32> {
        let mut seen = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while seen.len() < self.workers as usize {
            assert!(
                Instant::now() < deadline,
                "{}: not all answer",
                self.kind.name()
            );
            if let Some(pid) = ask(self.address).filter(|pid| !seen.contains(pid)) {
                seen.push(pid);
            }
        }
        seen
    }

    /// Asks until somebody answers who is wanted.
    pub(crate) fn wait_answer(&self, is_wanted: impl Fn(u32) -> bool) -> u32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(pid) = ask(self.address).filter(|pid| is_wanted(*pid)) {
                return pid;
            }
            assert!(Instant::now() < deadline, "{}: no answer", self.kind.name());
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// The processes that stand above the workers, a broker included.
    pub(crate) fn managers(&self) -> Vec<u32> {
        let Some(child) = &self.child else {
            return Vec::new();
        };
        match self.kind {
            Kind::Single => Vec::new(),
            Kind::ClusterRr | Kind::ClusterNone => vec![child.id()],
            Kind::Nginx => {
                let own = system::children(child.id()).into_iter();
                std::iter::once(child.id()).chain(own).collect()
            }
            Kind::Pm2 => fs::read_to_string(self.folder.path().join("pm2/pm2.pid"))
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .into_iter()
                .collect(),
            Kind::Ganger | Kind::GangerShared => {
                let own = system::children(child.id()).into_iter();
                let brokers = own.filter(|pid| !system::command(*pid).contains("app.js"));
                std::iter::once(child.id()).chain(brokers).collect()
            }
        }
    }

    /// What each worker has answered so far. Their counts are a little behind.
    pub(crate) fn counts(&self) -> BTreeMap<u32, f64> {
        // The workers write them down ten times a second.
        std::thread::sleep(Duration::from_millis(250));
        let entries = fs::read_dir(self.folder.path()).unwrap().flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let pid = name.strip_prefix("count-")?.parse().ok()?;
                let count = fs::read_to_string(entry.path()).ok()?.parse().ok()?;
                Some((pid, count))
            })
            .collect()
    }

    /// Replaces all workers one by one, as its users would; may return before it is over.
    pub(crate) fn reload(&self) {
        match self.kind {
            Kind::Ganger | Kind::GangerShared => {
                assert!(self.ganger(&["reload", "bench"]), "ganger reload works");
            }
            Kind::ClusterRr | Kind::ClusterNone => {
                let primary = self.child.as_ref().unwrap().id();
                system::kill(primary, Signal::USR2);
            }
            Kind::Pm2 => {
                let status = self.pm2(&["reload", "all"]).status();
                assert!(status.unwrap().success(), "pm2 reload works");
            }
            Kind::Nginx | Kind::Single => unreachable!("they have no workers of their own"),
        }
    }

    fn pm2(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(pm2());
        command
            .args(arguments)
            .env("PM2_HOME", self.folder.path().join("pm2"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Runs a verb of `ganger` on this side.
    pub(crate) fn ganger(&self, arguments: &[&str]) -> bool {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ganger"));
        command
            .args(arguments)
            .env("GANGER_HOME", self.folder.path().join("home"))
            .stdout(Stdio::null());
        command.status().unwrap().success()
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if self.kind == Kind::Pm2 {
            let _ = self.pm2(&["kill"]).status();
        } else {
            system::kill(child.id(), Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(10);
            while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
        }
        let _ = child.wait();
        for mut process in self.alone.drain(..) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// What each side is started by.
fn command(kind: Kind, folder: &Folder, address: SocketAddr, workers: u32, app: &Path) -> Command {
    match kind {
        Kind::Ganger | Kind::GangerShared => ganger_run(kind, workers, app),
        Kind::ClusterRr | Kind::ClusterNone => {
            let mut command = Command::new("node");
            let policy = if kind == Kind::ClusterRr {
                "rr"
            } else {
                "none"
            };
            command.arg(app.with_file_name("primary.js"));
            command.env("NODE_CLUSTER_SCHED_POLICY", policy);
            command
        }
        Kind::Pm2 => {
            let mut command = Command::new(pm2());
            command.arg("start").arg(app);
            command.args(["-i", &workers.to_string()]);
            command
        }
        Kind::Nginx => nginx::command(folder.path(), address, workers),
        Kind::Single => alone(app),
    }
}

fn alone(app: &Path) -> Command {
    let mut command = Command::new("node");
    command.arg(app);
    command
}

fn ganger_run(kind: Kind, workers: u32, app: &Path) -> Command {
    let balance = match kind {
        Kind::GangerShared => "shared",
        _ => "reuseport",
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_ganger"));
    command
        .args(["run", "--name", "bench", "-n", &workers.to_string()])
        .args(["--balance", balance, "--", "node"])
        .arg(app);
    command
}

fn pm2() -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fixtures.join("node/node_modules/.bin/pm2")
}

/// The process that answers on a connection of its own, if one does.
fn ask(address: SocketAddr) -> Option<u32> {
    let mut stream = TcpStream::connect(address).ok()?;
    let patience = Some(Duration::from_secs(5));
    stream.set_read_timeout(patience).ok()?;
    let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (_, rest) = text.split_once("x-pid: ")?;
    rest.lines().next()?.trim().parse().ok()
}

/// An address that nobody else uses: each side has one of its own.
fn free_address() -> SocketAddr {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    let [a, b, c] = [1 + pid % 250, pid / 250 % 256, 1 + number % 250].map(|part| part as u8);
    (Ipv4Addr::new(127, a, b, c), 3000).into()
}

/// Its process ends with the thread that starts it.
fn bind_to_this_thread(command: &mut Command) {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        });
    }
}
