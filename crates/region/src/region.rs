//! Making a region and attaching to one.

use crate::areas::Areas;
use crate::backing::heap::HeapBacking;
use crate::backing::memfd::MemfdBacking;
use crate::backing::named::{self, NamedBacking};
use crate::backing::Backing;
use crate::clock::{wait_begins, Clock};
use crate::config::{Access, Config, Options};
use crate::error::{AttachError, CreateError, WriteError};
use crate::key::{self, ShortKey};
use crate::layout::{
    header, Geometry, FEATURES_KNOWN, INLINE_BUCKETS, LAYOUT_VERSION, MAGIC, PAGE_LEN,
    SESSIONS_MAX, SHARDS_MAX, WORD,
};
use crate::limits::ATTACH_WAIT;
use crate::memory::Memory;
use crate::session::{OwnerId, Session};
use crate::sync::Ordering;
use rapidhash::v3::RapidSecrets;
use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// A handle on a region: cheap to clone, usable from any thread. Clones share one session.
#[derive(Clone)]
pub struct Region {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) memory: Areas,
    pub(crate) geometry: Geometry,
    pub(crate) secrets: RapidSecrets,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lock_timeout: Duration,
    pub(crate) session: Session,
    /// How many lengths of keys are short ones.
    pub(crate) short_keys: usize,
    writable: bool,
}

impl Region {
    /// Makes an anonymous region. It lives as long as somebody has it attached or holds its
    /// [`Region::fd`].
    pub fn create(config: &Config, options: Options) -> Result<Self, CreateError> {
        let geometry = config.geometry()?;
        let backing = Arc::new(MemfdBacking::create(geometry.region_len)?);
        Self::format(backing, geometry, options)
    }

