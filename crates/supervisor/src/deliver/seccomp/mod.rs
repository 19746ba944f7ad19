//! The supervisor answers `bind` and `listen`.
//!
//! # Theory of operation
//!
//! A worker is started with a filter ([`filter`]) that stops these two calls, of it and of all it
//! starts, until the supervisor has answered. For `bind` the supervisor reads the address from the
//! caller's memory, makes sure that the caller is still the same, and puts a duplicate of the slot's
//! listener under the number of the caller's socket; the program goes on with a socket that is
//! bound, and told so. `listen` on it has nothing left to do, and says that the program serves.
//! What is not ours to answer goes on as if nobody had looked.
//!
//! The caller may be killed at any instant: each step names the question by its id, which is void
//! then. When the supervisor is gone the calls fail with `ENOSYS`; but workers die with it. Setuid
//! programs have no effect under a filter, and a second filter of this kind can't be nested.

use super::{Context, DeliverEvent};
use crate::listen::Address;
use crate::spawn::watch;
use notify::{Answer, Call, Listener};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::{ioctl_fionbio, Errno};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use target::{Name, Target};
use tokio::io::Interest;
use tokio::sync::mpsc;

mod drain;
mod filter;
mod notify;
mod probe;
mod target;

pub(super) use drain::Drainable;
pub(crate) use filter::filter;
pub(super) use probe::refusal;

/// Listeners of a worker that are remembered: a program that makes more is none that serves.
const GIVEN_MAX: usize = 1024;

/// Who answers for one worker and all it starts.
struct Answerer {
    context: Context,
    events: mpsc::UnboundedSender<DeliverEvent>,
    drainable: Drainable,
    /// What each socket that was given listens on, by inode.
    given: HashMap<u64, Address>,
}

/// Answers until the last process with the filter is gone.
pub(super) async fn serve(
    listener: OwnedFd,
    context: Context,
    drainable: Drainable,
    events: mpsc::UnboundedSender<DeliverEvent>,
) {
    let Ok(watched) = watch(listener, Interest::READABLE) else {
        return;
    };
    let mut answerer = Answerer {
        context,
        events,
        drainable,
        given: HashMap::new(),
    };
    while let Ok(mut ready) = watched.readable().await {
        let state = pending(watched.get_ref().as_fd(), 0);
        if state.contains(PollFlags::IN) {
            answerer.serve_one(&Listener(watched.get_ref()));
        } else if state.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return;
        } else {
            ready.clear_ready();
        }
    }
}

/// What a listener is ready for, after so long at most.
fn pending(fd: BorrowedFd<'_>, wait_ms: u32) -> PollFlags {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let wait = Timespec {
        tv_sec: i64::from(wait_ms / 1000),
        tv_nsec: i64::from(wait_ms % 1000) * 1_000_000,
    };
    match poll(&mut fds, Some(&wait)) {
        Ok(_) => fds[0].revents(),
        Err(_) => PollFlags::empty(),
    }
}

impl Answerer {
    fn serve_one(&mut self, listener: &Listener<'_>) {
        // The caller is gone again: nobody waits.
        let Ok(question) = listener.receive() else {
            return;
        };
        let answer = match question.call {
            Call::Bind { fd, address, len } => {
                let target = Target::new(question.tid, fd);
                self.bind(listener, question.id, &target, address, len)
            }
            Call::Listen { fd, backlog } => self.listen(&Target::new(question.tid, fd), backlog),
            Call::Other => Answer::Go,
        };
        // It fails when the caller was killed meanwhile.
        let _ = listener.answer(question.id, answer);
    }

    fn bind(
        &mut self,
        listener: &Listener<'_>,
        id: u64,
        target: &Target,
        address: u64,
        len: usize,
    ) -> Answer {
        let Some(wanted) = self.wanted(target, address, len) else {
            return Answer::Go;
        };
        if !listener.is_valid(id) {
            return Answer::Go;
        }
        let slot = self.context.slot;
        let opened = self.context.listeners().socket(&wanted, 0, 0, slot);
        let (fd, real) = match opened {
            Ok((_, real)) if !is_same_family(&wanted, &real) => {
                let error = format!("the app is to serve {real}, which the program can't use");
                return self.failed(&wanted, error, Errno::ADDRINUSE.raw_os_error());
            }
            Ok(opened) => opened,
            Err(error) => return self.failed(&wanted, error.to_string(), error.errno()),
        };
        let swapped = ioctl_fionbio(&fd, target.is_nonblocking()).and_then(|()| {
            target.copy_options(&fd);
            listener.swap(id, target.fd(), &fd, target.is_closed_on_exec())
        });
        if let Err(errno) = swapped {
            return self.failed(&wanted, errno.to_string(), errno.raw_os_error());
        }
        if let (Some(inode), true) = (target.inode(), self.given.len() < GIVEN_MAX) {
            self.given.insert(inode, real.clone());
        }
        if matches!(real, Address::Udp(_)) {
            self.tell(DeliverEvent::Listening(real));
        }
        Answer::Done
    }

    fn listen(&self, target: &Target, backlog: u32) -> Answer {
        let Some(address) = target.inode().and_then(|inode| self.given.get(&inode)) else {
            return Answer::Go;
        };
        self.context
            .listeners()
            .set_backlog(address, self.context.slot, backlog);
        self.drainable.add(target);
        self.tell(DeliverEvent::Listening(address.clone()));
        Answer::Done
    }

    /// What the caller wants to listen on, if that is for us to give.
    fn wanted(&self, target: &Target, address: u64, len: usize) -> Option<Address> {
        let name = target.name(address, len)?;
        let managed = &self.context.managed;
        // Looked at first since it costs least: most programs bind few other addresses.
        if let Name::Ip(ip) = &name {
            let same_port = |known: &Address| known.socket().is_some_and(|s| s.port() == ip.port());
            if ip.port() == 0 || (!managed.is_empty() && !managed.iter().any(same_port)) {
                return None;
            }
        }
        let wanted = target.address(name)?;
        let is_known = managed.iter().any(|known| known.overlaps(&wanted));
        let is_ours = match wanted {
            Address::Udp(_) => is_known,
            _ => managed.is_empty() || is_known,
        };
        is_ours.then_some(wanted)
    }

    fn failed(&self, wanted: &Address, error: String, errno: i32) -> Answer {
        self.tell(DeliverEvent::BindFailed {
            address: wanted.to_string(),
            error,
        });
        Answer::Fail(errno)
    }

    fn tell(&self, event: DeliverEvent) {
        // Nobody who listens is nobody who minds.
        let _ = self.events.send(event);
    }
}

/// Whether a program that made a socket for one address can use that of the other.
fn is_same_family(a: &Address, b: &Address) -> bool {
    a.socket().map(|a| a.is_ipv4()) == b.socket().map(|b| b.is_ipv4())
}
