//! One connection, from its welcome to its end: all of it in one task, but for messages that a
//! publisher's turn writes while that task sleeps.
//!
//! Each turn takes what others left, reads, carries out what was received, fills the outbox from what
//! the connection subscribed to, and writes. When that leaves nothing to go on with, it sleeps until
//! the socket or somebody else has something. Nothing here waits for a client: what can't be written
//! stays in the outbox, whose length stops the reading and the draining.

use super::broker::Broker;
use super::connection::{Connection, Inbox, Parcel};
use super::dispatch;
use super::held::{Drained, Farewell, Held, Kind, Place};
use super::janitor;
use super::kv::Ephemeral;
use super::outbox::Outbox;
use super::publish::HeldUp;
use super::received::Received;
use super::socket::Socket;
use crate::ids::{Subscriber, SubscriptionId};
use crate::topics::channel::Batch;
use crate::topics::Effects;
use bytes::BytesMut;
use ganger_protocol::hello::{Ended, Goodbye};
use ganger_protocol::{Body, ErrorBody, ErrorCode, Frame, FrameCodec, FrameError, Head, Op, Tail};
use std::collections::{HashMap, VecDeque};
use std::future::{poll_fn, Future};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::task::JoinHandle;

/// The outbox is filled from subscriptions up to so many bytes.
const FILL: usize = 64 << 10;
/// What one subscription may put in before it is another's turn.
const SHARE: Batch = Batch {
    messages: 1024,
    bytes: 32 << 10,
};
/// Turns until other connections have theirs.
const TURNS: usize = 4;
/// How long a client has to take the last frames.
const FLUSH: Duration = Duration::from_secs(1);

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Its client closed it, or was told why it is over: what was written may still be read.
    Done,
    /// It can't be written to any more.
    Broken,
}

/// A connection's own state.
pub struct Session {
    /// The broker.
    pub broker: Arc<Broker>,
    /// As others see it.
    pub connection: Arc<Connection>,
    /// What goes to the client.
    pub out: Outbox,
    /// What follows for others from what is being done.
    pub effects: Effects,
    pub(super) ephemeral: Ephemeral,
    stream: Socket,
    codec: FrameCodec,
    received: Received,
    held: HashMap<u32, Box<dyn Held>>,
    /// Held things that have something to drain, in turn.
    ready: VecDeque<u32>,
    inbox: Inbox,
    held_up: Option<HeldUp>,
    /// An operation that takes long, elsewhere: nothing is carried out until it is done.
    job: Option<JoinHandle<Vec<Frame>>>,
    /// Something was received and is not carried out, since something held it up.
    is_behind: bool,
    is_eof: bool,
    is_over: bool,
    is_draining: bool,
    is_released: bool,
}

/// # What the operations use
impl Session {
    /// Answers a request by a control message.
    pub fn reply<B: Body>(&mut self, id: u32, body: &B) {
        if !self.out.control(id, body) {
            self.fail(id, &ErrorCode::AnswerTooLong.into());
        }
    }

    /// Answers a request by an error.
    pub fn fail(&mut self, id: u32, error: &ErrorBody) {
        self.broker.counters.requests_failed.count();
        // The sentence of an error is short.
        self.out.control(id, error);
    }

    /// Says why, and ends the connection.
    pub fn fatal(&mut self, error: &ErrorBody) {
        self.out.control(0, error);
        self.is_over = true;
    }

    /// Whether an id belongs to something that goes on.
    #[inline]
    pub fn is_in_use(&self, id: u32) -> bool {
        !self.held.is_empty() && self.held.contains_key(&id)
    }

    /// Holds something under an id, until it ends or the client cancels it.
    pub fn hold(&mut self, id: u32, held: Box<dyn Held>) {
        self.connection.traffic.begun(held.kind());
        self.held.insert(id, held);
    }

    /// Has something that is held drained.
    pub fn ready(&mut self, id: u32) {
        self.ready.push_back(id);
    }

    /// Things of a kind that are held.
    pub fn held_of(&self, kind: Kind) -> usize {
        usize::try_from(self.connection.traffic.held(kind)).unwrap_or(usize::MAX)
    }

