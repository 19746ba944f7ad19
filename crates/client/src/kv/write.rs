//! Writing one key.

use super::Kv;
use crate::error::Result;
use crate::set::{milliseconds, SetOptions};
use std::time::Duration;

/// # Writing
impl Kv {
    /// Stores a value and returns its revision. The key loses an expiry it had.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// let first = kv.set("color", "red")?;
    /// let second = kv.set("color", "blue")?;
    /// assert!(second > first);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    #[inline]
    pub fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<u64> {
        Ok(self.region.set(key.as_ref(), value.as_ref())?)
    }

    /// Stores a value that expires after `ttl`, and returns its revision.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// use std::time::Duration;
    ///
    /// kv.set_for("session:7", "Ada", Duration::from_secs(1800))?;
    /// assert!(kv.exists("session:7")?);
    /// kv.set_for("gone", "at once", Duration::ZERO)?;
    /// assert!(!kv.exists("gone")?);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn set_for(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<u64> {
        let revision = self.set_with(key, value, SetOptions::new().ttl(ttl))?;
        // Without a condition there is nothing that can fail to be met.
        Ok(revision.unwrap_or_default())
    }

    /// Stores a value if the options' condition is met, and returns its revision; `None` if it is
    /// not.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// use ganger_client::SetOptions;
    ///
    /// let revision = kv.set("stock", "5")?;
    /// // Compare and set: only if nobody wrote since we looked.
    /// let unchanged = SetOptions::new().if_revision(revision);
    /// assert!(kv.set_with("stock", "4", unchanged)?.is_some());
    /// assert!(kv.set_with("stock", "3", unchanged)?.is_none());
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    #[inline]
    pub fn set_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: SetOptions,
    ) -> Result<Option<u64>> {
        Ok(self
            .region
            .set_with(key.as_ref(), value.as_ref(), options.0)?)
    }

    /// Adds bytes to the end of a value and returns its new length. A key that is not there begins
    /// empty; one that is keeps its expiry.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// assert_eq!(kv.append("log", "one\n")?, 4);
    /// assert_eq!(kv.append("log", "two\n")?, 8);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn append(&self, key: impl AsRef<[u8]>, more: impl AsRef<[u8]>) -> Result<u64> {
        Ok(self.region.append(key.as_ref(), more.as_ref())?)
    }

    /// Removes a key; `false` if it was not there.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// kv.set("key", "value")?;
    /// assert!(kv.delete("key")?);
    /// assert!(!kv.delete("key")?);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.region.delete(key.as_ref())?)
    }

    /// Removes a key if nobody wrote it since its entry had this revision.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// let old = kv.set("key", "value")?;
    /// let new = kv.set("key", "another")?;
    /// assert!(!kv.delete_if("key", old)?);
    /// assert!(kv.delete_if("key", new)?);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn delete_if(&self, key: impl AsRef<[u8]>, revision: u64) -> Result<bool> {
        Ok(self.region.delete_if(key.as_ref(), revision)?)
    }
}

/// # Counting
impl Kv {
    /// Adds to a counter and returns the sum. A key that is not there counts from 0 and never
    /// expires. A sum beyond an `i64` is an error, and changes nothing.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// assert_eq!(kv.incr("visits", 1)?, 1);
    /// assert_eq!(kv.incr("visits", -3)?, -2);
    /// assert_eq!(kv.get("visits")?, Some((-2_i64).to_le_bytes().to_vec()));
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    #[inline]
    pub fn incr(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64> {
        Ok(self.region.incr(key.as_ref(), by)?)
    }

    /// Adds to a counter; one that begins here expires after `ttl`, one that was there keeps its
    /// expiry. So it counts in windows of time that begin with the first call.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// use std::time::Duration;
    ///
    /// let failed_logins = kv.incr_for("failed:ada", 1, Duration::from_secs(600))?;
    /// assert!(failed_logins < 5);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn incr_for(&self, key: impl AsRef<[u8]>, by: i64, ttl: Duration) -> Result<i64> {
        let ttl_ms = Some(milliseconds(ttl));
        Ok(self.region.incr_with(key.as_ref(), by, ttl_ms)?)
    }
}

/// # Times to live
impl Kv {
    /// Lets a key expire after this time from now; `false` if it is not there.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// use std::time::Duration;
    ///
    /// kv.set("key", "value")?;
    /// assert!(kv.expire("key", Duration::ZERO)?);
    /// assert!(!kv.exists("key")?);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn expire(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool> {
        Ok(self.region.expire(key.as_ref(), milliseconds(ttl))?)
    }

    /// Makes sure a key lives at least this much longer; an expiry that is later, or none, stays.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// use ganger_client::Expiry;
    /// use std::time::Duration;
    ///
    /// kv.set_for("session:7", "Ada", Duration::from_secs(1))?;
    /// assert!(kv.touch("session:7", Duration::from_secs(1800))?);
    /// kv.touch("session:7", Duration::from_secs(1))?;
    /// let Some(Expiry::In(left)) = kv.ttl("session:7")? else { panic!() };
    /// assert!(left > Duration::from_secs(1));
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn touch(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool> {
        Ok(self.region.touch(key.as_ref(), milliseconds(ttl))?)
    }

    /// Lets a key live for ever; `false` if it is not there.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// use ganger_client::Expiry;
    /// use std::time::Duration;
    ///
    /// kv.set_for("draft", "text", Duration::from_secs(60))?;
    /// assert!(kv.persist("draft")?);
    /// assert_eq!(kv.ttl("draft")?, Some(Expiry::Never));
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.region.persist(key.as_ref())?)
    }
}
