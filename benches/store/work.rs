//! What the processes of a side do in a slice, and what is seen of it.

use crate::crew::{Crew, Seat};
use crate::histogram::{self, Histogram};
use crate::link;
use crate::shared::Mapping;
use crate::sides::{Operation, Store};
use crate::workload::{Draws, Key, Pattern};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Most processes of a side.
pub(crate) const SEATS: usize = 4;
/// Keys of a batch, and operations that are on their way at once when they are pipelined.
pub(crate) const BATCH: usize = 16;
/// From this size on, an operation takes so long that each one can be timed.
const LONG: usize = 4096;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    One(Operation),
    /// A get of sixteen keys by the operation that a store has for it.
    GetMany,
}

impl Task {
    pub(crate) const ALL: [Self; 4] = [
        Self::One(Operation::Get),
        Self::One(Operation::Set),
        Self::One(Operation::Incr),
        Self::GetMany,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::One(operation) => operation.name(),
            Self::GetMany => "get of 16 keys",
        }
    }
}

/// One slice's work, for all seats of a side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub(crate) task: Task,
    pub(crate) pattern: Pattern,
    /// From one operation to the next, or none to go as fast as possible.
    pub(crate) interval: Option<Duration>,
}

/// Words of the board that the job stands on, and the histograms behind them.
const NUMBER: usize = 0;
const TASK: usize = 1;
const PATTERN: usize = 2;
const INTERVAL: usize = 3;
const HISTOGRAMS: usize = 512;

/// Where jobs and times are written; one side works at a time, so there is one for all.
pub(crate) struct Board(Mapping);

impl Board {
    pub(crate) fn new() -> Self {
        Self(Mapping::new(
            (HISTOGRAMS + SEATS * histogram::WORDS).next_multiple_of(512) * 8,
        ))
    }

    fn post(&self, job: Job) {
        let write = |word: usize, value: u64| self.0.word(word).store(value, Ordering::Relaxed);
        let task = Task::ALL.iter().position(|task| *task == job.task);
        let pattern = Pattern::ALL.iter().position(|one| *one == job.pattern);
        write(TASK, task.unwrap() as u64);
        write(PATTERN, pattern.unwrap() as u64);
        write(
            INTERVAL,
            job.interval.map_or(0, |time| time.as_nanos() as u64),
        );
        self.0.word(NUMBER).fetch_add(1, Ordering::Release);
    }

    fn job(&self) -> Job {
        let read = |word: usize| self.0.word(word).load(Ordering::Relaxed);
        Job {
            task: Task::ALL[read(TASK) as usize],
            pattern: Pattern::ALL[read(PATTERN) as usize],
            interval: Some(Duration::from_nanos(read(INTERVAL))).filter(|time| !time.is_zero()),
        }
    }

    pub(crate) fn count(&self, seat: usize, took: Duration) {
        let first = HISTOGRAMS + seat * histogram::WORDS;
        histogram::count(&self.0, first, took.as_nanos() as u64);
    }

    pub(crate) fn drain(&self) -> Histogram {
        let mut all = Histogram::new();
        for seat in 0..SEATS {
            all.drain(&self.0, HISTOGRAMS + seat * histogram::WORDS);
        }
        all
    }
}

/// A store as one process uses it.
pub(crate) trait Client: link::Store {
    /// Operations that are on their way at once.
    const AT_ONCE: usize = 1;
    /// One in so many is timed, where the clock would count for much.
    const TIMED_OF: usize = 1;
}

/// A store in the process's own memory.
pub(crate) struct Mapped<S>(pub(crate) S);

impl<S: Store> link::Store for Mapped<S> {
    #[inline(always)]
    fn get(&mut self, keys: &[Key]) {
        keys.iter().for_each(|key| assert!(self.0.get(key)));
    }

    #[inline(always)]
    fn set(&mut self, keys: &[Key], value: &[u8]) {
        keys.iter().for_each(|key| self.0.set(key, value));
    }

    #[inline(always)]
    fn incr(&mut self, keys: &[Key]) {
        keys.iter().for_each(|key| self.0.incr(key));
    }

    fn get_many(&mut self, keys: &[Key]) {
        self.0.get_many(keys);
    }
}

impl<S: Store> Client for Mapped<S> {
    const TIMED_OF: usize = 64;
}

/// A store behind a socket, with so many operations on their way at once.
pub(crate) struct Socket<const AT_ONCE: usize>(pub(crate) Box<dyn link::Store>);

impl<const AT_ONCE: usize> link::Store for Socket<AT_ONCE> {
    fn get(&mut self, keys: &[Key]) {
        self.0.get(keys);
    }

