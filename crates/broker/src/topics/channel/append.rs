//! Taking messages in.

use super::{Channel, Policy};
use crate::ids::ConnectionId;
use crate::message::Message;
use crate::topics::budget::Budget;
use crate::topics::Effects;
use std::sync::Arc;

/// A publisher has to wait for a slow subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocked {
    /// So long at most.
    pub wait_ms: u64,
}

/// # Appending
impl Channel {
    /// Appends a message and returns its number. If a subscriber that publishers wait for would
    /// lose a message by that, nothing is appended.
    pub fn append(
        &mut self,
        message: &Arc<Message>,
        effects: &mut Effects,
    ) -> Result<u64, Blocked> {
        self.make_room(message.cost(), false, effects)?;
        Ok(self.push(message, effects))
    }

    /// Appends a message whose publisher has waited long enough.
    pub fn append_now(&mut self, message: &Arc<Message>, effects: &mut Effects) -> u64 {
        // Forced, it makes room in any case.
        let _ = self.make_room(message.cost(), true, effects);
        self.push(message, effects)
    }

    /// Puts a blocked publisher into [`Effects::resume`] once it is worth trying again.
    pub fn wait(&mut self, publisher: ConnectionId) {
        if !self.waiting.contains(&publisher) {
            self.waiting.push(publisher);
        }
    }

    /// Counts its bytes in another budget from now on, and gives up its oldest messages until they
    /// fit there.
    pub fn move_to(&mut self, budget: Arc<Budget>, effects: &mut Effects) {
        let bytes = self.bytes();
        self.budget.give(bytes);
        budget.take(bytes);
        self.budget = budget;
        while !self.budget.fits(0) && self.ring.len() > 1 {
            self.press_out(effects);
        }
    }

    fn push(&mut self, message: &Arc<Message>, effects: &mut Effects) -> u64 {
        let seq = self.next;
        self.next += 1;
        self.ring.push_back(Arc::clone(message));
        self.ring_bytes += message.cost();
        self.budget.take(message.cost());
        self.totals.messages += 1;
        self.totals.bytes += message.tail().len() as u64;
        if let Some(conflation) = &mut self.conflation {
            conflation.appended(seq, message, &self.budget);
        }
        for id in self.idle.drain(..) {
            let cursor = &mut self.cursors[id.0];
            cursor.idle_at = None;
            effects.wake.push(cursor.subscriber);
        }
        seq
    }

    fn make_room(
        &mut self,
        cost: usize,
        is_forced: bool,
        effects: &mut Effects,
    ) -> Result<(), Blocked> {
        self.let_history_go(cost, effects);
        while !self.ring.is_empty() {
            let is_full = self.ring.len() >= self.bounds.messages
                || self.ring_bytes + cost > self.bounds.bytes;
            let is_pressed = !self.budget.fits(cost);
            if !is_full && !is_pressed {
                break;
            }
            if self.blocking.min() <= self.first() {
                if !is_forced {
                    self.totals.blocked += 1;
                    return Err(self.blocked());
                }
                self.stop_waiting(effects);
            }
            if is_full {
                self.evict(effects);
            } else {
                self.press_out(effects);
            }
        }
        Ok(())
    }

    /// Gives up the oldest message, because all channels together hold too much.
    fn press_out(&mut self, effects: &mut Effects) {
        self.totals.pressed_out += 1;
        self.evict(effects);
        // What left the ring must not stay as the newest of its key.
        if let Some(conflation) = &mut self.conflation {
            conflation.drop_oldest(&self.budget);
        }
    }

    /// Takes the oldest message out of the ring.
    pub(super) fn evict(&mut self, effects: &mut Effects) {
        let seq = self.first();
        let Some(message) = self.ring.pop_front() else {
            return;
        };
        self.ring_bytes -= message.cost();
        self.budget.give(message.cost());
        while let Some(id) = self.strict.pop_up_to(seq) {
            let cursor = &mut self.cursors[id.0];
            cursor.overrun = true;
            effects.overrun.push(cursor.subscriber);
        }
        if let Some(conflation) = &mut self.conflation {
            conflation.evicted(seq, message, &self.budget);
            while conflation.kept() > self.bounds.messages || conflation.bytes() > self.bounds.bytes
            {
                conflation.drop_oldest(&self.budget);
            }
        }
    }

    /// How long a publisher waits: as long as the most patient of those it waits for.
    #[cold]
    fn blocked(&self) -> Blocked {
        let waits = self
            .blocking
            .up_to(self.first())
            .map(|id| match self.cursors[id.0].policy {
                Policy::Block { wait_ms } => wait_ms,
                _ => 0,
            });
        Blocked {
            wait_ms: waits.max().unwrap_or(0),
        }
    }

    /// Nobody waits any more for the subscribers that hold up the oldest message, until they read
    /// on: a stopped one costs its wait once, not for every message.
    #[cold]
    fn stop_waiting(&mut self, effects: &mut Effects) {
        while self.blocking.pop_up_to(self.first()).is_some() {}
        effects.resume.append(&mut self.waiting);
    }
}
