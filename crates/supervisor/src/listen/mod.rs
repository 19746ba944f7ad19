//! The listeners of an app: owned here for ever, never closed while the app lives.
//!
//! # Theory of operation
//!
//! Each address of an app is a `group` of sockets, one for each *slot*: a worker index has two,
//! side A and side B, so that a new generation's worker can stand ready beside the old one. The
//! kernel keeps them in one `SO_REUSEPORT` group and asks a small program (`program`) which
//! socket a new connection goes to; replacing that program is one atomic system call. A socket's
//! index in the kernel's group is the order of joining, and a socket that leaves moves the last one
//! into its place, which is why none is ever closed before the app ends. A worker gets duplicates;
//! when it dies, its queue waits here for the next one of the slot.
//!
//! With [`Balance::Shared`] the slots of a side share one socket. Unix sockets know no
//! `SO_REUSEPORT`: one socket serves all slots.

use crate::config::Balance;
use group::Group;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

mod address;
mod error;
mod group;
mod holder;
mod pace;
mod program;
mod socket;
mod steer;
mod unix;

pub use address::{Address, AddressError};
pub use error::ListenError;
pub use holder::listened_by;
pub(crate) use holder::{inode_of_link, is_for_any};

/// Which of a worker index's two queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// One generation.
    A,
    /// The other.
    B,
}

/// A worker index's queue of one side, on all addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// The worker index.
    pub worker: u16,
    /// The side.
    pub side: Side,
}

/// All listeners of one app.
#[derive(Debug)]
pub struct Listeners {
    app: String,
    balance: Balance,
    workers: u16,
    groups: Vec<Group>,
    weights: BTreeMap<Slot, u32>,
    /// What a program wants its workers to have in common for an address: the ticket keys of TLS.
    pub(crate) data: BTreeMap<String, serde_json::Value>,
}

impl Side {
    /// The side that is not this one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl Listeners {
    /// None yet, for an app of so many workers.
    #[must_use]
    pub fn new(app: &str, balance: Balance, workers: u16) -> Self {
        Self {
            app: app.to_owned(),
            balance,
            workers,
            groups: Vec::new(),
            weights: BTreeMap::new(),
            data: BTreeMap::new(),
        }
    }

    /// Opens an address beforehand; connections wait in the queues from now on. Gives the address
    /// with its real port.
    ///
    /// # Errors
    ///
    /// Why it can't be listened on, and who holds it.
    pub fn declare(&mut self, address: &Address) -> Result<Address, ListenError> {
        if let Some(group) = self.groups.iter().find(|group| group.address == *address) {
            return Ok(group.address.clone());
        }
        let overlaps = |group: &&Group| group.address.overlaps(address);
        if let Some(busy) = self.groups.iter().find(overlaps) {
            return Err(busy.held(address));
        }
        let nth = self
            .groups
            .iter()
            .filter(|group| group.wanted == *address)
            .count();
        let at = self.group(address, u32::try_from(nth).unwrap_or(u32::MAX), 0)?;
        let group = &mut self.groups[at];
        group.is_declared = true;
        for worker in 0..self.workers {
            group.open(Slot {
                worker,
                side: Side::A,
            })?;
        }
        group.route(&self.weights)?;
        Ok(group.address.clone())
    }

    /// A duplicate of the slot's socket for this address, opened if it is new, and the address with
    /// its real port. `nth` tells several requests for any free port apart (0 for the first).
    ///
    /// # Errors
    ///
    /// Why it can't be listened on, and who holds it.
    pub fn socket(
        &mut self,
        wanted: &Address,
        nth: u32,
        backlog: u32,
        slot: Slot,
    ) -> Result<(OwnedFd, Address), ListenError> {
        let nth = if wanted.is_ephemeral() { nth } else { 0 };
        let known = self.groups.len();
        let at = self.group(wanted, nth, backlog)?;
        let result = self.groups[at].take(slot, backlog, &self.weights);
        if result.is_err() && at == known {
            self.groups.truncate(known);
        }
        result
    }

