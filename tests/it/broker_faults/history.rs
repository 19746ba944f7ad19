//! What a subscriber saw, held against what a subscription promises: nothing twice, nothing out of
//! order, and every hole told with its exact size.

use ganger_client::{Event, Gap, GapCause};
use std::collections::HashMap;

/// Judges the events of one subscription, one by one.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The number that must come next; `None` at the beginning of a run of the broker.
    expected: Option<u64>,
    /// The last number that each publisher's messages had.
    last: HashMap<u64, u64>,
    pub(super) messages: u64,
    /// Messages in gaps.
    pub(super) lost: u64,
    pub(super) restarts: u64,
}

/// What a publisher sends: who it is, and how many it sent before.
pub(super) fn payload(publisher: u64, number: u64) -> [u8; 16] {
    let mut payload = [0; 16];
    payload[..8].copy_from_slice(&publisher.to_le_bytes());
    payload[8..].copy_from_slice(&number.to_le_bytes());
    payload
}

impl History {
    /// One that also knows the number of its first message.
    pub(super) fn from(first: u64) -> Self {
        Self {
            expected: Some(first),
            ..Self::default()
        }
    }

    /// Takes the next event.
    pub(super) fn take(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Message(message) => self.message(message.seq(), message.payload()),
            Event::Gap(gap) => self.gap(gap),
            other => Err(format!("{other:?} is news to this judge")),
        }
    }

    fn message(&mut self, seq: u64, payload: &[u8]) -> Result<(), String> {
        let word = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap());
        let (publisher, number) = (word(0), word(8));
        match self.expected {
            Some(expected) if seq > expected => {
                return Err(format!("{expected} to {} are missing", seq - 1));
            }
            Some(expected) if seq < expected => {
                return Err(format!("{seq} comes after {}", expected - 1));
            }
            _ => self.expected = Some(seq + 1),
        }
        let last = self.last.insert(publisher, number);
        if last >= Some(number) {
            return Err(format!("{publisher}'s {number} comes after its {last:?}"));
        }
        self.messages += 1;
        Ok(())
    }

    fn gap(&mut self, gap: &Gap) -> Result<(), String> {
        match (gap.count, self.expected) {
            (None, _) if gap.cause == GapCause::Restart => {
                self.restarts += 1;
                self.expected = None;
                Ok(())
            }
            (None, _) => Err(format!("{gap:?} does not say how many")),
            (Some(count), expected) => {
                if expected.is_some_and(|expected| expected != gap.from) {
                    return Err(format!("{gap:?} where {expected:?} should come"));
                }
                if gap.to + 1 - gap.from != count || count == 0 {
                    return Err(format!("{gap:?} is of another size"));
                }
                self.expected = Some(gap.to + 1);
                self.lost += count;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(from: u64, to: u64, count: Option<u64>, cause: GapCause) -> Gap {
        Gap {
            from,
            to,
            count,
            cause,
        }
    }

    fn begun() -> History {
        let mut history = History::from(7);
        history.message(7, &payload(1, 1)).unwrap();
        history
    }

    #[test]
    fn an_honest_history_is_accepted() {
        let mut history = begun();
        history.message(8, &payload(2, 0)).unwrap();
        history.gap(&gap(9, 11, Some(3), GapCause::Slow)).unwrap();
        history.message(12, &payload(1, 5)).unwrap();
        history.gap(&gap(0, 0, None, GapCause::Restart)).unwrap();
        history.message(40, &payload(1, 6)).unwrap();
        assert_eq!(
            (history.messages, history.lost, history.restarts),
            (4, 3, 1)
        );
    }

    #[test]
    fn what_comes_twice_or_late_is_flagged() {
        begun().message(7, &payload(1, 2)).unwrap_err();
        begun().message(8, &payload(1, 1)).unwrap_err();
        begun().message(8, &payload(1, 0)).unwrap_err();
        begun().message(6, &payload(1, 2)).unwrap_err();
    }

    #[test]
    fn a_hole_that_is_not_told_or_not_of_its_size_is_flagged() {
        begun().message(9, &payload(1, 2)).unwrap_err();
        begun()
            .gap(&gap(8, 9, Some(1), GapCause::Slow))
            .unwrap_err();
        begun()
            .gap(&gap(9, 9, Some(1), GapCause::Slow))
            .unwrap_err();
        begun().gap(&gap(8, 9, None, GapCause::Slow)).unwrap_err();
        let mut history = begun();
        history.gap(&gap(8, 9, Some(2), GapCause::Slow)).unwrap();
        history.message(11, &payload(1, 2)).unwrap_err();
    }
}
