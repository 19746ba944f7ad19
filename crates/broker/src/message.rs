//! A published message, as all subscribers of all channels share it.

use crate::ids::ConnectionId;
use crate::read_memory::{ReadMemory, Used};
use bytes::BytesMut;
use ganger_protocol::{headers, Flags, FrameView, Tail};
use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

/// A message: the tail that every subscriber gets, and what is known about its publishing.
#[derive(Debug)]
pub struct Message {
    tail: Tail,
    flags: Flags,
    publisher: Option<ConnectionId>,
    /// If it is a part of memory that was read into.
    used: Option<Used>,
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
            used: None,
        }
    }

    /// The same of a tail that stays where it was received: in memory that was lent for it.
    pub fn lent(
        tail: Tail,
        flags: Flags,
        publisher: ConnectionId,
        memory: &Arc<ReadMemory>,
    ) -> Self {
        let used = Used::new(tail.len(), memory);
        let mut message = Self::new(tail, flags, publisher);
        message.used = Some(used);
        message
    }

    /// The same of a copy of the tail, in memory of a former message if there is some.
    pub fn copied(frame: &FrameView<'_>, publisher: ConnectionId) -> Self {
        let spare = match SPARE_LEN.contains(&frame.tail().len()) {
            true => take_spare(frame.tail().len()),
            false => None,
        };
        let tail = match spare {
            Some(spare) => frame.to_tail_in(spare),
            None => frame.to_tail(),
        };
        Self::new(tail, frame.head.flags, publisher)
    }

    /// A message of nobody, without headers and flags.
    pub fn plain(subject: &[u8], payload: &[u8]) -> Result<Self, ganger_protocol::FrameError> {
        Ok(Self {
            tail: Tail::new(subject, b"", payload)?,
            flags: Flags::NONE,
            publisher: None,
            used: None,
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

/// Tails of such a length leave their memory to later ones: the allocator is slow with pieces that
/// are neither small nor very large, and a ring gives one back for each that it takes.
const SPARE_LEN: Range<usize> = 1024..16 << 10;
/// Pieces that one thread keeps.
const SPARE_MAX: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Memory for so many bytes and few more.
fn take_spare(len: usize) -> Option<BytesMut> {
    let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok()??;
    (len..=len + len / 4)
        .contains(&spare.capacity())
        .then_some(spare)
}

/// Wherever it is.
impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        (&self.tail, self.flags, self.publisher) == (&other.tail, other.flags, other.publisher)
    }
}

impl Eq for Message {}

impl Drop for Message {
    fn drop(&mut self) {
        if self.used.is_some() || !SPARE_LEN.contains(&self.tail.len()) {
            return;
        }
        let bytes = std::mem::take(&mut self.tail).into_bytes();
        // If a connection still writes it, it is that one's.
        let Ok(mut bytes) = bytes.try_into_mut() else {
            return;
        };
        bytes.clear();
        // The thread may be about to end.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ganger_protocol::{write_frame, FrameCodec, Head, Limits, Op};

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

    #[test]
    fn a_copy_is_the_same_in_new_memory_and_in_that_of_a_former_message() {
        for (len, fill) in [(5000, 1_u8), (4000, 2), (5000, 3), (4999, 4), (100, 5)] {
            let mut wire = BytesMut::new();
            let head = Head::new(Op::Publish, 0).flags(Flags::RETAIN);
            write_frame(&mut wire, head, b"a.b", b"", &vec![fill; len]).unwrap();
            let codec = FrameCodec::new(&Limits::default());
            let frame = codec.peek(&wire).unwrap().unwrap();
            let message = Message::copied(&frame, ConnectionId(3));
            assert_eq!(
                message,
                Message::new(frame.to_tail(), Flags::RETAIN, ConnectionId(3))
            );
            assert!(!wire
                .as_ptr_range()
                .contains(&message.tail().bytes().as_ptr()));
        }
    }
}
