//! What a supervisor tells: status, events, lines of output. Plain data for the control socket and
//! for `--json`. Times are milliseconds since the Unix epoch, durations milliseconds, sizes bytes.

use serde::{Deserialize, Serialize};

/// Everything about a supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its process.
    pub pid: i32,
    /// Its version.
    pub version: String,
    /// Its home directory.
    pub home: String,
    /// Since when it runs.
    pub started_ms: u64,
    /// The broker beside it, if it has one.
    pub broker: Option<BrokerStatus>,
    /// Its apps, by name.
    pub apps: Vec<AppStatus>,
}

/// The broker, a child like any other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// Its process, while there is one.
    pub pid: Option<i32>,
    /// Where it is in its life.
    pub state: WorkerState,
    /// How often it was started again.
    pub restarts: u64,
}

/// An app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppStatus {
    /// Its name.
    pub name: String,
    /// Its command line.
    pub command: Vec<String>,
    /// The working directory.
    pub cwd: String,
    /// Workers wanted.
    pub wanted: u16,
    /// `reuseport` or `shared`.
    pub balance: String,
    /// The rung of the delivery ladder in use: `node`, `listen-fds`, `seccomp` or `none`.
    pub deliver: String,
    /// Why a rung that was tried before it was not taken, each.
    pub deliver_notes: Vec<String>,
    /// What it serves: `127.0.0.1:3000`, `[::]:80`, `unix:/run/app.sock`, `udp:0.0.0.0:53`.
    pub addresses: Vec<String>,
    /// Whether its workers listen nowhere, as a queue worker's don't: they count as ready because
    /// they live.
    pub listens_nowhere: bool,
    /// Grows by one with each reload.
    pub generation: u64,
    /// What is going on with the whole app, if anything: `reloading`, `scaling`, `canary 10%`,
    /// `stopping`.
    pub doing: Option<String>,
    /// Its workers, old generations included, by index and generation.
    pub workers: Vec<WorkerStatus>,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number in the app, from 0.
    pub index: u16,
    /// The generation it is of.
    pub generation: u64,
    /// Its process, while there is one.
    pub pid: Option<i32>,
    /// Where it is in its life.
    pub state: WorkerState,
    /// Since when it is there.
    pub since_ms: u64,
    /// Why it is there, in words, where that is not plain.
    pub reason: Option<String>,
    /// How often it was started again.
    pub restarts: u64,
    /// How its last process ended.
    pub last_exit: Option<Exit>,
    /// CPU time its process used.
    pub cpu_ms: u64,
    /// Memory its process has resident.
    pub resident_bytes: u64,
    /// Connections that wait in its queue.
    pub queue: u32,
    /// Its share of new connections: weights of an app's workers are relative.
    pub weight: u32,
}

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// Its process runs, and does not serve yet.
    Starting,
    /// It serves.
    Ready,
    /// It gets nothing new and finishes what it has.
    Draining,
    /// It was asked to end.
    Stopping,
    /// It died and waits for its next start.
    Backoff,
    /// It died too often, or could not be started; it is left alone.
    Failed,
    /// It ended as it should.
    Stopped,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// When.
    pub at_ms: u64,
    /// Whether the supervisor wanted it.
    pub was_wanted: bool,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at_ms: u64,
    /// Which event, counted from 1: a hole means that events were dropped.
    pub number: u64,
    /// Whose: an app's name; empty for the supervisor itself, `broker` for the broker.
    pub app: String,
    /// The worker, if it is about one.
    pub worker: Option<u16>,
    /// The worker's generation and process, if it is about one.
    pub generation: Option<u64>,
    /// The worker's process, if it is about one.
    pub pid: Option<i32>,
    /// What: a short word that scripts can match (`worker-ready`, `worker-exit`, `reload-done` ...).
    pub kind: String,
    /// The same in words.
    pub text: String,
}

/// A line that a worker wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was read.
    pub at_ms: u64,
    /// The app.
    pub app: String,
    /// The worker.
    pub worker: u16,
    /// The process.
    pub pid: i32,
    /// Whether it was standard error.
    pub is_stderr: bool,
    /// Lines that were dropped just before this one.
    pub dropped: u64,
    /// The line without its end. Cut at the limit, and not always UTF-8.
    #[serde(with = "serde_bytes")]
    pub text: Vec<u8>,
}
