//! Administration over the socket: listings, numbers, taps, and what takes long.

use super::broker::Broker;
use super::connection::Connection;
use super::held::{Farewell, Held, Kind, Place};
use super::kv::{error_frame, region_stats};
use super::session::Session;
use super::tap;
use crate::ids::ConnectionId;
use crate::services::chores::{Chore, News};
use crate::services::listings::{self, Page};
use crate::services::metrics::{self, Metrics};
use ganger_protocol::admin::{AdminReply, AdminRequest, BrokerStats, ClientInfo};
use ganger_protocol::{ErrorBody, ErrorCode, Frame};
use std::collections::HashMap;
use std::sync::Arc;

pub(super) fn handle(session: &mut Session, frame: &Frame) -> Result<(), ErrorBody> {
    let request: AdminRequest = frame.body()?;
    let id = frame.head.id;
    match request {
        AdminRequest::Tap { pattern } => tap::begin(session, id, &pattern),
        AdminRequest::Snapshot {} => chore(session, id, Chore::Snapshot),
        AdminRequest::Restore { name } => chore(session, id, Chore::Restore(name)),
        AdminRequest::Audit {} => chore(session, id, Chore::Audit),
        AdminRequest::Disconnect { connection } => {
            check_right(session)?;
            let found = session.broker.connection(ConnectionId(connection));
            if let Some(found) = &found {
                let why = "an administrator ended the connection";
                found.close(ErrorBody::new(ErrorCode::Cancelled, why));
            }
            let done = found.is_some();
            session.reply(id, &AdminReply::Done { done });
            Ok(())
        }
        // These look at all there is, so others need not wait for them.
        request => {
            let broker = Arc::clone(&session.broker);
            session.run_elsewhere(move || vec![listing(&broker, id, request)]);
            Ok(())
        }
    }
}

fn listing(broker: &Broker, id: u32, request: AdminRequest) -> Frame {
    let rows = broker.limits().admin_rows;
    let reply = match request {
        AdminRequest::Topics { prefix, after } => {
            let who = |connection| {
                let found = broker.connection(connection);
                found.map_or_else(Default::default, |found| {
                    (found.client.name.clone(), found.client.pid)
                })
            };
            let page = Page {
                prefix: &prefix,
                after: after.as_deref(),
                rows,
            };
            listings::topics(&broker.topics, page, &who)
        }
        AdminRequest::Leases { prefix, after } => {
            let page = Page {
                prefix: &prefix,
                after: after.as_deref(),
                rows,
            };
            listings::leases(&broker.leases.lock(), page)
        }
        AdminRequest::Clients { after } => clients(broker, after, rows),
        AdminRequest::Stats {} => AdminReply::Stats {
            stats: Box::new(stats(broker)),
        },
        AdminRequest::Metrics {} => AdminReply::Metrics {
            text: numbers(broker).to_text(),
        },
        _ => return error_frame(id, &ErrorCode::UnknownOperation.into()),
    };
    let frame = Frame::control(id, &reply);
    frame.unwrap_or_else(|_| error_frame(id, &ErrorCode::AnswerTooLong.into()))
}

fn clients(broker: &Broker, after: u64, rows: usize) -> AdminReply {
    let mut found = broker.connections();
    found.retain(|connection| connection.id.0 > after);
    let next = found.get(rows.max(1)).is_some();
    found.truncate(rows.max(1));
    let leases = broker.leases.lock().held_by();
    let now_ms = broker.now_ms();
    let row = |connection: &Arc<Connection>| client(connection, &leases, now_ms);
    AdminReply::Clients {
        clients: found.iter().map(row).collect(),
        next: found.last().filter(|_| next).map(|last| last.id.0),
    }
}

