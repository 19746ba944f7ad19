//! What readers get, and how that may differ from what they got before a write.

use super::image::Image;
use ganger_region::{BootClock, Clock, Cursor, Entry, Region};
use std::collections::BTreeMap;
use std::fmt::{self, Display};

/// What readers get for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    value: Vec<u8>,
    revision: u64,
    /// On the system's clock.
    expires_at: Option<u64>,
    is_counter: bool,
    pub(crate) is_ephemeral: bool,
}

impl Seen {
    fn new(entry: Entry, now_ms: u64) -> Self {
        Self {
            value: entry.value,
            revision: entry.revision,
            expires_at: entry.ttl_ms.map(|ttl_ms| now_ms + ttl_ms),
            is_counter: entry.is_counter,
            is_ephemeral: entry.is_ephemeral,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.value.len()
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether this is a counter in the middle of a write, and `later` the same after it, or after
    /// the repair that came instead.
    fn settles_as(&self, later: &Self) -> bool {
        let settled = Self {
            revision: later.revision,
            ..self.clone()
        };
        let begun = self.revision & 1 == 1 && later.revision >= self.revision - 1;
        begun && later.revision & 1 == 0 && *later == settled
    }

    /// The same but for the moment at which it expires.
    fn is_as_scanned(&self, scanned: &Self) -> bool {
        let expires_at = scanned.expires_at.and(self.expires_at);
        let expires = scanned.expires_at.is_some() == self.expires_at.is_some();
        let scanned = Self {
            expires_at,
            ..scanned.clone()
        };
        expires && *self == scanned
    }
}

/// Whether a key is as it was, or only came out of a write to its counter.
pub(crate) fn is_same(old: &Option<Seen>, new: &Option<Seen>) -> bool {
    old == new || matches!((old, new), (Some(old), Some(new)) if old.settles_as(new))
}

/// What readers get for each key they know of.
pub(crate) type Contents = BTreeMap<Vec<u8>, Option<Seen>>;

/// What a write is to leave under a key.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    value: Vec<u8>,
    expiry: Expiry,
    is_counter: bool,
    is_ephemeral: bool,
    keeps_revision: bool,
}

#[derive(Debug, Clone, Copy)]
enum Expiry {
    Never,
    Kept,
    /// So many milliseconds after the write.
    After(u64),
}

impl Written {
    pub(crate) fn plain(value: &[u8]) -> Self {
        Self {
            value: value.to_vec(),
            expiry: Expiry::Never,
            is_counter: false,
            is_ephemeral: false,
            keeps_revision: false,
        }
    }

    pub(crate) fn counter(value: i64) -> Self {
        Self {
            is_counter: true,
            ..Self::plain(&value.to_le_bytes())
        }
    }

    /// What was seen where the same write was tried on a copy.
    pub(crate) fn of_trial(seen: &Seen) -> Self {
        assert_eq!((seen.expires_at, seen.is_counter), (None, false));
        Self {
            is_ephemeral: seen.is_ephemeral,
            ..Self::plain(&seen.value)
        }
    }

    pub(crate) fn expiring(self, ttl_ms: u64) -> Self {
        Self {
            expiry: Expiry::After(ttl_ms),
            ..self
        }
    }

    pub(crate) fn keeping_expiry(self) -> Self {
        Self {
            expiry: Expiry::Kept,
            ..self
        }
    }

    pub(crate) fn ephemeral(self) -> Self {
        Self {
            is_ephemeral: true,
            ..self
        }
    }

    /// Only the expiry changes: that is no write of the key.
    pub(crate) fn keeping_revision(self) -> Self {
        Self {
            keeps_revision: true,
            ..self
        }
    }
}

/// What was before a write, and what that is to change.
pub(crate) struct Expected {
    pub(crate) before: Contents,
    changes: BTreeMap<Vec<u8>, Option<Written>>,
    /// For each key that changes, the last revision that its shard gave away before.
    revisions: BTreeMap<Vec<u8>, u64>,
    begun_at: u64,
}

impl Expected {
    /// Of a write that has not begun yet, on a region whose image is `start`.
    pub(crate) fn new(
        region: &Region,
        start: &Image,
        before: Contents,
        changes: &[(Vec<u8>, Option<Written>)],
    ) -> Self {
        let revision = |key: &Vec<u8>| start.revision(region.shard_of_key(key));
        Self {
            before,
            changes: changes.iter().cloned().collect(),
            revisions: changes
                .iter()
                .map(|(key, _)| (key.clone(), revision(key)))
                .collect(),
            begun_at: BootClock.now_ms(),
        }
    }

    pub(crate) fn changes(&self, key: &[u8]) -> bool {
        self.changes.contains_key(key)
    }

    /// Whether a key reads as before the write. A counter may be in the middle of it.
    pub(crate) fn is_before(&self, key: &[u8], seen: &Option<Seen>) -> bool {
        let before = &self.before[key];
        let begins = |before: &Seen, seen: &Seen| {
            let begun = Seen {
                revision: seen.revision,
                ..before.clone()
            };
            before.is_counter
                && seen.revision & 1 == 1
                && seen.revision > before.revision
                && *seen == begun
        };
        is_same(before, seen)
            || self.changes(key)
                && matches!((before, seen), (Some(before), Some(seen)) if begins(before, seen))
    }

