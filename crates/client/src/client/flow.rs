//! What a consumer has taken of a stream whose sender waits for that.

use ganger_protocol::watch::Window;

/// What was taken and not acknowledged yet.
pub(crate) struct Flow {
    window: Window,
    frames: u64,
    bytes: u64,
    /// Of those that wait, the first so many came by an earlier connection: they are nobody's business
    /// any more.
    old: usize,
}

impl Flow {
    pub(crate) fn new(frames: usize, bytes: usize) -> Self {
        let window = Window {
            frames: u32::try_from(frames).unwrap_or(u32::MAX),
            bytes: bytes as u64,
        };
        Self {
            window,
            frames: 0,
            bytes: 0,
            old: 0,
        }
    }

    /// It begins, with a sender who knows of nothing that waits.
    pub(crate) fn begin(&mut self, waiting: usize) -> Window {
        (self.frames, self.bytes, self.old) = (0, 0, waiting);
        self.window
    }

    /// The first that waited was taken.
    pub(crate) fn take(&mut self, bytes: usize) {
        match self.old {
            0 => {
                self.frames += 1;
                self.bytes += bytes as u64;
            }
            _ => self.old -= 1,
        }
    }

    /// All that waited was dropped.
    pub(crate) fn take_all(&mut self, frames: usize, bytes: usize) {
        self.frames += frames.saturating_sub(self.old) as u64;
        self.bytes += bytes as u64;
        self.old = 0;
    }

    /// How many the sender is to be told of now: not of each, but before it has to wait.
    pub(crate) fn due(&mut self) -> Option<u64> {
        let is_due = self.frames >= u64::from(self.window.frames).div_ceil(2)
            || self.bytes >= self.window.bytes.div_ceil(2);
        if !is_due || self.frames == 0 {
            return None;
        }
        self.bytes = 0;
        Some(std::mem::take(&mut self.frames))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sender_is_told_when_half_of_either_was_taken() {
        let mut flow = Flow::new(10, 1000);
        assert_eq!((flow.begin(0).frames, flow.due()), (10, None));
        for _ in 0..4 {
            flow.take(1);
            assert_eq!(flow.due(), None);
        }
        flow.take(1);
        assert_eq!((flow.due(), flow.due()), (Some(5), None));
        flow.take(499);
        assert_eq!(flow.due(), None);
        flow.take(1);
        assert_eq!((flow.due(), flow.due()), (Some(2), None));
    }

    #[test]
    fn of_what_an_earlier_connection_sent_the_sender_is_not_told() {
        let mut flow = Flow::new(1, 1);
        flow.begin(2);
        flow.take(9);
        assert_eq!(flow.due(), None);
        flow.take(9);
        assert_eq!(flow.due(), None);
        flow.take(9);
        assert_eq!(flow.due(), Some(1));
        flow.begin(2);
        flow.take_all(3, 27);
        assert_eq!(flow.due(), Some(1));
        flow.begin(0);
        flow.take_all(0, 0);
        assert_eq!(flow.due(), None);
    }
}
