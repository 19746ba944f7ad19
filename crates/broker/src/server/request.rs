//! Requests: to one responder, with an end in any case.

use super::broker::Broker;
use super::held::{Farewell, Held, Kind, Place};
use super::publish;
use super::session::Session;
use crate::ids::{ConnectionId, RequestId, Subscriber, SubscriptionId};
use crate::requests::{Ended, RequestError, RequestLimits, Requests, Ticket, Why};
use crate::topics::{Chosen, Effects, Route};
use ganger_protocol::request::RequestTag;
use ganger_protocol::{ErrorBody, ErrorCode, Flags, Frame, Head, Limits, Op, Tail};
use std::sync::{Arc, MutexGuard, PoisonError};

/// The open requests, by the numbers that go over the wire.
#[derive(Debug)]
pub(super) struct OpenRequests {
    table: Requests<Route>,
    last: u64,
}

impl OpenRequests {
    pub(super) fn new(limits: &Limits) -> Self {
        let limits = RequestLimits {
            // As many as one connection may have, for each of a few.
            total: limits.pending_requests.saturating_mul(16),
            per_connection: limits.pending_requests,
        };
        Self {
            table: Requests::new(limits),
            last: 0,
        }
    }

    /// Whether a connection waits for replies, or somebody for its.
    pub(super) fn is_waiting(&self, connection: ConnectionId) -> bool {
        self.table.is_waiting(connection)
    }

    /// What happened to all requests so far, and how many are open.
    pub(super) fn table(&self) -> &Requests<Route> {
        &self.table
    }

    /// The ticket whose low bits a tag has: the last that was given out with these.
    fn ticket(&self, tag: RequestTag) -> Ticket {
        let low = RequestTag::NUMBERS - 1;
        let guess = self.last & !low | tag.number();
        let is_later = guess > self.last;
        Ticket(if is_later {
            guess.wrapping_sub(RequestTag::NUMBERS)
        } else {
            guess
        })
    }
}

impl Broker {
    pub(super) fn lock_requests(&self) -> MutexGuard<'_, OpenRequests> {
        // The table is never left halfway.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn handle(session: &mut Session, frame: &Frame) -> Result<(), ErrorBody> {
    let Head { id, flags, seq, .. } = frame.head;
    let flags = Flags(flags.0 & Flags::BY_REFERENCE.0);
    let message = Arc::new(publish::message(session, frame.tail.clone(), flags)?);
    let broker = Arc::clone(&session.broker);
    let longest = u64::from(broker.limits().request_timeout_ms);
    let timeout_ms = if seq == 0 { longest } else { seq.min(longest) };
    let requester = session.connection.id;

    broker.taps.offer(&message);
    let mut requests = broker.lock_requests();
    requests.table.check(requester, RequestId(id))?;
    let route = match broker.topics.request(&message, &mut session.effects) {
        Chosen::Responder(route) => route,
        Chosen::NoResponders => {
            requests.table.count_no_responders();
            return Err(ErrorCode::NoResponders.into());
        }
        Chosen::Busy => {
            let why = "all who answer have as many requests as they take";
            return Err(ErrorBody::new(ErrorCode::Unavailable, why));
        }
    };
    // It goes on as a request, not as a message of a group.
    session.effects.assignments.pop();
    let responder = route.responder;
    let deadline_ms = broker.now_ms().saturating_add(timeout_ms);
    let ticket = requests.table.open(
        requester,
        RequestId(id),
        responder.connection,
        deadline_ms,
        route,
    )?;
    requests.last = ticket.0;
    drop(requests);

    session.hold(id, Box::new(Waiting));
    let seq = RequestTag::new(ticket.0, timeout_ms).to_seq();
    let flags = message.flags();
    let head = Head::new(Op::Request, responder.subscription.0)
        .flags(flags)
        .seq(seq);
    broker.send(
        responder.connection,
        Frame::new(head, message.tail().clone()),
        false,
    );
    broker.timer.arm(deadline_ms);
    Ok(())
}