    /// Something of this connection, among all connections.
    pub(super) fn subscriber(&self, id: u32) -> Subscriber {
        Subscriber {
            connection: self.connection.id,
            subscription: SubscriptionId(id),
        }
    }

    /// Runs something that takes long on another thread. Until its answers are there, this
    /// connection does nothing more, and the others go on.
    pub fn run_elsewhere(&mut self, job: impl FnOnce() -> Vec<Frame> + Send + 'static) {
        self.job = Some(tokio::task::spawn_blocking(job));
    }

    /// Holds up this connection until a message is through.
    pub(super) fn hold_up(&mut self, held_up: HeldUp) {
        self.held_up = Some(held_up);
    }

    /// The client says that it is going.
    pub(super) fn goodbye(&mut self) {
        self.is_eof = true;
    }

    /// Passes an acknowledgement on.
    pub(super) fn ack(&mut self, id: u32, seq: u64, up_to: bool) {
        let Self {
            broker,
            connection,
            out,
            effects,
            held,
            ..
        } = self;
        if let Some(member) = held.get_mut(&id) {
            let mut place = Place {
                broker,
                connection,
                id,
                out,
                effects,
            };
            member.ack(&mut place, seq, up_to);
        }
    }

    /// Ends what has this id.
    pub(super) fn cancel(&mut self, id: u32) {
        match self.end(id) {
            None => {}
            Some(Farewell::Ended) => self.reply(id, &Ended::default()),
            Some(Farewell::Cancelled) => {
                // Not a failure.
                self.out.control(id, &ErrorBody::from(ErrorCode::Cancelled));
            }
        }
    }

    fn end(&mut self, id: u32) -> Option<Farewell> {
        let Self {
            broker,
            connection,
            out,
            effects,
            held,
            ..
        } = self;
        let ended = held.remove(&id)?;
        connection.traffic.ended(ended.kind());
        let farewell = ended.end(&mut Place {
            broker,
            connection,
            id,
            out,
            effects,
        });
        Some(farewell)
    }
}

/// # Running
impl Session {
    pub(super) fn new(
        broker: Arc<Broker>,
        connection: Arc<Connection>,
        stream: Socket,
        received: BytesMut,
        out: Outbox,
    ) -> Self {
        Self {
            codec: FrameCodec::new(broker.limits()),
            ephemeral: Ephemeral::default(),
            effects: Effects::default(),
            held: HashMap::new(),
            ready: VecDeque::new(),
            inbox: Inbox::default(),
            held_up: None,
            job: None,
            is_behind: false,
            is_eof: false,
            is_over: false,
            is_draining: false,
            is_released: false,
            broker,
            connection,
            out,
            stream,
            received: Received::new(received),
        }
    }

    /// Serves the client until the connection ends, then releases all it held.
    pub(super) async fn run(self) {
        let connection = Arc::clone(&self.connection);
        let _seated = connection.seat.hold(self);
        let end = poll_fn(|cx| connection.seat.poll(cx)).await;
        let Some(mut session) = connection.seat.take() else {
            return;
        };
        // First, so that nobody waits for the last words to be read.
        session.release();
        if end == End::Done {
            let flushed = poll_fn(|cx| session.poll_flush(cx));
            let _ = tokio::time::timeout(FLUSH, flushed).await;
        }
    }

