//! Stand-ins for shared memory and for death under `--cfg loom`, so that the crate's own code can
//! be explored.
//!
//! A whole region is far more than a model checker can track, so its words come into being when
//! they are first touched, with the value they have in an [`Image`]: a region that was prepared
//! once, outside the exploration. Loom wants every atomic to be made before the threads that use
//! it. So a word that a thread is the first to touch is noted in the image, and the exploration
//! starts anew with that word made beforehand.
//!
//! A kill ([`killed_after`]) unwinds out of the operation at the store it must not make any more;
//! while a thread unwinds none of its stores has an effect, so what its destructors would do is
//! left undone as well. After that the liveness lock of its session is dropped. Being killed
//! between two loads is the same as being killed before the next store, so counting stores covers
//! every instruction.

use crate::backing::Backing;
use crate::config::{Access, Config, Options};
use crate::error::{AttachError, SessionError, WriteError};
use crate::layout::{bucket_of, shard, Geometry, WORD};
use crate::region::Region;
use crate::sync::local::{AtomicU64 as Count, Ordering};
use loom::sync::atomic as checked;
use loom::thread::{JoinHandle, ThreadId};
use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Loom's atomic, whose stores count towards a kill and have no effect while the thread unwinds.
#[derive(Debug)]
pub(crate) struct AtomicU64 {
    word: Option<checked::AtomicU64>,
    role: Role,
}

/// Who may write a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The lock of the shard.
    Lock,
    /// Whoever holds the lock.
    Locked,
    /// Anybody.
    Free,
}

/// What a thread that unwinds is shown for a word that was never made.
static NOWHERE: AtomicU64 = AtomicU64 {
    word: None,
    role: Role::Free,
};

impl AtomicU64 {
    fn new(value: u64, role: Role) -> Self {
        Self {
            word: Some(checked::AtomicU64::new(value)),
            role,
        }
    }

    pub(crate) fn load(&self, ordering: Ordering) -> u64 {
        let word = self.word.as_ref().filter(|_| !std::thread::panicking());
        word.map_or(0, |word| {
            if !SEALED.get() || self.role == Role::Locked && is_holder() {
                // SAFETY: loom reports it if this load were not ordered after all stores.
                unsafe { word.unsync_load() }
            } else {
                word.load(ordering)
            }
        })
    }

    /// The word for a store; none if the store must not have an effect.
    fn stored(&self) -> Option<&checked::AtomicU64> {
        self.word.as_ref().filter(|_| may_store())
    }

    pub(crate) fn store(&self, value: u64, ordering: Ordering) {
        if let Some(word) = self.stored() {
            word.store(value, ordering);
            if self.role == Role::Lock {
                HOLDER.set(None);
            }
        }
    }

    pub(crate) fn swap(&self, value: u64, ordering: Ordering) -> u64 {
        self.stored().map_or(0, |word| word.swap(value, ordering))
    }

    pub(crate) fn compare_exchange(
        &self,
        from: u64,
        to: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.stored().map_or(Ok(from), |word| {
            let swapped = word.compare_exchange(from, to, success, failure);
            if self.role == Role::Lock && swapped.is_ok() {
                HOLDER.set(Some(loom::thread::current().id()));
            }
            swapped
        })
    }

    pub(crate) fn fetch_add(&self, more: u64, ordering: Ordering) -> u64 {
        self.stored()
            .map_or(0, |word| word.fetch_add(more, ordering))
    }

    pub(crate) fn fetch_min(&self, value: u64, ordering: Ordering) -> u64 {
        self.stored()
            .map_or(0, |word| word.fetch_min(value, ordering))
    }

    pub(crate) fn fetch_or(&self, bits: u64, ordering: Ordering) -> u64 {
        self.stored()
            .map_or(0, |word| word.fetch_or(bits, ordering))
    }

    pub(crate) fn fetch_and(&self, bits: u64, ordering: Ordering) -> u64 {
        self.stored()
            .map_or(0, |word| word.fetch_and(bits, ordering))
    }
}

/// The thread that is to be killed, and the stores it may still make.
#[derive(Clone, Copy)]
struct Doom {
    thread: ThreadId,
    stores_left: u64,
}

/// What unwinds out of an operation that is killed.
struct Killed;

thread_local! {
    /// All threads of one exploration run on one thread of the system.
    static DOOM: Cell<Option<Doom>> = const { Cell::new(None) };
    /// The thread that holds the lock of the shard. A holder's loads of words that only holders
    /// write have one possible value. They are kept from loom's schedule not only because that
    /// saves work: loom looks for races against the last access of a word alone, so the load before
    /// a holder's store would hide the reader's.
    static HOLDER: Cell<Option<ThreadId>> = const { Cell::new(None) };
    /// Whether there are threads besides the first one.
    static SEALED: Cell<bool> = const { Cell::new(false) };
    /// What this execution goes without.
    static WITHOUT: Cell<Option<Weakness>> = const { Cell::new(None) };
}

