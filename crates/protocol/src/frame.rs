//! Frames: a fixed header, then subject, headers and payload in one piece.
//!
//! ```text
//! length u32 | version u8 | op u8 | flags u16 | id u32 | seq u64 | subject_len u16 | headers_len u16
//! subject | headers | payload
//! ```
//!
//! All integers are big-endian; `length` counts what follows it.

use crate::body::{Body, DecodeError};
use crate::limits::{
    FRAME_LEN_MAX, HEADERS_LEN_MAX, HEADER_LEN, HEAD_LEN, LENGTH_LEN, SUBJECT_SLOT_MAX,
};
use crate::op::{Flags, Op};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io;

/// Version of the frame layout, the first byte behind the length.
pub const LAYOUT_VERSION: u8 = 1;

/// Why bytes are no frame, or a frame can't be sent. One who receives such bytes closes the
/// connection: where the next frame begins can't be trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than the receiver takes.
    #[error("a frame longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// Shorter than the fixed header.
    #[error("a frame of {len} bytes: the fixed header alone has {HEADER_LEN}")]
    TooShort {
        /// Its length.
        len: usize,
    },
    /// Another layout.
    #[error("a frame of layout version {found}: this build knows {LAYOUT_VERSION}")]
    Version {
        /// The version byte.
        found: u8,
    },
    /// Subject and headers would end behind the frame.
    #[error("subject and headers of {needed} bytes in a frame that has {len} for them")]
    Lengths {
        /// Bytes they declare.
        needed: usize,
        /// Bytes there are.
        len: usize,
    },
    /// The subject slot is too long.
    #[error("a subject or key of {len} bytes: {SUBJECT_SLOT_MAX} are the most")]
    SubjectLen {
        /// Its length.
        len: usize,
    },
    /// The headers are too long.
    #[error("headers of {len} bytes: {limit} are the most")]
    HeadersLen {
        /// Their length.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The connection failed, or ended within a frame.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The part of a frame that differs between the receivers of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What the frame is about.
    pub op: Op,
    /// Flags of the op.
    pub flags: Flags,
    /// The request, subscription, watch or lease it belongs to; 0 for none.
    pub id: u32,
    /// A number whose meaning depends on the op.
    pub seq: u64,
}

impl Head {
    /// No flags, and 0 for the number.
    pub const fn new(op: Op, id: u32) -> Self {
        Self {
            op,
            flags: Flags::NONE,
            id,
            seq: 0,
        }
    }

    /// With these flags.
    #[must_use]
    pub const fn flags(mut self, flags: Flags) -> Self {
        self.flags = flags;
        self
    }

    /// With this number.
    #[must_use]
    pub const fn seq(mut self, seq: u64) -> Self {
        self.seq = seq;
        self
    }

    /// Length word and fixed header of a frame with this tail. The tail's bytes follow.
    #[inline]
    pub fn encode(&self, tail: &Tail) -> [u8; HEAD_LEN] {
        self.encode_with(Sizes {
            subject: tail.subject_len,
            headers: tail.headers_len,
            all: tail.bytes.len(),
        })
    }

    /// Length word and fixed header of a frame whose parts the sender writes itself.
    pub fn encode_for(
        &self,
        subject_len: usize,
        headers_len: usize,
        payload_len: usize,
    ) -> Result<[u8; HEAD_LEN], FrameError> {
        Sizes::new(subject_len, headers_len, payload_len).map(|sizes| self.encode_with(sizes))
    }

    #[inline]
    fn encode_with(&self, sizes: Sizes) -> [u8; HEAD_LEN] {
        let mut head = [0; HEAD_LEN];
        // `Sizes` and `Tail` hold nothing longer than a frame.
        #[allow(clippy::cast_possible_truncation)]
        let length = (HEADER_LEN + sizes.all) as u32;
        let mut out = &mut head[..];
        out.put_u32(length);
        out.put_u8(LAYOUT_VERSION);
        out.put_u8(self.op.to_u8());
        out.put_u16(self.flags.0);
        out.put_u32(self.id);
        out.put_u64(self.seq);
        out.put_u16(sizes.subject);
        out.put_u16(sizes.headers);
        head
    }
}

