//! Messages of one subscription that came together: they stay in one piece until each is asked for,
//! so that a thousand of them cost little more than one on their way.

use super::inbox::Size;
use bytes::{Buf, Bytes};
use ganger_protocol::limits::LENGTH_LEN;
use ganger_protocol::{Frame, FrameView, Op};

/// Whole frames, one behind the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    bytes: Bytes,
    frames: usize,
    /// The greatest number among them.
    pub(crate) seq_max: u64,
}

/// How far a run goes, while it is being found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) id: u32,
    pub(crate) len: usize,
    frames: usize,
    seq_max: u64,
}

impl Extent {
    /// Of a first message; `None` if the frame is something else.
    #[inline]
    pub(crate) fn begin(frame: &FrameView<'_>) -> Option<Self> {
        (frame.head.op == Op::Message).then(|| Self {
            id: frame.head.id,
            len: frame.wire_len(),
            frames: 1,
            seq_max: frame.head.seq,
        })
    }

    /// Takes the next frame in; `false` if it is not one of them.
    #[inline]
    pub(crate) fn grow(&mut self, frame: &FrameView<'_>) -> bool {
        if frame.head.op != Op::Message || frame.head.id != self.id {
            return false;
        }
        self.len += frame.wire_len();
        self.frames += 1;
        self.seq_max = self.seq_max.max(frame.head.seq);
        true
    }

    /// The run of these bytes.
    pub(crate) fn of(self, bytes: Bytes) -> Run {
        Run {
            bytes,
            frames: self.frames,
            seq_max: self.seq_max,
        }
    }
}

impl Run {
    /// The first of them, taken out.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Frame> {
        let len = self.first_len()?;
        self.frames = self.frames.saturating_sub(1);
        let mut bytes = self.bytes.split_to(len);
        bytes.advance(LENGTH_LEN);
        // They were looked at when they came.
        Frame::decode(bytes).ok()
    }

    /// Bytes of the first of them.
    #[inline]
    fn first_len(&self) -> Option<usize> {
        let length = self.bytes.first_chunk::<LENGTH_LEN>()?;
        let len = LENGTH_LEN + u32::from_be_bytes(*length) as usize;
        Some(len.min(self.bytes.len()))
    }
}

impl Size for Run {
    #[inline]
    fn bytes(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    fn count(&self) -> usize {
        self.frames
    }

    fn split_first(&mut self) -> Option<Self> {
        let len = self.first_len().filter(|_| self.frames > 1)?;
        self.frames -= 1;
        Some(Self {
            bytes: self.bytes.split_to(len),
            frames: 1,
            seq_max: self.seq_max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use ganger_protocol::{write_frame, FrameCodec, Head, Limits};

    fn run(seqs: &[u64]) -> Run {
        let mut wire = BytesMut::new();
        for seq in seqs {
            let head = Head::new(Op::Message, 3).seq(*seq);
            write_frame(&mut wire, head, b"a", b"", &seq.to_be_bytes()).unwrap();
        }
        write_frame(&mut wire, Head::new(Op::Message, 4), b"a", b"", b"").unwrap();
        let codec = FrameCodec::new(&Limits::default());
        let peek = |at| codec.peek(&wire[at..]).unwrap();
        let mut extent = Extent::begin(&peek(0).unwrap()).unwrap();
        while extent.grow(&peek(extent.len).unwrap()) {}
        assert_eq!(extent.id, 3);
        extent.of(wire.split_to(extent.len).freeze())
    }

    #[test]
    fn a_run_has_the_messages_of_one_subscription_in_order() {
        let mut all = run(&[5, 9, 7]);
        assert_eq!((all.count(), all.seq_max), (3, 9));
        let mut first = all.split_first().unwrap();
        assert_eq!((first.count(), all.count()), (1, 2));
        assert!(first.split_first().is_none());
        let mut seqs = Vec::new();
        for run in [&mut first, &mut all] {
            while let Some(frame) = run.pop() {
                assert_eq!(frame.payload(), frame.head.seq.to_be_bytes());
                seqs.push(frame.head.seq);
            }
            assert_eq!((run.count(), run.bytes()), (0, 0));
        }
        assert_eq!(seqs, [5, 9, 7]);
    }
}
