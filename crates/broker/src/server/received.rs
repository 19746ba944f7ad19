//! What was read of one connection and is not carried out yet.

use crate::ids::ConnectionId;
use crate::message::Message;
use crate::read_memory::{ReadMemory, READ_LEN};
use bytes::{Buf, Bytes, BytesMut};
use ganger_protocol::{Frame, FrameCodec, FrameView, Tail};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// Tails from this length on may stay where they were read. Shorter ones are copied sooner than shared.
const SHARE_FROM: usize = 4 << 10;
/// A quiet connection may keep so many bytes of a frame that has not arrived yet in a buffer of their
/// own length.
const PART_MAX: usize = 4 << 10;

/// Bytes of frames, in the order in which they came.
pub(super) struct Received {
    piece: Piece,
    /// Bytes of it that were carried out.
    done: usize,
}

enum Piece {
    /// More can be read into it.
    Own(BytesMut),
    /// Frames can be slices of it.
    Lent(Bytes),
}

impl Received {
    pub(super) fn new(bytes: BytesMut) -> Self {
        Self {
            piece: Piece::Own(bytes),
            done: 0,
        }
    }

    /// What is not carried out yet.
    #[inline]
    pub(super) fn unread(&self) -> &[u8] {
        match &self.piece {
            Piece::Own(bytes) => &bytes[self.done..],
            Piece::Lent(bytes) => &bytes[self.done..],
        }
    }

    /// So many bytes were carried out.
    #[inline]
    pub(super) fn advance(&mut self, len: usize) {
        self.done += len;
    }

    /// The message that this frame, which is a part of what was received, publishes.
    #[inline]
    pub(super) fn message(
        &self,
        frame: &FrameView<'_>,
        publisher: ConnectionId,
        memory: &Arc<ReadMemory>,
    ) -> Message {
        match self.slice(frame) {
            Some(tail) => Message::lent(tail, frame.head.flags, publisher, memory),
            None => Message::copied(frame, publisher),
        }
    }

    /// This frame, which is a part of what was received, for itself.
    pub(super) fn frame(&self, frame: &FrameView<'_>) -> Frame {
        let tail = self.slice(frame).unwrap_or_else(|| frame.to_tail());
        Frame::new(frame.head, tail)
    }

    /// Reads on, behind what is there.
    pub(super) fn poll_read(
        &mut self,
        stream: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        codec: &FrameCodec,
        memory: &Arc<ReadMemory>,
    ) -> Poll<io::Result<usize>> {
        let mut piece = self.make_room(codec, memory);
        let read = poll_read_buf(stream, cx, &mut piece);
        self.piece = Piece::Own(piece);
        let read = ready!(read)?;
        self.lend(codec, memory);
        Poll::Ready(Ok(read))
    }

    /// Gives back what a quiet connection does not need.
    pub(super) fn shrink(&mut self, memory: &ReadMemory) {
        let held = match &self.piece {
            Piece::Own(bytes) => bytes.capacity(),
            Piece::Lent(bytes) => bytes.len(),
        };
        if held <= PART_MAX || self.unread().len() > PART_MAX {
            return;
        }
        let part = BytesMut::from(self.unread());
        if let Piece::Own(piece) = std::mem::replace(self, Self::new(part)).piece {
            memory.give_back(piece);
        }
    }

    /// Where this frame's tail is, if it may stay there.
    #[inline]
    fn slice(&self, frame: &FrameView<'_>) -> Option<Tail> {
        match &self.piece {
            Piece::Lent(bytes) if is_long(frame) => Some(frame.slice_of(bytes)),
            _ => None,
        }
    }

    /// Takes what is not carried out yet, with room for a read behind it.
    fn make_room(&mut self, codec: &FrameCodec, memory: &ReadMemory) -> BytesMut {
        let mut piece = match std::mem::take(self) {
            Self {
                piece: Piece::Own(mut bytes),
                done,
            } if bytes.capacity() > PART_MAX => {
                if done == bytes.len() {
                    // Unlike advancing to the end, this leaves the memory usable from its beginning.
                    bytes.clear();
                } else {
                    bytes.advance(done);
                }
                bytes
            }
            received => {
                let mut piece = memory.take();
                piece.extend_from_slice(received.unread());
                piece
            }
        };
        codec.make_room(&mut piece);
        if piece.capacity() - piece.len() < READ_LEN / 2 {
            piece.reserve(READ_LEN);
        }
        piece
    }

    /// Lets frames stay where they are, if they are long and fill most of the memory.
    fn lend(&mut self, codec: &FrameCodec, memory: &Arc<ReadMemory>) {
        let Piece::Own(bytes) = &mut self.piece else {
            return;
        };
        let is_filled = bytes.len() >= bytes.capacity() / 2;
        if is_filled && matches!(codec.peek(bytes), Ok(Some(frame)) if is_long(&frame)) {
            self.piece = match memory.lend(std::mem::take(bytes)) {
                Ok(lent) => Piece::Lent(lent),
                Err(own) => Piece::Own(own),
            };
        }
    }
}

