//! Joining and leaving topics.

use super::channel::{Batch, Channel, CursorId, Delivery, Drained, Start, Wish};
use super::group::{Group, GroupJoinError, MemberOptions};
use super::registry::{count, Topics};
use super::topic::{State, Topic};
use super::Effects;
use crate::ids::Subscriber;
use ganger_protocol::Pattern;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

/// Why somebody can't subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// Too many patterns.
    #[error("{limit} patterns are subscribed to: there may be no more")]
    Topics {
        /// The limit.
        limit: usize,
    },
    /// The queue group does not take it.
    #[error(transparent)]
    Group(#[from] GroupJoinError),
}

/// A subscription's place in its channel. It stays until [`Topics::unsubscribe`] takes it.
#[derive(Debug)]
pub struct Subscription {
    topic: Arc<Topic>,
    cursor: CursorId,
}

/// How a subscription began.
#[derive(Debug)]
pub struct Joined {
    /// Its place.
    pub subscription: Subscription,
    /// Messages of another epoch have nothing to do with this one's numbers.
    pub epoch: u64,
    /// Number of the first message it gets, unless it conflates.
    pub next: u64,
    /// Number of the first message that is newer than the subscription.
    pub head: u64,
    /// Whether there is something to drain at once.
    pub is_ready: bool,
    /// Whether the channel is another than the one it wanted to go on with: what it missed there
    /// can't be known.
    pub is_another: bool,
}

/// A place in a queue group, or among those who answer requests. It stays until [`Topics::quit`]
/// takes it.
#[derive(Debug)]
pub struct Membership {
    topic: Arc<Topic>,
    group: Option<Box<str>>,
    who: Subscriber,
}

/// # Subscribing
impl Topics {
    /// Subscribes to a pattern. `resumes` names the epoch that a start from a number counts in.
    pub fn subscribe(
        &self,
        pattern: &Pattern,
        who: Subscriber,
        mut wish: Wish,
        resumes: Option<u64>,
        effects: &mut Effects,
    ) -> Result<Joined, SubscribeError> {
        let topic = self.topic(pattern)?;
        let mut state = topic.lock();
        if state.is_gone {
            // Whoever marked it takes it out; not to wait for that, so does this.
            drop(state);
            self.take_out(&topic);
            return self.subscribe(pattern, who, wish, resumes, effects);
        }
        let kept = self.channel(&mut state, effects);
        let is_another = resumes.is_some_and(|epoch| epoch != kept.epoch);
        if is_another {
            wish.start = Start::New;
        }
        let epoch = kept.epoch;
        let (cursor, is_ready) = kept.channel.join(who, wish);
        let next = kept.channel.position(cursor);
        let head = kept.channel.next();
        drop(state);
        Ok(Joined {
            subscription: Subscription { topic, cursor },
            epoch,
            next,
            head,
            is_ready,
            is_another,
        })
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, subscription: Subscription, now_ms: u64, effects: &mut Effects) {
        let Subscription { topic, cursor } = subscription;
        if let Some(kept) = &mut topic.lock().channel {
            kept.channel.leave(cursor, effects);
        }
        self.left(&topic, now_ms, effects);
    }

    /// Lets a pattern's messages be kept from now on, without subscribers too.
    pub fn keep(&self, pattern: &Pattern, effects: &mut Effects) -> Result<(), SubscribeError> {
        let topic = self.topic(pattern)?;
        let mut state = topic.lock();
        if state.is_gone {
            drop(state);
            self.take_out(&topic);
            return self.keep(pattern, effects);
        }
        state.is_kept = true;
        self.channel(&mut state, effects);
        Ok(())
    }

