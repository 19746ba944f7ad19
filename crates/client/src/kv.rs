//! The handle on the store, and how to get one.

mod maintain;
mod read;
mod scan;
mod typed;
mod update;
mod write;

pub use read::Expiry;

use crate::error::Result;
use crate::options::KvOptions;
use ganger_region::{Config, Region};
use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};

/// A handle on a key-value store in shared memory.
///
/// It is cheap to clone and usable from any thread. All clones share one session of the region,
/// which ends when the last of them is dropped or the process dies.
///
/// ```
/// use ganger_client::{Config, Kv};
/// use std::time::Duration;
///
/// let kv = Kv::create(Config::new(16 << 20))?;
/// kv.set("greeting", "hello")?;
/// assert_eq!(kv.get("greeting")?, Some(b"hello".to_vec()));
///
/// kv.set_for("session:7", "Ada", Duration::from_secs(1800))?;
/// assert_eq!(kv.incr("visits", 1)?, 1);
///
/// let other = kv.clone();
/// std::thread::spawn(move || other.incr("visits", 1)).join().unwrap()?;
/// assert_eq!(kv.incr("visits", 0)?, 2);
/// # Ok::<(), ganger_client::KvError>(())
/// ```
///
/// # What holds, whatever dies when
/// Reads take no lock and make no system call; writes lock one part of the keys for tens of
/// nanoseconds. A process killed in the middle of a write has either made it or not: nobody hangs,
/// no value is torn, and whoever next writes to that part cleans up.
#[derive(Clone)]
pub struct Kv {
    region: Region,
}

/// # Making and attaching
impl Kv {
    /// Makes an anonymous region. It lives as long as somebody has it attached or holds [`Kv::fd`].
    ///
    /// ```
    /// use ganger_client::{Config, Kv, WhenFull};
    ///
    /// let kv = Kv::create(Config::new(64 << 20))?;
    /// let cache = Kv::create(Config::new(64 << 20).when_full(WhenFull::Evict))?;
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn create(config: Config) -> Result<Self> {
        KvOptions::new().create(config)
    }

    /// Makes a region that others attach to by its name. It stays, with its memory, until
    /// [`Kv::remove`].
    ///
    /// ```
    /// use ganger_client::{Config, Kv};
    ///
    /// let name = format!("shop-a-{}", std::process::id());
    /// let kv = Kv::create_named(&name, Config::new(1 << 20))?;
    /// assert!(Kv::create_named(&name, Config::new(1 << 20)).is_err());
    /// Kv::remove(&name)?;
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn create_named(name: &str, config: Config) -> Result<Self> {
        KvOptions::new().create_named(name, config)
    }

    /// Attaches to the region of this name. If it is just being made, waits for that up to two
    /// seconds.
    ///
    /// ```
    /// # use ganger_client::{Config, Kv};
    /// # let name = format!("shop-b-{}", std::process::id());
    /// let kv = Kv::create_named(&name, Config::new(1 << 20))?;
    /// kv.set("open", "yes")?;
    /// assert!(Kv::open(&name)?.exists("open")?);
    /// # Kv::remove(&name)?;
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn open(name: &str) -> Result<Self> {
        KvOptions::new().open(name)
    }

    /// Attaches to the region of this name, or makes it. Of several processes that race, one makes
    /// it and the others attach.
    ///
    /// ```
    /// # use ganger_client::{Config, Kv};
    /// # let name = format!("shop-c-{}", std::process::id());
    /// let made = Kv::open_or_create(&name, Config::new(1 << 20))?;
    /// let opened = Kv::open_or_create(&name, Config::new(1 << 20))?;
    /// made.set("open", "yes")?;
    /// assert!(opened.exists("open")?);
    /// # Kv::remove(&name)?;
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn open_or_create(name: &str, config: Config) -> Result<Self> {
        KvOptions::new().open_or_create(name, config)
    }

    /// Attaches to the region behind a descriptor that another process handed over.
    ///
    /// ```
    /// use ganger_client::{Config, Kv};
    ///
    /// let kv = Kv::create(Config::new(1 << 20))?;
    /// let fd = kv.fd().expect("it has a file").try_clone_to_owned()?;
    /// let other = Kv::from_fd(fd)?;
    /// kv.set("key", "value")?;
    /// assert!(other.exists("key")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        KvOptions::new().from_fd(fd)
    }

    /// Attaches to the region that the environment names: [`REGION_FD_VARIABLE`] is the number of
    /// an inherited descriptor of it; without that, [`REGION_VARIABLE`] is its name. The supervisor
    /// sets the first for its workers.
    ///
    /// The inherited descriptor stays open and is inherited by this process's children too.
    ///
    /// [`REGION_FD_VARIABLE`]: crate::REGION_FD_VARIABLE
    /// [`REGION_VARIABLE`]: crate::REGION_VARIABLE
    ///
    /// ```
    /// use ganger_client::{Kv, KvError};
    ///
    /// match Kv::from_env() {
    ///     Ok(kv) => println!("{} keys", kv.len()),
    ///     Err(KvError::NoRegion) => println!("not started by a supervisor"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok::<(), KvError>(())
    /// ```
    pub fn from_env() -> Result<Self> {
        KvOptions::new().from_env()
    }

    /// Takes a region's name away. Processes that have it attached keep it.
    ///
    /// ```
    /// # use ganger_client::{Config, Kv};
    /// # let name = format!("shop-d-{}", std::process::id());
    /// let kv = Kv::create_named(&name, Config::new(1 << 20))?;
    /// Kv::remove(&name)?;
    /// assert!(Kv::open(&name).is_err());
    /// kv.set("still", "here")?;
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn remove(name: &str) -> Result<()> {
        Ok(Region::remove_named(name)?)
    }
}

/// # About the handle
impl Kv {
    /// The file of the region, to hand to another process, which attaches with [`Kv::from_fd`].
    ///
    /// ```
    /// # use ganger_client::{Config, Kv};
    /// # let kv = Kv::create(Config::new(1 << 20))?;
    /// use std::os::fd::AsRawFd;
    ///
    /// let fd = kv.fd().expect("it has a file");
    /// println!("others see it as /proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.region.fd()
    }

    /// Whether this handle may write.
    ///
    /// ```
    /// # use ganger_client::{Config, Kv};
    /// assert!(Kv::create(Config::new(1 << 20))?.is_writable());
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn is_writable(&self) -> bool {
        self.region.is_writable()
    }

    /// Bytes the region was declared with.
    ///
    /// ```
    /// # use ganger_client::{Config, Kv};
    /// assert_eq!(Kv::create(Config::new(1 << 20))?.declared_len(), 1 << 20);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn declared_len(&self) -> u64 {
        self.region.declared_len()
    }

    /// Longest value in bytes that this region takes.
    ///
    /// ```
    /// # use ganger_client::{Config, Kv};
    /// let kv = Kv::create(Config::new(16 << 20))?;
    /// assert!((3 << 20..=4 << 20).contains(&kv.value_len_max()));
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn value_len_max(&self) -> u64 {
        self.region.value_len_max()
    }

    /// The region itself: the layer below, with byte slices and milliseconds.
    ///
    /// ```
    /// # use ganger_client::{Config, Kv};
    /// let kv = Kv::create(Config::new(1 << 20))?;
    /// assert!(kv.region().shard_of_key(b"key") < kv.stats().shards);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn region(&self) -> &Region {
        &self.region
    }
}

impl From<Region> for Kv {
    fn from(region: Region) -> Self {
        Self { region }
    }
}

impl fmt::Debug for Kv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kv").field(&self.region).finish()
    }
}
