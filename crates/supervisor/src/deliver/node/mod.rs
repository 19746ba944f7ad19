//! The supervisor as the primary of node:cluster.
//!
//! Node started with `NODE_CHANNEL_FD` and `NODE_UNIQUE_ID` is a cluster worker: `server.listen()`
//! sends `queryServer` through the channel, and the answer is a listener of the worker's slot. The
//! application's code is as it was: `cluster.isWorker` is true, `process.send` reaches the
//! supervisor, `process.on('message')` hears it, and `disconnect` drains. Messages are lines of
//! JSON; a descriptor rides on the line of a `NODE_HANDLE` message and is acknowledged ([`channel`]).

use super::{Context, DeliverError, DeliverEvent, Prepared, FIRST_FD};
use crate::listen::listened_by;
use channel::Channel;
use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};
use rustix::process::Pid;
use serde_json::{json, Value};
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

mod channel;
mod query;

/// How often it is looked whether a worker listens by itself, until it listens at all.
const LOOK: Duration = Duration::from_millis(500);
/// Where Node's inspector listens, which is no service.
const INSPECTOR_PORT: u16 = 9229;
/// The message that starts a polite drain, where the preload is there to understand it.
const DRAIN: &str = "drain";
/// What the preload says when it is there.
const PRELOADED: &str = "preloaded";

/// What a delivery asks of its channel.
#[derive(Debug)]
pub(super) enum Order {
    Drain,
    Send(Value),
}

/// A worker of the cluster.
struct Worker {
    context: Context,
    channel: Channel,
    events: mpsc::UnboundedSender<DeliverEvent>,
    queries: query::Queries,
    is_preloaded: bool,
    is_draining: bool,
    has_listened: bool,
    pid: Pid,
}

pub(super) fn prepare(prepared: &mut Prepared) -> Result<(), DeliverError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (own, given) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(DeliverError::system)?;
    prepared.channel = Some(own);
    prepared.fds.push((given, FIRST_FD));
    for (name, value) in [
        ("NODE_CHANNEL_FD", FIRST_FD.to_string()),
        ("NODE_CHANNEL_SERIALIZATION_MODE", "json".to_owned()),
        ("NODE_UNIQUE_ID", prepared.context.unique_id.to_string()),
    ] {
        prepared.env.push((name.into(), value.into()));
    }
    if prepared.context.has_preload {
        // Tells the preload that this process's channel is ours; its children's are not.
        prepared.env.push(("GANGER_CHANNEL".into(), "1".into()));
    }
    Ok(())
}

/// Answers the worker of the process `pid` until it closes its channel.
pub(super) async fn serve(
    channel: OwnedFd,
    pid: Pid,
    context: Context,
    mut orders: mpsc::UnboundedReceiver<Order>,
    events: mpsc::UnboundedSender<DeliverEvent>,
) {
    if let Ok(channel) = Channel::new(channel) {
        let mut worker = Worker {
            context,
            channel,
            events: events.clone(),
            queries: query::Queries::default(),
            is_preloaded: false,
            is_draining: false,
            has_listened: false,
            pid,
        };
        worker.run(&mut orders).await;
    }
    let _ = events.send(DeliverEvent::Disconnected);
}

impl Worker {
    async fn run(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>) {
        let mut looks = tokio::time::interval_at(Instant::now() + LOOK, LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = self.channel.next() => match message {
                    Ok(message) => self.hear(message),
                    Err(_) => return,
                },
                order = orders.recv() => match order {
                    Some(Order::Drain) => self.drain(),
                    Some(Order::Send(message)) => self.channel.push_message(&message),
                    None => return,
                },
                _ = looks.tick(), if !self.has_listened => self.look(),
            }
        }
    }

    /// Sees whether the process has listened without asking: with `exclusive` or `reusePort`. When it
    /// listens on what it asked for, it will say so.
    fn look(&mut self) {
        if self.queries.are_open() {
            return;
        }
        let mut found = listened_by(self.pid.as_raw_nonzero().get());
        found.retain(|address| {
            address
                .socket()
                .is_none_or(|ip| ip.port() != INSPECTOR_PORT)
        });
        for address in found {
            self.has_listened = true;
            self.tell(DeliverEvent::Listening(address));
        }
    }

    fn hear(&mut self, message: Value) {
        match message.get("cmd").and_then(Value::as_str) {
            Some("NODE_CLUSTER") => self.hear_cluster(&message),
            Some("NODE_HANDLE_ACK") => self.channel.acknowledged(),
            Some("NODE_HANDLE_NACK") => self.channel.refused(),
            // A handle that the program sent came with this and is closed already; without an
            // answer the program would send nothing more.
            Some("NODE_HANDLE") => {
                self.channel.push(&json!({"cmd": "NODE_HANDLE_ACK"}));
                if let Some(inner) = message.get("msg").filter(|inner| !is_internal(inner)) {
                    self.tell(DeliverEvent::Message(inner.clone()));
                }
            }
            Some("NODE_GANGER") => {
                self.is_preloaded |= message["act"] == PRELOADED;
            }
            Some(command) if command.starts_with("NODE_") && command.len() > 5 => {}
            _ => self.tell(match message.as_str() {
                Some("ready") => DeliverEvent::Ready,
                Some("heartbeat") => DeliverEvent::Heartbeat,
                _ => DeliverEvent::Message(message),
            }),
        }
    }

    fn hear_cluster(&mut self, message: &Value) {
        match message["act"].as_str() {
            Some("online") => self.tell(DeliverEvent::Online),
            Some("queryServer") if !self.is_draining => self.answer(message),
            Some("listening") => {
                self.has_listened = true;
                if let Some(address) = self.queries.listening(message) {
                    self.tell(DeliverEvent::Listening(address));
                }
            }
            Some("close") => self.closed(message),
            // The program disconnects by itself, and waits for this before it does.
            Some("exitedAfterDisconnect") => {
                self.channel
                    .push(&json!({"cmd": "NODE_CLUSTER", "ack": message["seq"]}));
            }
            _ => {}
        }
    }

    fn answer(&mut self, message: &Value) {
        let answer = self.queries.answer(message, &self.context);
        if let query::Answer::Failed { address, error, .. } = &answer {
            self.tell(DeliverEvent::BindFailed {
                address: address.clone(),
                error: error.clone(),
            });
        }
        match answer {
            query::Answer::Handle { kind, message, fd } => {
                self.channel.push_handle(kind, &message, fd);
            }
            query::Answer::Failed { message, .. } => self.channel.push(&message),
        }
    }

    fn closed(&mut self, message: &Value) {
        let address = self.queries.close(&message["key"]);
        // In a drain all close; the slot's successor is there already.
        if let Some(address) = address.filter(|_| !self.is_draining) {
            self.context
                .listeners()
                .release(&address, self.context.slot);
        }
    }

    fn drain(&mut self) {
        if self.is_draining {
            return;
        }
        self.is_draining = true;
        self.channel.push(&if self.is_preloaded {
            json!({"cmd": "NODE_GANGER", "act": DRAIN})
        } else {
            json!({"cmd": "NODE_CLUSTER", "act": "disconnect", "seq": 0})
        });
    }

    fn tell(&self, event: DeliverEvent) {
        // Nobody who listens is nobody who minds.
        let _ = self.events.send(event);
    }
}

/// Whether a message is for Node's own code.
fn is_internal(message: &Value) -> bool {
    let command = message.get("cmd").and_then(Value::as_str);
    command.is_some_and(|command| command.starts_with("NODE_") && command.len() > 5)
}
