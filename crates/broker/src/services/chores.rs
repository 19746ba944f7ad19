//! What takes long: writing snapshots, reading them, auditing the region. One thread does it, one
//! thing at a time and in small steps, so that neither clients nor writers wait for it.

use crate::reserved::SNAPSHOT_KEY;
use crate::services::region_error;
use crate::snapshot::{self, Header, Onto, SnapshotFile};
use ganger_protocol::admin::{AdminProgress, AdminReply};
use ganger_protocol::{ErrorBody, ErrorCode};
use ganger_region::Region;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Chores that wait; one more is refused.
const WAITING_MAX: usize = 16;
/// Entries of a snapshot between two looks at the clock.
const STEP: usize = 64;
/// Progress is told so often at the most.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// One chore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chore {
    /// Writes a snapshot.
    Snapshot,
    /// Puts a snapshot into the region: the newest sound one, or the one of this name.
    Restore(Option<String>),
    /// Checks every invariant of the region.
    Audit,
}

/// What becomes of a chore.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// It is so far.
    Progress(AdminProgress),
    /// It is done.
    Done(AdminReply),
    /// It failed.
    Failed(ErrorBody),
}

/// Hears what becomes of a chore; called by the thread.
pub type Hear = Box<dyn FnMut(News) + Send>;

/// Where snapshots go, and when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotPlan {
    /// The file; without one there are no snapshots.
    pub file: Option<PathBuf>,
    /// How often one is written.
    pub every: Option<Duration>,
}

/// What happened to chores so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChoreTotals {
    /// Snapshots written.
    pub written: u64,
    /// Snapshots that could not be written; the one before is still there.
    pub failed: u64,
    /// Snapshots put into the region.
    pub restored: u64,
    /// Files that were no whole snapshots, and not used.
    pub files_refused: u64,
    /// Audits done.
    pub audits: u64,
    /// Broken invariants they found.
    pub problems: u64,
    /// Chores refused because too many waited.
    pub refused: u64,
    /// When the last snapshot was written, by the wall clock in milliseconds; 0 for never.
    pub last_written_ms: u64,
    /// Bytes of the last snapshot.
    pub last_bytes: u64,
    /// Why the last snapshot that failed did.
    pub last_error: Option<String>,
}

/// The thread, and what it is to do.
#[derive(Debug)]
pub struct Chores {
    shared: Arc<Shared>,
    running: Mutex<Running>,
}

/// Nothing of it is left once it was stopped.
#[derive(Debug, Default)]
struct Running {
    jobs: Option<SyncSender<(Chore, Hear)>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    region: Region,
    plan: SnapshotPlan,
    totals: Mutex<ChoreTotals>,
}

