//! Ephemeral entries: they go when the session of their owner ends.
//!
//! Each shard lists its own, so that a death costs a look at each shard's list, not at every key.
//! Only lock holders touch the lists; repair makes them anew.

use crate::entry::EntryRef;
use crate::error::{Damaged, WriteError};
use crate::feed::Change;
use crate::index::Bucket;
use crate::layout::shard;
use crate::memory::Words;
use crate::region::{Inner, Region};
use crate::session::{self, OwnerId};
use crate::shard::{shard_words, Locked};
use crate::sync::Ordering;

/// What [`Region::reap`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Reaped {
    /// Sessions of dead processes that were freed.
    pub sessions: u64,
    /// Shards whose lock a dead process held, repaired.
    pub repaired: u64,
    /// Ephemeral entries of ended sessions that were removed.
    pub ephemeral: u64,
}

impl Region {
    /// Cleans up after processes that died: frees their sessions, repairs the shards they held
    /// locked, removes their ephemeral entries. Nothing has to call it for reads and writes to go
    /// on; whoever calls it often makes sure that locks and leases of the dead are noticed at once.
    pub fn reap(&self) -> Result<Reaped, WriteError> {
        reap(&self.inner)
    }
}

pub(crate) fn reap(region: &Inner) -> Result<Reaped, WriteError> {
    region.owner()?;
    let mut reaped = Reaped {
        sessions: session::release_dead(region),
        ..Reaped::default()
    };
    for index in 0..region.geometry.shard_count {
        let words = shard_words(region, index);
        let holder = words.at(shard::LOCK).load(Ordering::Relaxed);
        let abandoned = holder != 0 && !session::is_alive(region, OwnerId(holder));
        let repairs = words.at(shard::REPAIRS).load(Ordering::Relaxed);
        if abandoned || words.at(shard::EPHEMERAL_HEAD).load(Ordering::Relaxed) != 0 {
            let locked = Locked::lock(region, index)?;
            reaped.repaired += locked.get(shard::REPAIRS).wrapping_sub(repairs).min(1);
            reaped.ephemeral +=
                locked.remove_ephemeral(|owner| !session::is_alive(region, owner))?;
        }
    }
    Ok(reaped)
}

/// Removes the ephemeral entries of a handle that is about to detach.
pub(crate) fn remove_own(region: &Inner) -> Result<(), WriteError> {
    for index in 0..region.geometry.shard_count {
        let head = shard_words(region, index)
            .at(shard::EPHEMERAL_HEAD)
            .load(Ordering::Relaxed);
        if head != 0 {
            let locked = Locked::lock(region, index)?;
            locked.remove_ephemeral(|owner| owner == locked.owner)?;
        }
    }
    Ok(())
}

impl<'r> Locked<'r> {
    /// Removes the ephemeral entries of certain owners.
    fn remove_ephemeral(&self, ended: impl Fn(OwnerId) -> bool) -> Result<u64, Damaged> {
        let mut removed = 0;
        let mut previous = 0;
        let mut offset = self.get(shard::EPHEMERAL_HEAD);
        while offset != 0 {
            let entry = EntryRef::at(self.region, offset)?;
            // Where each entry leads back to the one before it, the list has no circle.
            let links = entry
                .ephemeral()
                .filter(|links| leads_back(links, previous));
            let links = links.ok_or(Damaged {
                what: "an entry in the wrong list",
                offset,
            })?;
            previous = offset;
            offset = links.at(1).load(Ordering::Relaxed);
            if entry.owner().is_some_and(&ended) {
                let bucket = Bucket::of_hash(self.region, self.index, self.root(), entry.hash())?;
                if let Some(found) = bucket.find(self.region, entry.hash(), &entry.key())? {
                    if found.entry.offset == previous {
                        previous = links.at(2).load(Ordering::Relaxed);
                    }
                    self.next_revision();
                    self.remove(bucket, &found, Change::Expire)?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    pub(crate) fn ephemeral_attach(&self, entry: &EntryRef<'_>) {
        let head = self.get(shard::EPHEMERAL_HEAD);
        if let Some(links) = entry.ephemeral() {
            links.at(1).store(head, Ordering::Relaxed);
            links.at(2).store(0, Ordering::Relaxed);
        }
        self.set_link(head, 2, entry.offset);
        self.set(shard::EPHEMERAL_HEAD, entry.offset);
    }

    pub(crate) fn ephemeral_detach(&self, entry: &EntryRef<'_>) {
        let Some(links) = entry.ephemeral() else {
            return;
        };
        let next = links.at(1).load(Ordering::Relaxed);
        let previous = links.at(2).load(Ordering::Relaxed);
        if previous == 0 {
            self.set(shard::EPHEMERAL_HEAD, next);
        } else {
            self.set_link(previous, 1, next);
        }
        self.set_link(next, 2, previous);
    }

    fn set_link(&self, offset: u64, link: u64, to: u64) {
        let entry = (offset != 0)
            .then(|| EntryRef::at(self.region, offset).ok())
            .flatten();
        if let Some(links) = entry.and_then(|entry| entry.ephemeral()) {
            links.at(link).store(to, Ordering::Relaxed);
        }
    }
}

/// The offsets in a shard's list, walked by `check`.
pub(crate) fn listed(region: &Inner, index: u64) -> impl Iterator<Item = u64> + '_ {
    let words = shard_words(region, index);
    let mut next = words.at(shard::EPHEMERAL_HEAD).load(Ordering::Relaxed);
    let mut previous = 0;
    std::iter::from_fn(move || {
        let offset = (next != 0).then_some(next)?;
        let links = EntryRef::at(region, offset).ok()?.ephemeral()?;
        if !leads_back(&links, previous) {
            return None;
        }
        previous = offset;
        next = links.at(1).load(Ordering::Relaxed);
        Some(offset)
    })
}

fn leads_back(links: &Words<'_>, previous: u64) -> bool {
    links.at(2).load(Ordering::Relaxed) == previous
}