    fn set(&mut self, keys: &[Key], value: &[u8]) {
        self.0.set(keys, value);
    }

    fn incr(&mut self, keys: &[Key]) {
        self.0.incr(keys);
    }

    fn get_many(&mut self, keys: &[Key]) {
        if AT_ONCE == 1 {
            self.0.get_many(keys);
        } else {
            self.0.get(keys);
        }
    }
}

impl<const AT_ONCE: usize> Client for Socket<AT_ONCE> {
    const AT_ONCE: usize = AT_ONCE;
}

/// One seat's client and what it asks for.
pub(crate) struct Worker<'b, C> {
    board: &'b Board,
    seat: usize,
    client: C,
    value: Vec<u8>,
    draws: Vec<Draws>,
    /// The slice that was seen last, and how often `batch` was called in it.
    slice: u64,
    calls: u64,
    due: Instant,
}

impl<'b, C: Client> Worker<'b, C> {
    pub(crate) fn new(
        board: &'b Board,
        seat: usize,
        client: C,
        value_len: usize,
        keys: u64,
    ) -> Self {
        let draws = Pattern::ALL.map(|pattern| Draws::among(keys, pattern, seat as u64 + 1));
        Self {
            board,
            seat,
            client,
            value: vec![0x5a; value_len],
            draws: draws.into(),
            slice: 0,
            calls: 0,
            due: Instant::now(),
        }
    }

    pub(crate) fn serve(mut self, seat: Seat<'_>) {
        seat.serve(|| self.batch());
    }

    /// Does a few operations; tells how many.
    fn batch(&mut self) -> u64 {
        let slice = self.board.0.word(NUMBER).load(Ordering::Acquire);
        if slice != self.slice {
            (self.slice, self.calls) = (slice, 0);
        }
        self.calls += 1;
        let job = self.board.job();
        // The first batch of a slice is the warm-up, before the clock of the crew runs.
        let is_counted = self.calls > 1;
        match job.interval {
            Some(interval) => self.paced(job, interval, is_counted),
            None => self.hurried(job, is_counted),
        }
    }

    fn hurried(&mut self, job: Job, is_counted: bool) -> u64 {
        let at_once = match job.task {
            Task::One(_) => C::AT_ONCE,
            Task::GetMany => BATCH,
        };
        let timed_of = if self.value.len() < LONG {
            C::TIMED_OF
        } else {
            1
        };
        let started = Instant::now();
        self.run(job, at_once);
        let took = started.elapsed();
        if is_counted {
            self.board.count(self.seat, took);
        }
        for _ in 1..timed_of {
            self.run(job, at_once);
        }
        (timed_of * at_once) as u64
    }

    /// Does one operation when it is due, and counts from then: who is late pays for those who wait
    /// behind.
    fn paced(&mut self, job: Job, interval: Duration, is_counted: bool) -> u64 {
        if self.calls == 2 {
            self.due = Instant::now();
        }
        self.due += interval;
        while is_counted && Instant::now() < self.due {
            std::hint::spin_loop();
        }
        self.run(job, C::AT_ONCE);
        if is_counted {
            self.board.count(self.seat, self.due.elapsed());
        }
        C::AT_ONCE as u64
    }

    #[inline(always)]
    fn run(&mut self, job: Job, at_once: usize) {
        let keys = self.draws[job.pattern as usize].take_many(at_once);
        match job.task {
            Task::One(Operation::Get) => self.client.get(keys),
            Task::One(Operation::Set) => self.client.set(keys, &self.value),
            Task::One(Operation::Incr) => self.client.incr(keys),
            Task::GetMany => self.client.get_many(keys),
        }
    }
}

/// What one slice showed.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Operations of all seats together.
    pub(crate) per_second: f64,
    pub(crate) times: Histogram,
    /// Microseconds of processor time per operation, of clients and server together.
    pub(crate) cpu_us: f64,
}

/// Lets so many seats of a crew do a job. `server_cpu` tells what its server used so far.
pub(crate) fn slice(
    board: &Board,
    crew: &mut Crew,
    seats: usize,
    job: Job,
    length: Duration,
    server_cpu: impl Fn() -> u64,
) -> Seen {
    board.drain();
    board.post(job);
    let before = server_cpu();
    let all: Vec<usize> = (0..seats).collect();
    let each = crew.slice(&all, length);
    let server = (server_cpu() - before) as f64;
    let ops: f64 = each.iter().map(|one| one.ops).sum();
    let clients: f64 = each.iter().map(|one| one.busy * one.ops).sum();
    Seen {
        per_second: each.iter().map(|one| 1e9 / one.wall).sum(),
        times: board.drain(),
        cpu_us: (clients + server) / ops / 1e3,
    }
}
