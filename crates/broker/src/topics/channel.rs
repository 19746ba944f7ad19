//! The messages of one pattern: a bounded ring, with a cursor for each subscriber.
//!
//! A message is appended once, however many subscribers there are; each reads on from its own
//! cursor when its connection has room. A cursor costs appending nothing unless it waits for the
//! next message (then it is woken, once) or its policy makes it matter that a message leaves the
//! ring; of those, only the hindmost is looked at.
//!
//! Messages are numbered from 1 without holes. A cursor that finds its next message gone has lost
//! exactly the messages between, and is told so before it gets the next.

use super::budget::Budget;
use super::conflate::Conflation;
use super::positions::Positions;
use super::Effects;
use crate::ids::{ConnectionId, Subscriber};
use crate::message::Message;
use slab::Slab;
use std::collections::VecDeque;
use std::sync::Arc;

mod append;
mod drain;
mod history;

pub use append::Blocked;
pub use drain::{Batch, Delivery, Drained, Gap};

/// A cursor of a channel; good until its subscriber leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CursorId(usize);

/// What a ring may hold. The newest message is always held, whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Messages.
    pub messages: usize,
    /// Bytes, as [`Message::cost`] counts them.
    pub bytes: usize,
    /// Bytes as long as every subscriber has got what is oldest: then it stays only for those who
    /// come and ask for earlier messages. While there are no subscribers, `bytes` may stay.
    pub history: usize,
}

/// What happens when a subscriber is so slow that the ring has no room for its next message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// It loses the oldest messages, and is told how many.
    #[default]
    DropOldest,
    /// It gets only the newest message of each key; older ones do not count as lost.
    Conflate,
    /// Publishers wait for it, so long at most; then it is as with `DropOldest` until it reads on.
    Block {
        /// Milliseconds that a publisher waits.
        wait_ms: u64,
    },
    /// It is disconnected.
    Disconnect,
}

/// Where a subscriber begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With the next message.
    #[default]
    New,
    /// With so many of the messages that are in the ring.
    Last(u64),
    /// With the message of this number, if it is still there; else with a gap.
    From(u64),
}

/// A ring of messages with cursors.
#[derive(Debug)]
pub struct Channel {
    bounds: Bounds,
    budget: Arc<Budget>,
    ring: VecDeque<Arc<Message>>,
    ring_bytes: usize,
    next: u64,
    /// No cursor stood before this one when they were last looked at.
    passed: u64,
    /// What `next` was then.
    passed_at: u64,
    cursors: Slab<Cursor>,
    /// Cursors that wait for the next message.
    idle: Vec<CursorId>,
    /// Cursors that publishers wait for.
    blocking: Positions,
    /// Cursors to be disconnected when they lose a message.
    strict: Positions,
    conflation: Option<Box<Conflation>>,
    waiting: Vec<ConnectionId>,
    totals: Totals,
}

/// How a subscriber subscribes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// What happens when it is too slow.
    pub policy: Policy,
    /// Where it begins.
    pub start: Start,
    /// With `DropOldest`: so many messages it may be behind, if that is fewer than the ring holds.
    pub max_lag: Option<u64>,
    /// Nothing that its own connection published.
    pub no_echo: bool,
}

/// What went through a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Messages appended.
    pub messages: u64,
    /// Bytes of their tails.
    pub bytes: u64,
    /// Messages that left the ring because all channels together held too much.
    pub pressed_out: u64,
    /// Times a publisher had to wait.
    pub blocked: u64,
}

#[derive(Debug)]
struct Cursor {
    subscriber: Subscriber,
    policy: Policy,
    max_lag: u64,
    no_echo: bool,
    /// Number of the next message for it.
    position: u64,
    /// What it lost and was not told of yet; what was gone before it joined, for a start.
    gap: Option<Gap>,
    /// Where in `idle` it is.
    idle_at: Option<usize>,
    overrun: bool,
    delivered: u64,
    lost: u64,
}

/// How a subscriber of a channel is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorStats {
    /// Who.
    pub subscriber: Subscriber,
    /// Its policy.
    pub policy: Policy,
    /// Messages it has still to get, lost ones included.
    pub lag: u64,
    /// Messages it got.
    pub delivered: u64,
    /// Messages it lost, those it was not yet told of included.
    pub lost: u64,
}

