//! The last lines of one worker: bounded by bytes.

use super::split::Line;
use std::collections::VecDeque;

/// What keeping a line costs beside its text.
const OVERHEAD: usize = 64;

/// A line as it is kept: whose it is, the ring knows.
pub(super) struct Kept {
    /// Grows by one with each line of all workers: their order.
    pub(super) number: u64,
    pub(super) at_ms: u64,
    pub(super) pid: i32,
    pub(super) is_stderr: bool,
    pub(super) line: Line,
}

/// The last lines of one worker, over all its processes.
#[derive(Default)]
pub(super) struct Ring {
    kept: VecDeque<Kept>,
    bytes: usize,
}

impl Ring {
    /// Keeps it; the oldest go if there is no room.
    pub(super) fn push(&mut self, line: Kept, bytes_max: usize) {
        self.bytes += cost(&line);
        self.kept.push_back(line);
        while self.bytes > bytes_max && self.kept.len() > 1 {
            if let Some(oldest) = self.kept.pop_front() {
                self.bytes -= cost(&oldest);
            }
        }
    }

    /// The last lines, the newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Kept> {
        self.kept.iter().rev()
    }
}

fn cost(kept: &Kept) -> usize {
    OVERHEAD + kept.line.text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, len: usize) -> Kept {
        Kept {
            number,
            at_ms: 0,
            pid: 1,
            is_stderr: false,
            line: Line {
                dropped: 0,
                text: vec![b'x'; len],
            },
        }
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room_for_one_byte_more() {
        let mut ring = Ring::default();
        let room = 2 * (OVERHEAD + 100);
        ring.push(line(1, 100), room);
        ring.push(line(2, 100), room);
        assert_eq!(ring.newest_first().count(), 2);
        ring.push(line(3, 101), room);
        let numbers: Vec<u64> = ring.newest_first().map(|kept| kept.number).collect();
        assert_eq!(numbers, [3]);
        assert_eq!(ring.bytes, OVERHEAD + 101);
    }
}
