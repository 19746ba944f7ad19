//! The state that all connections share.

use super::connection::{Connection, Parcel};
use super::counters::Counters;
use super::request::OpenRequests;
use super::timer::Timer;
use super::{janitor, lease, request};
use crate::ids::{ConnectionId, Subscriber};
use crate::read_memory::ReadMemory;
use crate::services::chores::{Chores, SnapshotPlan};
use crate::services::taps::Taps;
use crate::services::watch::{Wake, Watches};
use crate::topics::group::Assignment;
use crate::topics::{Effects, Topics};
use dashmap::DashMap;
use ganger_protocol::{Flags, Frame, Head, Limits, Op};
use ganger_region::Region;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Epochs of channels are so much greater than that of the run, and still below 2^53.
pub(super) const CHANNEL_EPOCHS: u64 = 1 << 52;

/// So many connections are served within a turn of another one; the rest have turns of their own, and
/// whoever has something to say meanwhile comes between.
const AT_ONCE: usize = 16;

/// How a broker is to run.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// What it allows.
    pub limits: Limits,
    /// Members of this group may connect too.
    pub allow_group: Option<u32>,
    /// Patterns whose channels are kept without subscribers.
    pub keep: Vec<ganger_protocol::Pattern>,
    /// Where snapshots go, and when.
    pub snapshots: SnapshotPlan,
    /// How long a stop may take at most, in milliseconds.
    pub stop_ms: u64,
}

type Connections = DashMap<ConnectionId, Arc<Connection>>;

/// A broker: everything that its connections share.
#[derive(Debug)]
pub struct Broker {
    /// How it runs.
    pub config: Config,
    /// The region it serves.
    pub region: Region,
    /// Who gets which message.
    pub topics: Topics,
    /// This run.
    pub epoch: u64,
    /// What happened.
    pub counters: Counters,
    /// For deadlines.
    pub timer: Timer,
    /// Requests that wait for replies.
    pub(super) requests: Mutex<OpenRequests>,
    /// What the region needs now and then.
    pub(super) janitor: janitor::Janitor,
    /// Watches.
    pub watches: Watches,
    /// Leases.
    pub leases: lease::Leasing,
    /// Taps.
    pub taps: Taps,
    /// Snapshots and audits.
    pub chores: Chores,
    /// What connections read into.
    pub(super) read_memory: Arc<ReadMemory>,
    connections: Arc<Connections>,
    last_connection: AtomicU64,
    is_draining: AtomicBool,
    started: Instant,
}