impl Chores {
    /// Begins the thread.
    pub fn start(region: Region, plan: SnapshotPlan) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            region,
            plan,
            totals: Mutex::default(),
        });
        let (jobs, todo) = mpsc::sync_channel(WAITING_MAX);
        let worker = Arc::clone(&shared);
        let thread = thread::Builder::new().name("chores".to_owned());
        let thread = thread.spawn(move || run(&worker, &todo))?;
        let running = Running {
            jobs: Some(jobs),
            thread: Some(thread),
        };
        Ok(Self {
            shared,
            running: Mutex::new(running),
        })
    }

    /// Has a chore done; `hear` is told what becomes of it, unless it is refused here.
    pub fn request(&self, chore: Chore, hear: Hear) -> Result<(), ErrorBody> {
        let sent = match &self.running().jobs {
            Some(jobs) => jobs.try_send((chore, hear)),
            None => return Err(ErrorCode::Draining.into()),
        };
        sent.map_err(|error| match error {
            TrySendError::Full(_) => {
                self.shared.count(|totals| totals.refused += 1);
                let why = "others wait for snapshots and audits already";
                ErrorBody::new(ErrorCode::Unavailable, why).limit(WAITING_MAX)
            }
            TrySendError::Disconnected(_) => ErrorCode::Draining.into(),
        })
    }

    /// What happened so far.
    pub fn totals(&self) -> ChoreTotals {
        self.shared.lock().clone()
    }

    /// Finishes what was begun and is waited for, and then, if asked, writes a last snapshot.
    pub fn stop(&self, with_snapshot: bool) -> Result<(), ErrorBody> {
        self.end();
        if !with_snapshot || self.shared.plan.file.is_none() {
            return Ok(());
        }
        self.shared.write(&mut |_| {}).map(drop)
    }

    fn end(&self) {
        let Running { jobs, thread } = std::mem::take(&mut *self.running());
        drop(jobs);
        // Who hears of a chore may be the last who knows of this.
        let thread = thread.filter(|thread| thread.thread().id() != thread::current().id());
        if let Some(thread) = thread {
            // It panicked, or it is over: gone either way.
            let _ = thread.join();
        }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Chores {
    fn drop(&mut self) {
        self.end();
    }
}

/// Puts the newest whole snapshot into a region before anybody is served, if there is one, and the
/// region is new: none was made of it or put into it before. Keys that are there already stay, and
/// so a restore that was interrupted may simply be begun again. `progress` is called with the
/// entries done and about how many there are. Returns what to say of it.
pub fn restore_at_start(
    region: &Region,
    plan: &SnapshotPlan,
    mut progress: impl FnMut(u64, u64),
) -> Result<Option<String>, ErrorBody> {
    let Some(path) = plan.file.as_deref().filter(|_| is_new(region)) else {
        return Ok(None);
    };
    let restored = snapshot::restore(region, path, Onto::Missing, wall_ms(), |done, header| {
        progress(done, header.expected.max(done));
    });
    let Some(restored) = restored.map_err(|error| failed(&error))? else {
        return Ok(None);
    };
    mark(region)?;
    let mut said = format!(
        "restored {} entries from {}",
        restored.entries,
        restored.path.display()
    );
    if restored.expired > 0 {
        said += &format!(", {} had expired", restored.expired);
    }
    if restored.kept > 0 {
        said += &format!(", {} were there", restored.kept);
    }
    for refused in &restored.refused {
        said += &format!("; refused {refused}");
    }
    Ok(Some(said))
}

/// Whether no snapshot belongs to a region yet. Where keys were evicted, the mark may be among
/// them.
fn is_new(region: &Region) -> bool {
    matches!(region.exists(SNAPSHOT_KEY), Ok(false)) && region.stats().evicted == 0
}

/// Notes that a snapshot belongs to a region.
fn mark(region: &Region) -> Result<(), ErrorBody> {
    let marked = region.set(SNAPSHOT_KEY, b"");
    marked
        .map(drop)
        .map_err(|error| region_error::write(&error))
}

fn run(shared: &Shared, todo: &Receiver<(Chore, Hear)>) {
    let every = shared.plan.every.filter(|_| shared.plan.file.is_some());
    let mut last = Instant::now();
    loop {
        let next = match every {
            Some(every) => todo.recv_timeout(every.saturating_sub(last.elapsed())),
            None => todo.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok((chore, mut hear)) => {
                let outcome = match chore {
                    Chore::Snapshot => shared.write(&mut hear),
                    Chore::Restore(name) => shared.restore(name.as_deref(), &mut hear),
                    Chore::Audit => shared.audit(&mut hear),
                };
                hear(outcome.map_or_else(News::Failed, News::Done));
            }
            // What fails is told, counted, and tried again at the next interval.
            Err(RecvTimeoutError::Timeout) => {
                last = Instant::now();
                if let Err(error) = shared.write(&mut |_| {}) {
                    tracing::warn!("no snapshot was written: {error}");
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Shared {
    fn write(&self, hear: &mut dyn FnMut(News)) -> Result<AdminReply, ErrorBody> {
        let outcome = self.try_write(hear);
        let mut totals = self.lock();
        match &outcome {
            Ok(reply) => {
                totals.written += 1;
                totals.last_written_ms = wall_ms();
                if let AdminReply::Snapshot { bytes, .. } = reply {
                    totals.last_bytes = *bytes;
                }
            }
            Err(error) => {
                totals.failed += 1;
                totals.last_error = Some(error.message.clone());
            }
        }
        outcome
    }

    fn try_write(&self, hear: &mut dyn FnMut(News)) -> Result<AdminReply, ErrorBody> {
        let path = self.path()?;
        let header = Header {
            region: 0,
            written_at_ms: wall_ms(),
            expected: self.region.len(),
        };
        let mut file = SnapshotFile::begin(path, header).map_err(|error| failed(&error))?;
        let mut progress = Progress::new(hear);
        loop {
            let more = file.step(&self.region, STEP, wall_ms());
            if !more.map_err(|error| failed(&error))? {
                break;
            }
            progress.tell(file.entries(), header.expected);
        }
        // First: what is in the file belongs to this region from here on.
        mark(&self.region)?;
        let entries = file.commit().map_err(|error| failed(&error))?;
        Ok(AdminReply::Snapshot {
            name: name_of(path),
            entries,
            bytes: len_of(path),
            refused: Vec::new(),
        })
    }

    fn restore(
        &self,
        name: Option<&str>,
        hear: &mut dyn FnMut(News),
    ) -> Result<AdminReply, ErrorBody> {
        let path = self.path()?;
        let known = [path.to_owned(), snapshot::previous_path(path)];
        let path = match name {
            None => path,
            // No other file can be named, whatever it is called.
            Some(name) => known
                .iter()
                .find(|path| name_of(path) == name)
                .ok_or_else(|| {
                    let names = known.iter().map(|path| name_of(path)).collect::<Vec<_>>();
                    let why = format!("there are only the snapshots {}", names.join(" and "));
                    ErrorBody::new(ErrorCode::Invalid, why)
                })?,
        };
        let mut progress = Progress::new(hear);
        let restored =
            snapshot::restore(&self.region, path, Onto::All, wall_ms(), |done, header| {
                progress.tell(done, header.expected)
            });
        let restored = restored.map_err(|error| failed(&error))?;
        let Some(restored) = restored else {
            return Err(failed(&format!(
                "{}: there is no such file",
                path.display()
            )));
        };
        mark(&self.region)?;
        self.count(|totals| {
            totals.restored += 1;
            totals.files_refused += restored.refused.len() as u64;
        });
        let refused = restored.refused.iter().map(ToString::to_string);
        Ok(AdminReply::Snapshot {
            name: name_of(&restored.path),
            entries: restored.entries,
            bytes: len_of(&restored.path),
            refused: refused.collect(),
        })
    }

    fn audit(&self, hear: &mut dyn FnMut(News)) -> Result<AdminReply, ErrorBody> {
        let mut progress = Progress::new(hear);
        let audit = self
            .region
            .check_with(|done, total| progress.tell(done, total));
        let audit = audit.map_err(|error| region_error::write(&error))?;
        self.count(|totals| {
            totals.audits += 1;
            totals.problems += audit.problems.len() as u64;
        });
        Ok(AdminReply::Audit {
            entries: audit.entries,
            problems: audit.problems,
        })
    }

    fn path(&self) -> Result<&Path, ErrorBody> {
        self.plan.file.as_deref().ok_or_else(|| {
            let why = "the broker was started without a file for snapshots";
            ErrorBody::new(ErrorCode::Unavailable, why)
        })
    }

    fn count(&self, count: impl FnOnce(&mut ChoreTotals)) {
        count(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, ChoreTotals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells how far something is, now and then.
struct Progress<'h> {
    hear: &'h mut dyn FnMut(News),
    last: Instant,
}

impl<'h> Progress<'h> {
    fn new(hear: &'h mut dyn FnMut(News)) -> Self {
        let last = Instant::now();
        Self { hear, last }
    }

    fn tell(&mut self, done: u64, total: u64) {
        if self.last.elapsed() >= TELL_EVERY {
            self.last = Instant::now();
            // More may come than was expected.
            let total = total.max(done);
            (self.hear)(News::Progress(AdminProgress { done, total }));
        }
    }
}

fn failed(why: &impl ToString) -> ErrorBody {
    ErrorBody::new(ErrorCode::SnapshotFailed, why.to_string())
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn len_of(path: &Path) -> u64 {
    // It may have been replaced or removed since; then nobody knows.
    path.metadata().map_or(0, |metadata| metadata.len())
}

/// Milliseconds since 1970.
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.unwrap_or_default().as_millis();
    u64::try_from(ms).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