/// An ordering that an execution can go without, to see that the model would miss it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    /// The fence before a block is filled.
    BuildFence,
    /// The release with which the version of a bucket is raised.
    VersionRelease,
}

pub(crate) fn is_without(weakness: Weakness) -> bool {
    WITHOUT.get() == Some(weakness)
}

fn is_holder() -> bool {
    HOLDER
        .get()
        .is_some_and(|holder| holder == loom::thread::current().id())
}

fn may_store() -> bool {
    if std::thread::panicking() {
        return false;
    }
    if let Some(mut doom) = DOOM.get() {
        if doom.thread == loom::thread::current().id() {
            if doom.stores_left == 0 {
                resume_unwind(Box::new(Killed));
            }
            doom.stores_left -= 1;
            DOOM.set(Some(doom));
        }
    }
    true
}

/// Runs an operation as a process that is killed right before its store number `stores` (from 0):
/// `None` if that happened, the result if the operation was over before. The handle is of no use
/// after a kill.
pub fn killed_after<T>(
    region: &Region,
    stores: u64,
    operation: impl FnOnce(&Region) -> T,
) -> Option<T> {
    DOOM.set(Some(Doom {
        thread: loom::thread::current().id(),
        stores_left: stores,
    }));
    let result = catch_unwind(AssertUnwindSafe(|| operation(region)));
    DOOM.set(None);
    match result {
        Ok(result) => Some(result),
        Err(cause) if cause.is::<Killed>() => {
            if is_holder() {
                HOLDER.set(None);
            }
            if let Some(slot) = region.inner.session.forget() {
                region.inner.memory.backing().release_session(slot);
            }
            None
        }
        Err(cause) => resume_unwind(cause),
    }
}

/// The bucket a key belongs to in a shard of so many buckets.
pub fn bucket_of_key(region: &Region, key: &[u8], buckets: u64) -> u64 {
    bucket_of(region.inner.hash(key), buckets)
}

/// The words of a region at rest, which every execution starts from.
#[derive(Debug, Default)]
pub struct Image {
    region_len: u64,
    shard_offset: u64,
    values: HashMap<u64, u64>,
    /// Words that must be made before threads are.
    shared: Mutex<BTreeSet<u64>>,
}

impl Image {
    /// A region of one shard, filled by `fill`.
    pub fn of(fill: impl Fn(&Region) + Send + Sync + 'static) -> Arc<Self> {
        let made = Arc::new(Mutex::new(None));
        let result = Arc::clone(&made);
        SEALED.set(false);
        builder(0).check(move || {
            let config = Config::new(1 << 20).shards(1).sessions(4);
            let geometry = config.geometry().expect("a possible size");
            let empty = Self {
                region_len: geometry.region_len,
                shard_offset: geometry.shard_offset(0),
                ..Self::default()
            };
            let backing = Arc::new(ModelBacking::new(&Arc::new(empty)));
            let words = Arc::clone(&backing.words);
            let region = Region::format(backing, geometry, Options::new()).expect("a region");
            fill(&region);
            drop(region);
            *locked(&result) = Some(words.image_now(geometry));
        });
        let image = locked(&made).take().expect("one execution");
        Arc::new(image)
    }
}

/// One execution: a region that several handles attach to, each standing for a process.
pub struct World {
    backing: Arc<ModelBacking>,
    handles: Mutex<Vec<Region>>,
}

impl World {
    /// Takes an ordering out of what this execution does from here on.
    pub fn go_without(&self, weakness: Weakness) {
        WITHOUT.set(Some(weakness));
    }

    /// Another process.
    pub fn attach(&self) -> Region {
        self.attach_with(Options::new())
            .expect("a region that is whole")
    }

    /// Another process, which may only read.
    pub fn attach_read_only(&self) -> Region {
        self.attach_with(Options::new().access(Access::ReadOnly))
            .expect("a region that is whole")
    }

    fn attach_with(&self, options: Options) -> Result<Region, AttachError> {
        let region = Region::attach(Arc::<ModelBacking>::clone(&self.backing), options)?;
        locked(&self.handles).push(region.clone());
        Ok(region)
    }

    /// Runs something beside the calling thread. From here on no word may be new.
    pub fn spawn<T: 'static>(&self, run: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        SEALED.set(true);
        loom::thread::spawn(run)
    }

    /// Audits the region after all threads were joined: the broken invariants, each in a sentence.
    pub fn audit(&self, region: &Region) -> Result<Vec<String>, WriteError> {
        SEALED.set(false);
        Ok(region.check()?.problems)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Detaching in good order is no part of the model.
        for handle in locked(&self.handles).iter() {
            handle.inner.session.forget();
        }
    }
}