/// # Subscribers
impl Channel {
    /// Without messages and subscribers.
    pub fn new(bounds: Bounds, budget: Arc<Budget>) -> Self {
        Self {
            bounds,
            budget,
            ring: VecDeque::new(),
            ring_bytes: 0,
            next: 1,
            passed: 0,
            passed_at: 0,
            cursors: Slab::new(),
            idle: Vec::new(),
            blocking: Positions::default(),
            strict: Positions::default(),
            conflation: None,
            waiting: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// Adds a subscriber. `true` if there is something to drain for it at once.
    pub fn join(&mut self, who: Subscriber, wish: Wish) -> (CursorId, bool) {
        let Wish { policy, start, .. } = wish;
        let first = self.first();
        let position = match start {
            Start::New => self.next,
            Start::Last(count) => self.next.saturating_sub(count).max(first),
            Start::From(seq) => seq.clamp(first, self.next),
        };
        let gap = match start {
            Start::From(seq) if seq < first => {
                let from = seq.max(1);
                (from < first).then_some(Gap {
                    from,
                    to: first,
                    lost: first - from,
                })
            }
            _ => None,
        };
        if policy == Policy::Conflate && self.conflation.is_none() {
            let mut conflation = Box::<Conflation>::default();
            for (seq, message) in (first..).zip(&self.ring) {
                conflation.appended(seq, message, &self.budget);
            }
            self.conflation = Some(conflation);
        }
        let id = CursorId(self.cursors.insert(Cursor {
            subscriber: who,
            policy,
            max_lag: wish.max_lag.unwrap_or(u64::MAX),
            no_echo: wish.no_echo,
            position,
            gap,
            idle_at: None,
            overrun: false,
            delivered: 0,
            lost: gap.map_or(0, |gap| gap.lost),
        }));
        self.passed = self.passed.min(position);
        self.stand(id);
        let is_ready = gap.is_some() || position < self.next;
        if !is_ready {
            self.rest(id);
        }
        (id, is_ready)
    }

    /// Takes a subscriber out.
    pub fn leave(&mut self, id: CursorId, effects: &mut Effects) {
        let Some(cursor) = self.cursors.get(id.0) else {
            return;
        };
        let idle_at = cursor.idle_at;
        self.unstand(id, effects);
        if let Some(at) = idle_at {
            self.idle.swap_remove(at);
            if let Some(moved) = self.idle.get(at) {
                self.cursors[moved.0].idle_at = Some(at);
            }
        }
        self.cursors.remove(id.0);
        self.after_conflation();
    }

    /// Subscribers there are.
    pub fn subscribers(&self) -> usize {
        self.cursors.len()
    }

    /// How each subscriber is doing.
    pub fn subscriber_stats(&self) -> impl Iterator<Item = CursorStats> + '_ {
        let first = self.first();
        self.cursors.iter().map(move |(index, cursor)| {
            let pending = match &self.conflation {
                Some(conflation) if cursor.policy == Policy::Conflate => {
                    conflation.missed(CursorId(index))
                }
                _ => cursor
                    .oldest_wanted(first, self.next)
                    .saturating_sub(cursor.position),
            };
            CursorStats {
                subscriber: cursor.subscriber,
                policy: cursor.policy,
                lag: self.next - cursor.position,
                delivered: cursor.delivered,
                lost: cursor.lost + pending,
            }
        })
    }

    /// Notes where a cursor stands, if its policy makes that matter.
    fn stand(&mut self, id: CursorId) {
        let cursor = &self.cursors[id.0];
        match cursor.policy {
            Policy::DropOldest => {}
            Policy::Conflate => {
                if let Some(conflation) = &mut self.conflation {
                    conflation.join(cursor.position, id);
                }
            }
            Policy::Block { .. } => self.blocking.insert(cursor.position, id),
            Policy::Disconnect => self.strict.insert(cursor.position, id),
        }
    }

    /// Takes that back, before the cursor moves or goes.
    fn unstand(&mut self, id: CursorId, effects: &mut Effects) {
        let cursor = &mut self.cursors[id.0];
        match cursor.policy {
            Policy::DropOldest => {}
            Policy::Conflate => {
                let conflation = self.conflation.as_mut();
                let missed = conflation.and_then(|kept| kept.leave(cursor.position, id));
                if let Some(missed) = missed {
                    cursor.miss(missed.to, missed.lost);
                }
            }
            Policy::Block { .. } => {
                let before = self.blocking.min();
                self.blocking.remove(cursor.position, id);
                if self.blocking.min() != before {
                    effects.resume.append(&mut self.waiting);
                }
            }
            Policy::Disconnect => {
                self.strict.remove(cursor.position, id);
            }
        }
    }

    /// Lets a cursor that has got everything wait for more.
    fn rest(&mut self, id: CursorId) {
        self.cursors[id.0].idle_at = Some(self.idle.len());
        self.idle.push(id);
    }

    /// Frees what no conflating cursor needs any more.
    fn after_conflation(&mut self) {
        if let Some(conflation) = &mut self.conflation {
            conflation.trim(&self.budget);
            if !conflation.is_used() {
                self.conflation = None;
            }
        }
    }
}

/// # About it
impl Channel {
    /// The number of the oldest message in the ring, or of the next one if it is empty.
    pub fn first(&self) -> u64 {
        self.next - self.ring.len() as u64
    }

    /// The number that the next message will have.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The number of the next message for a subscriber.
    pub fn position(&self, id: CursorId) -> u64 {
        self.cursors
            .get(id.0)
            .map_or(self.next, |cursor| cursor.position)
    }

    /// Messages kept.
    pub fn len(&self) -> usize {
        self.ring.len() + self.conflation.as_ref().map_or(0, |kept| kept.kept())
    }

    /// Whether no message is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes kept, as [`Message::cost`] counts them.
    pub fn bytes(&self) -> usize {
        self.ring_bytes + self.conflation.as_ref().map_or(0, |kept| kept.bytes())
    }

    /// What went through it so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.budget.give(self.bytes());
    }
}

#[cfg(test)]
mod tests;
