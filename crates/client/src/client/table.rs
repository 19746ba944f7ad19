//! Which id belongs to whom.

use super::error::Error;
use super::link::Session;
use super::run::Run;
use bytes::BytesMut;
use ganger_protocol::admin::AdminProgress;
use ganger_protocol::lease::LeaseEvent;
use ganger_protocol::{ErrorBody, Frame, Head, Op};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use tokio::sync::{oneshot, OwnedSemaphorePermit};
use tokio::time::Instant;

/// What becomes of an id after a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// More may come.
    Goes,
    /// It is free.
    Over,
    /// It is not wanted any more.
    Cancel,
}

/// The receiving end of an id that gets more than one frame. Called with the link's lock held: it
/// must not call back.
pub(crate) trait Route: Send + Sync {
    /// A frame for it. `out` is what goes to the broker.
    fn take(&self, id: u32, frame: Frame, out: &mut BytesMut) -> Next;

    /// Messages for it.
    fn take_run(&self, id: u32, run: Run, out: &mut BytesMut) {
        // Only what subscribes gets any.
        let _ = (id, run, out);
    }

    /// The connection is gone.
    fn lost(&self) {}

    /// There is a new connection: writes what makes it go on, if it does.
    fn resume(&self, id: u32, session: &Session, out: &mut BytesMut) -> Result<(), Error>;

    /// It is over for good.
    fn fail(&self, error: &Error);
}

pub(crate) type Progress = Box<dyn FnMut(AdminProgress) + Send>;

/// One who waits for one answer.
pub(crate) struct Call {
    pub(crate) told: oneshot::Sender<Result<Frame, Error>>,
    pub(crate) progress: Option<Progress>,
    /// When it is given up.
    pub(crate) deadline: Option<Instant>,
    /// Whether the broker is told then.
    pub(crate) cancel: bool,
}

