//! Taps over the socket.

use super::held::{Drained, Farewell, Held, Kind, Place};
use super::reference;
use super::session::Session;
use crate::services::taps::{Shown, Tap};
use crate::topics::channel::Batch;
use ganger_protocol::pubsub::{Position, Subscribed};
use ganger_protocol::{ErrorBody, Pattern};

/// Messages of a tap that are handed out at a time.
const AT_A_TIME: usize = 64;

pub(super) fn begin(session: &mut Session, id: u32, pattern: &str) -> Result<(), ErrorBody> {
    let pattern: Pattern = pattern.parse()?;
    let tap = session.broker.taps.open(session.subscriber(id), pattern)?;
    let epoch = session.broker.epoch;
    let next = Position { epoch, seq: 1 };
    session.reply(id, &Subscribed { next, replayed: 0 });
    session.hold(id, Box::new(Tapping(tap)));
    Ok(())
}

/// A tap; it ends when it is dropped.
struct Tapping(Tap);

impl Held for Tapping {
    fn kind(&self) -> Kind {
        Kind::Tap
    }

    fn drain(&mut self, place: &mut Place<'_>, batch: Batch) -> Drained {
        let limit = batch.messages.min(AT_A_TIME);
        let more = self.0.drain(limit, |shown| match shown {
            Shown::Message(head, tail) => reference::push(place, head, tail),
            Shown::Lost(gap) => {
                place.out.control(place.id, gap);
            }
        });
        match more {
            true => Drained::More,
            false => Drained::Idle,
        }
    }

    fn end(self: Box<Self>, _: &mut Place<'_>) -> Farewell {
        Farewell::Ended
    }
}
