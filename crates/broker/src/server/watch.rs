//! Watches over the socket.

use super::held::{Drained, Farewell, Held, Kind, Place};
use super::session::Session;
use crate::services::watch::{self, Budget, Watcher};
use crate::topics::channel::Batch;
use ganger_protocol::watch::Watch;
use ganger_protocol::{ErrorBody, Frame};

pub(super) fn handle(session: &mut Session, frame: &Frame) -> Result<(), ErrorBody> {
    let asked: Watch = frame.body()?;
    let id = frame.head.id;
    let watcher = session
        .broker
        .watches
        .open(session.subscriber(id), &asked)?;
    session.hold(id, Box::new(Watching(watcher)));
    session.ready(id);
    Ok(())
}

/// A watch; it ends when it is dropped.
struct Watching(Watcher);

impl Held for Watching {
    fn kind(&self) -> Kind {
        Kind::Watch
    }

    fn drain(&mut self, place: &mut Place<'_>, batch: Batch) -> Drained {
        let budget = Budget {
            frames: batch.messages,
            bytes: batch.bytes,
        };
        let out = &mut *place.out;
        let mut each = |frame: Frame| out.push(frame.head, &frame.tail);
        match self.0.drain(budget, &mut each) {
            watch::Drained::Idle => Drained::Idle,
            watch::Drained::More => Drained::More,
            watch::Drained::Ended(error) => Drained::Ended(error),
        }
    }

    fn ack(&mut self, place: &mut Place<'_>, seq: u64, _: bool) {
        if self.0.taken(seq) {
            place.connection.wake(place.id);
        }
    }

    fn end(self: Box<Self>, _: &mut Place<'_>) -> Farewell {
        Farewell::Ended
    }
}
