//! The supervisor's side of the control socket.

use super::outbox::Outbox;
use super::{Hello, Reply, Request, CONNECTIONS_MAX, PROTOCOL, REQUEST_MAX};
use bytes::BytesMut;
use serde::Serialize;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::codec::{Decoder, LengthDelimitedCodec};

/// Longest wait for a hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for the next request.
const IDLE_PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for a client to read the rest, once all was said.
const READ_PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for the connections when the supervisor stops.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// Pause when no connection can be accepted (no descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the control socket asks of the supervisor.
pub trait Handler: 'static {
    /// Answers a request: any number of replies, of which the last is `Done` or `Failed`.
    ///
    /// `replies` never waits for a slow client, except for one that reads lines that are kept. It is
    /// closed when the client is gone: who only looks is dropped then, who does something is carried
    /// through, so a reply that can't be sent is no error.
    fn handle(&self, request: Request, replies: mpsc::Sender<Reply>) -> impl Future<Output = ()>;
}

/// The control socket.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
}

impl Control {
    /// Of a socket in the home directory, which only its owner can use. Needs a tokio runtime.
    pub fn new(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
        })
    }

    /// Serves until `shutdown`. To be run in a `LocalSet`: requests are handled on this thread.
    pub async fn run<H: Handler>(self, handler: Rc<H>, shutdown: impl Future<Output = ()>) {
        let (closing, is_closing) = watch::channel(false);
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) if connections.len() >= CONNECTIONS_MAX => {
                        refuse(&stream, "too many connections to the supervisor");
                    }
                    Ok((stream, _)) => {
                        let connection = Connection::new(stream, is_closing.clone());
                        connections.spawn_local(connection.serve(Rc::clone(&handler)));
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
            }
        }
        let _ = closing.send(true);
        let all = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(STOP_PATIENCE, all).await;
    }
}

struct Connection {
    stream: UnixStream,
    codec: LengthDelimitedCodec,
    received: BytesMut,
    is_closing: watch::Receiver<bool>,
}

impl Connection {
    fn new(stream: UnixStream, is_closing: watch::Receiver<bool>) -> Self {
        let codec = LengthDelimitedCodec::builder()
            .max_frame_length(REQUEST_MAX)
            .new_codec();
        Self {
            stream,
            codec,
            received: BytesMut::new(),
            is_closing,
        }
    }

    /// Whatever goes wrong ends this connection, and nothing else.
    async fn serve<H: Handler>(mut self, handler: Rc<H>) {
        let Some(()) = self.greet().await else {
            return;
        };
        loop {
            let mut is_closing = self.is_closing.clone();
            let frame = tokio::select! {
                frame = tokio::time::timeout(IDLE_PATIENCE, self.read()) => frame,
                _ = is_closing.wait_for(|is_closing| *is_closing) => return,
            };
            let Ok(Ok(Some(frame))) = frame else {
                return;
            };
            let answered = match rmp_serde::from_slice(&frame) {
                Ok(request) => self.answer(request, &handler).await,
                Err(error) => {
                    let text = format!("the supervisor does not understand the request: {error}");
                    let mut outbox = Outbox::default();
                    outbox.push(Reply::failed(text));
                    let _ = outbox.write(&self.stream);
                    return;
                }
            };
            if answered.is_err() {
                return;
            }
        }
    }