    /// Makes somebody a member of a queue group, or (without a name) one who answers requests.
    pub fn join(
        &self,
        pattern: &Pattern,
        group: Option<&str>,
        who: Subscriber,
        options: MemberOptions,
        effects: &mut Effects,
    ) -> Result<Membership, SubscribeError> {
        let topic = self.topic(pattern)?;
        let mut state = topic.lock();
        if state.is_gone {
            drop(state);
            self.take_out(&topic);
            return self.join(pattern, group, who, options, effects);
        }
        let mut bounds = self.limits.group;
        if group.is_none() {
            // A requester rather hears at once that all are busy.
            (bounds.backlog, bounds.backlog_bytes) = (0, 0);
        }
        let grouped = state.group(group, bounds);
        grouped.group.join(who, options, effects)?;
        // What lingered has a member again.
        grouped.until_ms = None;
        drop(state);
        Ok(Membership {
            topic,
            group: group.map(Into::into),
            who,
        })
    }

    /// Ends a membership.
    pub fn quit(&self, membership: Membership, now_ms: u64, effects: &mut Effects) {
        membership.with(|group| group.leave(membership.who, effects));
        self.left(&membership.topic, now_ms, effects);
    }

    /// The topic of a pattern; a new one, if there is none.
    fn topic(&self, pattern: &Pattern) -> Result<Arc<Topic>, SubscribeError> {
        let text = pattern.as_str().as_bytes();
        let new = || Arc::new(Topic::new(pattern.clone()));
        if pattern.is_exact() {
            if let Some(topic) = self.exact.get(text) {
                return Ok(Arc::clone(&topic));
            }
            self.check_room()?;
            return Ok(Arc::clone(
                &self.exact.entry(text.into()).or_insert_with(new),
            ));
        }
        let mut wild = self.wild.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = wild.get(text) {
            return Ok(Arc::clone(topic));
        }
        self.check_room()?;
        let topic = new();
        wild.insert(text, Arc::clone(&topic));
        // Pairs with the load in `for_matching`.
        self.wild_len.store(wild.len(), Ordering::Release);
        Ok(topic)
    }

    /// Takes out a topic that was marked as gone.
    pub(super) fn take_out(&self, topic: &Arc<Topic>) {
        let text = topic.pattern().as_str().as_bytes();
        if topic.pattern().is_exact() {
            self.exact
                .remove_if(text, |_, found| Arc::ptr_eq(found, topic));
            return;
        }
        let mut wild = self.wild.write().unwrap_or_else(PoisonError::into_inner);
        if wild
            .get(text)
            .is_some_and(|found| Arc::ptr_eq(found, topic))
        {
            wild.remove(text);
            self.wild_len.store(wild.len(), Ordering::Release);
        }
    }

    fn check_room(&self) -> Result<(), SubscribeError> {
        let limit = self.limits.topics;
        if self.len() < limit {
            return Ok(());
        }
        count(&self.counters.topics_refused);
        Err(SubscribeError::Topics { limit })
    }
}

impl Subscription {
    /// Hands out what is next, oldest first.
    pub fn drain(
        &self,
        batch: Batch,
        effects: &mut Effects,
        each: impl FnMut(Delivery<'_>),
    ) -> Drained {
        let mut state = self.topic.lock();
        self.channel(&mut state).map_or(Drained::Idle, |channel| {
            channel.drain(self.cursor, batch, effects, each)
        })
    }

    /// Its topic.
    pub fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// A channel with subscribers stays.
    fn channel<'s>(&self, state: &'s mut MutexGuard<'_, State>) -> Option<&'s mut Channel> {
        state.channel.as_mut().map(|kept| &mut kept.channel)
    }
}

impl Membership {
    /// Notes that the member is done with a message. `false` if it did not have it.
    pub fn ack(&self, delivery: u64, effects: &mut Effects) -> bool {
        self.with(|group| group.ack(self.who, delivery, effects))
            .unwrap_or(false)
    }

    /// Notes that the member is done with a message and all it got before it; how many were those?
    pub fn ack_up_to(&self, delivery: u64, effects: &mut Effects) -> usize {
        self.with(|group| group.ack_up_to(self.who, delivery, effects))
            .unwrap_or(0)
    }

    /// A group with members stays.
    fn with<R>(&self, act: impl FnOnce(&mut Group) -> R) -> Option<R> {
        let mut state = self.topic.lock();
        let grouped = state.groups.get_mut(&self.group)?;
        Some(act(&mut grouped.group))
    }
}