    /// Drains a stream and writes what it gives, in the turn of another connection. `false`, and
    /// nothing is done, while something is still to be written.
    pub(super) fn serve(&mut self, id: u32) -> bool {
        if self.is_over || !self.out.is_empty() || !self.ready.is_empty() {
            return false;
        }
        self.ready.push_back(id);
        self.fill();
        self.broker.leave_to_tasks(&mut self.effects);
        // The task is woken for what is left, and learns by itself what became of the socket.
        let wrote = self.write(&mut Context::from_waker(Waker::noop()));
        if wrote.is_ok() && self.out.is_empty() && self.ready.is_empty() {
            self.out.shrink();
        } else {
            self.connection.rouse();
        }
        true
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..TURNS {
            self.take_in();
            self.go_on(cx);
            if self.can_read(cx) && self.read(cx).is_err() {
                return Poll::Ready(End::Broken);
            }
            let was_held_up = self.is_held_up();
            self.work();
            // What began to hold it up just now has still to be told whom to wake.
            let is_new = self.is_held_up() && !was_held_up;
            self.fill();
            let reads_on = self.can_read(cx);
            match reads_on || self.is_behind {
                // What comes next is written together with this.
                true => self.broker.leave_to_tasks(&mut self.effects),
                false => self.broker.act(&mut self.effects),
            }
            if self.is_over {
                return Poll::Ready(End::Done);
            }
            let Ok(wrote) = self.write(cx) else {
                return Poll::Ready(End::Broken);
            };
            let goes_on =
                wrote && (self.is_behind || !self.out.is_empty() || !self.ready.is_empty());
            // What is written now may have been what kept it from reading.
            if goes_on || is_new || reads_on || wrote && self.can_read(cx) {
                continue;
            }
            if self.is_at_its_end() {
                return Poll::Ready(End::Done);
            }
            self.shrink();
            if self.connection.sleep(cx.waker()) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What others left.
    fn take_in(&mut self) {
        self.connection.take(&mut self.inbox);
        self.ready.extend(self.inbox.ready.drain(..));
        while let Some(parcel) = self.inbox.parcels.pop_front() {
            self.deliver(parcel);
        }
        if std::mem::take(&mut self.inbox.resume) {
            if let Some(held_up) = self.held_up.take() {
                held_up.go_on(self, false);
            }
        }
        if std::mem::take(&mut self.inbox.drain) && !self.is_draining {
            self.is_draining = true;
            let goodbye = Goodbye {
                reason: "the broker stops".into(),
                closes_in_ms: self.broker.config.stop_ms,
            };
            self.reply(0, &goodbye);
        }
        if let Some(why) = self.inbox.close.take() {
            if why.code == ErrorCode::TooSlow {
                self.broker.counters.too_slow_connections.count();
            }
            self.fatal(&why);
        }
    }

    /// A frame from elsewhere. One whose id was cancelled meanwhile comes too late.
    fn deliver(&mut self, parcel: Parcel) {
        let id = parcel.frame.head.id;
        if id != 0 && !self.held.contains_key(&id) {
            return;
        }
        let Self {
            broker,
            connection,
            out,
            effects,
            ..
        } = self;
        let mut place = Place {
            broker,
            connection,
            id,
            out,
            effects,
        };
        super::reference::push(&mut place, parcel.frame.head, &parcel.frame.tail);
        if parcel.ends {
            self.end(id);
        }
    }

    /// Looks after what holds this connection up.
    fn go_on(&mut self, cx: &mut Context<'_>) {
        if let Some(mut held_up) = self.held_up.take() {
            match Pin::new(&mut held_up.until).poll(cx) {
                Poll::Ready(()) => held_up.go_on(self, true),
                Poll::Pending => self.held_up = Some(held_up),
            }
        }
        if let Some(job) = &mut self.job {
            if let Poll::Ready(frames) = Pin::new(job).poll(cx) {
                self.job = None;
                for frame in frames.into_iter().flatten() {
                    self.out.push(frame.head, &frame.tail);
                }
            }
        }
    }

    /// Carries out what was received, as long as nothing holds it up.
    fn work(&mut self) {
        let mut received = std::mem::take(&mut self.received);
        let mut frames = 0;
        self.is_behind = loop {
            if self.waits() {
                break true;
            }
            match self.codec.peek(received.unread()) {
                Ok(Some(frame)) => {
                    dispatch::carry_out(self, &frame, &received);
                    let len = frame.wire_len();
                    received.advance(len);
                    frames += 1;
                }
                Ok(None) => break false,
                Err(error) => self.bad_frame(&error),
            }
        };
        self.received = received;
        if frames > 0 {
            self.connection.traffic.frames_in.add(frames);
        }
    }

    fn bad_frame(&mut self, error: &FrameError) {
        self.broker.counters.bad_frames.count();
        self.fatal(&ErrorBody::new(ErrorCode::BadFrame, error.to_string()));
    }

    /// Whether nothing is to be carried out now.
    fn waits(&self) -> bool {
        let limits = self.broker.limits();
        self.is_over
            || self.is_held_up()
            || self.out.bytes() > limits.outbox_bytes
            || self.out.frames() > limits.outbox_frames
    }

    fn is_held_up(&self) -> bool {
        self.held_up.is_some() || self.job.is_some()
    }

    /// Fills the outbox from what is held, in turn.
    fn fill(&mut self) {
        while self.out.bytes() < FILL && !self.is_over {
            let Some(id) = self.ready.pop_front() else {
                break;
            };
            let Self {
                broker,
                connection,
                out,
                effects,
                held,
                ..
            } = self;
            let Some(stream) = held.get_mut(&id) else {
                continue;
            };
            let mut place = Place {
                broker,
                connection,
                id,
                out,
                effects,
            };
            match stream.drain(&mut place, SHARE) {
                Drained::Idle => {}
                Drained::More => self.ready.push_back(id),
                Drained::Ended(error) => {
                    self.end(id);
                    self.reply(id, &Ended { error: Some(error) });
                }
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, std::io::Error> {
        if self.out.is_empty() {
            return Ok(false);
        }
        let written = match self.out.poll_write(Pin::new(&mut self.stream), cx) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        let traffic = &self.connection.traffic;
        traffic.bytes_out.add(written as u64);
        traffic.frames_out.set(self.out.total());
        traffic.outbox_bytes.set(self.out.bytes() as u64);
        Ok(written > 0)
    }

    /// Whether there is something to read, and all that was read before is carried out.
    fn can_read(&mut self, cx: &mut Context<'_>) -> bool {
        !self.is_eof && !self.is_behind && !self.waits() && self.stream.is_readable(cx)
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), std::io::Error> {
        let stream = Pin::new(&mut self.stream);
        let memory = &self.broker.read_memory;
        let read = self.received.poll_read(stream, cx, &self.codec, memory);
        if let Poll::Ready(read) = read {
            let read = read?;
            self.is_eof = read == 0;
            self.connection.traffic.bytes_in.add(read as u64);
        }
        Ok(())
    }

    /// Whether nothing more is to be expected: asked when nothing can be read or written.
    fn is_at_its_end(&self) -> bool {
        let is_idle = !self.waits() && self.out.is_empty() && self.ready.is_empty();
        self.is_eof && !self.waits() || self.is_draining && is_idle && self.requests_are_done()
    }

    fn requests_are_done(&self) -> bool {
        !self.broker.lock_requests().is_waiting(self.connection.id)
    }

    /// Gives back the memory that a quiet connection does not need.
    fn shrink(&mut self) {
        self.received.shrink(&self.broker.read_memory);
        self.out.shrink();
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.out.is_empty() {
            match self.out.poll_write(Pin::new(&mut self.stream), cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    /// Releases all that the connection held.
    fn release(&mut self) {
        if std::mem::replace(&mut self.is_released, true) {
            return;
        }
        // Nobody finds it any more, so nothing new is assigned to it while the rest goes.
        self.broker.leave(self.connection.id);
        if let Some(held_up) = self.held_up.take() {
            held_up.go_on(self, true);
        }
        // Before the lease of this connection is another's, who would find its keys else.
        let released = self.ephemeral.release(&self.broker.region);
        self.broker.counters.ephemeral_released.add(released);
        // All at once, so that it does not inherit from itself.
        super::lease::connection_ended(&self.broker, self.connection.id);
        let ids: Vec<u32> = self.held.keys().copied().collect();
        for id in ids {
            self.end(id);
        }
        super::request::connection_ended(self);
        self.broker.act(&mut self.effects);
        if self.connection.client.has_region || self.connection.client.by_reference {
            janitor::somebody_left(&self.broker);
        }
    }
}

/// A panic in an operation ends its connection, and nothing else.
impl Drop for Session {
    fn drop(&mut self) {
        self.release();
    }
}

/// The answer to a ping.
pub(super) fn pong(session: &mut Session, frame: &Frame) {
    let head = Head::new(Op::Pong, frame.head.id).seq(frame.head.seq);
    let tail = Tail::of_payload(frame.tail.payload_bytes()).unwrap_or_default();
    session.out.push(head, &tail);
}
