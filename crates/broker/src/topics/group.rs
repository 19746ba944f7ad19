//! Queue groups: each message to one member, the one with the fewest that it did not yet answer for.
//!
//! Members that have equally many are taken in turn. A member never has more than its cap; when all
//! are at theirs, messages wait in a bounded backlog. Choosing costs the logarithm of the members.

use super::Effects;
use crate::ids::Subscriber;
use crate::message::Message;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// What a group may hold, besides what its members have in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupBounds {
    /// Messages that wait for a member.
    pub backlog: usize,
    /// Their bytes, as [`Message::cost`] counts them.
    pub backlog_bytes: usize,
    /// Members.
    pub members: usize,
    /// Times a message goes to another member because the one before died; a message that kills
    /// whoever gets it must not kill all of them.
    pub redeliveries: u32,
}

/// How a member takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberOptions {
    /// Unacknowledged messages it takes at most; at least one.
    pub cap: u32,
    /// Whether what it did not acknowledge goes to another when it leaves.
    pub redeliver: bool,
}

/// A message for a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// To whom.
    pub to: Subscriber,
    /// By this number it is acknowledged; numbers of a group grow from 1.
    pub delivery: u64,
    /// How many members had it before.
    pub redeliveries: u32,
    /// What.
    pub message: Arc<Message>,
}

/// What became of a message that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// A member has it: it is in [`Effects::assignments`] under this number.
    Assigned(u64),
    /// It waits until a member can take it.
    Waits,
    /// All members are at their caps and the backlog is full: it was dropped, and counted.
    Full,
    /// There is no member.
    NoMembers,
}

/// Why somebody can't join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupJoinError {
    /// No more members are allowed.
    #[error("the group has {limit} members: there may be no more")]
    Full {
        /// The limit.
        limit: usize,
    },
    /// It is in it.
    #[error("this subscription is a member already")]
    Member,
}

/// What went through a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupTotals {
    /// Messages offered.
    pub offered: u64,
    /// Messages acknowledged.
    pub acked: u64,
    /// Messages given to another member because the one before died.
    pub redelivered: u64,
    /// Messages dropped because the backlog was full.
    pub dropped_full: u64,
    /// Messages lost with a member that did not want them to go to another.
    pub dropped_dead: u64,
    /// Messages dropped after too many members died with them.
    pub dropped_poison: u64,
    /// Acknowledgements of what was not (or no more) in hand.
    pub stray_acks: u64,
}

/// How a member is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStats {
    /// Who.
    pub subscriber: Subscriber,
    /// Messages it has not acknowledged.
    pub unacked: usize,
    /// Messages it acknowledged.
    pub acked: u64,
}

/// A queue group of one pattern.
#[derive(Debug)]
pub struct Group {
    bounds: GroupBounds,
    members: HashMap<Subscriber, Member>,
    /// Members below their caps: fewest unacknowledged first, then whose turn was longest ago.
    free: BTreeSet<(usize, u64, Subscriber)>,
    backlog: VecDeque<Waiting>,
    backlog_bytes: usize,
    deliveries: u64,
    turns: u64,
    totals: GroupTotals,
}

#[derive(Debug)]
struct Member {
    options: MemberOptions,
    /// `None` where it would not be given to another anyway.
    unacked: BTreeMap<u64, Option<Waiting>>,
    turn: u64,
    acked: u64,
}

#[derive(Debug, Clone)]
struct Waiting {
    message: Arc<Message>,
    redeliveries: u32,
}

impl Group {
    /// Without members.
    pub fn new(bounds: GroupBounds) -> Self {
        Self {
            bounds,
            members: HashMap::new(),
            free: BTreeSet::new(),
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            deliveries: 0,
            turns: 0,
            totals: GroupTotals::default(),
        }
    }

    /// Adds a member, which gets at once what waits.
    pub fn join(
        &mut self,
        who: Subscriber,
        options: MemberOptions,
        effects: &mut Effects,
    ) -> Result<(), GroupJoinError> {
        if self.members.contains_key(&who) {
            return Err(GroupJoinError::Member);
        }
        let limit = self.bounds.members;
        if self.members.len() >= limit {
            return Err(GroupJoinError::Full { limit });
        }
        self.turns += 1;
        let options = MemberOptions {
            cap: options.cap.max(1),
            ..options
        };
        let member = Member {
            options,
            unacked: BTreeMap::new(),
            turn: self.turns,
            acked: 0,
        };
        self.free.insert(member.place(who));
        self.members.insert(who, member);
        self.hand_out(effects);
        Ok(())
    }

