//! How an unmodified program gets its slot's listener.
//!
//! # The ladder
//!
//! 1. `node`: the supervisor is the primary of `node:cluster`; `server.listen()` in plain code
//!    asks it for a listener.
//! 2. `seccomp`: the kernel asks the supervisor when the program, or anything it starts, calls
//!    `bind`; the supervisor puts its own listener in the place of the program's socket.
//! 3. `listen_fds`: listeners of addresses told beforehand are inherited (`LISTEN_FDS`). Taken
//!    when it is asked for, by option or by the command line, or where the system forbids the
//!    second.
//!
//! Where none is left the program listens by itself, and several workers can't share a port.
//!
//! [`choose`] says which rung and why not those before it; [`prepare`] makes what the process must
//! be spawned with; [`Prepared::attach`] serves the process until the [`Delivery`] is dropped.

use crate::listen::{Address, Listeners, Slot};
use crate::spawn::Spawned;
use std::ffi::OsString;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

mod choose;
mod listen_fds;
mod node;
mod preload;
mod seccomp;

pub use choose::{choose, DeliverError, Rung};
pub(crate) use seccomp::filter;

/// The lowest number of a descriptor that a process is given here; they follow one another.
pub const FIRST_FD: RawFd = 3;

/// What a process's delivery needs to know.
#[derive(Debug, Clone)]
pub struct Context {
    /// The app's listeners.
    pub listeners: Arc<Mutex<Listeners>>,
    /// The process's slot.
    pub slot: Slot,
    /// Its worker index.
    pub worker: u16,
    /// What tells it from all other processes of the app, ever: more than 0. Node's `worker.id`.
    pub unique_id: u64,
    /// Whether Node gets the preload for polite drains.
    pub has_preload: bool,
    /// The home directory, where the preload is kept.
    pub home: PathBuf,
    /// The addresses told beforehand. Where there are any, the program's other ones are its own.
    pub managed: Vec<Address>,
}

/// What a process must be spawned with: its variables, its descriptors under numbers from
/// [`FIRST_FD`], and whether it needs the filter of system calls.
#[derive(Debug)]
pub struct Prepared {
    /// Variables.
    pub env: Vec<(OsString, OsString)>,
    /// Descriptors and their numbers.
    pub fds: Vec<(OwnedFd, RawFd)>,
    /// Whether `bind` is asked of the supervisor.
    pub has_seccomp: bool,
    rung: Rung,
    context: Context,
    channel: Option<OwnedFd>,
}

/// What a process said or did.
#[derive(Debug, Clone, PartialEq)]
pub enum DeliverEvent {
    /// Its runtime is up.
    Online,
    /// It listens.
    Listening(Address),
    /// It says that it is ready.
    Ready,
    /// It says that it is alive.
    Heartbeat,
    /// It sent a message.
    Message(serde_json::Value),
    /// It can't listen.
    BindFailed {
        /// What on.
        address: String,
        /// Why.
        error: String,
    },
    /// It closed its channel: it has drained, or it is about to end.
    Disconnected,
}

/// A process being served. Dropping it ends that; the process would find its channel closed.
#[derive(Debug)]
pub struct Delivery {
    task: Option<JoinHandle<()>>,
    channel: Option<mpsc::UnboundedSender<node::Order>>,
    drainable: Option<seccomp::Drainable>,
}

/// Prepares a rung for a process to be.
///
/// # Errors
///
/// An address that can't be listened on, a preload that can't be written, no descriptors left.
pub fn prepare(rung: Rung, context: Context) -> Result<Prepared, DeliverError> {
    let mut prepared = Prepared {
        env: Vec::new(),
        fds: Vec::new(),
        has_seccomp: rung == Rung::Seccomp,
        rung,
        context,
        channel: None,
    };
    match rung {
        Rung::Node => node::prepare(&mut prepared)?,
        Rung::ListenFds => listen_fds::prepare(&mut prepared)?,
        Rung::Seccomp | Rung::None => {}
    }
    Ok(prepared)
}

impl Prepared {
    /// The variable that loads the preload into Node, if the app wants it: to be added to a process
    /// whose own `NODE_OPTIONS` are these.
    ///
    /// # Errors
    ///
    /// The preload can't be written.
    pub fn node_options(&self, own: Option<&str>) -> Result<Option<OsString>, DeliverError> {
        let takes = matches!(self.rung, Rung::Node | Rung::Seccomp);
        if !takes || !self.context.has_preload {
            return Ok(None);
        }
        preload::options(&self.context.home, own).map(Some)
    }

    /// Serves the process from here on, in a task of the current tokio runtime.
    pub fn attach(
        self,
        spawned: &mut Spawned,
        events: mpsc::UnboundedSender<DeliverEvent>,
    ) -> Delivery {
        let mut delivery = Delivery {
            task: None,
            channel: None,
            drainable: None,
        };
        match (self.rung, self.channel, spawned.seccomp.take()) {
            (Rung::Node, Some(channel), _) => {
                let (orders, taken) = mpsc::unbounded_channel();
                let served = node::serve(channel, spawned.pid, self.context, taken, events);
                delivery.task = Some(tokio::spawn(served));
                delivery.channel = Some(orders);
            }
            (Rung::Seccomp, _, Some(listener)) => {
                let drainable = seccomp::Drainable::new(self.context.has_preload);
                let served = seccomp::serve(listener, self.context, drainable.clone(), events);
                delivery.task = Some(tokio::spawn(served));
                delivery.drainable = Some(drainable);
            }
            (Rung::ListenFds, ..) => listen_fds::attach(&self.context, &events),
            _ => {}
        }
        delivery
    }
}

impl Delivery {
    /// Asks for a drain: to take nothing new, to end what is there politely, then to end. False if
    /// there is no way but the stop signal.
    pub fn drain(&self) -> bool {
        if let Some(channel) = &self.channel {
            return channel.send(node::Order::Drain).is_ok();
        }
        self.drainable
            .as_ref()
            .is_some_and(seccomp::Drainable::drain)
    }

    /// Sends a message to the process (`process.on('message')`). False if it can't get any.
    pub fn send(&self, message: &serde_json::Value) -> bool {
        let channel = self.channel.as_ref();
        channel.is_some_and(|channel| channel.send(node::Order::Send(message.clone())).is_ok())
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Context {
    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        // The listeners are consistent after each call, so a panic elsewhere spoils nothing.
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
