//! A published message, as all subscribers of all channels share it.

use crate::ids::ConnectionId;
use ganger_protocol::{headers, Flags, Tail};

/// A message: the tail that every subscriber gets, and what is known about its publishing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    tail: Tail,
    flags: Flags,
    publisher: Option<ConnectionId>,
}

/// What a kept message costs besides its tail: its own struct, the count of its owners, the
/// allocator's words and its places in a ring.
pub const OVERHEAD: usize = 128;

impl Message {
    /// A message that a connection published with these flags. It is kept, maybe for long, and its
    /// tail with it: a short one must not be a slice of a read buffer.
    pub fn new(tail: Tail, flags: Flags, publisher: ConnectionId) -> Self {
        Self {
            tail,
            flags,
            publisher: Some(publisher),
        }
    }

    /// A message of nobody, without headers and flags.
    pub fn plain(subject: &[u8], payload: &[u8]) -> Result<Self, ganger_protocol::FrameError> {
        Ok(Self {
            tail: Tail::new(subject, b"", payload)?,
            flags: Flags::NONE,
            publisher: None,
        })
    }

    /// What every subscriber gets.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Its subject.
    pub fn subject(&self) -> &[u8] {
        self.tail.subject()
    }

    /// The key by which it is conflated, if its publisher gave one.
    pub fn key(&self) -> Option<&[u8]> {
        headers::find(self.tail.headers(), headers::KEY)
            .ok()
            .flatten()
    }

    /// The flags it was published with.
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// Who published it.
    pub fn publisher(&self) -> Option<ConnectionId> {
        self.publisher
    }

    /// Whether a connection published it.
    pub fn is_from(&self, connection: ConnectionId) -> bool {
        self.publisher == Some(connection)
    }

    /// Bytes of memory it counts for in every bound.
    pub fn cost(&self) -> usize {
        self.tail.len() + OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_tells_its_key_and_its_publisher() {
        let headers = headers::encode(&[("other", "x"), ("key", "seven")]).unwrap();
        let tail = Tail::new(b"a.b", &headers, b"payload").unwrap();
        let message = Message::new(tail.clone(), Flags::RETAIN, ConnectionId(3));
        assert_eq!(
            (message.subject(), message.key()),
            (&b"a.b"[..], Some(&b"seven"[..]))
        );
        assert!(message.is_from(ConnectionId(3)) && !message.is_from(ConnectionId(4)));
        assert_eq!(message.cost(), tail.len() + OVERHEAD);
        let broken = Tail::new(b"a.b", b"\xff\xff", b"").unwrap();
        assert_eq!(
            Message::new(broken, Flags::NONE, ConnectionId(3)).key(),
            None
        );
    }
}
