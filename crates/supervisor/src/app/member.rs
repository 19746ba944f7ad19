//! One worker of an app: its machine, its process while it has one, and what is known of it.

use super::process::Process;
use crate::config::{AppConfig, Command};
use crate::listen::{is_for_any, Address, Slot};
use crate::ready::{Asked, Gate};
use crate::report::Exit;
use crate::worker::Worker;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Names a worker of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Its number, from 0.
    pub(crate) index: u16,
    /// The generation it is of.
    pub(crate) generation: u64,
}

/// A worker of an app.
pub(crate) struct Member {
    /// Where it is in its life.
    pub(crate) machine: Worker,
    /// Where its connections wait.
    pub(crate) slot: Slot,
    /// What it runs: of its generation, whatever the app runs by now.
    pub(crate) command: Arc<Command>,
    /// Whether it is ready.
    pub(crate) gate: Gate,
    /// Where it must listen to be ready.
    pub(crate) required: BTreeSet<String>,
    /// Where it was seen to listen, by any of its processes.
    pub(crate) addresses: BTreeSet<String>,
    /// Its process.
    pub(crate) process: Option<Process>,
    /// The number of its present or last process.
    pub(crate) last_pid: Option<i32>,
    /// What it is meant to get of new connections, relative to others.
    pub(crate) share: u32,
    /// How its last process ended.
    pub(crate) last_exit: Option<Exit>,
    /// Why its present or last process could not have an address.
    pub(crate) bind_error: Option<String>,
}

impl Member {
    /// A worker that was not started yet.
    pub(crate) fn new(config: &AppConfig, plan: Plan, now_ms: u64) -> Self {
        let (stop, restart) = (config.stop.clone(), config.restart.clone());
        Self {
            machine: Worker::new(stop, restart, plan.is_on_trial, now_ms),
            slot: plan.slot,
            command: plan.command,
            gate: Gate::new(Asked::default(), now_ms),
            required: plan.required,
            addresses: BTreeSet::new(),
            process: None,
            last_pid: None,
            share: plan.share,
            last_exit: None,
            bind_error: None,
        }
    }

    /// Where others can listen in its place: not where it has a listener of its own on a port that the
    /// system chose, since nobody else would get that port.
    pub(crate) fn lasting_addresses(&self, shared: &[Address]) -> BTreeSet<String> {
        let lasts = |text: &&String| {
            let port = match text.parse::<Address>() {
                Ok(address) if !shared.contains(&address) => address.socket().map(|ip| ip.port()),
                _ => None,
            };
            !port.is_some_and(is_for_any)
        };
        self.addresses.iter().filter(lasts).cloned().collect()
    }

    /// What is wrong with it, in full.
    pub(crate) fn explain(&self, why: &str) -> String {
        match &self.bind_error {
            Some(error) => format!("{why} ({error})"),
            None => why.to_owned(),
        }
    }
}

/// What a worker is to be.
pub(crate) struct Plan {
    /// Where its connections wait.
    pub(crate) slot: Slot,
    /// What it runs.
    pub(crate) command: Arc<Command>,
    /// Where it must listen.
    pub(crate) required: BTreeSet<String>,
    /// Whether its first crash is its last.
    pub(crate) is_on_trial: bool,
    /// What it gets of new connections.
    pub(crate) share: u32,
}