    /// Takes a member out. What it did not acknowledge goes to others, before anything newer, if it
    /// joined with that wish; without others it waits for the next to join.
    pub fn leave(&mut self, who: Subscriber, effects: &mut Effects) -> bool {
        let Some(member) = self.members.remove(&who) else {
            return false;
        };
        self.free.remove(&member.place(who));
        for waiting in member.unacked.into_values().rev() {
            match waiting {
                None => self.totals.dropped_dead += 1,
                Some(waiting) if waiting.redeliveries >= self.bounds.redeliveries => {
                    self.totals.dropped_poison += 1;
                }
                Some(waiting) => {
                    self.totals.redelivered += 1;
                    self.backlog_bytes += waiting.message.cost();
                    self.backlog.push_front(Waiting {
                        redeliveries: waiting.redeliveries + 1,
                        ..waiting
                    });
                }
            }
        }
        self.hand_out(effects);
        true
    }

    /// Gives a message to a member, or lets it wait for one.
    pub fn offer(&mut self, message: &Arc<Message>, effects: &mut Effects) -> Offered {
        self.totals.offered += 1;
        if self.members.is_empty() {
            return Offered::NoMembers;
        }
        let waiting = Waiting {
            message: Arc::clone(message),
            redeliveries: 0,
        };
        if self.backlog.is_empty() {
            match self.assign(waiting, effects) {
                Ok(delivery) => Offered::Assigned(delivery),
                Err(waiting) => self.enqueue(waiting),
            }
        } else {
            self.enqueue(waiting)
        }
    }

    /// Notes that a member is done with a message. `false` if it did not have it.
    pub fn ack(&mut self, who: Subscriber, delivery: u64, effects: &mut Effects) -> bool {
        let member = self.members.get_mut(&who);
        let is_in_hand = |member: &&mut Member| member.unacked.contains_key(&delivery);
        let Some(member) = member.filter(is_in_hand) else {
            self.totals.stray_acks += 1;
            return false;
        };
        self.free.remove(&member.place(who));
        member.unacked.remove(&delivery);
        member.acked += 1;
        self.free.insert(member.place(who));
        self.totals.acked += 1;
        self.hand_out(effects);
        true
    }

    /// Notes that a member is done with a message and all it got before it, and returns how many
    /// those were.
    pub fn ack_up_to(&mut self, who: Subscriber, delivery: u64, effects: &mut Effects) -> usize {
        let Some(member) = self.members.get_mut(&who) else {
            self.totals.stray_acks += 1;
            return 0;
        };
        self.free.remove(&member.place(who));
        let later = member.unacked.split_off(&delivery.saturating_add(1));
        let done = std::mem::replace(&mut member.unacked, later).len();
        member.acked += done as u64;
        if member.unacked.len() < member.options.cap as usize {
            self.free.insert(member.place(who));
        }
        self.totals.acked += done as u64;
        self.hand_out(effects);
        done
    }

    /// Members there are.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// Whether it has neither members nor messages.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.backlog.is_empty()
    }

    /// Messages that wait, and their bytes.
    pub fn backlog(&self) -> (usize, usize) {
        (self.backlog.len(), self.backlog_bytes)
    }

    /// What went through it so far.
    pub fn totals(&self) -> GroupTotals {
        self.totals
    }

    /// How each member is doing.
    pub fn member_stats(&self) -> impl Iterator<Item = MemberStats> + '_ {
        self.members.iter().map(|(who, member)| MemberStats {
            subscriber: *who,
            unacked: member.unacked.len(),
            acked: member.acked,
        })
    }

    fn enqueue(&mut self, waiting: Waiting) -> Offered {
        let cost = waiting.message.cost();
        if self.backlog.len() >= self.bounds.backlog
            || self.backlog_bytes + cost > self.bounds.backlog_bytes
        {
            self.totals.dropped_full += 1;
            return Offered::Full;
        }
        self.backlog_bytes += cost;
        self.backlog.push_back(waiting);
        Offered::Waits
    }

    fn hand_out(&mut self, effects: &mut Effects) {
        while !self.free.is_empty() {
            let Some(waiting) = self.backlog.pop_front() else {
                break;
            };
            self.backlog_bytes -= waiting.message.cost();
            // There is somebody free.
            let _ = self.assign(waiting, effects);
        }
    }

    /// Gives the message back if nobody is free.
    fn assign(&mut self, waiting: Waiting, effects: &mut Effects) -> Result<u64, Waiting> {
        let Some((_, _, who)) = self.free.pop_first() else {
            return Err(waiting);
        };
        let Some(member) = self.members.get_mut(&who) else {
            return Err(waiting);
        };
        self.deliveries += 1;
        self.turns += 1;
        member.turn = self.turns;
        effects.assignments.push(Assignment {
            to: who,
            delivery: self.deliveries,
            redeliveries: waiting.redeliveries,
            message: Arc::clone(&waiting.message),
        });
        let again = member.options.redeliver.then_some(waiting);
        member.unacked.insert(self.deliveries, again);
        if member.unacked.len() < member.options.cap as usize {
            self.free.insert(member.place(who));
        }
        Ok(self.deliveries)
    }
}

impl Member {
    fn place(&self, who: Subscriber) -> (usize, u64, Subscriber) {
        (self.unacked.len(), self.turn, who)
    }
}

#[cfg(test)]
mod tests;
