//! All topics: from a subject to those who get its messages.
//!
//! Patterns without wildcards are found by their text, the others through a trie that is not looked
//! at while it is empty. Locks are taken in one order: the table or the trie, then one topic. A
//! topic that is taken out is marked first, so that nobody joins what nobody finds.

use super::budget::Budget;
use super::channel::Bounds;
use super::group::{Assignment, GroupBounds, Offered};
use super::linger::Lingering;
use super::retained::{RetainError, Retained};
use super::topic::Topic;
use super::trie::Trie;
use super::Effects;
use crate::ids::{ConnectionId, Subscriber};
use crate::message::Message;
use dashmap::DashMap;
use ganger_protocol::{Flags, Limits, Pattern};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Bounds on topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicLimits {
    /// Distinct patterns.
    pub topics: usize,
    /// One channel's ring.
    pub ring: Bounds,
    /// Bytes of all rings together.
    pub rings_bytes: usize,
    /// How long a channel stays after its last subscriber.
    pub linger_ms: u64,
    /// Channels without subscribers that stay at a time.
    pub lingering: usize,
    /// Bytes of their rings together, which are counted apart.
    pub lingering_bytes: usize,
    /// One queue group.
    pub group: GroupBounds,
    /// Retained messages.
    pub retained: usize,
    /// Their bytes.
    pub retained_bytes: usize,
}

impl From<&Limits> for TopicLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            topics: limits.channels,
            ring: Bounds {
                messages: limits.ring_messages,
                bytes: limits.ring_bytes,
                history: limits.history_bytes,
            },
            rings_bytes: limits.rings_bytes,
            linger_ms: limits.channel_linger_ms,
            lingering: limits.channels / 16,
            lingering_bytes: limits.rings_bytes / 4,
            group: GroupBounds {
                backlog: limits.unacknowledged,
                backlog_bytes: limits.ring_bytes,
                members: limits.connections,
                redeliveries: u32::from(limits.redeliveries),
            },
            retained: limits.retained_messages,
            retained_bytes: limits.retained_bytes,
        }
    }
}

/// What became of a message.
#[derive(Debug)]
pub enum Published {
    /// So many subscriptions and queue groups get it.
    Done(usize),
    /// A slow subscriber holds it up; until it is through, its publisher is not to publish more.
    /// [`Effects::resume`] names the publisher when it is worth trying again.
    Blocked(Pending),
}

/// A message on its way, which some topics have and others do not yet.
#[derive(Debug)]
pub struct Pending {
    message: Arc<Message>,
    rest: Vec<Arc<Topic>>,
    reached: usize,
    /// For how long it may be held up.
    pub wait_ms: u64,
}

/// Who answers a request.
#[derive(Debug)]
pub enum Chosen {
    /// This one: it is in [`Effects::assignments`] too.
    Responder(Route),
    /// There is none.
    NoResponders,
    /// All of them have as many requests as they take.
    Busy,
}

/// A request that a responder has in hand.
#[derive(Debug, Clone)]
pub struct Route {
    topic: Arc<Topic>,
    delivery: u64,
    /// Who has it.
    pub responder: Subscriber,
}

/// What happened in all topics so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicsTotals {
    /// Messages published.
    pub published: u64,
    /// Messages that nobody was there for.
    pub unrouted: u64,
    /// Retained messages refused.
    pub retain_refused: u64,
    /// Patterns refused because there are too many.
    pub topics_refused: u64,
    /// Channels that went before their time because too many lingered.
    pub lingering_cut: u64,
    /// Messages of queue groups that ended without members.
    pub group_lost: u64,
}

/// All topics.
#[derive(Debug)]
pub struct Topics {
    pub(super) limits: TopicLimits,
    pub(super) exact: DashMap<Box<[u8]>, Arc<Topic>>,
    pub(super) wild: RwLock<Trie<Arc<Topic>>>,
    /// Patterns in `wild`, so that publishing need not ask it while there is none.
    pub(super) wild_len: AtomicUsize,
    pub(super) rings: Arc<Budget>,
    pub(super) lingering: Lingering,
    retained: Mutex<Retained>,
    pub(super) epoch: AtomicU64,
    pub(super) counters: Counters,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    published: AtomicU64,
    unrouted: AtomicU64,
    retain_refused: AtomicU64,
    pub(super) topics_refused: AtomicU64,
    pub(super) lingering_cut: AtomicU64,
    pub(super) group_lost: AtomicU64,
}

/// # Publishing
impl Topics {
    /// Without topics. Channels get numbers from `first_epoch` on, by which a subscriber that comes
    /// back tells whether its channel is still the same; another run of the broker begins elsewhere.
    pub fn new(limits: TopicLimits, first_epoch: u64) -> Self {
        Self {
            limits,
            exact: DashMap::new(),
            wild: RwLock::default(),
            wild_len: AtomicUsize::new(0),
            rings: Arc::new(Budget::new(limits.rings_bytes)),
            lingering: Lingering::new(limits.lingering_bytes),
            retained: Mutex::new(Retained::new(limits.retained, limits.retained_bytes)),
            epoch: AtomicU64::new(first_epoch),
            counters: Counters::default(),
        }
    }