/// The part of a frame that all receivers of one message share: subject, headers, payload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tail {
    bytes: Bytes,
    subject_len: u16,
    headers_len: u16,
}

impl Tail {
    /// A tail of copies of these parts.
    pub fn new(subject: &[u8], headers: &[u8], payload: &[u8]) -> Result<Self, FrameError> {
        let sizes = Sizes::new(subject.len(), headers.len(), payload.len())?;
        let mut bytes = BytesMut::with_capacity(sizes.all);
        bytes.put_slice(subject);
        bytes.put_slice(headers);
        bytes.put_slice(payload);
        Ok(Self {
            bytes: bytes.freeze(),
            subject_len: sizes.subject,
            headers_len: sizes.headers,
        })
    }

    /// A received tail, whose lengths fit.
    #[inline]
    #[allow(clippy::cast_possible_truncation)]
    pub(crate) fn received(subject_len: usize, headers_len: usize, bytes: Bytes) -> Self {
        debug_assert!(subject_len + headers_len <= bytes.len());
        Self {
            bytes,
            subject_len: subject_len as u16,
            headers_len: headers_len as u16,
        }
    }

    /// A tail of a payload alone, which is not copied.
    pub fn of_payload(payload: Bytes) -> Result<Self, FrameError> {
        Sizes::new(0, 0, payload.len())?;
        Ok(Self {
            bytes: payload,
            subject_len: 0,
            headers_len: 0,
        })
    }

    /// The subject, or the key.
    #[inline]
    pub fn subject(&self) -> &[u8] {
        &self.bytes[..usize::from(self.subject_len)]
    }

    /// The encoded headers; empty if there are none.
    #[inline]
    pub fn headers(&self) -> &[u8] {
        let start = usize::from(self.subject_len);
        &self.bytes[start..start + usize::from(self.headers_len)]
    }

    /// The payload.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.payload_start()..]
    }

    /// The subject without a copy. Like the tail itself, it keeps the whole received buffer alive.
    pub fn subject_bytes(&self) -> Bytes {
        self.bytes.slice(..usize::from(self.subject_len))
    }

    /// The headers without a copy.
    pub fn headers_bytes(&self) -> Bytes {
        let start = usize::from(self.subject_len);
        self.bytes
            .slice(start..start + usize::from(self.headers_len))
    }

    /// The payload without a copy.
    pub fn payload_bytes(&self) -> Bytes {
        self.bytes.slice(self.payload_start()..)
    }

    /// All of it in one piece, as it goes over the wire behind a head.
    #[inline]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same, given away.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Bytes of all three parts.
    #[inline]
    #[allow(clippy::len_without_is_empty)] // empty of what? There are three parts
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    fn payload_start(&self) -> usize {
        usize::from(self.subject_len) + usize::from(self.headers_len)
    }
}

/// One message on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What differs between receivers.
    pub head: Head,
    /// What they share.
    pub tail: Tail,
}

impl Frame {
    /// A frame of both parts.
    pub const fn new(head: Head, tail: Tail) -> Self {
        Self { head, tail }
    }

    /// A frame without subject, headers and payload.
    pub fn bare(head: Head) -> Self {
        Self::new(head, Tail::default())
    }

    /// A frame whose payload is a control message.
    pub fn control<B: Body>(id: u32, body: &B) -> Result<Self, crate::EncodeError> {
        let payload = Bytes::from(body.to_bytes()?);
        let tail = Tail::of_payload(payload).map_err(crate::EncodeError::Frame)?;
        Ok(Self::new(Head::new(B::OP, id), tail))
    }

    /// The control message in the payload.
    pub fn body<B: Body>(&self) -> Result<B, DecodeError> {
        B::from_bytes(self.payload())
    }

    /// The subject, or the key.
    #[inline]
    pub fn subject(&self) -> &[u8] {
        self.tail.subject()
    }

    /// The encoded headers.
    #[inline]
    pub fn headers(&self) -> &[u8] {
        self.tail.headers()
    }