    /// Whether a key reads as after the write.
    pub(crate) fn is_after(&self, key: &[u8], seen: &Option<Seen>) -> bool {
        match (self.changes.get(key), seen) {
            (None, _) => is_same(&self.before[key], seen),
            (Some(None), None) => true,
            (Some(Some(written)), Some(seen)) => self.is_written(key, written, seen),
            _ => false,
        }
    }

    fn is_written(&self, key: &[u8], written: &Written, seen: &Seen) -> bool {
        let before = self.before[key].as_ref();
        let expires_fitly = match (written.expiry, seen.expires_at) {
            (Expiry::Never, at) => at.is_none(),
            (Expiry::Kept, at) => before.is_some_and(|before| before.expires_at == at),
            (Expiry::After(ttl_ms), Some(at)) => {
                (self.begun_at + ttl_ms..=BootClock.now_ms() + ttl_ms).contains(&at)
            }
            (Expiry::After(_), None) => false,
        };
        let has_revision = if written.keeps_revision {
            before.is_some_and(|before| before.revision == seen.revision)
        } else {
            seen.revision > self.revisions[key]
        };
        let is_alike = seen.value == written.value
            && seen.is_counter == written.is_counter
            && seen.is_ephemeral == written.is_ephemeral;
        is_alike && expires_fitly && has_revision
    }

    /// What is wrong with what a key reads, which is neither before nor after.
    pub(crate) fn complaint(&self, key: &[u8], seen: &Option<Seen>) -> String {
        let name = String::from_utf8_lossy(key);
        let has_value = |written: &Written| {
            let seen = seen.as_ref();
            seen.is_some_and(|seen| seen.value == written.value)
        };
        match self.changes.get(key) {
            None => format!("`{name}`, which nobody writes, reads {}", brief(seen)),
            Some(Some(written)) if has_value(written) => {
                format!("`{name}` has its new value, but reads {}", brief(seen))
            }
            Some(_) => format!("torn: `{name}` reads {}", brief(seen)),
        }
    }
}

/// What readers get for these keys.
pub(crate) fn observe<'k>(
    region: &Region,
    keys: impl Iterator<Item = &'k Vec<u8>>,
) -> Result<Contents, String> {
    let mut contents = Contents::new();
    for key in keys {
        contents.insert(key.clone(), see(region, key)?);
    }
    expect_the_same_of_others(region, &contents)?;
    Ok(contents)
}

fn see(region: &Region, key: &[u8]) -> Result<Option<Seen>, String> {
    loop {
        let now_ms = BootClock.now_ms();
        let entry = region.entry(key).map_err(told("a read"))?;
        let expires = entry.as_ref().is_some_and(|entry| entry.ttl_ms.is_some());
        // Within one millisecond, the time that is left tells the moment.
        if !expires || BootClock.now_ms() == now_ms {
            return Ok(entry.map(|entry| Seen::new(entry, now_ms)));
        }
    }
}

/// A scan, `exists` and `get_many` agree with what single reads got.
fn expect_the_same_of_others(region: &Region, contents: &Contents) -> Result<(), String> {
    let mut met = BTreeMap::new();
    let mut cursor = Some(Cursor::START);
    while let Some(here) = cursor {
        let page = region.scan(b"", here, 10).map_err(told("a scan"))?;
        for (key, entry) in page.entries {
            let name = String::from_utf8_lossy(&key).into_owned();
            if met.insert(key, Seen::new(entry, 0)).is_some() {
                return Err(format!("a scan met `{name}` twice"));
            }
        }
        cursor = page.next;
    }
    let keys: Vec<_> = contents.keys().collect();
    let many = region.get_many(&keys).map_err(told("reads of many"))?;
    for (key, got) in keys.into_iter().zip(many) {
        let seen = contents[key].as_ref();
        let exists = region.exists(key).map_err(told("exists"))?;
        let is_scanned = match (seen, met.get(key)) {
            (Some(seen), Some(met)) => seen.is_as_scanned(met),
            (None, None) => true,
            _ => false,
        };
        let is_got = got.as_ref() == seen.map(|seen| &seen.value);
        if !is_scanned || !is_got || exists != seen.is_some() {
            let name = String::from_utf8_lossy(key);
            return Err(format!(
                "`{name}` is not the same to get, scan, exists and get_many"
            ));
        }
    }
    Ok(())
}

pub(crate) fn brief(seen: &Option<Seen>) -> String {
    match seen {
        None => "nothing".to_owned(),
        Some(seen) => seen.to_string(),
    }
}

impl Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes that begin with {:?} (revision {}, expires at {:?}, counter: {}, ephemeral: {})",
            self.value.len(),
            String::from_utf8_lossy(&self.value[..self.value.len().min(48)]),
            self.revision,
            self.expires_at,
            self.is_counter,
            self.is_ephemeral
        )
    }
}

pub(crate) fn told<E: Display>(what: &'static str) -> impl FnOnce(E) -> String {
    move |error| format!("{what} failed: {error}")
}
