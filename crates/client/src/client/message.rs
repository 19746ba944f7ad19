//! What comes out of a subscription.

use bytes::Bytes;
use ganger_protocol::headers::{self, Headers};
use ganger_protocol::pubsub::Gap;
use ganger_protocol::{Flags, Tail};
use std::fmt;

/// What a [`Subscription`](super::Subscription) yields.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A message.
    Message(Message),
    /// Messages were lost: here, and these.
    Gap(Gap),
}

impl Event {
    /// The message, if it is one.
    pub fn message(self) -> Option<Message> {
        match self {
            Self::Message(message) => Some(message),
            Self::Gap(_) => None,
        }
    }
}

/// A message that was published.
#[derive(Clone)]
pub struct Message {
    pub(crate) content: Content,
    pub(crate) flags: Flags,
    pub(crate) seq: u64,
    /// Of the connection it came by.
    pub(crate) generation: u64,
}

impl Message {
    /// The subject it was published to.
    pub fn subject(&self) -> &str {
        self.content.subject()
    }

    /// Its payload.
    pub fn payload(&self) -> &[u8] {
        self.content.payload()
    }

    /// Its payload, without a copy. It keeps the buffer alive that the message was read into, 64 KiB
    /// or so, until it is dropped.
    pub fn into_payload(self) -> Bytes {
        self.content.into_payload()
    }

    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.content.header(name)
    }

    /// All headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.content.headers()
    }

    /// Its number in the channel of the subscription's pattern: they count from 1, without holes.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Whether it is the retained last message of its subject, rather than a new one.
    pub fn is_retained(&self) -> bool {
        self.flags.has(Flags::RETAIN)
    }

    /// Whether it is older than the subscription.
    pub fn is_replayed(&self) -> bool {
        self.flags.has(Flags::REPLAY)
    }

    /// How often it was delivered to other members of the queue group before, 15 at most.
    pub fn redeliveries(&self) -> u8 {
        self.flags.redeliveries()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("subject", &self.subject())
            .field("seq", &self.seq)
            .field("payload_len", &self.payload().len())
            .finish_non_exhaustive()
    }
}

/// Subject, headers and payload, wherever the payload came from.
#[derive(Clone)]
pub(crate) struct Content {
    tail: Tail,
    /// The payload that the tail's refers to.
    loaded: Option<Bytes>,
}

impl Content {
    pub(crate) fn inline(tail: Tail) -> Self {
        Self { tail, loaded: None }
    }

    pub(crate) fn loaded(tail: Tail, payload: Vec<u8>) -> Self {
        Self {
            tail,
            loaded: Some(payload.into()),
        }
    }

    pub(crate) fn subject(&self) -> &str {
        // The broker lets nothing else through.
        std::str::from_utf8(self.tail.subject()).unwrap_or_default()
    }

    pub(crate) fn payload(&self) -> &[u8] {
        match &self.loaded {
            Some(payload) => payload,
            None => self.tail.payload(),
        }
    }

    pub(crate) fn into_payload(self) -> Bytes {
        match self.loaded {
            Some(payload) => payload,
            None => self.tail.payload_bytes(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        headers::find(self.tail.headers(), name).ok().flatten()
    }

    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let headers: Headers<'_> = headers::iter(self.tail.headers());
        headers.map_while(Result::ok)
    }
}
