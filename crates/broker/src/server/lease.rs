//! Leases over the socket.
//!
//! Every lease request holds its id until its last answer, and all answers, those to the asker's
//! own connection included, go through its [`Connection`](super::connection::Connection) while the
//! table is locked: so everybody hears of things in the order in which they happened.

use super::broker::Broker;
use super::held::{Farewell, Held, Kind, Place};
use super::session::Session;
use crate::ids::{ConnectionId, RequestId};
use crate::leases::Asker;
use crate::services::leases::{Caller, LeaseService, Tell, Told, WasLease};
use ganger_protocol::lease::LeaseRequest;
use ganger_protocol::{ErrorBody, Frame, Limits};
use ganger_region::{BootClock, Clock, Region};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// All leases. Their times are of the region's clock, which goes on when the broker is started
/// anew.
#[derive(Debug)]
pub struct Leasing {
    service: Mutex<LeaseService>,
}

impl Leasing {
    /// The leases of a region; `wall_us` is the time of day.
    pub(super) fn new(region: Region, limits: &Limits, wall_us: u64) -> Self {
        let service = LeaseService::new(region, limits, BootClock.now_ms(), wall_us);
        Self {
            service: Mutex::new(service),
        }
    }

    /// The table, to look at.
    pub(super) fn lock(&self) -> MutexGuard<'_, LeaseService> {
        // It is never left halfway.
        self.service.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls the table, and passes on what is to be told.
fn call<R>(broker: &Broker, act: impl FnOnce(&mut LeaseService, u64, &mut Vec<Tell>) -> R) -> R {
    let mut out = Vec::new();
    let mut service = broker.leases.lock();
    let now_ms = BootClock.now_ms();
    let outcome = act(&mut service, now_ms, &mut out);
    for Tell { to, what, ends } in out {
        let (connection, id) = (to.connection, to.request.0);
        match what {
            Told::Event(event) => broker.send_body(connection, id, &event, ends),
            Told::Error(error) => {
                broker.counters.requests_failed.count();
                broker.send_body(connection, id, &error, ends);
            }
        }
    }
    outcome
}

/// Calls the table, and sees that the timer knows of new deadlines.
fn call_and_arm<R>(
    broker: &Broker,
    act: impl FnOnce(&mut LeaseService, u64, &mut Vec<Tell>) -> R,
) -> R {
    let (outcome, due_ms) = call(broker, |service, now_ms, out| {
        let outcome = act(service, now_ms, out);
        let due_ms = service.next_deadline();
        (outcome, due_ms.map(|due| on_our_clock(broker, now_ms, due)))
    });
    if let Some(due_ms) = due_ms {
        broker.timer.arm(due_ms);
    }
    outcome
}

/// A time of the region's clock, on the broker's.
fn on_our_clock(broker: &Broker, now_ms: u64, at_ms: u64) -> u64 {
    broker.now_ms().saturating_add(at_ms.saturating_sub(now_ms))
}

pub(super) fn handle(session: &mut Session, frame: &Frame) -> Result<(), ErrorBody> {
    let request: LeaseRequest = frame.body()?;
    let id = frame.head.id;
    let connection = &session.connection;
    let caller = Caller {
        connection: connection.id,
        name: connection.client.name.clone(),
        pid: connection.client.pid,
    };
    let kind = match &request {
        LeaseRequest::Acquire(_) | LeaseRequest::Observe { .. } => Kind::Lease,
        _ => Kind::Request,
    };
    session.hold(id, Box::new(Leased(kind)));
    call_and_arm(&session.broker, |service, now_ms, out| {
        service.request(&caller, id, request, now_ms, out);
    });
    Ok(())
}

/// Releases everything of a connection that ended. What is told to itself is told to nobody.
pub(super) fn connection_ended(broker: &Broker, connection: ConnectionId) {
    call_and_arm(broker, |service, now_ms, out| {
        service.connection_ended(connection, now_ms, out);
    });
}

/// Ends what is due, and returns when something is due next.
pub(super) fn expire(broker: &Broker) -> Option<u64> {
    call(broker, |service, now_ms, out| {
        service.expire(now_ms, out);
        let due_ms = service.next_deadline()?;
        Some(on_our_clock(broker, now_ms, due_ms))
    })
}

/// A request about a lease: it waits, is held, observes, or its answer is on its way.
struct Leased(Kind);

impl Held for Leased {
    fn kind(&self) -> Kind {
        self.0
    }

    fn end(self: Box<Self>, place: &mut Place<'_>) -> Farewell {
        let asker = Asker {
            connection: place.connection.id,
            request: RequestId(place.id),
        };
        let was = call_and_arm(place.broker, |service, now_ms, out| {
            service.cancel(asker, now_ms, out)
        });
        match was {
            WasLease::Going => Farewell::Ended,
            WasLease::Waiting | WasLease::Nothing => Farewell::Cancelled,
        }
    }
}