    /// Says hello, and hears it. `None` if there is nothing more to say.
    async fn greet(&mut self) -> Option<()> {
        let user = rustix::process::geteuid().as_raw();
        match self.stream.peer_cred() {
            Ok(peer) if peer.uid() == user || peer.uid() == 0 => {}
            _ => {
                refuse(&self.stream, "this supervisor belongs to another user");
                return None;
            }
        }
        let frame = tokio::time::timeout(HELLO_PATIENCE, self.read()).await;
        let frame = frame.ok()?.ok()??;
        let hello: Hello = rmp_serde::from_slice(&frame).ok()?;
        if hello.protocol != PROTOCOL {
            let what = format!(
                "this supervisor is ganger {}, the command line is {}",
                env!("CARGO_PKG_VERSION"),
                hello.ganger
            );
            refuse(&self.stream, &what);
            return None;
        }
        let mut frame = Vec::new();
        encode(&our_hello(None), &mut frame);
        self.stream.writable().await.ok()?;
        // The first bytes into an empty socket: they fit.
        (self.stream.try_write(&frame).ok()? == frame.len()).then_some(())
    }

    /// Hands the request on and sends what comes back.
    async fn answer<H: Handler>(&mut self, request: Request, handler: &Rc<H>) -> io::Result<()> {
        let (is_read, is_follow) = (request.is_read(), request.is_follow());
        let (sender, mut replies) = mpsc::channel(64);
        let handler = Rc::clone(handler);
        let task = tokio::task::spawn_local(async move {
            handler.handle(request, sender).await;
        });
        let _watched = is_read.then(|| AbortOnDrop(task.abort_handle()));
        let mut is_closing = self.is_closing.clone();
        let mut outbox = Outbox::default();
        let mut is_over = false;
        while !is_over {
            // Lines that are kept wait for their reader; what happens meanwhile waits for nobody.
            let may_take = !is_read || is_follow || outbox.has_room();
            tokio::select! {
                reply = replies.recv(), if may_take => {
                    let reply = reply.unwrap_or_else(|| {
                        Reply::failed("the supervisor gave up the request without an answer")
                    });
                    is_over = reply.is_last();
                    outbox.push(reply);
                }
                _ = is_closing.wait_for(|is_closing| *is_closing), if is_follow => {
                    outbox.push(Reply::done("the supervisor stopped"));
                    is_over = true;
                }
                ready = self.stream.writable(), if !outbox.is_empty() => {
                    ready?;
                    outbox.write(&self.stream)?;
                }
                // A client that goes away is seen here.
                filled = fill(&self.stream, &mut self.received) => filled?,
            }
        }
        tokio::time::timeout(READ_PATIENCE, self.flush(&mut outbox)).await?
    }

    async fn flush(&self, outbox: &mut Outbox) -> io::Result<()> {
        while !outbox.is_empty() {
            self.stream.writable().await?;
            outbox.write(&self.stream)?;
        }
        Ok(())
    }

    /// The next frame; `None` at the end.
    async fn read(&mut self) -> io::Result<Option<BytesMut>> {
        loop {
            if let Some(frame) = self.codec.decode(&mut self.received)? {
                return Ok(Some(frame));
            }
            match fill(&self.stream, &mut self.received).await {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Receives something; an error at the end.
async fn fill(stream: &UnixStream, received: &mut BytesMut) -> io::Result<()> {
    if received.len() > REQUEST_MAX + 4 {
        let what = "more than one request at a time";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    loop {
        stream.readable().await?;
        let mut chunk = [0; 4096];
        match stream.try_read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                received.extend_from_slice(&chunk[..len]);
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Appends a frame with `message`.
pub(super) fn encode<T: Serialize>(message: &T, out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(&[0; 4]);
    // These types have no map with odd keys and no length unknown: they always encode.
    let _ = rmp_serde::encode::write_named(out, message);
    let len = u32::try_from(out.len() - begin - 4).unwrap_or(u32::MAX);
    out[begin..begin + 4].copy_from_slice(&len.to_be_bytes());
}

fn refuse(stream: &UnixStream, why: &str) {
    let mut frame = Vec::new();
    encode(&our_hello(Some(why.to_owned())), &mut frame);
    let _ = stream.try_write(&frame);
}

fn our_hello(refused: Option<String>) -> Hello {
    Hello {
        ganger: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: PROTOCOL,
        pid: rustix::process::getpid().as_raw_pid(),
        refused,
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
