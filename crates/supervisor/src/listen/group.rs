//! The sockets of one address.

use super::program::{program, with_probes, Choice};
use super::socket;
use super::{holder, pace, unix, Address, ListenError, Side, Slot};
use crate::config::Balance;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

/// Connections that may wait in a queue at least: those that come while a worker restarts. The
/// system's own limit (`somaxconn`) may be lower.
const BACKLOG_MIN: u32 = 1024;

/// Who shares a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nobody.
    Slots,
    /// The slots of a side.
    Sides,
    /// All.
    One,
}

/// An address and its sockets.
#[derive(Debug)]
pub(super) struct Group {
    /// What was asked for.
    pub(super) wanted: Address,
    /// Which of several equal requests.
    pub(super) nth: u32,
    /// What is listened on.
    pub(super) address: Address,
    /// Whether it was told beforehand.
    pub(super) is_declared: bool,
    shape: Shape,
    backlog: u32,
    /// By the kernel's index.
    sockets: Vec<OwnedFd>,
    /// Index of each slot's socket.
    index_of: BTreeMap<Slot, usize>,
    /// The slots whose process has asked for its socket.
    taken: BTreeSet<Slot>,
    /// The weights that are in force, by index. An exchange is not made for nothing: see [`pace`].
    in_force: Vec<u32>,
    /// Whether other ones are due.
    pub(super) is_waiting: bool,
    file: Option<unix::File>,
    _entry: holder::Entry,
}

impl Shape {
    pub(super) const fn of(address: &Address, balance: Balance) -> Self {
        match (address, balance) {
            (Address::Unix(_), _) => Self::One,
            (_, Balance::Shared) => Self::Sides,
            (_, Balance::Reuseport) => Self::Slots,
        }
    }

    /// The slot that stands for all those that share its socket.
    const fn place(self, slot: Slot) -> Slot {
        match self {
            Self::Slots => slot,
            Self::Sides => Slot {
                worker: 0,
                side: slot.side,
            },
            Self::One => Slot {
                worker: 0,
                side: Side::A,
            },
        }
    }
}

impl Group {
    /// Takes the address, with a first socket that serves no slot yet but will the first.
    pub(super) fn new(
        app: &str,
        wanted: &Address,
        nth: u32,
        backlog: u32,
        shape: Shape,
    ) -> Result<Self, ListenError> {
        if !wanted.is_ephemeral() {
            holder::check(wanted)?;
        }
        let backlog = backlog.max(BACKLOG_MIN);
        let (first, address, file) = first(wanted, backlog)?;
        Ok(Self {
            wanted: wanted.clone(),
            nth,
            _entry: holder::enter(app, &address),
            address,
            is_declared: false,
            shape,
            backlog,
            sockets: vec![first],
            index_of: BTreeMap::new(),
            taken: BTreeSet::new(),
            in_force: Vec::new(),
            is_waiting: false,
            file,
        })
    }

    /// Makes sure that a slot has a socket. Its index.
    pub(super) fn open(&mut self, slot: Slot) -> Result<usize, ListenError> {
        let slot = self.shape.place(slot);
        if let Some(index) = self.index_of.get(&slot) {
            return Ok(*index);
        }
        // The first socket is there before its slot is known.
        let index = if self.index_of.is_empty() {
            0
        } else {
            self.sockets.len()
        };
        if index == self.sockets.len() {
            let another = socket::open(&self.address, true)
                .and_then(|fd| socket::listen(&fd, &self.address, self.backlog).map(|()| fd))
                .map_err(|errno| ListenError::of(&self.address, errno))?;
            self.sockets.push(another);
        }
        self.index_of.insert(slot, index);
        Ok(index)
    }

