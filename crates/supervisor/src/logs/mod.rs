//! What workers write: read at once, kept for a while, told to who follows.
//!
//! A pipe is read as fast as it is written, whatever becomes of the lines: each worker's last
//! [`Options::bytes_per_worker`] bytes are kept, who follows has a bounded queue that loses its
//! oldest lines, and the foreground is written by a thread of its own. So neither a stopped terminal
//! nor a full disk can hold up a worker or make the supervisor grow. Where lines are missing, the
//! next one says how many ([`LogLine::dropped`]).

mod capture;
mod foreground;
mod format;
pub(crate) mod queue;
mod ring;
mod split;

pub use foreground::{wants_colour, Foreground};
pub use format::{dropped_text, time_of_day, Style};
pub use split::LINE_MAX;

use crate::events::now_ms;
use crate::report::LogLine;
use capture::{Owner, Read, Source, CHUNK};
use queue::Queue;
use ring::{Kept, Ring};
use split::Line;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Bytes that a follower may lag behind.
const FOLLOW_BYTES: usize = 1024 * 1024;
/// Followers at a time.
const FOLLOWERS_MAX: usize = 256;
/// Chunks read in a row before others get their turn.
const CHUNKS_PER_TURN: u32 = 8;
/// Chunks read of a pipe whose process ended: more than a pipe holds.
const CHUNKS_AT_END: u32 = 64;

/// How much is kept, and where it is shown.
pub struct Options {
    /// Bytes kept of each worker's output.
    pub bytes_per_worker: usize,
    /// Where lines are shown at once, if anywhere.
    pub foreground: Option<Foreground>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bytes_per_worker: 256 * 1024,
            foreground: None,
        }
    }
}

/// The output of all workers. Clones are handles on the same.
#[derive(Clone)]
pub struct Logs(Arc<Mutex<Inner>>);

/// Whose lines are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this app; `None` for all.
    pub app: Option<String>,
    /// Of this worker; `None` for all.
    pub worker: Option<u16>,
}

/// Lines from some moment on.
pub struct Follow(Arc<Queue<LogLine>>);

struct Inner {
    options: Options,
    rings: BTreeMap<(String, u16), Ring>,
    lines: u64,
    sources: Vec<Arc<Mutex<Source>>>,
    followers: Vec<(Filter, Weak<Queue<LogLine>>)>,
    buffer: Box<[u8]>,
}

impl Logs {
    /// Nothing was written yet.
    pub fn new(options: Options) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            options,
            rings: BTreeMap::new(),
            lines: 0,
            sources: Vec::new(),
            followers: Vec::new(),
            buffer: vec![0; CHUNK].into(),
        })))
    }

    /// Takes the pipes of a process over, and reads them in tasks of the current runtime until they
    /// end or [`Logs::ended`] is called. An error says that one is no pipe.
    pub fn attach(
        &self,
        app: &str,
        worker: u16,
        pid: i32,
        stdout: OwnedFd,
        stderr: OwnedFd,
    ) -> io::Result<()> {
        for (fd, is_stderr) in [(stdout, false), (stderr, true)] {
            let owner = Owner {
                app: app.to_owned(),
                worker,
                pid,
                is_stderr,
            };
            let source = Arc::new(Mutex::new(Source::new(owner, fd, now_ms())?));
            self.inner().sources.push(Arc::clone(&source));
            tokio::spawn(follow_pipe(self.clone(), source));
        }
        Ok(())
    }

    /// The process was reaped: what its pipes still hold is read now, a last line without an end
    /// included, and the pipes are closed, even if a process that it left behind has them open.
    pub fn ended(&self, pid: i32) {
        let mut inner = self.inner();
        for source in inner.sources.clone() {
            let is_of = lock(&source).owner.pid == pid;
            if is_of {
                inner.drain(&source);
                lock(&source).close(|owner, line| inner.keep(owner, line));
            }
        }
        inner.forget_closed();
    }

    /// The last lines, the oldest first: what the pipes hold at this moment included.
    pub fn last(&self, filter: &Filter, lines: usize) -> Vec<LogLine> {
        let mut inner = self.inner();
        for source in inner.sources.clone() {
            inner.drain(&source);
        }
        let mut found: Vec<(u64, LogLine)> = Vec::new();
        for ((app, worker), ring) in &inner.rings {
            if filter.takes(app, *worker) {
                let last = ring.newest_first().take(lines);
                found.extend(last.map(|kept| (kept.number, kept.to_line(app, *worker))));
            }
        }
        found.sort_unstable_by_key(|(number, _)| *number);
        let skipped = found.len().saturating_sub(lines);
        found
            .into_iter()
            .skip(skipped)
            .map(|(_, line)| line)
            .collect()
    }

    /// What is written from now on. `None` if too many follow already.
    pub fn follow(&self, filter: Filter) -> Option<Follow> {
        let mut inner = self.inner();
        inner
            .followers
            .retain(|(_, queue)| queue.strong_count() > 0);
        if inner.followers.len() >= FOLLOWERS_MAX {
            return None;
        }
        let queue = Arc::new(Queue::new(
            FOLLOW_BYTES,
            |line: &LogLine| 128 + line.text.len(),
            |lost, next| next.dropped += lost.dropped + 1,
        ));
        inner.followers.push((filter, Arc::downgrade(&queue)));
        Some(Follow(queue))
    }

    /// Lets go of the lines of an app that is no more.
    pub fn forget(&self, app: &str) {
        self.inner().rings.retain(|(name, _), _| name != app);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
    }
}