    /// Gives a message to all who subscribe to its subject. If it is to be retained and can't be,
    /// nobody gets it.
    pub fn publish(
        &self,
        message: &Arc<Message>,
        effects: &mut Effects,
    ) -> Result<Published, RetainError> {
        count(&self.counters.published);
        if message.flags().has(Flags::RETAIN) {
            let outcome = self.retained().set(message);
            outcome.inspect_err(|_| count(&self.counters.retain_refused))?;
        }
        let mut reached = 0;
        let mut rest = Vec::new();
        let mut wait_ms = 0;
        self.for_matching(message.subject(), |topic| {
            match topic.deliver(message, false, effects) {
                Ok(more) => reached += more,
                Err(blocked) => {
                    wait_ms = wait_ms.max(blocked.wait_ms);
                    rest.push(Arc::clone(topic));
                }
            }
            true
        });
        if rest.is_empty() {
            if reached == 0 {
                count(&self.counters.unrouted);
            }
            return Ok(Published::Done(reached));
        }
        let pending = Pending {
            message: Arc::clone(message),
            rest,
            reached,
            wait_ms,
        };
        Ok(Published::Blocked(pending))
    }

    /// Goes on with a message that was held up. Forced, since its time has come, those who hold it up
    /// lose messages instead.
    pub fn publish_rest(
        &self,
        mut pending: Pending,
        is_forced: bool,
        effects: &mut Effects,
    ) -> Published {
        let (message, reached) = (&pending.message, &mut pending.reached);
        pending.rest.retain(|topic| {
            let outcome = topic.deliver(message, is_forced, effects);
            *reached += outcome.unwrap_or(0);
            outcome.is_err()
        });
        if pending.rest.is_empty() {
            Published::Done(pending.reached)
        } else {
            Published::Blocked(pending)
        }
    }

    /// Chooses who answers a request: of those whose pattern fits, the one with the fewest in hand.
    pub fn request(&self, message: &Arc<Message>, effects: &mut Effects) -> Chosen {
        let mut chosen = Chosen::NoResponders;
        self.for_matching(message.subject(), |topic| {
            let mut state = topic.lock();
            let Some(responders) = state.groups.get_mut(&None) else {
                return true;
            };
            match responders.group.offer(message, effects) {
                Offered::Assigned(delivery) => {
                    let last = effects.assignments.last();
                    if let Some(Assignment { to, .. }) = last {
                        chosen = Chosen::Responder(Route {
                            topic: Arc::clone(topic),
                            delivery,
                            responder: *to,
                        });
                    }
                    return false;
                }
                Offered::Full | Offered::Waits => chosen = Chosen::Busy,
                Offered::NoMembers => {}
            }
            true
        });
        chosen
    }

    /// Notes that a responder no longer has a request in hand, whatever became of it.
    pub fn request_ended(&self, route: &Route, effects: &mut Effects) {
        let mut state = route.topic.lock();
        if let Some(responders) = state.groups.get_mut(&None) {
            responders
                .group
                .ack(route.responder, route.delivery, effects);
        }
    }

    /// Calls `each` with the topics whose pattern a subject matches, until it returns `false`.
    fn for_matching(&self, subject: &[u8], mut each: impl FnMut(&Arc<Topic>) -> bool) {
        if let Some(topic) = self.exact.get(subject) {
            if !each(&topic) {
                return;
            }
        }
        // A subscriber that was told it is in sees what is published after that: its store of the
        // length came before.
        if self.wild_len.load(Ordering::Acquire) == 0 {
            return;
        }
        let wild = self.wild.read().unwrap_or_else(PoisonError::into_inner);
        let mut goes_on = true;
        wild.matches(subject, &mut |topic| goes_on = goes_on && each(topic));
    }
}

/// # About them
impl Topics {
    /// The retained messages of the subjects a pattern asks for.
    pub fn retained_for(&self, pattern: &Pattern) -> Vec<Arc<Message>> {
        self.retained().matching(pattern).cloned().collect()
    }

    /// Retained messages and their bytes.
    pub fn retained_len(&self) -> (usize, usize) {
        let retained = self.retained();
        (retained.len(), retained.bytes())
    }

    /// Every topic there is, for listings.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        let mut all: Vec<_> = self.exact.iter().map(|entry| Arc::clone(&entry)).collect();
        let wild = self.wild.read().unwrap_or_else(PoisonError::into_inner);
        wild.for_each(&mut |topic| all.push(Arc::clone(topic)));
        all
    }

    /// Topics there are.
    pub fn len(&self) -> usize {
        self.exact.len() + self.wild_len.load(Ordering::Relaxed)
    }

    /// Whether there is no topic.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all rings with subscribers, and of those that linger.
    pub fn bytes(&self) -> (usize, usize) {
        (self.rings.used(), self.lingering.budget().used())
    }

    /// What happened so far.
    pub fn totals(&self) -> TopicsTotals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TopicsTotals {
            published: read(&self.counters.published),
            unrouted: read(&self.counters.unrouted),
            retain_refused: read(&self.counters.retain_refused),
            topics_refused: read(&self.counters.topics_refused),
            lingering_cut: read(&self.counters.lingering_cut),
            group_lost: read(&self.counters.group_lost),
        }
    }

    fn retained(&self) -> MutexGuard<'_, Retained> {
        self.retained.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Pending {
    /// Who waits for it to go through.
    pub fn publisher(&self) -> Option<ConnectionId> {
        self.message.publisher()
    }
}