impl Broker {
    /// A broker for this region, without connections. Fails if the system has no thread for it.
    pub fn new(config: Config, region: Region) -> io::Result<Self> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        // Microseconds: below 2^53 for centuries, and another number after any restart.
        let micros = since_epoch.map_or(1, |since| since.as_micros());
        let epoch = u64::try_from(micros).unwrap_or(1);
        let requests = OpenRequests::new(&config.limits);
        let connections = Arc::<Connections>::default();
        let watches = Watches::new(region.clone(), epoch, &config.limits, wake(&connections));
        let leases = lease::Leasing::new(region.clone(), &config.limits, epoch);
        let chores = Chores::start(region.clone(), config.snapshots.clone())?;
        let broker = Self {
            read_memory: Arc::default(),
            topics: Topics::new((&config.limits).into(), epoch + CHANNEL_EPOCHS),
            epoch,
            counters: Counters::default(),
            timer: Timer::new(),
            requests: Mutex::new(requests),
            janitor: janitor::Janitor::default(),
            watches,
            leases,
            taps: Taps::new(wake(&connections)),
            chores,
            connections,
            last_connection: AtomicU64::new(0),
            is_draining: AtomicBool::new(false),
            started: Instant::now(),
            config,
            region,
        };
        for pattern in &broker.config.keep {
            // Nobody is there yet for whom anything could follow from it, and the limit is told by
            // the listing that lacks the pattern.
            let _ = broker.topics.keep(pattern, &mut Effects::default());
        }
        Ok(broker)
    }

    /// What it allows.
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// Milliseconds since it started.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether it is about to stop, and begins nothing new.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// A connection that is there.
    pub fn connection(&self, id: ConnectionId) -> Option<Arc<Connection>> {
        self.connections.get(&id).map(|found| Arc::clone(&found))
    }

    /// All connections, by their numbers.
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        let all = self.connections.iter().map(|found| Arc::clone(&found));
        let mut all: Vec<_> = all.collect();
        all.sort_unstable_by_key(|connection| connection.id);
        all
    }

    /// Connections that were greeted and not yet ended.
    pub fn connections_len(&self) -> usize {
        self.connections.len()
    }

    /// Sends a frame to a connection, if it is there. `ends` frees the frame's id.
    pub fn send(&self, to: ConnectionId, frame: Frame, ends: bool) {
        if let Some(connection) = self.connections.get(&to) {
            connection.send(Parcel { frame, ends }, self.inbox_limit());
        }
    }

    /// Sends a control message to a connection, if it is there. `ends` frees the id.
    pub fn send_body<B: ganger_protocol::Body>(
        &self,
        to: ConnectionId,
        id: u32,
        body: &B,
        ends: bool,
    ) {
        if let Some(connection) = self.connections.get(&to) {
            connection.send_body(id, body, ends, self.inbox_limit());
        }
    }

    /// Has a stream of a connection drained.
    pub fn wake(&self, who: Subscriber) {
        if let Some(connection) = self.connections.get(&who.connection) {
            connection.wake(who.subscription.0);
        }
    }

    /// Does what follows from an operation for others. The first of those for whom there are messages
    /// get them written at once.
    pub fn act(&self, effects: &mut Effects) {
        for who in effects.wake.drain(..AT_ONCE.min(effects.wake.len())) {
            if let Some(connection) = self.connection(who.connection) {
                connection.serve(who.subscription.0);
            }
        }
        self.leave_to_tasks(effects);
    }

    /// The same, all of it by the tasks of the others.
    pub(super) fn leave_to_tasks(&self, effects: &mut Effects) {
        for who in effects.wake.drain(..).chain(effects.overrun.drain(..)) {
            self.wake(who);
        }
        for publisher in effects.resume.drain(..) {
            if let Some(connection) = self.connections.get(&publisher) {
                connection.resume();
            }
        }
        for assignment in effects.assignments.drain(..) {
            self.assign(&assignment);
        }
    }

    /// Sends a message of a queue group to its member.
    fn assign(&self, assignment: &Assignment) {
        let Assignment {
            to,
            delivery,
            message,
            ..
        } = assignment;
        let count = u8::try_from(assignment.redeliveries).unwrap_or(u8::MAX);
        let flags = Flags(message.flags().0 & Flags::BY_REFERENCE.0).with_redeliveries(count);
        let head = Head::new(Op::Message, to.subscription.0)
            .flags(flags)
            .seq(*delivery);
        self.counters.messages_delivered.count();
        self.send(
            to.connection,
            Frame::new(head, message.tail().clone()),
            false,
        );
    }

    /// What others may leave for a connection: as much as the backlog of a queue group.
    fn inbox_limit(&self) -> usize {
        self.limits().ring_bytes
    }

    /// Does what is due, and returns when something is due next.
    pub(super) fn expire(self: &Arc<Self>, now_ms: u64) -> u64 {
        let mut next = u64::MAX;
        let mut due = |at_ms: Option<u64>| next = next.min(at_ms.unwrap_or(u64::MAX));
        self.topics.expire(now_ms);
        due(self.topics.next_deadline());
        due(request::expire(self, now_ms));
        due(lease::expire(self));
        due(janitor::expire(self, now_ms));
        next
    }

    pub(super) fn next_connection_id(&self) -> ConnectionId {
        ConnectionId(self.last_connection.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(super) fn enter(&self, connection: &Arc<Connection>) {
        self.connections
            .insert(connection.id, Arc::clone(connection));
        if self.is_draining() {
            connection.drain();
        }
    }

    pub(super) fn leave(&self, id: ConnectionId) {
        self.connections.remove(&id);
        self.counters.connections_ended.count();
    }

    /// Begins nothing new from here on, and tells all clients so.
    pub(super) fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
        for connection in self.connections() {
            connection.drain();
        }
    }
}

/// Has streams drained, from threads that know nothing of the broker.
fn wake(connections: &Arc<Connections>) -> Wake {
    let connections = Arc::clone(connections);
    Box::new(move |all| {
        for who in all {
            if let Some(connection) = connections.get(&who.connection) {
                connection.wake(who.subscription.0);
            }
        }
    })
}
