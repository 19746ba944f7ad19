//! How far a watch may be ahead of what its client says it has taken.

use ganger_protocol::watch;
use std::collections::VecDeque;

/// What was handed out and not acknowledged, and how much that may be.
#[derive(Debug)]
pub(super) struct Window {
    frames_max: usize,
    bytes_max: u64,
    /// Lengths of the frames, the oldest first.
    lens: VecDeque<u32>,
    bytes: u64,
}

impl Window {
    /// As a client asked for it. One frame may always be on its way, and no more than `frames_max`.
    pub(super) fn new(asked: watch::Window, frames_max: usize) -> Self {
        let frames = usize::try_from(asked.frames).unwrap_or(usize::MAX);
        Self {
            frames_max: frames.min(frames_max).max(1),
            bytes_max: asked.bytes.max(1),
            lens: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Whether nothing more may be handed out.
    pub(super) fn is_full(&self) -> bool {
        self.lens.len() >= self.frames_max || self.bytes >= self.bytes_max
    }

    /// A frame was handed out.
    pub(super) fn sent(&mut self, len: usize) {
        // No frame is longer.
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.lens.push_back(len);
        self.bytes += u64::from(len);
    }

    /// So many more frames were taken. Who says so of some that were not sent fools itself alone.
    pub(super) fn taken(&mut self, frames: u64) {
        let frames = usize::try_from(frames).unwrap_or(usize::MAX);
        let taken = self.lens.drain(..frames.min(self.lens.len()));
        self.bytes -= taken.map(u64::from).sum::<u64>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(frames: u32, bytes: u64) -> Window {
        Window::new(watch::Window { frames, bytes }, 1000)
    }

    #[test]
    fn it_is_full_at_either_bound_and_not_any_more_when_frames_were_taken() {
        let mut window = window(3, 100);
        for _ in 0..3 {
            assert!(!window.is_full());
            window.sent(10);
        }
        assert!(window.is_full());
        window.taken(2);
        assert!(!window.is_full());
        window.sent(95);
        assert!(window.is_full(), "{window:?}");
        window.taken(1);
        assert!(!window.is_full(), "{window:?}");
    }

    #[test]
    fn one_of_nothing_lets_frames_through_one_by_one_and_lies_do_no_harm() {
        let mut window = window(0, 0);
        window.taken(7);
        for _ in 0..3 {
            assert!(!window.is_full());
            window.sent(1 << 20);
            assert!(window.is_full());
            window.taken(u64::MAX);
        }
        let asked = watch::Window {
            frames: u32::MAX,
            bytes: u64::MAX,
        };
        let mut bounded = Window::new(asked, 2);
        bounded.sent(1);
        assert!(!bounded.is_full());
        bounded.sent(1);
        assert!(bounded.is_full());
    }
}