    /// Makes a region that others attach to by name. It stays, with its memory, until
    /// [`Region::remove_named`].
    pub fn create_named(
        name: &str,
        config: &Config,
        options: Options,
    ) -> Result<Self, CreateError> {
        let os_id = os_id(name).ok_or_else(|| CreateError::Name(name.to_owned()))?;
        let geometry = config.geometry()?;
        let backing = NamedBacking::create(&os_id, geometry.region_len).map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                CreateError::Exists(name.to_owned())
            } else {
                CreateError::Io(error)
            }
        })?;
        let made = Self::format(Arc::new(backing), geometry, options);
        if made.is_err() {
            // Nobody can use what is not finished; failing to remove it changes nothing about that.
            let _ = named::remove(&os_id);
        }
        made
    }

    /// Attaches to the region of this name. If it is just being made, waits for that up to two
    /// seconds.
    pub fn open_named(name: &str, options: Options) -> Result<Self, AttachError> {
        let os_id = os_id(name).ok_or_else(|| AttachError::Name(name.to_owned()))?;
        let started = wait_begins();
        loop {
            match Self::try_open_named(&os_id, options.clone()) {
                Err(AttachError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(AttachError::NotFound(name.to_owned()));
                }
                Err(AttachError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if started.elapsed() > ATTACH_WAIT {
                        return Err(AttachError::Unfinished);
                    }
                }
                Err(AttachError::Unfinished) if started.elapsed() <= ATTACH_WAIT => {}
                other => return other,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Attaches to the region of this name, or makes it. Of several processes that race, one makes
    /// it and the others attach.
    pub fn open_or_create_named(
        name: &str,
        config: &Config,
        options: Options,
    ) -> Result<Self, AttachError> {
        let started = wait_begins();
        loop {
            match Self::open_named(name, options.clone()) {
                Err(AttachError::NotFound(_)) => {}
                other => return other,
            }
            match Self::create_named(name, config, options.clone()) {
                Ok(region) => return Ok(region),
                Err(CreateError::Exists(_)) if started.elapsed() <= ATTACH_WAIT => {}
                // It comes and goes.
                Err(CreateError::Exists(_)) => return Err(AttachError::Unfinished),
                Err(CreateError::Io(error) | CreateError::NoMemory(error)) => {
                    return Err(AttachError::Io(error))
                }
                Err(CreateError::Session(error)) => return Err(AttachError::Session(error)),
                Err(error) => {
                    return Err(AttachError::Io(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        error,
                    )))
                }
            }
        }
    }

    /// Takes the name away. Processes that have the region attached keep it.
    pub fn remove_named(name: &str) -> Result<(), AttachError> {
        let os_id = os_id(name).ok_or_else(|| AttachError::Name(name.to_owned()))?;
        named::remove(&os_id).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => AttachError::NotFound(name.to_owned()),
            _ => AttachError::Io(error),
        })
    }

    /// Attaches to the region behind a descriptor that another process handed over.
    pub fn from_fd(fd: OwnedFd, options: Options) -> Result<Self, AttachError> {
        let stat = rustix::fs::fstat(&fd).map_err(io::Error::from)?;
        let len = u64::try_from(stat.st_size).unwrap_or(0);
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        if kind != rustix::fs::FileType::RegularFile {
            return Err(AttachError::NotARegion(
                "the descriptor is not one of a file",
            ));
        }
        if len < header::LEN {
            return Err(AttachError::NotARegion("the file is too short"));
        }
        let is_sealed = MemfdBacking::is_sealed(&fd);
        if !is_sealed && !options.takes_unsealed {
            return Err(AttachError::NotSealed);
        }
        let writable = options.access == Access::ReadWrite;
        let backing = MemfdBacking::map(fd, len, writable, is_sealed)?;
        Self::attach(Arc::new(backing), options)
    }

    /// The file of the region, to hand to another process; it may be mapped with
    /// [`Region::from_fd`].
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.memory.backing().fd()
    }

    /// Bytes the region was declared with.
    pub fn declared_len(&self) -> u64 {
        self.inner.geometry.region_len
    }

    /// Longest value in bytes.
    pub fn value_len_max(&self) -> u64 {
        self.inner.geometry.value_len_max
    }

    /// Whether this handle may write.
    pub fn is_writable(&self) -> bool {
        self.inner.writable
    }

    fn try_open_named(os_id: &str, options: Options) -> Result<Self, AttachError> {
        if let Some(owner) = named::foreign_owner(os_id)? {
            return Err(AttachError::Foreign { owner });
        }
        let backing: Arc<dyn Backing> = match options.access {
            Access::ReadWrite => Arc::new(NamedBacking::open(os_id)?),
            Access::ReadOnly => Arc::new(NamedBacking::open_read_only(os_id)?),
        };
        Self::attach(backing, options)
    }

    /// Writes the header and the empty tables into zeroed memory; the magic number is the last
    /// store.
    pub(crate) fn format(
        backing: Arc<dyn Backing>,
        geometry: Geometry,
        options: Options,
    ) -> Result<Self, CreateError> {
        backing
            .commit(0..geometry.fixed_len())
            .map_err(CreateError::NoMemory)?;
        let memory = Memory::new(Arc::clone(&backing));
        let seed = random()?;
        let secrets = RapidSecrets::seed(seed);
        for (index, value) in header_words(&geometry, random()?, &secrets) {
            memory.word(index * WORD).store(value, Ordering::Relaxed);
        }
        let check = header_check(&memory);
        memory
            .word(header::CHECK * WORD)
            .store(check, Ordering::Relaxed);
        for shard in 0..geometry.shard_count {
            let root = geometry.shard_offset(shard) + crate::layout::shard::ROOT * WORD;
            memory.word(root).store(INLINE_BUCKETS, Ordering::Relaxed);
        }
        // Release pairs with the Acquire in `attach`: who sees the magic sees everything above.
        memory
            .word(header::MAGIC * WORD)
            .store(MAGIC, Ordering::Release);
        let writable = options.access == Access::ReadWrite;
        let inner = Inner::new(memory, geometry, secrets, options, writable);
        if writable {
            inner.session.register(&inner)?;
        }
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Checks the header, which may hold anything, and takes a session.
    pub(crate) fn attach(backing: Arc<dyn Backing>, options: Options) -> Result<Self, AttachError> {
        if backing.len() < header::LEN {
            return Err(AttachError::NotARegion("the file is too short"));
        }
        let memory = Memory::new(Arc::clone(&backing));
        let geometry = read_geometry(&memory, backing.len())?;
        let secret = |index: u64| {
            memory
                .word((header::HASH_SEED + index) * WORD)
                .load(Ordering::Relaxed)
        };
        let secrets = RapidSecrets {
            seed: secret(0),
            secrets: [1, 2, 3, 4, 5, 6, 7].map(secret),
        };
        let writable = options.access == Access::ReadWrite && backing.writable();
        let inner = Inner::new(memory, geometry, secrets, options, writable);
        if writable {
            inner.session.register(&inner)?;
        }
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}

impl Inner {
    fn new(
        memory: Memory,
        geometry: Geometry,
        secrets: RapidSecrets,
        options: Options,
        writable: bool,
    ) -> Self {
        Self {
            memory: Areas::new(memory, &geometry),
            geometry,
            secrets,
            clock: options.clock,
            lock_timeout: options.lock_timeout,
            session: Session::default(),
            short_keys: ShortKey::lengths(&geometry),
            writable,
        }
    }

    #[inline(always)]
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    #[inline(always)]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        key::hash(&self.secrets, key)
    }

    /// The key and its hash, if it is a short one.
    #[inline(always)]
    pub(crate) fn short_key<'k>(&self, key: &'k [u8]) -> Option<(ShortKey<'k>, u64)> {
        ShortKey::new(&self.secrets, self.short_keys, key)
    }

    /// The session that this process writes under.
    #[inline(always)]
    pub(crate) fn owner(&self) -> Result<OwnerId, WriteError> {
        match self.session.current() {
            Some(owner) => Ok(owner),
            None => self.new_owner(),
        }
    }

    /// A forked child has no session yet, and a read-only handle never gets one.
    #[cold]
    fn new_owner(&self) -> Result<OwnerId, WriteError> {
        if !self.writable {
            return Err(WriteError::ReadOnly);
        }
        Ok(self.session.register(self)?)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.writable {
            if self.session.current().is_some() {
                // What can't be removed now goes as the entries of a dead session do.
                let _ = crate::ephemeral::remove_own(self);
            }
            self.session.end(self);
        }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("len", &self.inner.geometry.region_len)
            .field("shards", &self.inner.geometry.shard_count)
            .field("evicts", &self.inner.geometry.evicts())
            .field("writable", &self.inner.writable)
            .finish_non_exhaustive()
    }
}