    /// The payload.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        self.tail.payload()
    }

    /// The frame of these bytes, which are what stands behind a length word. Nothing is copied.
    pub fn decode(mut bytes: Bytes) -> Result<Self, FrameError> {
        let Parts {
            head,
            subject_len,
            headers_len,
        } = Parts::of(&bytes)?;
        bytes.advance(HEADER_LEN);
        let tail = Tail {
            bytes,
            subject_len,
            headers_len,
        };
        Ok(Self { head, tail })
    }

    /// Appends length word, header and tail to `out`.
    #[inline]
    pub fn write_to(&self, out: &mut BytesMut) {
        out.reserve(HEAD_LEN + self.tail.len());
        out.put_slice(&self.head.encode(&self.tail));
        out.put_slice(self.tail.bytes());
    }
}

/// Appends a frame of these parts to `out`, without making a [`Frame`] first.
#[inline]
pub fn write_frame(
    out: &mut BytesMut,
    head: Head,
    subject: &[u8],
    headers: &[u8],
    payload: &[u8],
) -> Result<(), FrameError> {
    let sizes = Sizes::new(subject.len(), headers.len(), payload.len())?;
    out.reserve(HEAD_LEN + sizes.all);
    out.put_slice(&head.encode_with(sizes));
    out.put_slice(subject);
    out.put_slice(headers);
    out.put_slice(payload);
    Ok(())
}

/// What the fixed header of a frame says, compared with the frame's length.
pub(crate) struct Parts {
    pub(crate) head: Head,
    pub(crate) subject_len: u16,
    pub(crate) headers_len: u16,
}

impl Parts {
    /// Of bytes that stand behind a length word.
    #[inline]
    pub(crate) fn of(bytes: &[u8]) -> Result<Self, FrameError> {
        let len = bytes.len();
        let Some(mut header) = bytes.get(..HEADER_LEN) else {
            return Err(FrameError::TooShort { len });
        };
        let version = header.get_u8();
        if version != LAYOUT_VERSION {
            return Err(FrameError::Version { found: version });
        }
        let head = Head {
            op: Op::from_u8(header.get_u8()),
            flags: Flags(header.get_u16()),
            id: header.get_u32(),
            seq: header.get_u64(),
        };
        let (subject_len, headers_len) = (header.get_u16(), header.get_u16());
        let (subject, headers) = (usize::from(subject_len), usize::from(headers_len));
        if subject + headers > len - HEADER_LEN {
            return Err(FrameError::Lengths {
                needed: subject + headers,
                len: len - HEADER_LEN,
            });
        }
        Sizes::new(subject, headers, len - HEADER_LEN - subject - headers)?;
        Ok(Self {
            head,
            subject_len,
            headers_len,
        })
    }
}

/// Lengths of a tail's parts that fit a frame.
struct Sizes {
    subject: u16,
    headers: u16,
    all: usize,
}

impl Sizes {
    #[inline]
    fn new(subject: usize, headers: usize, payload: usize) -> Result<Self, FrameError> {
        if subject > SUBJECT_SLOT_MAX {
            return Err(FrameError::SubjectLen { len: subject });
        }
        if headers > HEADERS_LEN_MAX {
            return Err(FrameError::HeadersLen {
                len: headers,
                limit: HEADERS_LEN_MAX,
            });
        }
        let all = (subject + headers).saturating_add(payload);
        if all > FRAME_LEN_MAX - HEADER_LEN {
            return Err(FrameError::TooLong {
                limit: FRAME_LEN_MAX,
            });
        }
        // Both were compared with their limits, which 16 bits hold.
        #[allow(clippy::cast_possible_truncation)]
        Ok(Self {
            subject: subject as u16,
            headers: headers as u16,
            all,
        })
    }
}

