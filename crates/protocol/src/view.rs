//! Frames where they were received: for what is done with at once, so that nothing is cut off,
//! counted or copied.

use crate::frame::{Frame, FrameError, Head, Parts, Tail};
use crate::limits::{HEADER_LEN, LENGTH_LEN};
use bytes::{Bytes, BytesMut};

/// A frame within received bytes.
///
/// ```
/// use ganger_protocol::{FrameCodec, Head, Limits, Op};
///
/// let mut wire = bytes::BytesMut::new();
/// ganger_protocol::write_frame(&mut wire, Head::new(Op::Publish, 0), b"a.b", b"", b"7 pears")?;
/// let frame = FrameCodec::new(&Limits::default()).peek(&wire)?.expect("it is whole");
/// assert_eq!((frame.subject(), frame.payload()), (&b"a.b"[..], &b"7 pears"[..]));
/// assert_eq!(frame.wire_len(), wire.len());
/// # Ok::<(), ganger_protocol::FrameError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameView<'a> {
    /// What differs between receivers.
    pub head: Head,
    subject: &'a [u8],
    headers: &'a [u8],
    payload: &'a [u8],
    tail: &'a [u8],
}

impl<'a> FrameView<'a> {
    /// The frame of these bytes, which are what stands behind a length word.
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let Parts {
            head,
            subject_len,
            headers_len,
        } = Parts::of(bytes)?;
        // The lengths were compared with that of the frame.
        let tail = &bytes[HEADER_LEN..];
        let (subject, rest) = tail.split_at(usize::from(subject_len));
        let (headers, payload) = rest.split_at(usize::from(headers_len));
        Ok(Self {
            head,
            subject,
            headers,
            payload,
            tail,
        })
    }

    /// The subject, or the key.
    #[inline]
    pub fn subject(&self) -> &'a [u8] {
        self.subject
    }

    /// The encoded headers; empty if there are none.
    #[inline]
    pub fn headers(&self) -> &'a [u8] {
        self.headers
    }

    /// The payload.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Subject, headers and payload in one piece.
    #[inline]
    pub fn tail(&self) -> &'a [u8] {
        self.tail
    }

    /// Bytes it has on the wire, its length word included.
    #[inline]
    pub fn wire_len(&self) -> usize {
        LENGTH_LEN + HEADER_LEN + self.tail.len()
    }

    /// Its tail, copied.
    #[inline]
    pub fn to_tail(&self) -> Tail {
        self.to_tail_in(BytesMut::with_capacity(self.tail.len()))
    }

    /// Its tail, copied to this memory.
    #[inline]
    pub fn to_tail_in(&self, mut memory: BytesMut) -> Tail {
        memory.clear();
        memory.extend_from_slice(self.tail);
        Tail::received(self.subject.len(), self.headers.len(), memory.freeze())
    }

    /// Its tail as a slice of what it was received in, which it keeps from being freed.
    ///
    /// # Panics
    ///
    /// If the frame is not within `received`.
    #[inline]
    pub fn slice_of(&self, received: &Bytes) -> Tail {
        let tail = received.slice_ref(self.tail);
        Tail::received(self.subject.len(), self.headers.len(), tail)
    }
}

impl Frame {
    /// The same frame, borrowed.
    #[inline]
    pub fn view(&self) -> FrameView<'_> {
        FrameView {
            head: self.head,
            subject: self.subject(),
            headers: self.headers(),
            payload: self.payload(),
            tail: self.tail.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{write_frame, Op};

    #[test]
    fn a_view_says_what_the_frame_says_its_slice_keeps_the_buffer_and_its_copy_does_not() {
        let mut wire = BytesMut::new();
        let head = Head::new(Op::Publish, 7).seq(9);
        write_frame(&mut wire, head, b"a.b", b"\x80", b"payload").unwrap();
        let bytes = wire.freeze().slice(LENGTH_LEN..);
        let frame = Frame::decode(bytes.clone()).unwrap();
        let view = FrameView::decode(&bytes).unwrap();
        assert_eq!(view, frame.view());
        assert_eq!(view.head, head);
        let parts = (view.subject(), view.headers(), view.payload());
        assert_eq!(parts, (&b"a.b"[..], &b"\x80"[..], &b"payload"[..]));
        let copy = view.to_tail();
        assert_eq!(copy, frame.tail);
        assert!(!bytes.as_ptr_range().contains(&copy.bytes().as_ptr()));
        let slice = view.slice_of(&bytes);
        assert_eq!(slice, frame.tail);
        assert!(bytes.as_ptr_range().contains(&slice.bytes().as_ptr()));
        for len in 0..HEADER_LEN + 4 {
            let cut = bytes.slice(..len);
            assert_eq!(
                FrameView::decode(&cut).is_err(),
                Frame::decode(cut.clone()).is_err()
            );
        }
    }
}
