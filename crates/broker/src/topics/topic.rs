//! All there is for one pattern: its channel, its queue groups and those who answer requests.

use super::channel::{Blocked, Channel, CursorStats, Totals};
use super::group::{Group, GroupBounds, GroupTotals, MemberStats, Offered};
use super::Effects;
use crate::message::Message;
use ganger_protocol::Pattern;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A pattern that somebody subscribes to, or did a moment ago.
#[derive(Debug)]
pub struct Topic {
    pattern: Pattern,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) channel: Option<Kept>,
    /// By name; under no name, those who answer requests.
    pub(super) groups: BTreeMap<Option<Box<str>>, Grouped>,
    /// Whether the channel stays without subscribers.
    pub(super) is_kept: bool,
    /// Whether it was taken out of the registry: who wants to join makes another.
    pub(super) is_gone: bool,
    /// Whether it will be looked at when its time has come.
    pub(super) is_queued: bool,
}

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) channel: Channel,
    pub(super) epoch: u64,
    /// When it goes, if nobody subscribes to it until then.
    pub(super) until_ms: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Grouped {
    pub(super) group: Group,
    pub(super) until_ms: Option<u64>,
}

/// How a topic is doing.
#[derive(Debug, Clone)]
pub struct TopicStats {
    /// Its pattern.
    pub pattern: Pattern,
    /// Its channel, if it has one.
    pub channel: Option<ChannelStats>,
    /// Its queue groups by name; under no name, those who answer requests.
    pub groups: Vec<(Option<Box<str>>, GroupStats)>,
}

/// How a channel is doing.
#[derive(Debug, Clone)]
pub struct ChannelStats {
    /// Numbers of another epoch mean other messages.
    pub epoch: u64,
    /// Number of the oldest message kept.
    pub first: u64,
    /// Number that the next message will have.
    pub next: u64,
    /// Messages kept.
    pub messages: usize,
    /// Bytes kept.
    pub bytes: usize,
    /// Whether it will go soon, because nobody subscribes to it.
    pub lingers: bool,
    /// What went through it.
    pub totals: Totals,
    /// Its subscribers.
    pub subscribers: Vec<CursorStats>,
}

/// How a queue group is doing.
#[derive(Debug, Clone)]
pub struct GroupStats {
    /// Messages that wait for a member.
    pub backlog: usize,
    /// Their bytes.
    pub backlog_bytes: usize,
    /// What went through it.
    pub totals: GroupTotals,
    /// Its members.
    pub members: Vec<MemberStats>,
}

impl Topic {
    pub(super) fn new(pattern: Pattern) -> Self {
        Self {
            pattern,
            state: Mutex::default(),
        }
    }

    /// Its pattern.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// How it is doing.
    pub fn stats(&self) -> TopicStats {
        let state = self.lock();
        let channel = state.channel.as_ref().map(|kept| ChannelStats {
            epoch: kept.epoch,
            first: kept.channel.first(),
            next: kept.channel.next(),
            messages: kept.channel.len(),
            bytes: kept.channel.bytes(),
            lingers: kept.until_ms.is_some(),
            totals: kept.channel.totals(),
            subscribers: kept.channel.subscriber_stats().collect(),
        });
        let groups = state.groups.iter().map(|(name, grouped)| {
            let (backlog, backlog_bytes) = grouped.group.backlog();
            let stats = GroupStats {
                backlog,
                backlog_bytes,
                totals: grouped.group.totals(),
                members: grouped.group.member_stats().collect(),
            };
            (name.clone(), stats)
        });
        TopicStats {
            pattern: self.pattern.clone(),
            channel,
            groups: groups.collect(),
        }
    }

    /// A panic while it was held left a state that is whole enough: nothing here is done halfway
    /// before what may panic.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a message to all of it, and returns how many will get it. Where a subscriber holds it
    /// up, nobody gets it, and its publisher is told when that may be over.
    pub(super) fn deliver(
        &self,
        message: &Arc<Message>,
        is_forced: bool,
        effects: &mut Effects,
    ) -> Result<usize, Blocked> {
        let mut state = self.lock();
        let mut reached = 0;
        if let Some(kept) = &mut state.channel {
            match message.publisher().filter(|_| !is_forced) {
                Some(publisher) => {
                    let outcome = kept.channel.append(message, effects);
                    outcome.inspect_err(|_| kept.channel.wait(publisher))?;
                }
                // There is nobody who could wait.
                None => {
                    kept.channel.append_now(message, effects);
                }
            }
            reached += kept.channel.subscribers();
        }
        for (name, grouped) in &mut state.groups {
            if name.is_some() {
                let fate = grouped.group.offer(message, effects);
                reached += usize::from(matches!(fate, Offered::Assigned(_) | Offered::Waits));
            }
        }
        Ok(reached)
    }
}

impl State {
    pub(super) fn group(&mut self, name: Option<&str>, bounds: GroupBounds) -> &mut Grouped {
        self.groups
            .entry(name.map(Into::into))
            .or_insert_with(|| Grouped {
                group: Group::new(bounds),
                until_ms: None,
            })
    }

    /// Whether nothing is left of it.
    pub(super) fn is_empty(&self) -> bool {
        self.channel.is_none() && self.groups.is_empty()
    }

    /// When something of it goes next, if nobody joins.
    pub(super) fn next_until(&self) -> Option<u64> {
        let channel = self.channel.as_ref().and_then(|kept| kept.until_ms);
        let groups = self.groups.values().filter_map(|grouped| grouped.until_ms);
        channel.into_iter().chain(groups).min()
    }
}
