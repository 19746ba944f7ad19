//! A connection as the others see it: where they leave what is for its client.
//!
//! All of a connection is done by its [session](super::session), which has a task. Whoever has something
//! for it leaves it here and wakes that task, once; the task takes all there is. Messages for one that
//! sleeps are written at once, in the turn of whoever published them (`seat`).

use super::counters::Traffic;
use super::seat::Seat;
use crate::ids::ConnectionId;
use ganger_protocol::{Body, ErrorBody, Frame};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// What is known of a client.
#[derive(Debug, Clone, Default)]
pub struct Client {
    /// What listings show it as.
    pub name: String,
    /// Its library and version.
    pub software: String,
    /// Its process; 0 if that is not known.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Whether it takes payloads by reference.
    pub by_reference: bool,
    /// Whether it got the region's descriptor.
    pub has_region: bool,
    /// When it came, by the broker's clock.
    pub since_ms: u64,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    /// Its number.
    pub id: ConnectionId,
    /// Who is there.
    pub client: Client,
    /// What went through it.
    pub traffic: Traffic,
    /// Its session, while that runs.
    pub(super) seat: Seat,
    inbox: Mutex<Inbox>,
}

/// A frame for a client, from elsewhere than its own session.
#[derive(Debug)]
pub struct Parcel {
    /// The frame.
    pub frame: Frame,
    /// Whether its id is free then.
    pub ends: bool,
}

/// What others left.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Streams that have something to drain.
    pub(super) ready: Vec<u32>,
    pub(super) parcels: VecDeque<Parcel>,
    /// Bytes of `parcels`.
    bytes: usize,
    /// A publication that was held up may go on.
    pub(super) resume: bool,
    /// The connection is to end, and why.
    pub(super) close: Option<ErrorBody>,
    /// The broker stops.
    pub(super) drain: bool,
    waker: Option<Waker>,
    is_asleep: bool,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, client: Client) -> Self {
        Self {
            id,
            client,
            traffic: Traffic::default(),
            seat: Seat::default(),
            inbox: Mutex::default(),
        }
    }

    /// Has a stream drained.
    pub fn wake(&self, id: u32) {
        self.leave(|inbox| inbox.ready.push(id));
    }

    /// Has a stream drained, at once if its session rests.
    pub(super) fn serve(&self, id: u32) {
        let is_asleep = self.lock().is_asleep;
        if !is_asleep || !self.seat.serve(id) {
            self.wake(id);
        }
    }

    /// Has the session's task go on.
    pub(super) fn rouse(&self) {
        self.leave(|_| {});
    }

    /// Sends a frame. `limit` bytes may wait; a client for which more do already is disconnected.
    pub fn send(&self, parcel: Parcel, limit: usize) {
        self.leave(|inbox| {
            if inbox.bytes > limit && inbox.close.is_none() {
                let code = ganger_protocol::ErrorCode::TooSlow;
                let error = ErrorBody::from(code).limit(limit).actual(inbox.bytes);
                inbox.close = Some(error);
            }
            if inbox.close.is_none() {
                inbox.bytes += parcel.frame.tail.len();
                inbox.parcels.push_back(parcel);
            }
        });
    }

    /// Sends a control message; `ends` frees its id. What fits no frame ends the connection.
    pub fn send_body<B: Body>(&self, id: u32, body: &B, ends: bool, limit: usize) {
        match Frame::control(id, body) {
            Ok(frame) => self.send(Parcel { frame, ends }, limit),
            Err(error) => self.close(ErrorBody::new(
                ganger_protocol::ErrorCode::Internal,
                error.to_string(),
            )),
        }
    }

    /// Lets a publication that was held up try again.
    pub(super) fn resume(&self) {
        self.leave(|inbox| inbox.resume = true);
    }

    /// Ends it, with this error as its last frame.
    pub fn close(&self, why: ErrorBody) {
        self.leave(|inbox| {
            inbox.close.get_or_insert(why);
        });
    }

    /// Tells the client that the broker stops, and ends it when what was begun is done.
    pub(super) fn drain(&self) {
        self.leave(|inbox| inbox.drain = true);
    }

    /// Bytes that others left.
    pub fn inbox_bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Takes what is there into `into`, whose lists must be empty.
    pub(super) fn take(&self, into: &mut Inbox) {
        let mut inbox = self.lock();
        std::mem::swap(&mut inbox.ready, &mut into.ready);
        std::mem::swap(&mut inbox.parcels, &mut into.parcels);
        inbox.bytes = 0;
        into.resume = std::mem::take(&mut inbox.resume);
        into.close = inbox.close.take();
        into.drain = std::mem::take(&mut inbox.drain);
    }

    /// Has the task woken when something comes. `false` if something is there already.
    pub(super) fn sleep(&self, waker: &Waker) -> bool {
        let mut inbox = self.lock();
        if !inbox.is_empty() {
            return false;
        }
        match &mut inbox.waker {
            Some(kept) => kept.clone_from(waker),
            None => inbox.waker = Some(waker.clone()),
        }
        inbox.is_asleep = true;
        true
    }

    fn leave(&self, what: impl FnOnce(&mut Inbox)) {
        let mut inbox = self.lock();
        what(&mut inbox);
        if std::mem::take(&mut inbox.is_asleep) {
            if let Some(waker) = &inbox.waker {
                waker.wake_by_ref();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // Nothing panics while it is held.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox {
    fn is_empty(&self) -> bool {
        self.ready.is_empty()
            && self.parcels.is_empty()
            && !self.resume
            && !self.drain
            && self.close.is_none()
    }
}
