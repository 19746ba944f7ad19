//! The newest message of each key, kept for those who want only that.
//!
//! While a channel has conflating cursors, it knows the newest sequence number of each key. A
//! message that leaves the ring while it is still the newest of its key is kept here as long as a
//! conflating cursor is behind it, so that a busy key can't push out the last word on a quiet one.
//! What is kept is bounded; when it has to be dropped, the cursors behind it are told how many.

use super::budget::Budget;
use super::channel::CursorId;
use super::positions::Positions;
use crate::message::Message;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Conflation {
    /// Newest sequence number by key (`[0]`), or by subject where there is no key (`[1]`).
    newest: [HashMap<Box<[u8]>, u64>; 2],
    /// What left the ring and is the newest of its key.
    kept: BTreeMap<u64, Arc<Message>>,
    bytes: usize,
    /// Cursors that missed nothing of `kept`.
    whole: Positions,
    /// The others, each with what `dropped` was before it missed something.
    missed: HashMap<CursorId, u64>,
    /// Messages dropped from `kept`; they go in the order of their numbers.
    dropped: u64,
    dropped_to: u64,
}

/// What a conflating cursor missed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Missed {
    /// How many messages, each of them the newest of its key when it was dropped.
    pub(super) lost: u64,
    /// All of them are before this one.
    pub(super) to: u64,
}

impl Conflation {
    /// Whether any cursor conflates.
    pub(super) fn is_used(&self) -> bool {
        self.whole.min() != u64::MAX || !self.missed.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Messages a cursor missed so far.
    pub(super) fn missed(&self, cursor: CursorId) -> u64 {
        let before = self.missed.get(&cursor).copied();
        before.map_or(0, |before| self.dropped - before)
    }

    pub(super) fn join(&mut self, position: u64, cursor: CursorId) {
        self.whole.insert(position, cursor);
    }

    /// Takes a cursor out and says what it missed since it was put in.
    pub(super) fn leave(&mut self, position: u64, cursor: CursorId) -> Option<Missed> {
        if self.whole.remove(position, cursor) {
            return None;
        }
        let before = self.missed.remove(&cursor)?;
        Some(Missed {
            lost: self.dropped - before,
            to: self.dropped_to,
        })
    }

    /// Notes a message that is (or goes) into the ring.
    pub(super) fn appended(&mut self, seq: u64, message: &Message, budget: &Budget) {
        let (map, key) = self.place(message);
        let old = match map.get_mut(key) {
            Some(newest) => std::mem::replace(newest, seq),
            None => {
                map.insert(key.into(), seq);
                return;
            }
        };
        if let Some(old) = self.kept.remove(&old) {
            self.free(&old, budget);
        }
    }

    /// Whether this is the newest message of its key.
    pub(super) fn is_newest(&mut self, seq: u64, message: &Message) -> bool {
        let (map, key) = self.place(message);
        map.get(key) == Some(&seq)
    }

    /// Keeps a message that left the ring, if somebody may still want it.
    pub(super) fn evicted(&mut self, seq: u64, message: Arc<Message>, budget: &Budget) {
        let wanted = !self.missed.is_empty() || self.whole.min() <= seq;
        if !self.is_newest(seq, &message) {
            return;
        }
        if !wanted {
            self.forget(&message);
            return;
        }
        self.bytes += message.cost();
        budget.take(message.cost());
        self.kept.insert(seq, message);
    }

    /// Drops the oldest that is kept; `false` if nothing is.
    pub(super) fn drop_oldest(&mut self, budget: &Budget) -> bool {
        let Some((seq, message)) = self.kept.pop_first() else {
            return false;
        };
        self.forget(&message);
        self.free(&message, budget);
        while let Some(cursor) = self.whole.pop_up_to(seq) {
            self.missed.insert(cursor, self.dropped);
        }
        self.dropped += 1;
        self.dropped_to = seq + 1;
        true
    }

    /// The first kept message from `position` on.
    pub(super) fn next_kept(&self, position: u64) -> Option<(u64, &Arc<Message>)> {
        let (seq, message) = self.kept.range(position..).next()?;
        Some((*seq, message))
    }

    /// Frees what all cursors have passed.
    pub(super) fn trim(&mut self, budget: &Budget) {
        if !self.missed.is_empty() {
            return;
        }
        let min = self.whole.min();
        while let Some(first) = self.kept.first_entry().filter(|first| *first.key() < min) {
            let message = first.remove();
            self.forget(&message);
            self.free(&message, budget);
        }
    }

    fn place<'s, 'm>(
        &'s mut self,
        message: &'m Message,
    ) -> (&'s mut HashMap<Box<[u8]>, u64>, &'m [u8]) {
        let [by_key, by_subject] = &mut self.newest;
        match message.key() {
            Some(key) => (by_key, key),
            None => (by_subject, message.subject()),
        }
    }

    /// Only for the newest message of its key.
    fn forget(&mut self, message: &Message) {
        let (map, key) = self.place(message);
        map.remove(key);
    }

    fn free(&mut self, message: &Message, budget: &Budget) {
        self.bytes -= message.cost();
        budget.give(message.cost());
    }
}