fn client(connection: &Connection, leases: &HashMap<ConnectionId, u64>, now_ms: u64) -> ClientInfo {
    let Connection {
        id,
        client,
        traffic,
        ..
    } = connection;
    ClientInfo {
        connection: id.0,
        name: client.name.clone(),
        software: client.software.clone(),
        pid: client.pid,
        uid: client.uid,
        age_ms: now_ms.saturating_sub(client.since_ms),
        region: client.has_region,
        bytes_in: traffic.bytes_in.get(),
        frames_in: traffic.frames_in.get(),
        bytes_out: traffic.bytes_out.get(),
        frames_out: traffic.frames_out.get(),
        outbox_bytes: traffic.outbox_bytes.get() + connection.inbox_bytes() as u64,
        subscriptions: traffic.held(Kind::Subscription),
        watches: traffic.held(Kind::Watch),
        leases: leases.get(id).copied().unwrap_or(0),
        pending_requests: traffic.held(Kind::Request),
        dropped: traffic.lost.get(),
    }
}

fn stats(broker: &Broker) -> BrokerStats {
    BrokerStats {
        software: super::SOFTWARE.to_owned(),
        pid: std::process::id(),
        epoch: broker.epoch,
        uptime_ms: broker.now_ms(),
        counters: numbers(broker).numbers(),
        region: region_stats(&broker.region),
    }
}

/// Every number there is.
fn numbers(broker: &Broker) -> Metrics {
    let mut out = Metrics::default();
    out.gauge(
        "uptime_seconds",
        "Seconds since the broker started.",
        broker.now_ms() / 1000,
    );
    let connections = broker.connections();
    out.gauge("connections", "Connections.", connections.len() as u64);
    let waiting = |connection: &Arc<Connection>| {
        connection.traffic.outbox_bytes.get() + connection.inbox_bytes() as u64
    };
    out.gauge(
        "outbox_bytes",
        "Bytes that wait to be written to clients.",
        connections.iter().map(waiting).sum(),
    );
    for (name, help, value) in broker.counters.all() {
        out.counter(name, help, value);
    }
    metrics::add_topics(&mut out, &broker.topics);
    let requests = broker.lock_requests();
    let (waiting, totals) = (requests.table().len(), requests.table().totals());
    drop(requests);
    metrics::add_requests(&mut out, waiting, &totals);
    metrics::add_watches(&mut out, &broker.watches);
    metrics::add_leases(&mut out, &broker.leases.lock());
    metrics::add_taps(&mut out, &broker.taps.totals());
    metrics::add_chores(&mut out, &broker.chores.totals());
    metrics::add_region(&mut out, &broker.region.stats());
    out
}

/// Has something done that takes long. Its answers come through the connection.
fn chore(session: &mut Session, id: u32, chore: Chore) -> Result<(), ErrorBody> {
    check_right(session)?;
    let broker = Arc::downgrade(&session.broker);
    let to = session.connection.id;
    let hear = move |news| {
        let Some(broker) = broker.upgrade() else {
            return;
        };
        match news {
            News::Progress(progress) => broker.send_body(to, id, &progress, false),
            News::Done(reply) => broker.send_body(to, id, &reply, true),
            News::Failed(error) => {
                broker.counters.requests_failed.count();
                broker.send_body(to, id, &error, true);
            }
        }
    };
    session.broker.chores.request(chore, Box::new(hear))?;
    session.hold(id, Box::new(Awaited));
    Ok(())
}

/// Members of an allowed group may look, and not do things that concern all.
fn check_right(session: &Session) -> Result<(), ErrorBody> {
    let uid = session.connection.client.uid;
    if uid == 0 || uid == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let why = "only the broker's own user and root may do this";
    Err(ErrorBody::new(ErrorCode::NotAllowed, why))
}

/// A chore that somebody waits for. It goes on if nobody does any more.
struct Awaited;

impl Held for Awaited {
    fn kind(&self) -> Kind {
        Kind::Request
    }

    fn end(self: Box<Self>, _: &mut Place<'_>) -> Farewell {
        Farewell::Cancelled
    }
}
