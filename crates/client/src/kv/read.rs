//! Reading keys: no lock, no system call.

use super::Kv;
use crate::error::Result;
use ganger_region::Entry;
use std::time::Duration;

/// When a key goes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// It stays until it is deleted.
    Never,
    /// After this time.
    In(Duration),
}

/// # Reading
impl Kv {
    /// The value of a key.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// kv.set("greeting", "hello")?;
    /// assert_eq!(kv.get("greeting")?.as_deref(), Some(&b"hello"[..]));
    /// assert_eq!(kv.get("nothing")?, None);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        Ok(self.region.get(key.as_ref())?)
    }

    /// Puts the value of a key into `value`, whose former contents go and whose memory is used
    /// again. `false`, and an empty `value`, if there is none.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// kv.set("a", "1")?;
    /// let mut value = Vec::new();
    /// assert!(kv.get_into("a", &mut value)?);
    /// assert_eq!(value, b"1");
    /// assert!(!kv.get_into("b", &mut value)?);
    /// assert!(value.is_empty());
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    #[inline]
    pub fn get_into(&self, key: impl AsRef<[u8]>, value: &mut Vec<u8>) -> Result<bool> {
        Ok(self.region.get_into(key.as_ref(), value)?)
    }

    /// The values of several keys, in their order. Many keys that are in no cache of the processor
    /// are read much faster together than one by one.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// kv.set("a", "1")?;
    /// kv.set("c", "3")?;
    /// let values = kv.get_many(&["a", "b", "c"])?;
    /// assert_eq!(values, [Some(b"1".to_vec()), None, Some(b"3".to_vec())]);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>> {
        Ok(self.region.get_many(keys)?)
    }

    /// The value of a key with its revision, its time to live and what kind it is.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// let revision = kv.set("key", "value")?;
    /// let entry = kv.entry("key")?.expect("just set");
    /// assert_eq!((entry.revision, entry.ttl_ms), (revision, None));
    /// assert!(!entry.is_counter && !entry.is_ephemeral);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn entry(&self, key: impl AsRef<[u8]>) -> Result<Option<Entry>> {
        Ok(self.region.entry(key.as_ref())?)
    }

    /// Whether a key is there.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// kv.set("key", "")?;
    /// assert!(kv.exists("key")?);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    #[inline]
    pub fn exists(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.region.exists(key.as_ref())?)
    }

    /// When a key expires; `None` if it is not there.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// use ganger_client::Expiry;
    /// use std::time::Duration;
    ///
    /// kv.set("key", "value")?;
    /// assert_eq!(kv.ttl("key")?, Some(Expiry::Never));
    /// kv.expire("key", Duration::from_secs(60))?;
    /// let Some(Expiry::In(left)) = kv.ttl("key")? else { panic!() };
    /// assert!(left <= Duration::from_secs(60));
    /// assert_eq!(kv.ttl("nothing")?, None);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Expiry>> {
        let ttl = self.region.ttl(key.as_ref())?;
        Ok(ttl.map(|left_ms| match left_ms {
            None => Expiry::Never,
            Some(left_ms) => Expiry::In(Duration::from_millis(left_ms)),
        }))
    }
}