impl Follow {
    /// The next line. Who lags too far behind loses the oldest lines, and the next one says how many.
    pub async fn recv(&mut self) -> LogLine {
        self.0.pop().await
    }
}

impl Filter {
    fn takes(&self, app: &str, worker: u16) -> bool {
        let is_app = self.app.as_deref().is_none_or(|wanted| wanted == app);
        is_app && self.worker.is_none_or(|wanted| wanted == worker)
    }
}

impl Kept {
    fn to_line(&self, app: &str, worker: u16) -> LogLine {
        LogLine {
            at_ms: self.at_ms,
            app: app.to_owned(),
            worker,
            pid: self.pid,
            is_stderr: self.is_stderr,
            dropped: self.line.dropped,
            text: self.line.text.clone(),
        }
    }
}

impl Inner {
    /// Reads one chunk.
    fn read(&mut self, is_task: bool, source: &Mutex<Source>) -> Read {
        let mut buffer = std::mem::take(&mut self.buffer);
        let keep = |owner: &Owner, line| self.keep(owner, line);
        let read = lock(source).read(is_task, &mut buffer, now_ms(), keep);
        self.buffer = buffer;
        read
    }

    /// Reads a few chunks: what the last one found.
    fn read_turn(&mut self, source: &Mutex<Source>) -> Read {
        (0..CHUNKS_PER_TURN)
            .map(|_| self.read(true, source))
            .find(|read| *read != Read::Some)
            .unwrap_or(Read::Some)
    }

    /// Reads what is there.
    fn drain(&mut self, source: &Mutex<Source>) {
        for _ in 0..CHUNKS_AT_END {
            if self.read(false, source) != Read::Some {
                break;
            }
        }
    }

    fn keep(&mut self, owner: &Owner, line: Line) {
        self.lines += 1;
        let kept = Kept {
            number: self.lines,
            at_ms: now_ms(),
            pid: owner.pid,
            is_stderr: owner.is_stderr,
            line,
        };
        self.tell(owner, &kept);
        let ring = self.rings.entry((owner.app.clone(), owner.worker));
        ring.or_default().push(kept, self.options.bytes_per_worker);
    }

    fn tell(&mut self, owner: &Owner, kept: &Kept) {
        if self.followers.is_empty() && self.options.foreground.is_none() {
            return;
        }
        let line = kept.to_line(&owner.app, owner.worker);
        if let Some(foreground) = &self.options.foreground {
            foreground.line(&line);
        }
        self.followers.retain(|(filter, queue)| {
            let Some(queue) = queue.upgrade() else {
                return false;
            };
            if filter.takes(&owner.app, owner.worker) {
                queue.push(line.clone());
            }
            true
        });
    }

    fn forget_closed(&mut self) {
        self.sources.retain(|source| !lock(source).is_closed);
    }
}

/// Reads a pipe until it ends.
async fn follow_pipe(logs: Logs, source: Arc<Mutex<Source>>) {
    let (pipe, closed) = {
        let source = lock(&source);
        (Arc::clone(&source.pipe), Arc::clone(&source.closed))
    };
    loop {
        tokio::select! {
            ready = pipe.readable() => if ready.is_err() { break },
            () = closed.notified() => break,
        }
        let read = logs.inner().read_turn(&source);
        match read {
            Read::End => break,
            Read::Nothing => {}
            Read::Some => tokio::task::yield_now().await,
        }
    }
    logs.inner().forget_closed();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