/// Explores all executions with at most so many preemptions, and returns how many there were.
pub fn explore(
    image: &Arc<Image>,
    preemptions: usize,
    execution: impl Fn(&World) + Send + Sync + 'static,
) -> u64 {
    let execution = Arc::new(execution);
    loop {
        let count = Arc::new(Count::new(0));
        let known = locked(&image.shared).len();
        let run = {
            let (image, execution) = (Arc::clone(image), Arc::clone(&execution));
            let count = Arc::clone(&count);
            move || {
                count.fetch_add(1, Ordering::Relaxed);
                DOOM.set(None);
                HOLDER.set(None);
                SEALED.set(false);
                WITHOUT.set(None);
                execution(&World {
                    backing: Arc::new(ModelBacking::new(&image)),
                    handles: Mutex::default(),
                });
            }
        };
        match catch_unwind(AssertUnwindSafe(|| builder(preemptions).check(run))) {
            Ok(()) => return count.load(Ordering::Relaxed),
            // A word was missing, and is known now.
            Err(_) if locked(&image.shared).len() > known => {}
            Err(cause) => resume_unwind(cause),
        }
    }
}

fn builder(preemptions: usize) -> loom::model::Builder {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    // A bound on the accesses of one execution, not on what is explored: more is a panic.
    builder.max_branches = 100_000;
    builder
}

/// Memory whose words are made when they are first touched.
#[derive(Debug)]
pub(crate) struct Words {
    image: Arc<Image>,
    made: Mutex<HashMap<u64, Box<AtomicU64>>>,
}

impl Words {
    fn new(image: &Arc<Image>) -> Self {
        let words = Self {
            image: Arc::clone(image),
            made: Mutex::default(),
        };
        for &index in locked(&image.shared).iter() {
            words.at(index);
        }
        words
    }

    pub(crate) fn at(&self, index: u64) -> &AtomicU64 {
        let mut made = locked(&self.made);
        if !made.contains_key(&index) {
            if std::thread::panicking() {
                return &NOWHERE;
            }
            if SEALED.get() {
                drop(made);
                self.miss(index);
            }
        }
        let word: *const AtomicU64 = &**made.entry(index).or_insert_with(|| {
            let value = self.image.values.get(&index).copied();
            Box::new(AtomicU64::new(value.unwrap_or(0), self.role(index)))
        });
        // SAFETY: boxes are never removed while the map lives, so the address stays valid for
        // `&self`.
        unsafe { &*word }
    }

    fn role(&self, index: u64) -> Role {
        let shard = self.image.shard_offset / WORD;
        match index.checked_sub(shard) {
            Some(shard::LOCK) => Role::Lock,
            // The header and the sessions are before the shard.
            Some(shard::WAITERS) | None => Role::Free,
            Some(_) => Role::Locked,
        }
    }

    /// Notes the word and its neighbours, and ends the exploration.
    #[cold]
    fn miss(&self, index: u64) -> ! {
        let line = index / 8 * 8;
        locked(&self.image.shared).extend(line..line + 8);
        resume_unwind(Box::new("a word that was not made before the threads"));
    }

    fn image_now(&self, geometry: Geometry) -> Image {
        let made = locked(&self.made);
        let values = made
            .iter()
            .map(|(&index, word)| (index, word.load(Ordering::Relaxed)));
        Image {
            region_len: geometry.region_len,
            shard_offset: geometry.shard_offset(0),
            values: values.collect(),
            shared: Mutex::default(),
        }
    }
}

/// The backing of one execution. Its liveness locks are atomics of the model: as with the kernel's,
/// who finds one free sees every store of its former holder.
#[derive(Debug)]
pub(crate) struct ModelBacking {
    words: Arc<Words>,
    claims: Vec<checked::AtomicU64>,
}

impl ModelBacking {
    fn new(image: &Arc<Image>) -> Self {
        Self {
            words: Arc::new(Words::new(image)),
            claims: (0..4).map(|_| checked::AtomicU64::new(0)).collect(),
        }
    }

    /// Always the latest value, as the kernel's answer is: hence a read-modify-write.
    fn claim(&self, session: u64, change: impl Fn(u64) -> u64) -> bool {
        let index = usize::try_from(session).unwrap_or(usize::MAX);
        let before =
            self.claims[index].fetch_update(Ordering::AcqRel, Ordering::Acquire, |claimed| {
                Some(change(claimed))
            });
        before != Ok(0)
    }
}

// SAFETY: `base` is never followed in this build; all words come from `words`.
unsafe impl Backing for ModelBacking {
    fn base(&self) -> *mut u8 {
        std::ptr::null_mut()
    }

    fn words(&self) -> Arc<Words> {
        Arc::clone(&self.words)
    }

    fn len(&self) -> u64 {
        self.words.image.region_len
    }

    fn writable(&self) -> bool {
        true
    }

    fn commit(&self, bytes: Range<u64>) -> io::Result<()> {
        let fits = bytes.end <= self.words.image.region_len;
        fits.then_some(())
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSPC))
    }

    fn decommit(&self, _: Range<u64>) -> bool {
        false
    }

    fn claim_session(&self, session: u64) -> Result<bool, SessionError> {
        Ok(!self.claim(session, |_| 1))
    }

    fn session_is_claimed(&self, session: u64) -> io::Result<bool> {
        Ok(self.claim(session, |claimed| claimed))
    }

    fn release_session(&self, session: u64) {
        self.claim(session, |_| 0);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
