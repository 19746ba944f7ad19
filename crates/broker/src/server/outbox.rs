//! Bytes on their way to one client: many frames in one piece, long tails beside it without a copy.

use bytes::{Buf, Bytes, BytesMut};
use ganger_protocol::limits::HEAD_LEN;
use ganger_protocol::{Body, Frame, FrameError, Head, Tail};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Deref;
use std::pin::Pin;
use std::task::{ready, Context, Poll};
use tokio::io::AsyncWrite;

/// Tails of so many bytes and more are written from where they are.
const SHARE_FROM: usize = 4096;
/// Pieces given to the system at a time.
const PIECES: usize = 64;
/// Memory of an empty outbox that is kept for the next frames, while its client is quiet.
const KEEP: usize = 8 << 10;
/// So few bytes in all are copied together sooner than the system takes several pieces.
const FLAT_MAX: usize = 8 << 10;

/// What waits to be written to one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Pieces that are whole, before `open`.
    pieces: VecDeque<Piece>,
    /// Bytes of the first of them that are written.
    first_done: usize,
    /// Where frames are appended.
    open: BytesMut,
    bytes: usize,
    /// Frames since it was last empty.
    frames: usize,
    /// Frames so far.
    total: u64,
}

#[derive(Debug)]
enum Piece {
    /// What stands before a long tail.
    Head([u8; HEAD_LEN]),
    Bytes(Bytes),
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Head(bytes) => bytes,
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl Outbox {
    /// Appends a frame.
    #[inline]
    pub fn push(&mut self, head: Head, tail: &Tail) {
        let start = head.encode(tail);
        if tail.len() < SHARE_FROM || self.bytes + start.len() + tail.len() <= FLAT_MAX {
            self.open.extend_from_slice(&start);
            self.open.extend_from_slice(tail.bytes());
        } else {
            if !self.open.is_empty() {
                let open = self.open.split().freeze();
                self.pieces.push_back(Piece::Bytes(open));
            }
            self.pieces.push_back(Piece::Head(start));
            self.pieces.push_back(Piece::Bytes(tail.bytes().clone()));
        }
        self.bytes += start.len() + tail.len();
        self.count();
    }

    /// Appends what `write` writes: one frame.
    #[inline]
    pub fn write_frame(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> Result<(), FrameError>,
    ) -> Result<(), FrameError> {
        let before = self.open.len();
        write(&mut self.open)?;
        self.bytes += self.open.len() - before;
        self.count();
        Ok(())
    }

    /// Appends a control message; `false` if it does not fit a frame.
    pub fn control<B: Body>(&mut self, id: u32, body: &B) -> bool {
        match Frame::control(id, body) {
            Ok(frame) => {
                self.push(frame.head, &frame.tail);
                true
            }
            Err(_) => false,
        }
    }

    /// Appends bytes of a frame that was begun elsewhere.
    pub(super) fn rest_of_frame(&mut self, rest: &[u8]) {
        self.open.extend_from_slice(rest);
        self.bytes += rest.len();
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames since it was last empty.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Frames so far.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Writes once and returns how many bytes went.
    pub(super) fn poll_write(
        &mut self,
        stream: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let written = if self.pieces.is_empty() {
            ready!(stream.poll_write(cx, &self.open))?
        } else {
            let mut slices = [IoSlice::new(&[]); PIECES];
            let all = self
                .pieces
                .iter()
                .map(|piece| &piece[..])
                .chain([&self.open[..]]);
            let mut used = 0;
            for (slice, bytes) in slices.iter_mut().zip(all) {
                *slice = IoSlice::new(bytes);
                used += 1;
            }
            slices[0].advance(self.first_done);
            ready!(stream.poll_write_vectored(cx, &slices[..used]))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    /// Gives memory back that a quiet client does not need.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() && self.open.capacity() > KEEP {
            self.open = BytesMut::new();
            self.pieces = VecDeque::new();
        }
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(first) = self.pieces.front() {
            let left = first.len() - self.first_done;
            if written < left {
                self.first_done += written;
                return;
            }
            written -= left;
            self.first_done = 0;
            self.pieces.pop_front();
        }
        if written == self.open.len() {
            // Unlike advancing to the end, this leaves the memory usable from its beginning.
            self.open.clear();
        } else {
            self.open.advance(written);
        }
        if self.bytes == 0 {
            self.frames = 0;
        }
    }

    fn count(&mut self) {
        self.frames += 1;
        self.total += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ganger_protocol::Op;

    /// Takes so many bytes at a time.
    struct Narrow(usize, Vec<u8>);

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let len = bytes.len().min(self.0);
            self.1.extend_from_slice(&bytes[..len]);
            Poll::Ready(Ok(len))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn frames_come_out_in_order_whatever_is_written_at_a_time() {
        for width in [1, 7, 4096, 1 << 20] {
            let (mut outbox, mut expected) = (Outbox::default(), BytesMut::new());
            let mut stream = Narrow(width, Vec::new());
            let mut cx = Context::from_waker(std::task::Waker::noop());
            for (number, len) in (1..).zip([0, 10, 4095, 4096, 100_000, 3, 5000]) {
                let tail = Tail::new(b"a", b"", &vec![b'x'; len]).unwrap();
                let frame = Frame::new(Head::new(Op::Message, number), tail);
                frame.write_to(&mut expected);
                outbox.push(frame.head, &frame.tail);
                // Some of it goes while more comes.
                assert!(outbox.poll_write(Pin::new(&mut stream), &mut cx).is_ready());
            }
            while !outbox.is_empty() {
                assert!(outbox.poll_write(Pin::new(&mut stream), &mut cx).is_ready());
            }
            assert_eq!(stream.1, expected);
            assert_eq!((outbox.bytes(), outbox.total()), (0, 7));
        }
    }
}
