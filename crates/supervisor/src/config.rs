//! What an app is: its command, its listeners, and how it is kept alive. Plain data, checked where
//! it is made; it travels over the control socket as it is.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Workers an app may have.
pub const WORKERS_MAX: u16 = 512;
/// Bytes of an app's name.
pub const NAME_MAX: usize = 64;

/// Whether an app may be called so. `broker` stands for the broker where output and events are told.
pub fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(is_plain)
        && !name.starts_with(['-', '.'])
        && name != "broker"
}

/// An app: N workers that run the same command behind the same addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppConfig {
    /// Its name: 1 to 64 of `a-z A-Z 0-9 . _ -`, unique in a supervisor.
    pub name: String,
    /// What each worker runs.
    pub command: Command,
    /// How many of them.
    pub workers: WorkerCount,
    /// The addresses it serves, where they are told beforehand; the others are learnt when the
    /// program binds them.
    pub listen: Vec<String>,
    /// Who gets a new connection.
    pub balance: Balance,
    /// How a worker gets its listeners.
    pub deliver: Deliver,
    /// When a worker counts as ready.
    pub ready: Ready,
    /// How a worker is asked to stop.
    pub stop: Stop,
    /// What follows a worker's death.
    pub restart: Restart,
    /// How a worker that hangs is found out, if at all.
    pub liveness: Option<Liveness>,
    /// Workers replaced at a time by a reload.
    pub width: u16,
    /// Whether Node workers get the preload that drains kept connections politely.
    pub preload: bool,
}

/// A command line with where and in which environment it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program: a path, or a name that `PATH` resolves.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Its environment, whole.
    pub env: Vec<(String, String)>,
}

/// How many workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerCount {
    /// As many as CPUs this process may use, by affinity and control group.
    Auto,
    /// So many: 1 to [`WORKERS_MAX`].
    Exactly(u16),
}

/// Who gets a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// A queue for each worker; the kernel spreads connections evenly.
    Reuseport,
    /// One queue for all; the first idle worker takes.
    Shared,
}

/// How a worker gets its listeners: the ladder's rungs, or the first that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deliver {
    /// The first rung that fits the program and this system.
    Auto,
    /// The protocol of node:cluster.
    Node,
    /// `LISTEN_FDS`, the protocol of systemd.
    ListenFds,
    /// Its `bind` is answered by the supervisor.
    Seccomp,
}

/// When a worker is ready. A worker that listens (as the delivery sees it), says `READY=1` or sends
/// `ready` is; an HTTP probe, where there is one, must succeed too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Only `READY=1` or `process.send('ready')` counts, not a listener.
    pub is_explicit: bool,
    /// A path that must answer 2xx or 3xx, if any.
    pub http_path: Option<String>,
    /// A start that takes longer has failed.
    pub timeout_ms: u64,
    /// A worker must stay alive so long after it is ready before it counts.
    pub healthy_ms: u64,
}

/// How a worker is asked to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The signal that asks: its number.
    pub signal: i32,
    /// What lives so long after it is killed.
    pub grace_ms: u64,
}

/// What follows a worker's death.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// Wait before the first restart; then doubled each time, with jitter. 0: never any. If it is
    /// not given: none before the first, growing ones from then on.
    pub delay_ms: Option<u64>,
    /// Longest wait.
    pub delay_max_ms: u64,
    /// So many crashes within the window stop the worker: it is failed.
    pub crashes_max: u32,
    /// The window in which crashes are counted.
    pub window_ms: u64,
    /// Exit codes that mean that the worker is done and is not to be restarted.
    pub expected_codes: Vec<i32>,
}

/// How a worker that hangs is found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    /// What is asked.
    pub probe: Probe,
    /// How often.
    pub every_ms: u64,
    /// Longest wait for an answer.
    pub timeout_ms: u64,
    /// So many failures in a row mean that it hangs.
    pub failures_max: u32,
}

/// What a liveness probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// A path on the worker's own first listener must answer below 500.
    Http(String),
    /// A connection to the worker's own first listener must be accepted.
    Tcp,
    /// The worker must say `WATCHDOG=1` (sd_notify) or send `heartbeat` (Node) in time.
    Heartbeat,
}

impl AppConfig {
    /// The option that only makes sense of an app that listens, if there is one.
    pub(crate) fn listener_option(&self) -> Option<String> {
        if !self.listen.is_empty() {
            return Some(format!("--listen {}", self.listen.join(" --listen ")));
        }
        if let Some(path) = &self.ready.http_path {
            return Some(format!("--ready-http {path}"));
        }
        match &self.liveness.as_ref()?.probe {
            Probe::Tcp => Some("--liveness tcp".to_owned()),
            Probe::Http(path) => Some(format!("--liveness http:{path}")),
            Probe::Heartbeat => None,
        }
    }
}

impl Liveness {
    /// How long a worker may be silent before it counts as hanging.
    pub fn patience_ms(&self) -> u64 {
        let rounds = u64::from(self.failures_max.max(1));
        self.every_ms
            .max(self.timeout_ms)
            .saturating_mul(rounds)
            .max(1)
    }
}

impl Default for Ready {
    fn default() -> Self {
        Self {
            is_explicit: false,
            http_path: None,
            timeout_ms: 30_000,
            healthy_ms: 0,
        }
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            signal: 15,
            grace_ms: 10_000,
        }
    }
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            delay_ms: None,
            delay_max_ms: 15_000,
            crashes_max: 15,
            window_ms: 60_000,
            expected_codes: Vec::new(),
        }
    }
}
