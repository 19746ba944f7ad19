//! All keys, without stopping anybody.

use super::Kv;
use crate::error::Result;
use ganger_region::{Cursor, Entry, ScanPage};

/// Entries that [`Kv::scan_all`] fetches at a time.
const SCAN_PAGE: usize = 64;

/// # All keys
impl Kv {
    /// The entries whose keys begin with `prefix`, in no particular order, fetched as they are
    /// asked for. Keys that are there during the whole scan are met exactly once; keys that come or
    /// go meanwhile, at most once. All keys are looked at, whatever the prefix.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// for user in ["ada", "bob"] {
    ///     kv.set(format!("user:{user}"), "")?;
    /// }
    /// kv.set("visits", "12")?;
    /// let mut users = Vec::new();
    /// for entry in kv.scan_all("user:") {
    ///     let (key, _) = entry?;
    ///     users.push(String::from_utf8_lossy(&key["user:".len()..]).into_owned());
    /// }
    /// users.sort();
    /// assert_eq!(users, ["ada", "bob"]);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn scan_all(
        &self,
        prefix: impl AsRef<[u8]>,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Entry)>> + '_ {
        let prefix = prefix.as_ref().to_vec();
        let mut next = Some(Cursor::START);
        let pages = std::iter::from_fn(move || {
            let page = self.scan(&prefix, next?, SCAN_PAGE);
            // After an error there is nothing to go on from.
            next = page.as_ref().ok().and_then(|page| page.next);
            Some(page)
        });
        pages.flat_map(|page| {
            let (entries, error) = match page {
                Ok(page) => (page.entries, None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            entries.into_iter().map(Ok).chain(error)
        })
    }

    /// One step of a scan: from `cursor` on, until at least `limit` entries were found or all keys
    /// seen. The next step's cursor can be kept, sent, and used in another process.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// use ganger_client::Cursor;
    ///
    /// kv.set("a", "1")?;
    /// kv.set("b", "2")?;
    /// let mut cursor = Some(Cursor::START);
    /// let mut seen = 0;
    /// while let Some(from) = cursor {
    ///     let page = kv.scan("", from, 100)?;
    ///     seen += page.entries.len();
    ///     cursor = page.next;
    /// }
    /// assert_eq!(seen, 2);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn scan(&self, prefix: impl AsRef<[u8]>, cursor: Cursor, limit: usize) -> Result<ScanPage> {
        Ok(self.region.scan(prefix.as_ref(), cursor, limit)?)
    }

    /// Removes all entries and returns how many there were. What others write meanwhile may stay.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// kv.set("key", "value")?;
    /// assert_eq!(kv.clear()?, 1);
    /// assert!(kv.is_empty());
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn clear(&self) -> Result<u64> {
        Ok(self.region.clear()?)
    }

    /// How many entries there are, expired ones that were not swept yet included.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// kv.set("key", "value")?;
    /// assert_eq!(kv.len(), 1);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn len(&self) -> u64 {
        self.region.len()
    }

    /// Whether there is no entry.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// assert!(kv.is_empty());
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.region.is_empty()
    }
}