/// A region in memory of this process alone, for tests of this crate and the fuzzer.
#[doc(hidden)]
pub mod test_support {
    use super::*;

    /// Memory of this process that several handles may attach to, with deaths on demand.
    #[derive(Clone)]
    pub struct Heap(Arc<HeapBacking>);

    impl Heap {
        /// A new region.
        pub fn create(config: &Config, options: Options) -> Result<(Self, Region), CreateError> {
            let geometry = config.geometry()?;
            let heap = Self(Arc::new(HeapBacking::zeroed(geometry.region_len)));
            let region = Region::format(Arc::<HeapBacking>::clone(&heap.0), geometry, options)?;
            Ok((heap, region))
        }

        /// A copy of any bytes, which may or may not be a region.
        pub fn from_bytes(bytes: &[u8]) -> Self {
            Self(Arc::new(HeapBacking::from_bytes(bytes)))
        }

        /// Another handle on it.
        pub fn attach(&self, options: Options) -> Result<Region, AttachError> {
            Region::attach(Arc::<HeapBacking>::clone(&self.0), options)
        }

        /// As if every process attached were killed right now.
        pub fn kill_all_sessions(&self) {
            self.0.kill_all_sessions();
        }

        /// From now on, the system gives `bytes` more and then says it has none.
        pub fn limit_commits(&self, bytes: u64) {
            self.0.limit_commits(bytes);
        }
    }
}