impl Default for Received {
    fn default() -> Self {
        Self::new(BytesMut::new())
    }
}

#[inline]
fn is_long(frame: &FrameView<'_>) -> bool {
    frame.tail().len() >= SHARE_FROM
}

#[cfg(test)]
mod tests {
    use super::*;
    use ganger_protocol::{write_frame, Head, Limits, Op};
    use proptest::prelude::*;
    use std::task::Waker;
    use tokio::io::ReadBuf;

    /// Gives so many bytes at a time, and is at its end after them.
    struct Narrow<'a>(usize, &'a [u8]);

    impl AsyncRead for Narrow<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let len = self.0.min(self.1.len()).min(into.remaining());
            let (now, later) = self.1.split_at(len);
            into.put_slice(now);
            self.1 = later;
            Poll::Ready(Ok(()))
        }
    }

    /// Frames with payloads of these lengths, each of its own byte.
    fn wire(lens: &[usize]) -> BytesMut {
        let mut wire = BytesMut::new();
        for (fill, len) in (0..).zip(lens) {
            let head = Head::new(Op::Publish, 0);
            write_frame(&mut wire, head, b"a.b", b"", &vec![fill; *len]).unwrap();
        }
        wire
    }

    /// The messages that come out when so much is read at a time, each with whether it is a slice.
    fn messages(wire: &[u8], width: usize, memory: &Arc<ReadMemory>) -> Vec<(Message, bool)> {
        let codec = FrameCodec::new(&Limits::default());
        let mut cx = Context::from_waker(Waker::noop());
        let mut stream = Narrow(width, wire);
        let (mut received, mut messages) = (Received::default(), Vec::new());
        loop {
            let read = received.poll_read(Pin::new(&mut stream), &mut cx, &codec, memory);
            let Poll::Ready(Ok(read)) = read else {
                panic!("{read:?}");
            };
            if read == 0 {
                assert_eq!(received.unread(), b"");
                return messages;
            }
            while let Some(frame) = codec.peek(received.unread()).unwrap() {
                let message = received.message(&frame, ConnectionId(1), memory);
                assert_eq!(received.frame(&frame).tail, *message.tail());
                let is_slice = message.tail().bytes().as_ptr() == frame.tail().as_ptr();
                assert_eq!(message.tail().payload(), frame.payload());
                let len = frame.wire_len();
                received.advance(len);
                messages.push((message, is_slice));
            }
            received.shrink(memory);
        }
    }

    fn slices(lens: &[usize], width: usize) -> Vec<bool> {
        let all = messages(&wire(lens), width, &Arc::default());
        all.into_iter().map(|(_, is_slice)| is_slice).collect()
    }

    #[test]
    fn long_messages_that_fill_what_was_read_stay_where_they_are() {
        assert_eq!(slices(&[5000; 8], 1 << 20), [true; 8]);
        assert_eq!(
            slices(&[5000, 20, 5000, 40_000], 1 << 20),
            [true, false, true, true]
        );
        // Alone in a piece that is much longer, of short ones, and behind a short one.
        assert_eq!(slices(&[5000, 5000], 5027), [false; 2]);
        assert_eq!(slices(&[20_000], 1 << 20), [false]);
        assert_eq!(slices(&[4000; 10], 1 << 20), [false; 10]);
        assert_eq!(slices(&[20, 60_000], 1 << 20), [false; 2]);
        // Longer than a piece.
        assert_eq!(slices(&[1_000_000], 1 << 20), [true]);
    }

    #[test]
    fn a_message_that_keeps_a_piece_from_being_read_into_is_counted_until_it_is_gone() {
        let memory = Arc::<ReadMemory>::default();
        let mut all = messages(&wire(&[6000; 10]), 1 << 20, &memory);
        assert!(memory.in_vain() < READ_LEN - 60_000);
        let last = all.pop();
        all.clear();
        let in_vain = memory.in_vain();
        assert!((READ_LEN - 7000..READ_LEN).contains(&in_vain), "{in_vain}");
        drop(last);
        assert_eq!(memory.in_vain(), 0);
    }

    proptest! {
        #[test]
        fn what_was_sent_comes_out_whatever_is_read_at_a_time(
            lens in proptest::collection::vec(prop_oneof![
                0..100_usize, 4000..5000_usize, 10_000..200_000_usize
            ], 1..12),
            width in prop_oneof![100..5000_usize, 5000..200_000_usize],
        ) {
            let all = messages(&wire(&lens), width, &Arc::default());
            prop_assert_eq!(all.len(), lens.len());
            for ((message, _), (fill, len)) in all.iter().zip((0..).zip(&lens)) {
                prop_assert_eq!(message.tail().payload(), &vec![fill; *len][..]);
            }
        }
    }
}
