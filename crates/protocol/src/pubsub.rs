//! Subscriptions, and what may happen to them.

use crate::body::bodies;
use serde::{Deserialize, Serialize};

/// A place in a stream of messages or changes. It means nothing to another run of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The broker's run, from its [`Welcome`](crate::hello::Welcome).
    pub epoch: u64,
    /// The first number that is wanted: one more than the last that was seen.
    pub seq: u64,
}

/// Body of [`Op::Subscribe`](crate::Op::Subscribe). The frame's id becomes the subscription's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Subscribe {
    /// Which subjects.
    pub pattern: String,
    /// The queue group it is a member of: each message goes to one member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Whether it answers requests. Requests go to one of those who do; messages don't.
    #[serde(default)]
    pub responds: bool,
    /// Where it begins.
    #[serde(default)]
    pub start: Start,
    /// What happens when it is too slow.
    #[serde(default)]
    pub policy: Policy,
    /// How many messages it may be behind; the broker's ring is the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lag: Option<u64>,
    /// In a group: messages that a member has not acknowledged go to another when it dies.
    #[serde(default)]
    pub redeliver: bool,
    /// In a group: how many messages the member takes before it acknowledges one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unacknowledged: Option<u32>,
    /// Nothing that this connection published.
    #[serde(default)]
    pub no_echo: bool,
}

impl Subscribe {
    /// To these subjects, from now on, dropping the oldest when too slow.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self {
            pattern: pattern.into(),
            ..Self::default()
        }
    }
}

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Start {
    /// With the next message.
    #[default]
    New,
    /// With the retained messages of the subjects it matches, then the next.
    Last,
    /// With the last so many messages that are still there, then the next.
    LastN(u64),
    /// With this one. What is not there any more is told as a gap.
    From(Position),
}

/// What happens when a subscription is too slow.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Policy {
    /// It loses the oldest messages and is told how many.
    #[default]
    DropOldest,
    /// Of the messages with the same `key` header (without one: the same subject) only the newest is
    /// still delivered. Those that a newer one replaced are not lost, and no gap tells of them.
    Conflate,
    /// Publishers are made to wait, for so many milliseconds at most; then the oldest are lost.
    Block {
        /// Milliseconds.
        ms: u64,
    },
    /// It ends, with [`TooSlow`](crate::ErrorCode::TooSlow).
    Disconnect,
}

/// Body of [`Op::Subscribed`](crate::Op::Subscribed).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed {
    /// Number of the first message that comes, if nothing is lost before: to resume from if none
    /// comes.
    pub next: Position,
    /// How many are there already to be replayed.
    #[serde(default)]
    pub replayed: u64,
}

/// Body of [`Op::Gap`](crate::Op::Gap): messages `from` to `to` of a subscription were lost, both
/// included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// How many; absent if nobody can know, because they are of another run of the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Why.
    #[serde(default)]
    pub cause: GapCause,
}

/// Why messages were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GapCause {
    /// The subscriber was too slow.
    Slow,
    /// They are not kept any more where a subscription wants to go on.
    Expired,
    /// The broker was started anew.
    Restart,
    /// One of a later version.
    #[default]
    #[serde(other)]
    Unknown,
}

bodies! {
    Subscribe => Subscribe,
    Subscribed => Subscribed,
    Gap => Gap,
}
