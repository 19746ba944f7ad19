//! Handing messages out.

use super::{Channel, Cursor, CursorId, Policy};
use crate::message::Message;
use crate::topics::Effects;
use ganger_protocol::Flags;
use std::collections::VecDeque;
use std::sync::Arc;

/// One thing for a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery<'c> {
    /// The message of this number.
    Message(u64, &'c Arc<Message>),
    /// Messages are lost.
    Gap(Gap),
}

/// Messages that a subscriber lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first number that may be lost.
    pub from: u64,
    /// The first number after those that may be lost.
    pub to: u64,
    /// How many are: all between, or fewer where the subscriber conflates.
    pub lost: u64,
}

/// How much a drain may hand out. One message always goes, whatever its size.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// Messages looked at.
    pub messages: usize,
    /// Bytes of tails.
    pub bytes: usize,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Nothing is left; the subscriber is in [`Effects::wake`] when there is more.
    Idle,
    /// The batch is full, and there is more.
    More,
    /// The subscriber was too slow and wants to be disconnected for it.
    Overrun,
}

/// # Draining
impl Channel {
    /// Hands out what is next for a subscriber, oldest first.
    pub fn drain(
        &mut self,
        id: CursorId,
        batch: Batch,
        effects: &mut Effects,
        mut each: impl FnMut(Delivery<'_>),
    ) -> Drained {
        let Some(cursor) = self.cursors.get_mut(id.0) else {
            return Drained::Idle;
        };
        if cursor.overrun {
            return Drained::Overrun;
        }
        if cursor.idle_at.is_some() {
            return Drained::Idle;
        }
        self.unstand(id, effects);
        if self.cursors[id.0].policy == Policy::Conflate {
            self.drain_newest(id, batch, &mut each);
        } else {
            self.drain_all(id, batch, &mut each);
        }
        self.stand(id);
        self.after_conflation();
        if self.cursors[id.0].position < self.next {
            return Drained::More;
        }
        self.rest(id);
        Drained::Idle
    }

    fn drain_all(&mut self, id: CursorId, batch: Batch, each: &mut impl FnMut(Delivery<'_>)) {
        let (first, next) = (self.first(), self.next);
        let cursor = &mut self.cursors[id.0];
        let to = cursor.oldest_wanted(first, next);
        if cursor.position < to {
            cursor.miss(to, to - cursor.position);
            cursor.position = to;
        }
        if let Some(gap) = cursor.gap.take() {
            each(Delivery::Gap(gap));
        }
        let mut left = Left(batch);
        let skip = usize::try_from(cursor.position - first).unwrap_or(usize::MAX);
        for message in self.ring.iter().skip(skip) {
            let len = cursor.hand_over(cursor.position, message, each);
            cursor.position += 1;
            if !left.after(len) {
                break;
            }
        }
    }

    fn drain_newest(&mut self, id: CursorId, batch: Batch, each: &mut impl FnMut(Delivery<'_>)) {
        let (first, next) = (self.first(), self.next);
        let (cursor, Some(conflation)) = (&mut self.cursors[id.0], &mut self.conflation) else {
            return;
        };
        if let Some(gap) = cursor.gap.take() {
            each(Delivery::Gap(gap));
        }
        let mut left = Left(batch);
        let mut goes_on = true;
        while goes_on && cursor.position < first {
            let Some((seq, message)) = conflation.next_kept(cursor.position) else {
                cursor.position = first;
                break;
            };
            let len = cursor.hand_over(seq, message, each);
            cursor.position = seq + 1;
            goes_on = left.after(len);
        }
        while goes_on && cursor.position < next {
            let Some(message) = at(&self.ring, first, cursor.position) else {
                break;
            };
            let len = if conflation.is_newest(cursor.position, message) {
                cursor.hand_over(cursor.position, message, each)
            } else {
                0
            };
            cursor.position += 1;
            goes_on = left.after(len);
        }
    }
}

impl Cursor {
    /// The oldest message it gets: of those in the ring, or of those it wants to be behind.
    pub(super) fn oldest_wanted(&self, first: u64, next: u64) -> u64 {
        match self.policy {
            Policy::DropOldest => first.max(next.saturating_sub(self.max_lag)),
            _ => first,
        }
    }

    /// Notes a loss, together with one that was not told yet.
    pub(super) fn miss(&mut self, to: u64, lost: u64) {
        self.lost += lost;
        self.gap = Some(Gap {
            from: self.gap.map_or(self.position, |gap| gap.from),
            to,
            lost: self.gap.map_or(0, |gap| gap.lost) + lost,
        });
    }

    /// Returns the bytes that were handed out.
    fn hand_over(
        &mut self,
        seq: u64,
        message: &Arc<Message>,
        each: &mut impl FnMut(Delivery<'_>),
    ) -> usize {
        let no_echo = self.no_echo || message.flags().has(Flags::NO_ECHO);
        if no_echo && message.is_from(self.subscriber.connection) {
            return 0;
        }
        each(Delivery::Message(seq, message));
        self.delivered += 1;
        message.tail().len()
    }
}

/// What is left of a batch.
struct Left(Batch);

impl Left {
    /// Takes off a message that was looked at, with the bytes that were handed out for it; `false`
    /// if nothing is left then.
    fn after(&mut self, len: usize) -> bool {
        self.0.messages = self.0.messages.saturating_sub(1);
        self.0.bytes = self.0.bytes.saturating_sub(len);
        self.0.messages > 0 && self.0.bytes > 0
    }
}

fn at(ring: &VecDeque<Arc<Message>>, first: u64, seq: u64) -> Option<&Arc<Message>> {
    ring.get(usize::try_from(seq.checked_sub(first)?).ok()?)
}