fn header_words(
    geometry: &Geometry,
    region_id: u64,
    secrets: &RapidSecrets,
) -> impl Iterator<Item = (u64, u64)> {
    let version = u64::from(LAYOUT_VERSION) | u64::from(geometry.features) << 32;
    let fixed = [
        (header::VERSION, version),
        (header::REGION_LEN, geometry.region_len),
        (header::REGION_ID, region_id),
        (header::SHARD_COUNT, geometry.shard_count),
        (header::SESSION_COUNT, geometry.session_count),
        (header::PAGE_COUNT, geometry.page_count),
        (header::DIRECTORY_WORDS, geometry.directory_words),
        (header::SESSIONS_OFFSET, geometry.sessions_offset),
        (header::SHARDS_OFFSET, geometry.shards_offset),
        (header::BUCKETS_OFFSET, geometry.buckets_offset),
        (header::DIRECTORY_OFFSET, geometry.directory_offset),
        (header::PAGE_STATES_OFFSET, geometry.page_states_offset),
        (
            header::PAGE_DESCRIPTORS_OFFSET,
            geometry.page_descriptors_offset,
        ),
        (header::FEED_OFFSET, geometry.feed_offset),
        (header::FEED_WORDS, crate::layout::FEED_WORDS),
        (header::PAGES_OFFSET, geometry.pages_offset),
        (header::EVENTS_OFFSET, geometry.events_offset),
        (header::HASH_SEED, secrets.seed),
    ];
    let secrets = secrets.secrets;
    let secret_words = (1..)
        .zip(secrets)
        .map(|(index, secret)| (header::HASH_SEED + index, secret));
    fixed.into_iter().chain(secret_words)
}

/// Recomputes the geometry from the few numbers it follows from, and refuses a header that says
/// otherwise.
fn read_geometry(memory: &Memory, file_len: u64) -> Result<Geometry, AttachError> {
    let word = |index: u64| memory.word(index * WORD).load(Ordering::Relaxed);
    match memory.word(header::MAGIC * WORD).load(Ordering::Relaxed) {
        MAGIC => crate::sync::fence(Ordering::Acquire),
        0 => return Err(AttachError::Unfinished),
        _ => {
            return Err(AttachError::NotARegion(
                "the first eight bytes are not a region's",
            ))
        }
    }
    let version = word(header::VERSION);
    // The halves of a word.
    #[allow(clippy::cast_possible_truncation)]
    let (layout, features) = (version as u32, (version >> 32) as u32);
    if layout != LAYOUT_VERSION {
        return Err(AttachError::Version { found: layout });
    }
    if features & !FEATURES_KNOWN != 0 {
        return Err(AttachError::Features {
            unknown: features & !FEATURES_KNOWN,
        });
    }
    let (region_len, shards, sessions) = (
        word(header::REGION_LEN),
        word(header::SHARD_COUNT),
        word(header::SESSION_COUNT),
    );
    if !region_len.is_multiple_of(PAGE_LEN) {
        return Err(AttachError::Header("its length is no number of pages"));
    }
    if region_len > file_len {
        return Err(AttachError::Header(
            "it says the region is longer than its file",
        ));
    }
    if !(1..=SHARDS_MAX).contains(&shards) || !(1..=SESSIONS_MAX).contains(&sessions) {
        return Err(AttachError::Header(
            "impossible numbers of shards or sessions",
        ));
    }
    let geometry = Geometry::new(region_len, Some(shards), sessions, features)
        .ok_or(AttachError::Header("impossible sizes"))?;
    let told = header_words(&geometry, word(header::REGION_ID), &RapidSecrets::seed(0));
    let agrees = told
        .filter(|(index, _)| *index < header::HASH_SEED)
        .all(|(index, value)| word(index) == value);
    if !agrees {
        return Err(AttachError::Header("areas are not where they should be"));
    }
    // A wrong feature bit or hash seed contradicts nothing else: keys would be silently absent,
    // values wrong.
    (word(header::CHECK) == header_check(memory))
        .then_some(geometry)
        .ok_or(AttachError::Header("its words do not fit its check word"))
}

/// The check word of the header as it is.
fn header_check(memory: &Memory) -> u64 {
    header::check(|index| memory.word(index * WORD).load(Ordering::Relaxed))
}

/// The operating system's name for a region's name.
fn os_id(name: &str) -> Option<String> {
    let valid = (1..=250).contains(&name.len())
        && !name.contains(['/', '\0'])
        && name != "."
        && name != "..";
    valid.then(|| format!("/{name}"))
}

/// Every execution of a model must do the same.
#[cfg(loom)]
fn random() -> io::Result<u64> {
    Ok(0x9e37_79b9_7f4a_7c15)
}

#[cfg(not(loom))]
fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(u64::from_le_bytes(bytes))
}
