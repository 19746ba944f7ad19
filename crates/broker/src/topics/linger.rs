//! Channels (and queue groups with messages) that stay a while after the last one has left, so that
//! who comes back finds what it missed.

use super::budget::Budget;
use super::channel::Channel;
use super::registry::{count, Topics};
use super::topic::{Kept, State, Topic};
use super::Effects;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Topics to look at when their time has come; each is in it once at most.
#[derive(Debug)]
pub(super) struct Lingering {
    queue: Mutex<Queue>,
    /// Channels that linger.
    channels: AtomicUsize,
    budget: Arc<Budget>,
}

#[derive(Debug, Default)]
struct Queue {
    by_time: BTreeMap<(u64, u64), Arc<Topic>>,
    entries: u64,
}

impl Lingering {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            queue: Mutex::default(),
            channels: AtomicUsize::new(0),
            budget: Arc::new(Budget::new(bytes_max)),
        }
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, until_ms: u64, topic: &Arc<Topic>) {
        let mut queue = self.queue();
        queue.entries += 1;
        let key = (until_ms, queue.entries);
        queue.by_time.insert(key, Arc::clone(topic));
    }

    fn pop_up_to(&self, now_ms: u64) -> Option<Arc<Topic>> {
        let mut queue = self.queue();
        let first = queue.by_time.first_entry()?;
        (first.key().0 <= now_ms).then(|| first.remove())
    }
}

/// # Lingering
impl Topics {
    /// Lets go what lingered long enough.
    pub fn expire(&self, now_ms: u64) {
        while let Some(topic) = self.lingering.pop_up_to(now_ms) {
            self.look_at(&topic, now_ms);
        }
    }

    /// When [`Topics::expire`] may have something to do next.
    pub fn next_deadline(&self) -> Option<u64> {
        let queue = self.lingering.queue();
        queue.by_time.first_key_value().map(|(key, _)| key.0)
    }

    /// Channels without subscribers that linger.
    pub fn lingering(&self) -> usize {
        self.lingering.channels.load(Ordering::Relaxed)
    }

    /// Somebody left a topic: what nobody is left for begins to linger, or goes at once.
    pub(super) fn left(&self, topic: &Arc<Topic>, now_ms: u64, effects: &mut Effects) {
        let until = now_ms.saturating_add(self.limits.linger_ms);
        let mut state = topic.lock();
        let is_kept = state.is_kept;
        if let Some(kept) = &mut state.channel {
            let is_left = kept.channel.subscribers() == 0 && !is_kept;
            if is_left && kept.until_ms.is_none() {
                kept.until_ms = Some(until);
                self.lingering.channels.fetch_add(1, Ordering::Relaxed);
                let budget = Arc::clone(self.lingering.budget());
                kept.channel.move_to(budget, effects);
            }
        }
        state.groups.retain(|_, grouped| {
            if grouped.group.members() == 0 && grouped.until_ms.is_none() {
                grouped.until_ms = Some(until);
            }
            !grouped.group.is_empty()
        });
        let push = state.next_until().filter(|_| !state.is_queued);
        state.is_queued |= push.is_some();
        let is_gone = state.is_empty();
        state.is_gone |= is_gone;
        drop(state);
        if let Some(until) = push {
            self.lingering.push(until, topic);
        }
        if is_gone {
            self.take_out(topic);
        }
        self.cut();
    }

    /// The channel of a topic, for somebody who joins: it lingers no more.
    pub(super) fn channel<'s>(&self, state: &'s mut State, effects: &mut Effects) -> &'s mut Kept {
        let kept = state.channel.get_or_insert_with(|| Kept {
            channel: Channel::new(self.limits.ring, Arc::clone(&self.rings)),
            epoch: self.epoch.fetch_add(1, Ordering::Relaxed),
            until_ms: None,
        });
        if kept.until_ms.take().is_some() {
            self.lingering.channels.fetch_sub(1, Ordering::Relaxed);
            kept.channel.move_to(Arc::clone(&self.rings), effects);
        }
        kept
    }

    /// Where too many linger, those go whose time would come first.
    fn cut(&self) {
        while self.lingering() > self.limits.lingering {
            let Some(topic) = self.lingering.pop_up_to(u64::MAX) else {
                break;
            };
            count(&self.counters.lingering_cut);
            self.look_at(&topic, u64::MAX);
        }
    }

    /// Takes away what is due of a topic that was just taken off the queue.
    fn look_at(&self, topic: &Arc<Topic>, now_ms: u64) {
        let is_due = |until: Option<u64>| until.is_some_and(|until| until <= now_ms);
        let mut state = topic.lock();
        state.is_queued = false;
        if state
            .channel
            .as_ref()
            .is_some_and(|kept| is_due(kept.until_ms))
        {
            state.channel = None;
            self.lingering.channels.fetch_sub(1, Ordering::Relaxed);
        }
        state.groups.retain(|_, grouped| {
            let ends = is_due(grouped.until_ms) && grouped.group.members() == 0;
            if ends {
                let lost = grouped.group.backlog().0 as u64;
                let counter = &self.counters.group_lost;
                counter.fetch_add(lost, Ordering::Relaxed);
            }
            !ends
        });
        let push = state.next_until();
        state.is_queued = push.is_some();
        let is_gone = state.is_empty();
        state.is_gone |= is_gone;
        drop(state);
        if let Some(until) = push {
            self.lingering.push(until, topic);
        }
        if is_gone {
            self.take_out(topic);
        }
    }
}
