//! Whether this system lets the supervisor answer `bind`: tried out on a child that does nothing
//! else.

use super::notify::{Answer, Call, Listener};
use super::target::{Name, Target};
use super::{filter, pending};
use crate::spawn::fork_binder;
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    recvmsg, socketpair, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags,
    SocketFlags, SocketType,
};
use rustix::process::{kill_process, waitid, Pid, Signal, WaitId, WaitIdOptions};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

/// Longest wait for the child; it has nothing to do but to ask.
const WAIT_MS: u32 = 5000;

/// Why the supervisor can't answer `bind` here, if it can't. Tried out once.
pub(in super::super) fn refusal() -> Option<String> {
    static REFUSAL: OnceLock<Option<String>> = OnceLock::new();
    REFUSAL.get_or_init(|| try_out().err()).clone()
}

fn try_out() -> Result<(), String> {
    let refused = |what: &'static str| move |errno: Errno| format!("{what}: {errno}");
    let flags = SocketFlags::CLOEXEC;
    let (own, childs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(refused("no sockets"))?;
    let pid = fork_binder(&childs, &filter()).map_err(refused("no more processes"))?;
    drop(childs);
    let answered = answer(&own);
    if answered.is_err() {
        let _ = kill_process(pid, Signal::KILL);
    }
    let code = reap(pid);
    answered?;
    match code {
        Some(0) => Ok(()),
        code => Err(format!("the system did not take the answer ({code:?})")),
    }
}

/// Answers the child's `bind` as a worker's would be.
fn answer(own: &OwnedFd) -> Result<(), String> {
    let listener = receive(own).ok_or(
        "the system refuses the filter (a container's own filter, another ganger around this one, \
         or a kernel without it)",
    )?;
    if !pending(listener.as_fd(), WAIT_MS).contains(PollFlags::IN) {
        return Err("the system does not ask".into());
    }
    let listener = Listener(&listener);
    let question = listener
        .receive()
        .map_err(|errno| format!("the system asks oddly: {errno}"))?;
    let Call::Bind { fd, address, len } = question.call else {
        return Err("the system asks oddly".into());
    };
    let target = Target::new(question.tid, fd);
    if target.name(address, len) != Some(Name::Path(Path::new("/").into())) {
        return Err(
            "a child's memory can't be read (kernel.yama.ptrace_scope is 2 or more, or a \
                    container forbids it)"
                .into(),
        );
    }
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    null.and_then(|null| listener.swap(question.id, fd, &null, true))
        .and_then(|()| listener.answer(question.id, Answer::Done))
        .map_err(|errno| format!("a child's descriptor can't be replaced: {errno}"))
}

/// The listener that the child sends; it sends none, and ends, if the filter was refused.
fn receive(own: &OwnedFd) -> Option<OwnedFd> {
    if !pending(own.as_fd(), WAIT_MS).contains(PollFlags::IN) {
        return None;
    }
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut io = [IoSliceMut::new(&mut byte)];
    recvmsg(own, &mut io, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

/// The exit code of the child.
fn reap(pid: Pid) -> Option<i32> {
    loop {
        match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            Ok(status) => return status?.exit_status(),
            Err(_) => return None,
        }
    }
}