    /// Says that the process of a slot closed its listener while it lives on: connections go to
    /// those slots that have one. A port that the system chose is given back when all closed it.
    pub fn release(&mut self, address: &Address, slot: Slot) {
        let Some(at) = self
            .groups
            .iter()
            .position(|group| group.address == *address)
        else {
            return;
        };
        let group = &mut self.groups[at];
        if group.release(slot) && group.wanted.is_ephemeral() && !group.is_declared {
            self.groups.remove(at);
        } else {
            // The old program stays in force if the system refuses the new one.
            let _ = group.route(&self.weights);
        }
    }

    /// Gives new connections to slots by weight (0 or absent: none), on all addresses; each
    /// switches atomically, at once unless there were very many switches in the last moments: then
    /// [`Self::settle`] is to be called until it says so. Of an address that only some slots serve,
    /// those get all. Without any weight all stays as it was.
    ///
    /// # Errors
    ///
    /// The first refusal of the system; the other addresses have switched.
    pub fn route(&mut self, weights: &BTreeMap<Slot, u32>) -> Result<(), ListenError> {
        self.weights.clone_from(weights);
        let mut result = Ok(());
        for group in &mut self.groups {
            group.heal();
            let routed = group.route(weights);
            result = result.and(routed);
        }
        result
    }

    /// Catches up on switches that had to wait (see `pace.rs`). Whether none waits any more.
    pub fn settle(&mut self) -> bool {
        let mut is_settled = true;
        for group in self.groups.iter_mut().filter(|group| group.is_waiting) {
            // What the system refuses stays as it was.
            let _ = group.route(&self.weights);
            is_settled &= !group.is_waiting;
        }
        is_settled
    }

    /// Connections that wait in a slot's queues. Those of Unix sockets don't count: their queue is
    /// everybody's, so none is lost with a worker.
    #[must_use]
    pub fn queue_len(&self, slot: Slot) -> u32 {
        self.groups.iter().map(|group| group.queue_len(slot)).sum()
    }

    /// What is listened on, in the order it was opened.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        self.groups
            .iter()
            .map(|group| group.address.clone())
            .collect()
    }

    /// Puts right what a program broke: Unix sockets whose file was removed get it back, sockets
    /// that were shut down listen again. Each [`Self::route`] does so first.
    pub fn heal(&mut self) {
        let weights = std::mem::take(&mut self.weights);
        // What the system refuses stays as it was.
        let _ = self.route(&weights);
    }

    /// Has at least so many connections wait in a slot's queue, if the system allows.
    pub(crate) fn set_backlog(&mut self, address: &Address, slot: Slot, backlog: u32) {
        if let Some(group) = self
            .groups
            .iter_mut()
            .find(|group| group.address == *address)
        {
            group.set_backlog(slot, backlog);
        }
    }

    /// Whether a group that overlaps with what is wanted can stand in for it: if it was told
    /// beforehand, for then that is where the app is to be. "All addresses" takes the form that
    /// the program gives it (v4, v6 or both), as long as no program has a listener of it.
    fn stand_in(&mut self, at: usize, wanted: &Address) -> Result<(), ListenError> {
        let group = &self.groups[at];
        let form = group.address.in_the_form_of(wanted);
        if !group.is_declared || (form != group.address && group.is_taken()) {
            return Err(group.held(wanted));
        }
        if form == group.address {
            return Ok(());
        }
        let old = self.groups.remove(at);
        let shape = group::Shape::of(&form, self.balance);
        drop(old);
        let mut group = Group::new(&self.app, &form, 0, 0, shape)?;
        group.is_declared = true;
        self.groups.insert(at, group);
        Ok(())
    }

    /// The group of an address, made if it is new.
    fn group(&mut self, wanted: &Address, nth: u32, backlog: u32) -> Result<usize, ListenError> {
        let same = |group: &Group| group.wanted == *wanted && group.nth == nth;
        let fixed = |group: &Group| !wanted.is_ephemeral() && group.address == *wanted;
        if let Some(at) = self
            .groups
            .iter()
            .position(|group| same(group) || fixed(group))
        {
            return Ok(at);
        }
        let overlaps = |group: &Group| group.address.overlaps(wanted);
        if let Some(at) = self.groups.iter().position(overlaps) {
            return self.stand_in(at, wanted).map(|()| at);
        }
        let shape = group::Shape::of(wanted, self.balance);
        self.groups
            .push(Group::new(&self.app, wanted, nth, backlog, shape)?);
        Ok(self.groups.len() - 1)
    }
}
