//! Connections that wait where nobody will take them: they were on their way to a worker that has
//! ended, or to one that waits long for its next start. They are taken here and carried to those
//! who serve, byte by byte, so that they are answered. Their peer's address is lost to the worker;
//! there are few of them.

use super::App;
use crate::config::Balance;
use crate::listen::{Address, Slot};
use crate::report::WorkerState;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::net::{accept_with, SocketFlags};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many are carried at a time.
const CARRIED_MAX: usize = 256;
/// A worker that starts again sooner than that serves its queue itself.
const SOON_MS: u64 = 250;

static CARRIED: AtomicUsize = AtomicUsize::new(0);

/// One connection that is carried.
struct Carried;

impl Carried {
    fn begin() -> Option<Self> {
        // ordering: a count, nothing hangs on it.
        let count = CARRIED.fetch_add(1, Ordering::Relaxed);
        let carried = Self;
        (count < CARRIED_MAX).then_some(carried)
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        CARRIED.fetch_sub(1, Ordering::Relaxed);
    }
}

impl App {
    /// Looks after the queues that nobody serves. How many connections were taken from them.
    pub(super) fn rescue_strays(&self) -> usize {
        let taken = self.take_strays();
        let count = taken.len();
        if count > 0 {
            let text = format!("{count} connections of ended workers are carried to others");
            self.state().tell(None, "strays", text);
        }
        for (stream, target, carried) in taken {
            tokio::spawn(async move {
                // A failure here is the end of a connection that would have had none.
                let _ = carry(stream, target).await;
                drop(carried);
            });
        }
        count
    }

    fn take_strays(&self) -> Vec<(TcpStream, SocketAddr, Carried)> {
        let state = self.state();
        let is_served = state
            .members
            .values()
            .any(|one| one.machine.state() == WorkerState::Ready && state.weight(one.slot) > 0);
        if !is_served || state.config.balance == Balance::Shared {
            return Vec::new();
        }
        let now = state.world.now_ms();
        let abandoned = state
            .members
            .values()
            .filter(|one| match one.machine.state() {
                WorkerState::Failed | WorkerState::Stopped => true,
                WorkerState::Backoff => one
                    .machine
                    .deadline_ms()
                    .is_some_and(|at| at > now + SOON_MS),
                _ => false,
            });
        let slots: Vec<Slot> = abandoned
            .map(|one| one.slot)
            .chain(state.retired.iter().copied())
            .filter(|slot| state.weight(*slot) == 0)
            .collect();
        let listeners = state.listeners();
        let mut taken = Vec::new();
        for slot in slots {
            if listeners.queue_len(slot) == 0 {
                continue;
            }
            for address in listeners.addresses() {
                let Some(listener) = listeners.peek(&address, slot) else {
                    continue;
                };
                accept_all(&address, &listener, &mut taken);
            }
        }
        taken
    }
}

fn accept_all(
    address: &Address,
    listener: &OwnedFd,
    taken: &mut Vec<(TcpStream, SocketAddr, Carried)>,
) {
    if !matches!(address, Address::Tcp { .. }) {
        return;
    }
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    loop {
        // Whether the listener blocks is its worker's affair; nobody else accepts from it now.
        let mut waiting = [PollFd::new(listener, PollFlags::IN)];
        if !matches!(poll(&mut waiting, Some(&at_once)), Ok(1)) {
            return;
        }
        let Some(carried) = Carried::begin() else {
            return;
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(accepted) = accept_with(listener, flags) else {
            return;
        };
        let stream = TcpStream::from(accepted);
        if let Ok(target) = stream.local_addr() {
            taken.push((stream, target, carried));
        }
    }
}

async fn carry(stream: TcpStream, target: SocketAddr) -> std::io::Result<()> {
    let mut from = tokio::net::TcpStream::from_std(stream)?;
    let mut to = tokio::net::TcpStream::connect(target).await?;
    tokio::io::copy_bidirectional(&mut from, &mut to).await?;
    Ok(())
}
