//! The channel to a Node process: lines of JSON both ways, descriptors on some of them.

use crate::spawn::watch;
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde_json::{json, Value};
use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

/// Bytes read at a time.
const READ_LEN: usize = 16 * 1024;
/// Longest message that is taken; a longer one is skipped.
const MESSAGE_MAX: usize = 1024 * 1024;
/// Messages of the user's that may wait for a process that does not read; more are dropped.
const WAITING_MAX: usize = 1024;
/// Times a descriptor is sent again when the process says that it did not arrive, as Node does.
const RESENDS_MAX: u32 = 3;

/// A channel.
#[derive(Debug)]
pub(super) struct Channel {
    socket: AsyncFd<OwnedFd>,
    incoming: Vec<u8>,
    /// Whether the rest of a line that is too long is to be skipped.
    is_skipping: bool,
    outgoing: VecDeque<Line>,
    /// The descriptor that the process has not acknowledged yet. Nothing is sent meanwhile, so that
    /// the order is kept.
    unacknowledged: Option<Line>,
}

/// A line to be sent.
#[derive(Debug)]
struct Line {
    bytes: Vec<u8>,
    sent_len: usize,
    fd: Option<OwnedFd>,
    resends: u32,
}

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            socket: watch(socket, Interest::READABLE | Interest::WRITABLE)?,
            incoming: Vec::new(),
            is_skipping: false,
            outgoing: VecDeque::new(),
            unacknowledged: None,
        })
    }

    /// The next message; sends what is to be sent meanwhile. May be dropped and called again.
    /// Lines that are no JSON are passed over.
    pub(super) async fn next(&mut self) -> io::Result<Value> {
        loop {
            if let Some(message) = self.take() {
                return Ok(message);
            }
            let wants_write = self.unacknowledged.is_none() && !self.outgoing.is_empty();
            let interest = if wants_write {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            let mut ready = self.socket.ready(interest).await?;
            let state = ready.ready();
            if wants_write && state.is_writable() && write(&self.socket, &mut self.outgoing) {
                ready.clear_ready_matching(Ready::WRITABLE);
            }
            let mut bytes = [0; READ_LEN];
            let mut len = 0;
            if state.is_readable() {
                match receive(&self.socket, &mut bytes) {
                    Err(Errno::AGAIN) => ready.clear_ready_matching(Ready::READABLE),
                    Err(Errno::INTR) => {}
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    result => len = result?,
                }
            }
            self.settle();
            self.got(&bytes[..len]);
        }
    }

    /// Sends a message of the protocol.
    pub(super) fn push(&mut self, message: &Value) {
        self.outgoing.push_back(Line::new(message, None));
    }

    /// Sends a message of the user's.
    pub(super) fn push_message(&mut self, message: &Value) {
        if self.outgoing.len() < WAITING_MAX {
            self.push(message);
        }
    }

    /// Sends a message with a descriptor.
    pub(super) fn push_handle(&mut self, kind: &str, message: &Value, fd: OwnedFd) {
        let message = json!({"cmd": "NODE_HANDLE", "type": kind, "msg": message});
        self.outgoing.push_back(Line::new(&message, Some(fd)));
    }

    /// The process has the descriptor.
    pub(super) fn acknowledged(&mut self) {
        self.unacknowledged = None;
    }

    /// The process did not get the descriptor.
    pub(super) fn refused(&mut self) {
        if let Some(mut line) = self.unacknowledged.take() {
            line.sent_len = 0;
            line.resends += 1;
            if line.resends <= RESENDS_MAX {
                self.outgoing.push_front(line);
            }
        }
    }

    /// Takes lines that are sent out of the queue.
    fn settle(&mut self) {
        while self
            .outgoing
            .front()
            .is_some_and(|line| line.sent_len == line.bytes.len())
        {
            let line = self.outgoing.pop_front();
            self.unacknowledged = line.filter(|line| line.fd.is_some());
            if self.unacknowledged.is_some() {
                break;
            }
        }
    }

    fn got(&mut self, bytes: &[u8]) {
        self.incoming.extend_from_slice(bytes);
        if self.incoming.len() > MESSAGE_MAX && !self.incoming.contains(&b'\n') {
            self.incoming.clear();
            self.is_skipping = true;
        }
    }

    fn take(&mut self) -> Option<Value> {
        while let Some(end) = self.incoming.iter().position(|byte| *byte == b'\n') {
            let message = serde_json::from_slice(&self.incoming[..end]);
            self.incoming.drain(..=end);
            let is_whole = !std::mem::take(&mut self.is_skipping);
            if let (true, Ok(message)) = (is_whole, message) {
                return Some(message);
            }
        }
        None
    }
}

impl Line {
    fn new(message: &Value, fd: Option<OwnedFd>) -> Self {
        let mut bytes = message.to_string().into_bytes();
        bytes.push(b'\n');
        Self {
            bytes,
            sent_len: 0,
            fd,
            resends: 0,
        }
    }
}

/// Sends lines until the socket takes no more (true), all are sent, or one with a descriptor is.
/// When the other end is closed nothing can be sent, but what it said before can be read yet.
fn write(socket: &AsyncFd<OwnedFd>, lines: &mut VecDeque<Line>) -> bool {
    for line in lines.iter_mut() {
        while line.sent_len < line.bytes.len() {
            match send(socket.get_ref(), line) {
                Ok(sent) => line.sent_len += sent,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => {
                    lines.clear();
                    return true;
                }
            }
        }
        if line.fd.is_some() {
            break;
        }
    }
    false
}

fn send(socket: &OwnedFd, line: &Line) -> Result<usize, Errno> {
    let rest = [IoSlice::new(&line.bytes[line.sent_len..])];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = line.fd.as_ref().map(|fd| [fd.as_fd()]);
    if let Some(fds) = fds.as_ref().filter(|_| line.sent_len == 0) {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    sendmsg(socket, &rest, &mut control, SendFlags::NOSIGNAL)
}

/// Reads; descriptors that come along are closed.
fn receive(socket: &AsyncFd<OwnedFd>, bytes: &mut [u8]) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket.get_ref(),
        &mut [IoSliceMut::new(bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    control.drain().for_each(drop);
    Ok(received.bytes)
}
