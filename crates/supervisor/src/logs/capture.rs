//! One pipe of one process: read as fast as it is written, whoever reads the lines.

use super::split::{Budget, Line, Splitter};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;

/// Bytes read at a time.
pub(super) const CHUNK: usize = 64 * 1024;
/// What the kernel holds while we are busy elsewhere, so that a worker doesn't wait for us. Taken
/// only as it fills; where the system refuses, its own default has to do.
const PIPE_LEN: usize = 1024 * 1024;

/// Whose pipe it is.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) app: String,
    pub(super) worker: u16,
    pub(super) pid: i32,
    pub(super) is_stderr: bool,
}

/// One pipe.
pub(super) struct Source {
    pub(super) owner: Owner,
    pub(super) pipe: Arc<Receiver>,
    /// Told when nobody should wait for it any more.
    pub(super) closed: Arc<Notify>,
    splitter: Splitter,
    budget: Budget,
    pub(super) is_closed: bool,
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Something; there may be more.
    Some,
    /// Nothing for now.
    Nothing,
    /// The end.
    End,
}

impl Source {
    /// `fd` becomes non-blocking: our end alone, the worker's has flags of its own.
    pub(super) fn new(owner: Owner, fd: OwnedFd, now_ms: u64) -> io::Result<Self> {
        let _ = rustix::pipe::fcntl_setpipe_size(&fd, PIPE_LEN);
        Ok(Self {
            owner,
            pipe: Arc::new(Receiver::from_owned_fd(fd)?),
            closed: Arc::new(Notify::new()),
            splitter: Splitter::default(),
            budget: Budget::new(now_ms),
            is_closed: false,
        })
    }

    /// Reads once and gives out the lines. `is_task`: the caller waits for the pipe to be readable,
    /// which has to learn when it is not any more.
    pub(super) fn read(
        &mut self,
        is_task: bool,
        buffer: &mut [u8],
        now_ms: u64,
        mut line: impl FnMut(&Owner, Line),
    ) -> Read {
        if self.is_closed {
            return Read::End;
        }
        let read = if is_task {
            self.pipe.try_read(buffer)
        } else {
            rustix::io::read(&*self.pipe, &mut *buffer).map_err(io::Error::from)
        };
        let len = match read {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Read::Nothing,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Read::Some,
            Err(_) => 0,
        };
        let Self {
            owner,
            splitter,
            budget,
            ..
        } = self;
        if len == 0 {
            self.close(line);
            return Read::End;
        }
        let is_flood = budget.is_flood(len, now_ms);
        splitter.push(&buffer[..len], is_flood, |one| line(owner, one));
        Read::Some
    }

    /// Gives out what has no end yet, and takes nothing more.
    pub(super) fn close(&mut self, mut line: impl FnMut(&Owner, Line)) {
        self.is_closed = true;
        if let Some(last) = self.splitter.finish() {
            line(&self.owner, last);
        }
        self.closed.notify_one();
    }
}