    /// A duplicate of a slot's socket for its process.
    pub(super) fn take(
        &mut self,
        slot: Slot,
        backlog: u32,
        weights: &BTreeMap<Slot, u32>,
    ) -> Result<(OwnedFd, Address), ListenError> {
        self.backlog = self.backlog.max(backlog);
        self.heal();
        let index = self.open(slot)?;
        self.taken.insert(slot);
        self.route(weights)?;
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.sockets[index], 3)
            .map_err(|errno| ListenError::of(&self.address, errno))?;
        Ok((fd, self.address.clone()))
    }

    /// That what is wanted is held by this.
    pub(super) fn held(&self, wanted: &Address) -> ListenError {
        ListenError::Own {
            address: wanted.to_string(),
            held: self.address.to_string(),
        }
    }

    /// Whether any slot's process wants connections.
    pub(super) fn is_taken(&self) -> bool {
        !self.taken.is_empty()
    }

    pub(super) fn set_backlog(&mut self, slot: Slot, backlog: u32) {
        if let Some(index) = self.index_of.get(&self.shape.place(slot)) {
            let backlog = backlog.max(BACKLOG_MIN);
            // What it has stays if the system refuses.
            let _ = socket::listen(&self.sockets[*index], &self.address, backlog);
        }
    }

    /// Forgets that a slot's process wants connections. Whether none does any more.
    pub(super) fn release(&mut self, slot: Slot) -> bool {
        self.taken.remove(&slot);
        self.taken.is_empty()
    }

    /// Puts weights in force: one atomic exchange of the program.
    pub(super) fn route(&mut self, weights: &BTreeMap<Slot, u32>) -> Result<(), ListenError> {
        if self.shape == Shape::One || weights.values().all(|weight| *weight == 0) {
            return Ok(());
        }
        let wanted = |slot: &Slot| weights.get(slot).is_some_and(|weight| *weight > 0);
        let some_serve = self.taken.iter().any(wanted);
        let mut by_index = Vec::new();
        for (slot, weight) in weights.iter().filter(|(_, weight)| **weight > 0) {
            let index = self.open(*slot)?;
            by_index.resize(self.sockets.len(), 0_u32);
            if !some_serve || self.taken.contains(slot) {
                by_index[index] = by_index[index].saturating_add(*weight);
            }
        }
        by_index.resize(self.sockets.len(), 0);
        self.is_waiting = by_index != self.in_force && !pace::take();
        if by_index == self.in_force || self.is_waiting {
            return Ok(());
        }
        let choice = match self.address {
            Address::Udp(_) => Choice::Peer,
            _ => Choice::Random,
        };
        let Some(program) = program(&by_index, choice) else {
            return Ok(());
        };
        let program = match choice {
            Choice::Random => with_probes(program),
            Choice::Peer => program,
        };
        let attached = socket::attach(&self.sockets[0], &program);
        attached.map_err(|source| ListenError::Program {
            address: self.address.to_string(),
            source,
        })?;
        self.in_force = by_index;
        Ok(())
    }

    /// The kernel's index of a socket that is a slot's own.
    pub(super) fn own_index(&self, slot: Slot) -> Option<usize> {
        let is_own = self.shape == Shape::Slots;
        self.index_of.get(&slot).copied().filter(|_| is_own)
    }

    /// A duplicate of a socket that is a slot's own.
    pub(super) fn peek(&self, slot: Slot) -> Option<OwnedFd> {
        let index = self.own_index(slot)?;
        rustix::io::fcntl_dupfd_cloexec(&self.sockets[index], 3).ok()
    }

    pub(super) fn queue_len(&self, slot: Slot) -> u32 {
        let index = self.index_of.get(&self.shape.place(slot));
        match (index, &self.address) {
            (Some(index), Address::Tcp { .. }) => socket::queue_len(&self.sockets[*index]),
            _ => 0,
        }
    }

    /// Puts right what a program broke; routing is to be done after it.
    pub(super) fn heal(&mut self) {
        if let Some(file) = &self.file {
            file.restore();
        }
        let Address::Tcp { .. } = self.address else {
            return;
        };
        let is_idle = |fd: &OwnedFd| !socket::is_listening(fd);
        let Some(mut at) = self.sockets.iter().position(is_idle) else {
            return;
        };
        self.in_force.clear();
        // A program called shutdown() on its listener, so the kernel moved the last socket of the
        // group into its place; listening again makes it the last.
        loop {
            let last = self.sockets.len() - 1;
            self.sockets.swap(at, last);
            for index in self.index_of.values_mut() {
                *index = match *index {
                    index if index == at => last,
                    index if index == last => at,
                    index => index,
                };
            }
            if socket::listen(&self.sockets[last], &self.address, self.backlog).is_err() {
                return;
            }
            match self.sockets.iter().position(is_idle) {
                Some(next) => at = next,
                None => return,
            }
        }
    }
}

/// The socket that takes an address, with the real address and the file it made.
fn first(
    wanted: &Address,
    backlog: u32,
) -> Result<(OwnedFd, Address, Option<unix::File>), ListenError> {
    if let Address::Unix(path) = wanted {
        let (fd, file) = unix::open(path, backlog)?;
        return Ok((fd, wanted.clone(), Some(file)));
    }
    let result = socket::open(wanted, false).and_then(|fd| {
        let port = socket::port(&fd)?;
        let address = wanted.with_port(port);
        // A UDP socket joins its group when it is bound, so it had to be bound twice.
        let fd = match wanted {
            Address::Udp(_) => {
                drop(fd);
                socket::open(&address, true)?
            }
            _ => fd,
        };
        socket::listen(&fd, &address, backlog)?;
        Ok((fd, address, None))
    });
    result.map_err(|errno| match errno {
        Errno::ADDRINUSE => ListenError::Busy {
            address: wanted.to_string(),
            holder: holder::of(wanted).unwrap_or_else(|| "a process that can't be seen".into()),
        },
        errno => ListenError::of(wanted, errno),
    })
}