/// The answer of a responder, on to who asked.
pub(super) fn reply(session: &mut Session, frame: &Frame) {
    let broker = Arc::clone(&session.broker);
    let tag = RequestTag::from_seq(frame.head.seq);
    let mut requests = broker.lock_requests();
    let ticket = requests.ticket(tag);
    let Some(ended) = requests.table.answer(session.connection.id, ticket) else {
        return;
    };
    drop(requests);
    broker
        .topics
        .request_ended(&ended.route, &mut session.effects);
    let passed_on = Flags::FAILED.with(Flags::BY_REFERENCE).0;
    let flags = Flags(frame.head.flags.0 & passed_on);
    let is_referred = flags.has(Flags::BY_REFERENCE);
    let checked = match is_referred {
        true => super::reference::check(&broker, frame.tail.clone(), flags),
        false => Ok((frame.tail.clone(), flags)),
    };
    let id = ended.id.0;
    match checked {
        Ok((tail, flags)) => {
            let tail = without_subject(tail);
            let head = Head::new(Op::Reply, id).flags(flags);
            broker.send(ended.requester, Frame::new(head, tail), true);
        }
        Err(error) => broker.send_body(ended.requester, id, &error, true),
    }
}

/// A reply has none, whatever its responder sent.
fn without_subject(tail: Tail) -> Tail {
    if tail.subject().is_empty() {
        return tail;
    }
    Tail::new(b"", tail.headers(), tail.payload()).unwrap_or_default()
}

/// Ends requests that are due, and returns when the next one is.
pub(super) fn expire(broker: &Broker, now_ms: u64) -> Option<u64> {
    let mut ended = Vec::new();
    let mut requests = broker.lock_requests();
    requests.table.expire(now_ms, &mut ended);
    let next = requests.table.next_deadline();
    drop(requests);
    let mut effects = Effects::default();
    tell(broker, ended, &mut effects);
    broker.act(&mut effects);
    next
}

/// Ends all requests from and to a connection.
pub(super) fn connection_ended(session: &mut Session) {
    let mut ended = Vec::new();
    let broker = Arc::clone(&session.broker);
    broker
        .lock_requests()
        .table
        .connection_ended(session.connection.id, &mut ended);
    tell(&broker, ended, &mut session.effects);
}

/// Ends all requests to a subscription that ends.
pub(super) fn responder_ended(place: &mut Place<'_>) {
    let responder = Subscriber {
        connection: place.connection.id,
        subscription: SubscriptionId(place.id),
    };
    let mut ended = Vec::new();
    let is_theirs = |route: &Route| route.responder == responder;
    let mut requests = place.broker.lock_requests();
    requests
        .table
        .responder_ended(responder.connection, is_theirs, &mut ended);
    drop(requests);
    tell(place.broker, ended, place.effects);
}

/// Ends a request that can't be given to its responder.
pub(super) fn refuse(place: &mut Place<'_>, seq: u64, error: &ErrorBody) {
    let mut requests = place.broker.lock_requests();
    let ticket = requests.ticket(RequestTag::from_seq(seq));
    let ended = requests.table.answer(place.connection.id, ticket);
    drop(requests);
    if let Some(ended) = ended {
        place
            .broker
            .topics
            .request_ended(&ended.route, place.effects);
        place
            .broker
            .send_body(ended.requester, ended.id.0, error, true);
    }
}

/// Tells those who asked how their requests ended.
fn tell(broker: &Broker, ended: Vec<Ended<Route>>, effects: &mut Effects) {
    for Ended {
        requester,
        id,
        route,
        why,
    } in ended
    {
        broker.topics.request_ended(&route, effects);
        let code = match why {
            Why::WorkerDied => ErrorCode::WorkerDied,
            Why::Timeout => ErrorCode::Timeout,
            Why::Answered | Why::Cancelled => continue,
        };
        broker.send_body(requester, id.0, &ErrorBody::from(code), true);
    }
}

/// A request that waits for its reply. The table knows it; here its id is held.
struct Waiting;

impl Held for Waiting {
    fn kind(&self) -> Kind {
        Kind::Request
    }

    fn end(self: Box<Self>, place: &mut Place<'_>) -> Farewell {
        let (requester, id) = (place.connection.id, RequestId(place.id));
        let ended = place.broker.lock_requests().table.cancel(requester, id);
        // Otherwise it ended by itself.
        if let Some(ended) = ended {
            place
                .broker
                .topics
                .request_ended(&ended.route, place.effects);
        }
        Farewell::Cancelled
    }
}

impl From<RequestError> for ErrorBody {
    fn from(error: RequestError) -> Self {
        let text = error.to_string();
        match error {
            RequestError::Duplicate { .. } => Self::new(ErrorCode::IdInUse, text),
            RequestError::TooMany { limit } | RequestError::Full { limit } => {
                Self::new(ErrorCode::TooManyRequests, text).limit(limit)
            }
        }
    }
}
