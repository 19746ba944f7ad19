//! From a stream of bytes to frames and back.

use crate::frame::{Frame, FrameError};
use crate::limits::{Limits, FRAME_LEN_MAX, LENGTH_LEN};
use crate::view::FrameView;
use bytes::{Buf, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// Cuts frames out of a stream of bytes, for tokio-util's `Framed` or by hand.
///
/// A declared length beyond the limit is refused at once, and memory is only reserved for as much
/// again as was received: who declares 16 MiB and sends nothing costs nothing.
#[derive(Debug, Clone)]
pub struct FrameCodec {
    frame_bytes: usize,
    headers_bytes: usize,
}

/// Bytes that are reserved for the rest of a frame at least, if it is declared that long.
const RESERVE_MIN: usize = 16 << 10;

impl FrameCodec {
    /// A codec that takes frames and headers within these limits.
    pub fn new(limits: &Limits) -> Self {
        Self {
            frame_bytes: limits.frame_bytes.min(FRAME_LEN_MAX),
            headers_bytes: limits.headers_bytes,
        }
    }

    /// The first frame of received bytes, where it is; `None` if it is not whole yet. It is what
    /// [`decode`](Decoder::decode) would cut off.
    #[inline]
    pub fn peek<'a>(&self, received: &'a [u8]) -> Result<Option<FrameView<'a>>, FrameError> {
        let Some((length, rest)) = received.split_first_chunk::<LENGTH_LEN>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        let limit = self.frame_bytes;
        if length > limit {
            return Err(FrameError::TooLong { limit });
        }
        let Some(bytes) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = FrameView::decode(bytes)?;
        self.check_headers(frame.headers().len())?;
        Ok(Some(frame))
    }

    /// Makes room for the rest of a frame of which only a part was received.
    #[inline]
    pub fn make_room(&self, received: &mut BytesMut) {
        // Never as much as is declared: that may be a lie.
        if let Some(length) = received.first_chunk::<LENGTH_LEN>() {
            let length = u32::from_be_bytes(*length) as usize;
            let missing = (LENGTH_LEN + length).saturating_sub(received.len());
            if missing > 0 && length <= self.frame_bytes {
                received.reserve(missing.min(received.len().max(RESERVE_MIN)));
            }
        }
    }

    fn check_headers(&self, len: usize) -> Result<(), FrameError> {
        let limit = self.headers_bytes;
        match len {
            len if len > limit => Err(FrameError::HeadersLen { len, limit }),
            _ => Ok(()),
        }
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    #[inline]
    fn decode(&mut self, received: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(len) = self.peek(received)?.map(|frame| frame.wire_len()) else {
            self.make_room(received);
            return Ok(None);
        };
        let mut bytes = received.split_to(len);
        bytes.advance(LENGTH_LEN);
        Frame::decode(bytes.freeze()).map(Some)
    }
}

impl Encoder<&Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), FrameError> {
        frame.write_to(out);
        Ok(())
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> Result<(), FrameError> {
        self.encode(&frame, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{HEADER_LEN, HEAD_LEN};
    use crate::{Head, Op, Tail};

    fn codec(limits: Limits) -> FrameCodec {
        FrameCodec::new(&limits)
    }

    fn wire(payload: &[u8]) -> (Frame, BytesMut) {
        let frame = Frame::new(
            Head::new(Op::Set, 1),
            Tail::new(b"k", b"", payload).unwrap(),
        );
        let mut out = BytesMut::new();
        codec(Limits::default()).encode(&frame, &mut out).unwrap();
        (frame, out)
    }

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let (frame, bytes) = wire(b"value");
        let mut codec = codec(Limits::default());
        let mut received = BytesMut::new();
        let mut frames = 0;
        for byte in bytes.iter().chain(&bytes).chain(&bytes[..10]) {
            received.extend_from_slice(&[*byte]);
            let peeked = codec.peek(&received).unwrap().map(|frame| frame.wire_len());
            let before = received.len();
            if let Some(decoded) = codec.decode(&mut received).unwrap() {
                assert_eq!(decoded, frame);
                assert_eq!(peeked, Some(before - received.len()));
                frames += 1;
            }
        }
        assert_eq!(frames, 2);
        assert!(
            codec.decode_eof(&mut received).is_err(),
            "it ends within a frame"
        );
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_memory_is_reserved() {
        for limit in [HEAD_LEN, 1000, FRAME_LEN_MAX, usize::MAX] {
            let limits = Limits {
                frame_bytes: limit,
                ..Limits::default()
            };
            let limit = limit.min(FRAME_LEN_MAX);
            for length in [
                u32::try_from(limit).unwrap() + 1,
                1 << 24,
                1 << 31,
                u32::MAX,
            ] {
                let mut received = BytesMut::from(&length.to_be_bytes()[..]);
                let before = received.capacity();
                let peeked = codec(limits.clone()).peek(&received).is_err();
                let refused = codec(limits.clone()).decode(&mut received);
                assert!(peeked);
                assert!(
                    matches!(refused, Err(FrameError::TooLong { limit: told }) if told == limit)
                );
                assert_eq!(received.capacity(), before);
            }
        }
    }

    #[test]
    fn a_length_that_is_only_declared_costs_nothing() {
        let mut codec = codec(Limits::default());
        let mut received = BytesMut::from(&b"\x00\xff\xff\xff"[..]);
        for len in [4, 100, 10_000, 1_000_000] {
            received.resize(len, 0);
            assert!(codec.decode(&mut received).unwrap().is_none());
            assert!(received.capacity() <= 4 * (len + RESERVE_MIN));
        }
    }

    #[test]
    fn a_frame_of_exactly_the_limit_is_taken() {
        let (frame, bytes) = wire(&[7; 100]);
        let exact = HEADER_LEN + 101;
        for (frame_bytes, fits) in [(exact, true), (exact - 1, false)] {
            let limits = Limits {
                frame_bytes,
                ..Limits::default()
            };
            let peeked = codec(limits.clone()).peek(&bytes).map(|_| ());
            let decoded = codec(limits).decode(&mut bytes.clone());
            assert_eq!(peeked.is_ok(), decoded.is_ok());
            assert_eq!(
                decoded.is_ok_and(|decoded| decoded == Some(frame.clone())),
                fits
            );
        }
    }

    #[test]
    fn headers_beyond_the_brokers_limit_are_refused() {
        let limits = Limits {
            headers_bytes: 10,
            ..Limits::default()
        };
        for (len, fits) in [(10, true), (11, false)] {
            let mut out = BytesMut::new();
            let head = Head::new(Op::Publish, 0);
            crate::write_frame(&mut out, head, b"a", &vec![0x80; len], b"").unwrap();
            assert_eq!(codec(limits.clone()).peek(&out).is_ok(), fits);
            assert_eq!(codec(limits.clone()).decode(&mut out).is_ok(), fits);
        }
    }
}