// The narrow fields of the header hold what the limits allow.
const _: () = assert!(SUBJECT_SLOT_MAX <= u16::MAX as usize);
const _: () = assert!(HEADERS_LEN_MAX <= u16::MAX as usize);
const _: () = assert!(FRAME_LEN_MAX < 1 << 24 && LENGTH_LEN == 4);

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(subject: &[u8], headers: &[u8], payload: &[u8]) -> Frame {
        let head = Head::new(Op::Publish, 7).flags(Flags::RETAIN).seq(1 << 40);
        Frame::new(head, Tail::new(subject, headers, payload).unwrap())
    }

    fn wire(frame: &Frame) -> BytesMut {
        let mut out = BytesMut::new();
        frame.write_to(&mut out);
        out
    }

    #[test]
    fn the_bytes_are_those_of_the_document() {
        let bytes = wire(&frame(b"a.b", b"\x80", b"hi"));
        let expected = b"\x00\x00\x00\x1a\x01\x10\x00\x02\x00\x00\x00\x07\
            \x00\x00\x01\x00\x00\x00\x00\x00\x00\x03\x00\x01a.b\x80hi";
        assert_eq!(&bytes[..], expected);
    }

    #[test]
    fn parts_come_out_of_the_received_buffer_without_a_copy() {
        let mut bytes = wire(&frame(b"a.b", b"\x80", b"hello"));
        bytes.advance(LENGTH_LEN);
        let bytes = bytes.freeze();
        let start = bytes.as_ptr();
        let decoded = Frame::decode(bytes).unwrap();
        assert_eq!(decoded, frame(b"a.b", b"\x80", b"hello"));
        let at = |part: &[u8]| part.as_ptr().addr().wrapping_sub(start.addr());
        assert_eq!(at(decoded.subject()), HEADER_LEN);
        assert_eq!(at(&decoded.tail.headers_bytes()), HEADER_LEN + 3);
        assert_eq!(at(&decoded.tail.payload_bytes()), HEADER_LEN + 4);
    }

    #[test]
    fn a_frame_cut_anywhere_is_an_error_or_a_shorter_payload() {
        let whole = wire(&frame(b"a.b", b"\x80", b"hello"))
            .split_off(LENGTH_LEN)
            .freeze();
        for len in 0..whole.len() {
            match Frame::decode(whole.slice(..len)) {
                Err(FrameError::TooShort { len: told }) => assert!(told == len && len < HEADER_LEN),
                Err(FrameError::Lengths {
                    needed: 4,
                    len: left,
                }) => {
                    assert_eq!(left, len - HEADER_LEN);
                }
                Ok(frame) => assert_eq!(frame.payload(), &b"hello"[..len - HEADER_LEN - 4]),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn another_layout_version_is_refused() {
        let mut bytes = wire(&frame(b"a", b"", b"")).split_off(LENGTH_LEN);
        for version in [0, 2, b'*', 255] {
            bytes[0] = version;
            let refused = Frame::decode(bytes.clone().freeze());
            assert!(matches!(refused, Err(FrameError::Version { found }) if found == version));
        }
    }

    #[test]
    fn one_byte_beyond_each_limit_is_refused_by_sender_and_receiver() {
        let long = vec![b'a'; FRAME_LEN_MAX];
        assert!(Tail::new(&long[..SUBJECT_SLOT_MAX], b"", b"").is_ok());
        let refused = Tail::new(&long[..=SUBJECT_SLOT_MAX], b"", b"");
        assert!(matches!(refused, Err(FrameError::SubjectLen { len: 1025 })));
        assert!(Tail::new(b"", &long[..HEADERS_LEN_MAX], b"").is_ok());
        let refused = Tail::new(b"", &long[..=HEADERS_LEN_MAX], b"");
        assert!(matches!(refused, Err(FrameError::HeadersLen { .. })));
        let room = FRAME_LEN_MAX - HEADER_LEN;
        let full = Frame::new(
            Head::new(Op::Set, 1),
            Tail::new(b"k", b"", &long[1..room]).unwrap(),
        );
        assert_eq!(wire(&full)[0], 0);
        assert_eq!(
            full.head.encode_for(1, 0, room - 1).unwrap(),
            full.head.encode(&full.tail)
        );
        for refused in [
            Tail::new(b"k", b"", &long[..room]).map(drop),
            Tail::of_payload(Bytes::from(long.clone())).map(drop),
            full.head.encode_for(1, 0, room).map(drop),
            full.head.encode_for(1, 0, usize::MAX).map(drop),
            write_frame(&mut BytesMut::new(), full.head, b"k", b"", &long[..room]),
        ] {
            assert!(matches!(refused, Err(FrameError::TooLong { .. })));
        }
        // What a sender can't make, a receiver takes from nobody.
        for (place, len) in [(16, 1025), (18, HEADERS_LEN_MAX + 1)] {
            let mut bytes = wire(&frame(b"", b"", &long[..20_000])).split_off(LENGTH_LEN);
            bytes[place..place + 2].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
            assert!(Frame::decode(bytes.freeze()).is_err());
        }
    }
}
