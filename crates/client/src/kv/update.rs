//! Read, change, write: without a lock, and again if somebody else was faster.

use super::Kv;
use crate::error::{KvError, Result};
use ganger_region::WriteError;

/// # Read, change, write
impl Kv {
    /// The value of a key, or what `make` returns, stored under the key. If several processes meet
    /// here, all get the value of one of them.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// let page = kv.get_or_insert_with("page:/", || b"rendered".to_vec())?;
    /// assert_eq!(page, b"rendered");
    /// let again = kv.get_or_insert_with("page:/", || unreachable!())?;
    /// assert_eq!(again, page);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn get_or_insert_with(
        &self,
        key: impl AsRef<[u8]>,
        make: impl FnOnce() -> Vec<u8>,
    ) -> Result<Vec<u8>> {
        Ok(self.region.get_or_insert_with(key.as_ref(), make)?)
    }

    /// Changes a value by a function of the old one, and returns what it made. `None` in means that
    /// the key is not there, `None` out that it is to be deleted. An expiry stays as it was; a
    /// counter becomes a plain value. The function runs once for each attempt.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// kv.set("name", "ada")?;
    /// kv.update("name", |old| old.map(|name| name.to_ascii_uppercase()))?;
    /// assert_eq!(kv.get("name")?, Some(b"ADA".to_vec()));
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>> {
        Ok(self.region.update(key.as_ref(), change)?)
    }

    /// Like [`Kv::update`], with a function that may fail; then nothing changes.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// use ganger_client::KvError;
    ///
    /// #[derive(Debug)]
    /// enum TakeError {
    ///     SoldOut,
    ///     Kv(KvError),
    /// }
    ///
    /// impl From<KvError> for TakeError {
    ///     fn from(error: KvError) -> Self {
    ///         Self::Kv(error)
    ///     }
    /// }
    ///
    /// kv.set("stock", [1])?;
    /// let take = || {
    ///     kv.try_update("stock", |old| match old {
    ///         Some(&[left]) if left > 0 => Ok(Some(vec![left - 1])),
    ///         _ => Err(TakeError::SoldOut),
    ///     })
    /// };
    /// assert!(take().is_ok());
    /// assert!(matches!(take(), Err(TakeError::SoldOut)));
    /// # Ok::<(), KvError>(())
    /// ```
    pub fn try_update<E: From<KvError>>(
        &self,
        key: impl AsRef<[u8]>,
        mut change: impl FnMut(Option<&[u8]>) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<Vec<u8>>, E> {
        let updated = self
            .region
            .try_update(key.as_ref(), |old| change(old).map_err(Failed::Change));
        updated.map_err(|failed| match failed {
            Failed::Change(error) => error,
            Failed::Region(error) => KvError::from(error).into(),
        })
    }
}

/// Why an update stopped, for passing both reasons through the region.
enum Failed<E> {
    Change(E),
    Region(WriteError),
}

impl<E> From<WriteError> for Failed<E> {
    fn from(error: WriteError) -> Self {
        Self::Region(error)
    }
}
