//! What a connection holds under an id of its client's choice: subscriptions, requests that wait,
//! watches, leases, taps. The session knows them by this trait alone.

use super::broker::Broker;
use super::connection::Connection;
use super::outbox::Outbox;
use crate::topics::channel::Batch;
use crate::topics::Effects;
use ganger_protocol::ErrorBody;
use std::sync::Arc;

/// Where something that is held does its work.
pub struct Place<'s> {
    /// The broker.
    pub broker: &'s Arc<Broker>,
    /// The connection that holds it.
    pub connection: &'s Arc<Connection>,
    /// Under which id.
    pub id: u32,
    /// What goes to the client.
    pub out: &'s mut Outbox,
    /// What follows for others.
    pub effects: &'s mut Effects,
}

/// How a drain ended.
#[derive(Debug)]
pub enum Drained {
    /// Nothing is left: [`Connection::wake`] is called when there is more.
    Idle,
    /// There is more.
    More,
    /// It is over; the client is told why by `Ended`.
    Ended(ErrorBody),
}

/// How a client that cancelled is told that something is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// By `Ended`: it went on until now.
    Ended,
    /// By an error, `cancelled`: it had no answer yet.
    Cancelled,
}

/// What something that is held counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A subscription, queue groups and responders included.
    Subscription,
    /// A watch.
    Watch,
    /// A lease that is held, waited for or observed.
    Lease,
    /// A request whose answer has not come.
    Request,
    /// A tap.
    Tap,
}

/// Something that a connection holds under an id.
pub trait Held: Send {
    /// What it counts as.
    fn kind(&self) -> Kind;

    /// Puts what is next into the outbox, about as much as the batch says.
    fn drain(&mut self, place: &mut Place<'_>, batch: Batch) -> Drained {
        let _ = (place, batch);
        Drained::Idle
    }

    /// The client is done with a message, or (`up_to`) with all until that one; of a watch, with so
    /// many frames more.
    fn ack(&mut self, place: &mut Place<'_>, seq: u64, up_to: bool) {
        let _ = (place, seq, up_to);
    }

    /// It ends: the client cancelled it, or it ended by itself, or the connection ends. Nothing is
    /// to be sent to this connection.
    fn end(self: Box<Self>, place: &mut Place<'_>) -> Farewell;
}