pub(crate) enum Entry {
    Call(Call),
    Route(Arc<dyn Route>),
    /// Nobody waits for the one answer that will come, but it gives this back.
    Receipt(#[expect(dead_code, reason = "held, and dropped with the entry")] OwnedSemaphorePermit),
    /// Nobody waits any more for the one answer that will come.
    DroppedCall,
    /// It was cancelled; its end will come.
    Cancelled,
}

#[derive(Default)]
pub(crate) struct Table {
    entries: HashMap<u32, Entry, BuildHasherDefault<IdHasher>>,
    last: u32,
    /// No call is to be given up before this. One may have been answered meanwhile: that costs one
    /// look in vain, where a timer for each call would cost more than the call.
    due: Option<Instant>,
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// An id that nobody uses.
    pub(crate) fn free_id(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && !self.entries.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    /// Whether a call of this id waits for its answer.
    pub(crate) fn is_asked(&self, id: u32) -> bool {
        matches!(self.entries.get(&id), Some(Entry::Call(_)))
    }

    pub(crate) fn insert(&mut self, id: u32, entry: Entry) {
        if let Entry::Call(Call {
            deadline: Some(deadline),
            ..
        }) = entry
        {
            self.due = Some(self.due.map_or(deadline, |due| due.min(deadline)));
        }
        self.entries.insert(id, entry);
    }

    /// When to call [`expire`](Self::expire).
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Gives calls up whose time is over.
    pub(crate) fn expire(&mut self, now: Instant, out: &mut BytesMut) {
        self.due = None;
        for (id, entry) in &mut self.entries {
            let Entry::Call(Call {
                deadline: Some(deadline),
                cancel,
                ..
            }) = *entry
            else {
                continue;
            };
            if deadline > now {
                self.due = Some(self.due.map_or(deadline, |due| due.min(deadline)));
                continue;
            }
            if cancel {
                Frame::bare(Head::new(Op::Cancel, *id)).write_to(out);
            }
            if let Entry::Call(call) = std::mem::replace(entry, Entry::DroppedCall) {
                let _ = call.told.send(Err(Error::Timeout));
            }
        }
    }

    /// Nobody wants what comes for this route any more. `false` if it was over.
    pub(crate) fn cancel(&mut self, id: u32) -> bool {
        match self.entries.get_mut(&id) {
            Some(entry @ Entry::Route(_)) => {
                *entry = Entry::Cancelled;
                true
            }
            _ => false,
        }
    }

    /// Nobody waits for this call's answer any more. `false` if it was answered.
    pub(crate) fn drop_call(&mut self, id: u32) -> bool {
        match self.entries.get_mut(&id) {
            Some(entry @ Entry::Call(_)) => {
                *entry = Entry::DroppedCall;
                true
            }
            _ => false,
        }
    }

    /// Hands messages to whom they belong.
    #[inline]
    pub(crate) fn take_run(&mut self, id: u32, run: Run, out: &mut BytesMut) {
        if let Some(Entry::Route(route)) = self.entries.get(&id) {
            route.take_run(id, run, out);
        }
    }

    /// Hands a frame to whom it belongs. `true` if its id is to be cancelled.
    #[inline]
    pub(crate) fn take(&mut self, frame: Frame, out: &mut BytesMut) -> bool {
        let id = frame.head.id;
        let Some(entry) = self.entries.get_mut(&id) else {
            return false;
        };
        match entry {
            Entry::Route(route) => match route.take(id, frame, out) {
                Next::Goes => return false,
                Next::Over => {}
                Next::Cancel => {
                    *entry = Entry::Cancelled;
                    return true;
                }
            },
            Entry::Call(call) if frame.head.op == Op::AdminProgress => {
                if let (Some(progress), Ok(body)) = (&mut call.progress, frame.body()) {
                    progress(body);
                }
                return false;
            }
            Entry::Call(_) => {
                if let Some(Entry::Call(call)) = self.entries.remove(&id) {
                    // Whoever does not wait any more does not want it.
                    let _ = call.told.send(answer(frame));
                }
                return false;
            }
            Entry::DroppedCall if frame.head.op == Op::AdminProgress => return false,
            Entry::Cancelled if !is_end(&frame) => return false,
            Entry::Receipt(_) | Entry::DroppedCall | Entry::Cancelled => {}
        }
        self.entries.remove(&id);
        false
    }

    /// The connection is gone: calls fail, routes stay.
    pub(crate) fn lost(&mut self, error: &Error) {
        let entries = std::mem::take(&mut self.entries);
        for (id, entry) in entries {
            match entry {
                Entry::Call(call) => {
                    let _ = call.told.send(Err(error.clone()));
                }
                Entry::Route(route) => {
                    route.lost();
                    self.entries.insert(id, Entry::Route(route));
                }
                Entry::Receipt(_) | Entry::DroppedCall | Entry::Cancelled => {}
            }
        }
    }

    /// There is a new connection: all routes go on.
    pub(crate) fn resume(&mut self, session: &Session, out: &mut BytesMut) {
        self.entries.retain(|id, entry| match entry {
            Entry::Route(route) => match route.resume(*id, session, out) {
                Ok(()) => true,
                Err(error) => {
                    route.fail(&error);
                    false
                }
            },
            _ => false,
        });
    }

    /// It is over for all.
    pub(crate) fn fail(&mut self, error: &Error) {
        for (_, entry) in self.entries.drain() {
            match entry {
                Entry::Call(call) => {
                    let _ = call.told.send(Err(error.clone()));
                }
                Entry::Route(route) => route.fail(error),
                Entry::Receipt(_) | Entry::DroppedCall | Entry::Cancelled => {}
            }
        }
    }
}

/// The frame, or the error it carries.
pub(crate) fn answer(frame: Frame) -> Result<Frame, Error> {
    match frame.head.op {
        Op::Error => Err(refusal(&frame)),
        _ => Ok(frame),
    }
}

/// The error that a frame carries.
pub(crate) fn refusal(frame: &Frame) -> Error {
    match frame.body::<ErrorBody>() {
        Ok(body) => body.into(),
        Err(error) => error.into(),
    }
}

/// Whether nothing of the frame's id follows.
fn is_end(frame: &Frame) -> bool {
    match frame.head.op {
        Op::Ended | Op::Error => true,
        Op::LeaseEvent => matches!(
            frame.body(),
            Ok(LeaseEvent::Released {} | LeaseEvent::Lost { .. })
        ),
        _ => false,
    }
}

/// The ids are our own, and counted up: nothing needs to be mixed well.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(32);
    }
}
