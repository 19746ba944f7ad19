//! What became of the requests of a load.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// How a request can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Nobody listens.
    Refused,
    /// The connection was reset before a byte of the answer came.
    Reset,
    /// The connection was closed before a byte of the answer came.
    Dropped,
    /// The answer is not whole.
    Truncated,
    /// The answer is not the one to this request.
    Wrong,
    /// More answers than requests.
    Duplicate,
    /// The right answer, too late.
    Late,
    /// No answer in all the time that one waits.
    Silent,
    /// The client wrote on an idle kept connection that the server had closed already: the
    /// server's kernel never took the request in. No load balancer of connections can prevent it.
    IdleRace,
    /// As `IdleRace`, but the server's kernel took the request in, and the server closed without
    /// having read it: a server that could not run just then, and found both at the same time.
    IdleRaceUnread,
    /// As `IdleRace`, but the server may have read the request: it was closed at once, in that
    /// instant or because the server lost a request that it could have answered.
    IdleRaceUnproven,
    /// The client's own trouble: it had no port or no descriptor.
    Own,
}

/// A request that failed.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    /// When it failed, and for how long it had been under way.
    pub(crate) at: Duration,
    pub(crate) took: Duration,
    /// The client's port, if there was a connection.
    pub(crate) port: Option<u16>,
    /// Who answered on this connection, as far as is known.
    pub(crate) worker: Option<u32>,
    pub(crate) detail: String,
}

/// What is known of a load.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) started: Instant,
    pub(crate) sent: u64,
    /// Requests with the right answer in time.
    pub(crate) answered: u64,
    pub(crate) kinds: BTreeMap<Kind, u64>,
    /// The first failures, up to [`FAILURES_KEPT`].
    pub(crate) failures: Vec<Failure>,
    /// Right answers by process.
    pub(crate) workers: BTreeMap<u32, u64>,
    /// Connections made.
    pub(crate) connections: u64,
    /// Kept connections that the server ended as it may: with `Connection: close`, while they were
    /// idle, or with a close frame.
    pub(crate) ended: u64,
    /// Websockets that ended without a close frame.
    pub(crate) cut: u64,
    /// Times of the right answers, in microseconds, from when they were due.
    times: Vec<u32>,
    /// How far behind its clock the generator was at worst.
    pub(crate) lag: Duration,
}

/// Failures that are told one by one.
const FAILURES_KEPT: usize = 2000;

impl Report {
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            started,
            sent: 0,
            answered: 0,
            kinds: BTreeMap::new(),
            failures: Vec::new(),
            workers: BTreeMap::new(),
            connections: 0,
            ended: 0,
            cut: 0,
            times: Vec::new(),
            lag: Duration::ZERO,
        }
    }

    pub(crate) fn answer(&mut self, worker: Option<u32>, took: Duration) {
        self.answered += 1;
        if let Some(worker) = worker {
            *self.workers.entry(worker).or_default() += 1;
        }
        self.times
            .push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    pub(crate) fn fail(&mut self, failure: Failure) {
        *self.kinds.entry(failure.kind).or_default() += 1;
        if self.failures.len() < FAILURES_KEPT {
            self.failures.push(failure);
        }
    }

    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.kinds.get(&kind).copied().unwrap_or_default()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.kinds.values().sum()
    }

    /// The time within which so large a part of the right answers came.
    pub(crate) fn percentile(&self, part: f64) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        let index = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
        Duration::from_micros(times.get(index).copied().unwrap_or_default().into())
    }

    /// Fails the test if a single request failed.
    #[track_caller]
    pub(crate) fn assert_perfect(&self, what: &str) {
        assert!(self.answered > 0, "{what}: no request was made");
        assert!(self.kinds.is_empty(), "{what}: {self}");
        eprintln!("{what}: {self}");
    }

    /// The same, but for requests that were written on a connection in the instant of its close.
    #[track_caller]
    pub(crate) fn assert_perfect_but_races(&self, what: &str) {
        assert!(self.answered > 0, "{what}: no request was made");
        let races = [Kind::IdleRace, Kind::IdleRaceUnread, Kind::IdleRaceUnproven];
        let races: u64 = races.into_iter().map(|kind| self.count(kind)).sum();
        assert_eq!(self.failed(), races, "{what}: {self}");
        eprintln!("{what}: {self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sent, {} answered, {} failed {:?}; {} connections, {} ended, {} cut; p50 {:?}, \
             p99 {:?}, worst {:?}, lag {:?}; {} workers",
            self.sent,
            self.answered,
            self.failed(),
            self.kinds,
            self.connections,
            self.ended,
            self.cut,
            self.percentile(0.5),
            self.percentile(0.99),
            self.percentile(1.0),
            self.lag,
            self.workers.len(),
        )?;
        for failure in self.failures.iter().take(12) {
            write!(f, "\n  {failure}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            at,
            took,
            port,
            worker,
            detail,
        } = self;
        write!(
            f,
            "{kind:?} at {at:?} after {took:?}, port {port:?}, process {worker:?}: {detail}"
        )
    }
}
