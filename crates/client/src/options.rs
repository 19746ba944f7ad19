//! How a handle attaches: everything that [`Kv`]'s own constructors leave at its default.

use crate::env::{reopen, Source};
use crate::error::Result;
use crate::kv::Kv;
use ganger_region::{Access, Clock, Config, Options, Region};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Makes or attaches a region with other than the default options.
///
/// ```
/// use ganger_client::{Config, Kv, KvError, KvOptions, WriteError};
///
/// let kv = Kv::create(Config::new(1 << 20))?;
/// let fd = kv.fd().expect("it has a file").try_clone_to_owned()?;
/// let reader = KvOptions::new().read_only().from_fd(fd)?;
///
/// kv.set("price", "12.50")?;
/// assert_eq!(reader.get("price")?, Some(b"12.50".to_vec()));
/// let refused = reader.set("price", "0");
/// assert!(matches!(refused, Err(KvError::Write(WriteError::ReadOnly))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct KvOptions {
    options: Options,
    read_only: bool,
}

impl KvOptions {
    /// Read and write, the system's boot clock, 10 s of patience with a stopped lock holder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Maps the memory without write permission: every write fails. The handle takes no session, so
    /// there is no limit to how many of them there are.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.options = self.options.access(Access::ReadOnly);
        self.read_only = true;
        self
    }

    /// How long a write waits for a living process that holds the key's lock and does not move on
    /// (it is stopped, say) before it fails with
    /// [`WriteError::Stalled`](crate::WriteError::Stalled).
    ///
    /// ```
    /// use ganger_client::{Config, KvOptions};
    /// use std::time::Duration;
    ///
    /// let options = KvOptions::new().lock_timeout(Duration::from_millis(200));
    /// options.create(Config::new(1 << 20))?.set("key", "value")?;
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.options = self.options.lock_timeout(timeout);
        self
    }

    /// The clock that expiries are held against, for tests. All handles of a region must agree on
    /// it.
    ///
    /// ```
    /// use ganger_client::{Config, KvOptions};
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use std::sync::Arc;
    /// use std::time::Duration;
    ///
    /// let now = Arc::new(AtomicU64::new(1));
    /// let clock = Arc::clone(&now);
    /// let kv = KvOptions::new()
    ///     .clock(move || clock.load(Ordering::Relaxed))
    ///     .create(Config::new(1 << 20))?;
    /// kv.set_for("code", "4711", Duration::from_secs(60))?;
    /// assert!(kv.exists("code")?);
    /// now.fetch_add(60_000, Ordering::Relaxed);
    /// assert!(!kv.exists("code")?);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.options = self.options.clock(clock);
        self
    }

    /// Takes a descriptor of a region with a name, too, in [`from_fd`](Self::from_fd). Such a
    /// region can't be sealed: who may write to its file could cut it short, which ends every
    /// process that has it attached. So only for descriptors from those who are trusted.
    ///
    /// ```
    /// let options = ganger_client::KvOptions::new().take_unsealed();
    /// ```
    #[must_use]
    pub fn take_unsealed(mut self) -> Self {
        self.options = self.options.take_unsealed();
        self
    }

    /// As [`Kv::create`].
    pub fn create(&self, config: Config) -> Result<Kv> {
        Ok(Region::create(&config, self.options.clone())?.into())
    }

    /// As [`Kv::create_named`].
    pub fn create_named(&self, name: &str, config: Config) -> Result<Kv> {
        Ok(Region::create_named(name, &config, self.options.clone())?.into())
    }

    /// As [`Kv::open`].
    pub fn open(&self, name: &str) -> Result<Kv> {
        Ok(Region::open_named(name, self.options.clone())?.into())
    }

    /// As [`Kv::open_or_create`].
    pub fn open_or_create(&self, name: &str, config: Config) -> Result<Kv> {
        Ok(Region::open_or_create_named(name, &config, self.options.clone())?.into())
    }

    /// As [`Kv::from_fd`].
    pub fn from_fd(&self, fd: OwnedFd) -> Result<Kv> {
        Ok(Region::from_fd(fd, self.options.clone())?.into())
    }

    /// As [`Kv::from_env`].
    pub fn from_env(&self) -> Result<Kv> {
        let source = Source::find(|name| std::env::var_os(name))?;
        let attached = match &source {
            Source::Fd(fd) => Region::from_fd(reopen(*fd, !self.read_only)?, self.options.clone()),
            Source::Name(name) => Region::open_named(name, self.options.clone()),
        };
        Ok(attached.map_err(|error| source.error(error))?.into())
    }
}
