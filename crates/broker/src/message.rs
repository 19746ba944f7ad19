//! A published message, as all subscribers of all channels share it.

use bytes::Bytes;
use std::ops::Range;

/// A message. What is sent to every subscriber alike (subject, headers, payload) is one piece of
/// bytes, encoded once by its publisher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    tail: Bytes,
    key: Option<Range<u32>>,
    subject_len: u16,
    headers_len: u16,
    flags: u16,
}

/// Where the parts of a message's tail are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// Bytes of the subject, with which the tail begins.
    pub subject_len: u16,
    /// Bytes of the headers, which follow the subject; the rest is payload.
    pub headers_len: u16,
    /// Where in the tail the key stands by which messages are conflated, if they have one.
    pub key: Option<Range<u32>>,
    /// Flags for whoever receives it; nothing here looks at them.
    pub flags: u16,
}

/// Tails shorter than this are copied to memory of their own: as slices they would keep the whole
/// read buffer of their publisher's connection in memory for as long as they are kept.
pub const COPY_BELOW: usize = 4096;
/// What a kept message costs besides its tail: its own struct, the count of its owners, the
/// allocator's words and its places in a ring.
pub const OVERHEAD: usize = 128;

impl Message {
    /// A message of a tail and its parts; `None` if the parts are not within the tail.
    pub fn new(tail: Bytes, parts: Parts) -> Option<Self> {
        let headers_end = usize::from(parts.subject_len) + usize::from(parts.headers_len);
        let key_fits = parts.key.as_ref().is_none_or(|key| {
            key.start <= key.end && usize::try_from(key.end).is_ok_and(|end| end <= tail.len())
        });
        if headers_end > tail.len() || !key_fits {
            return None;
        }
        let tail = if tail.len() < COPY_BELOW {
            Bytes::copy_from_slice(&tail)
        } else {
            tail
        };
        Some(Self {
            tail,
            key: parts.key,
            subject_len: parts.subject_len,
            headers_len: parts.headers_len,
            flags: parts.flags,
        })
    }

    /// A message without headers and key; `None` if the subject is longer than 65,535 bytes.
    pub fn plain(subject: &[u8], payload: &[u8]) -> Option<Self> {
        let parts = Parts {
            subject_len: u16::try_from(subject.len()).ok()?,
            ..Parts::default()
        };
        Self::new([subject, payload].concat().into(), parts)
    }

    /// Its subject.
    pub fn subject(&self) -> &[u8] {
        &self.tail[..usize::from(self.subject_len)]
    }

    /// Its headers, encoded.
    pub fn headers(&self) -> &[u8] {
        let start = usize::from(self.subject_len);
        &self.tail[start..start + usize::from(self.headers_len)]
    }

    /// Its payload.
    pub fn payload(&self) -> &[u8] {
        &self.tail[usize::from(self.subject_len) + usize::from(self.headers_len)..]
    }

    /// Subject, headers and payload in one.
    pub fn tail(&self) -> &Bytes {
        &self.tail
    }

    /// The key by which it is conflated, if its publisher gave one.
    pub fn key(&self) -> Option<&[u8]> {
        let key = self.key.as_ref()?;
        // `new` saw that both ends are within the tail, whose length is a `usize`.
        Some(&self.tail[key.start as usize..key.end as usize])
    }

    /// Flags for whoever receives it.
    pub fn flags(&self) -> u16 {
        self.flags
    }

    /// Bytes of memory it counts for in every bound.
    pub fn cost(&self) -> usize {
        self.tail.len() + OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(subject_len: u16, headers_len: u16, key: Option<Range<u32>>) -> Parts {
        Parts {
            subject_len,
            headers_len,
            key,
            flags: 7,
        }
    }

    #[test]
    fn a_message_is_cut_where_its_parts_say() {
        let tail = Bytes::from_static(b"a.bHEADpayload");
        let message = Message::new(tail.clone(), parts(3, 4, Some(4..6))).unwrap();
        assert_eq!(message.subject(), b"a.b");
        assert_eq!(message.headers(), b"HEAD");
        assert_eq!(message.payload(), b"payload");
        assert_eq!(message.key(), Some(&b"EA"[..]));
        assert_eq!(message.flags(), 7);
        assert_eq!(message.cost(), 14 + OVERHEAD);
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges)]
    fn parts_outside_the_tail_are_refused() {
        let tail = Bytes::from_static(b"0123456789");
        assert!(Message::new(tail.clone(), parts(6, 4, Some(0..10))).is_some());
        for wrong in [
            parts(6, 5, None),
            parts(11, 0, None),
            parts(u16::MAX, u16::MAX, None),
            parts(3, 0, Some(0..11)),
            parts(3, 0, Some(5..4)),
            parts(3, 0, Some(0..u32::MAX)),
        ] {
            assert_eq!(Message::new(tail.clone(), wrong), None);
        }
    }

    #[test]
    fn a_short_message_does_not_keep_the_buffer_it_came_in() {
        let buffer = Bytes::from(vec![b'x'; 65_536]);
        let short = Message::new(buffer.slice(100..200), parts(3, 0, None)).unwrap();
        let long = Message::new(buffer.slice(100..8000), parts(3, 0, None)).unwrap();
        let within = |tail: &Bytes| buffer.as_ptr_range().contains(&tail.as_ptr());
        assert!(!within(short.tail()));
        assert!(within(long.tail()));
    }
}
