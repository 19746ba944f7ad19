//! Connections: TCP and Unix sockets alike.

use super::Target;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// A connection, and what was read from it beyond the last answer.
pub(crate) struct Line {
    stream: Stream,
    pub(crate) buffer: Vec<u8>,
    /// Requests that were sent on it.
    pub(crate) uses: u32,
    /// Bytes that were written to it.
    pub(crate) written: u64,
    /// The process that answered on it.
    pub(crate) worker: Option<u32>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What an idle connection shows before it is used again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Idle {
    Open,
    Closed,
    /// It has bytes that nobody asked for.
    Surplus(usize),
}

impl Line {
    pub(crate) async fn connect(target: &Target) -> io::Result<Self> {
        let stream = match target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Target::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
        };
        Ok(Self {
            stream,
            buffer: Vec::new(),
            uses: 0,
            written: 0,
            worker: None,
        })
    }

    pub(crate) fn port(&self) -> Option<u16> {
        match &self.stream {
            Stream::Tcp(stream) => stream.local_addr().ok().map(|address| address.port()),
            Stream::Unix(_) => None,
        }
    }

    /// Writes some of the bytes.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.stream {
            Stream::Tcp(stream) => stream.write(bytes).await,
            Stream::Unix(stream) => stream.write(bytes).await,
        }?;
        self.written += written as u64;
        Ok(written)
    }

    /// Reads more into the buffer; 0 is the end.
    pub(crate) async fn read(&mut self) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read_buf(&mut self.buffer).await,
            Stream::Unix(stream) => stream.read_buf(&mut self.buffer).await,
        }
    }

    /// Looks at a connection on which nothing is outstanding.
    pub(crate) fn look(&mut self) -> Idle {
        if !self.buffer.is_empty() {
            return Idle::Surplus(self.buffer.len());
        }
        let mut bytes = [0; 1024];
        let read = match &self.stream {
            Stream::Tcp(stream) => stream.try_read(&mut bytes),
            Stream::Unix(stream) => stream.try_read(&mut bytes),
        };
        match read {
            Ok(0) => Idle::Closed,
            Ok(len) => {
                self.buffer.extend_from_slice(&bytes[..len]);
                Idle::Surplus(len)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Idle::Open,
            Err(_) => Idle::Closed,
        }
    }

    /// Whether the other side's kernel took in all that was written.
    pub(crate) fn is_taken_in(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => acked(stream.as_raw_fd()) >= self.written,
            // What a Unix socket takes is in the other side's queue.
            Stream::Unix(_) => true,
        }
    }
}

/// Bytes that the other side's kernel acknowledged, or none if nothing is known.
fn acked(fd: RawFd) -> u64 {
    // SAFETY: all-zero bytes are a valid tcp_info, which is plain numbers.
    let mut info: Info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<Info>() as libc::socklen_t;
    // SAFETY: `info` is writable for `len` bytes, and the kernel writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    // The SYN counts as one.
    if result == 0 {
        info.bytes_acked.saturating_sub(1)
    } else {
        0
    }
}

/// The start of the kernel's `struct tcp_info`, which libc cuts before the field wanted here.
#[repr(C)]
struct Info {
    states: [u8; 8],
    numbers: [u32; 24],
    rates: [u64; 2],
    bytes_acked: u64,
}
