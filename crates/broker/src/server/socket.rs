//! A connected socket that wakes its task when something can be read, and when something can be
//! written only while that is waited for.
//!
//! Tokio's own sockets are told of both all the time: whenever a client reads what was written to
//! it, the kernel wakes the broker to say that there is room, and nobody asked.

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use std::future::Future;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{ready, Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::net::UnixStream;
use tokio::time::sleep;

/// When to try again if there is no descriptor left to wait with.
const RETRY: Duration = Duration::from_millis(5);

/// A socket.
pub(super) struct Socket {
    /// To tokio it is what is registered for reading alone; nothing in it needs a pipe.
    inner: Receiver,
    /// Ends when it takes more bytes again.
    blocked: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send>>>,
}

impl Socket {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        let inner = Receiver::from_owned_fd_unchecked(stream.into_std()?.into())?;
        let blocked = None;
        Ok(Self { inner, blocked })
    }

    /// Whether there may be something to read; if not, the task is woken when there is.
    pub(super) fn is_readable(&self, cx: &mut Context<'_>) -> bool {
        self.inner.poll_read_ready(cx).is_ready()
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        send: impl Fn(&Receiver) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(blocked) = &mut self.blocked {
                ready!(blocked.as_mut().poll(cx))?;
                self.blocked = None;
            }
            match send(&self.inner) {
                Err(Errno::AGAIN) => self.blocked = Some(Box::pin(writable(&self.inner))),
                Err(Errno::INTR) => {}
                sent => return Poll::Ready(sent.map_err(io::Error::from)),
            }
        }
    }
}

/// Waits for room. Epoll knows a descriptor once, so another one of the same socket waits.
fn writable(socket: &Receiver) -> impl Future<Output = io::Result<()>> + Send + 'static {
    let another = socket.as_fd().try_clone_to_owned();
    let another = another.and_then(Sender::from_owned_fd_unchecked);
    async move {
        match another {
            Ok(another) => another.writable().await,
            Err(_) => {
                sleep(RETRY).await;
                Ok(())
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, bytes)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Sooner done than `send`. Rust's programs ignore the signal that it can raise.
        self.poll_send(cx, |socket| rustix::io::write(socket, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |socket| {
            let mut nothing = SendAncillaryBuffer::default();
            rustix::net::sendmsg(socket, pieces, &mut nothing, SendFlags::NOSIGNAL)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
