//! Where those cursors stand that somebody has to know about, the hindmost first.

use super::channel::CursorId;
use std::collections::BTreeSet;

/// A set of cursors by position. Looking at the hindmost one is all that appending ever does.
#[derive(Debug, Default)]
pub(super) struct Positions {
    set: BTreeSet<(u64, CursorId)>,
}

impl Positions {
    /// The position of the hindmost cursor; beyond all others if there is none.
    pub(super) fn min(&self) -> u64 {
        self.set.first().map_or(u64::MAX, |first| first.0)
    }

    pub(super) fn insert(&mut self, position: u64, cursor: CursorId) {
        self.set.insert((position, cursor));
    }

    /// `false` if it was not there.
    pub(super) fn remove(&mut self, position: u64, cursor: CursorId) -> bool {
        self.set.remove(&(position, cursor))
    }

    /// Takes out a cursor that stands at `last` or before it.
    pub(super) fn pop_up_to(&mut self, last: u64) -> Option<CursorId> {
        let first = self.set.first().filter(|first| first.0 <= last)?;
        let cursor = first.1;
        self.set.pop_first();
        Some(cursor)
    }

    /// The cursors that stand at `last` or before it.
    pub(super) fn up_to(&self, last: u64) -> impl Iterator<Item = CursorId> + '_ {
        self.set
            .iter()
            .take_while(move |entry| entry.0 <= last)
            .map(|entry| entry.1)
    }
}
