//! An open-loop load generator that judges every answer.
//!
//! Requests are due by a clock, whether or not earlier ones were answered, so a server that stalls
//! meets the load that a crowd of clients would bring. Every request ends in exactly one way:
//! answered as it should be, or a failure of a named kind. One thread serves a whole load.

/// Whether an answer is the right one.
mod answer;
/// One request on one connection.
mod http;
/// Connections: TCP and Unix sockets.
mod line;
/// When requests are due, and on which connection.
mod pace;
/// What became of the requests.
pub(crate) mod report;
/// The generator against servers that misbehave on purpose.
mod self_test;
/// Echoes over websockets.
mod websocket;

pub(crate) use report::{Kind, Report};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Where the load goes.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Which connection a request uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connections {
    /// One of its own.
    Fresh,
    /// The next of so many that are kept; more are opened while all of these are busy.
    Kept(usize),
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A few bytes each way.
    Hello,
    /// An answer that takes the server so many milliseconds. Its head comes at once.
    Slow(u32),
    /// A body of so many bytes from the server.
    Download(usize),
    /// A body of so many bytes to the server.
    Upload(usize),
    /// A file that the server has, of which this is the text. It does not say who served it.
    File(&'static str),
    /// An echo over a websocket.
    Echo,
}

/// A load: what is asked of whom, and how often.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) connections: Connections,
    pub(crate) shape: Shape,
    /// Requests per second.
    pub(crate) rate: f64,
    /// A right answer that takes longer is a failure all the same.
    pub(crate) late: Duration,
    /// Nobody waits longer than this for an answer.
    pub(crate) give_up: Duration,
}

impl Plan {
    /// A load of small requests, each on a connection of its own.
    pub(crate) fn new(target: SocketAddr, rate: f64) -> Self {
        Self {
            target: Target::Tcp(target),
            connections: Connections::Fresh,
            shape: Shape::Hello,
            rate,
            late: Duration::from_secs(8),
            give_up: Duration::from_secs(25),
        }
    }

    pub(crate) fn kept(mut self, connections: usize) -> Self {
        self.connections = Connections::Kept(connections);
        self
    }

    pub(crate) fn shape(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    pub(crate) fn unix(mut self, path: PathBuf) -> Self {
        self.target = Target::Unix(path);
        self
    }
}

/// A load that runs. Dropping it ends it without a judgement.
pub(crate) struct Load {
    report: Arc<Mutex<Report>>,
    is_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(plan: Plan) -> Self {
        let report = Arc::new(Mutex::new(Report::new(Instant::now())));
        let is_ended = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (report, is_ended) = (Arc::clone(&report), Arc::clone(&is_ended));
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                tokio::task::LocalSet::new().block_on(&runtime, pace::run(plan, report, is_ended));
            }
        });
        Self {
            report,
            is_ended,
            thread: Some(thread),
        }
    }

    /// What is known so far.
    pub(crate) fn so_far(&self) -> Report {
        self.report.lock().unwrap().clone()
    }

    /// How many requests were answered as they should be.
    pub(crate) fn answered(&self) -> u64 {
        self.report.lock().unwrap().answered
    }

    /// Waits until so many more requests were answered well.
    pub(crate) fn wait_answers(&self, more: u64) {
        let goal = self.answered() + more;
        crate::harness::wait_until("answers", || self.answered() >= goal);
    }

    /// Sends no more, waits for the answers to what was sent, and tells what became of all.
    pub(crate) fn stop(mut self) -> Report {
        self.is_ended.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        let report = self.so_far();
        assert_eq!(
            report.sent,
            report.answered + report.failed(),
            "every request ends in one way"
        );
        report
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.is_ended.store(true, Ordering::Relaxed);
    }
}
