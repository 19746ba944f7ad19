//! The beginning of a connection: who may come in, hello, welcome.

use super::broker::Broker;
use super::connection::{Client, Connection};
use super::outbox::Outbox;
use super::session::Session;
use super::socket::Socket;
use bytes::BytesMut;
use ganger_protocol::hello::{
    negotiate, shared_capabilities, Hello, Welcome, BY_REFERENCE, CAPABILITIES, VERSIONS,
};
use ganger_protocol::limits::NAME_LEN_MAX;
use ganger_protocol::{ErrorBody, ErrorCode, Frame, FrameCodec, Limits, Op};
use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::unix::UCred;
use tokio::net::UnixStream;
use tokio_util::codec::Decoder;
use tokio_util::io::poll_read_buf;

/// Bytes of a hello at most: nobody known yet gets more memory.
const HELLO_MAX: usize = 16 << 10;
/// How long a client that is refused has to take the reason.
const FAREWELL: Duration = Duration::from_millis(100);

/// Greets a client that may come in, and serves it to its end.
pub(super) async fn serve(mut stream: UnixStream, peer: UCred, broker: Arc<Broker>) {
    let patience = Duration::from_millis(broker.limits().hello_ms);
    let mut received = BytesMut::new();
    let hello = tokio::time::timeout(patience, hello(&mut stream, &mut received, &broker)).await;
    let refused = match hello {
        Ok(Ok(Some(frame))) => match frame
            .body()
            .map_err(ErrorBody::from)
            .and_then(|hello| welcome(&hello, peer, &broker))
        {
            Ok((connection, welcome)) => {
                let mut out = Outbox::default();
                let greeted = greet(&stream, &broker, (frame.head.id, &welcome), &mut out).await;
                if let Ok(socket) = greeted.and_then(|()| Socket::new(stream)) {
                    let connection = Arc::new(connection);
                    broker.enter(&connection);
                    Session::new(broker, connection, socket, received, out)
                        .run()
                        .await;
                }
                return;
            }
            Err(error) => (frame.head.id, error),
        },
        // The client went.
        Ok(Ok(None)) => return,
        Ok(Err(error)) => (0, error),
        Err(_) => {
            broker.counters.hello_timeouts.count();
            let limit = broker.limits().hello_ms;
            let error = ErrorBody::new(ErrorCode::NotGreeted, "no hello in time");
            (0, error.limit(limit))
        }
    };
    broker.counters.hello_refused.count();
    refuse(stream, refused.0, &refused.1).await;
}

/// Tells why a client can't come in, and closes.
pub(super) async fn refuse(mut stream: UnixStream, id: u32, why: &ErrorBody) {
    let mut out = Outbox::default();
    out.control(id, why);
    let written = poll_fn(|cx| out.poll_write(Pin::new(&mut stream), cx));
    // It fits a socket's buffer, unless the client filled that by itself.
    let _ = tokio::time::timeout(FAREWELL, written).await;
}

/// The first frame, if it is a hello.
async fn hello(
    stream: &mut UnixStream,
    received: &mut BytesMut,
    broker: &Broker,
) -> Result<Option<Frame>, ErrorBody> {
    let limits = Limits {
        frame_bytes: HELLO_MAX,
        ..Limits::default()
    };
    let mut codec = FrameCodec::new(&limits);
    loop {
        match codec.decode(received) {
            Ok(None) => {}
            Ok(Some(frame)) if frame.head.op == Op::Hello => return Ok(Some(frame)),
            Ok(Some(_)) => {
                let why = "the first frame of a connection is a hello";
                return Err(ErrorBody::new(ErrorCode::NotGreeted, why));
            }
            Err(error) => {
                broker.counters.bad_frames.count();
                return Err(ErrorBody::new(ErrorCode::BadFrame, error.to_string()));
            }
        }
        received.reserve(1024);
        match poll_fn(|cx| poll_read_buf(Pin::new(&mut *stream), cx, received)).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
    }
}

/// What the client is told, and how it is known from now on.
fn welcome(
    hello: &Hello,
    peer: UCred,
    broker: &Broker,
) -> Result<(Connection, Welcome), ErrorBody> {
    let version = negotiate(hello.versions, VERSIONS)?;
    if hello.name.len().max(hello.software.len()) > NAME_LEN_MAX {
        let why = "names have 256 bytes at most";
        return Err(ErrorBody::new(ErrorCode::Invalid, why).limit(NAME_LEN_MAX));
    }
    if broker.is_draining() {
        return Err(ErrorCode::Draining.into());
    }
    // Only who is the same user may do with the region's memory whatever it likes.
    let is_same_user = peer.uid() == rustix::process::geteuid().as_raw();
    let region = hello.wants_region && is_same_user && broker.region.fd().is_some();
    let mut capabilities = shared_capabilities(&hello.capabilities, CAPABILITIES);
    capabilities.retain(|name| name != BY_REFERENCE || is_same_user);
    let client = Client {
        name: hello.name.clone(),
        software: hello.software.clone(),
        pid: peer
            .pid()
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or(0),
        uid: peer.uid(),
        by_reference: capabilities.iter().any(|name| name == BY_REFERENCE),
        has_region: region,
        since_ms: broker.now_ms(),
    };
    let connection = Connection::new(broker.next_connection_id(), client);
    let welcome = Welcome {
        version,
        capabilities,
        epoch: broker.epoch,
        connection: connection.id.0,
        limits: broker.limits().clone(),
        region,
        software: super::SOFTWARE.to_owned(),
    };
    Ok((connection, welcome))
}

/// Writes the welcome, with the region's descriptor beside its first byte.
async fn greet(
    stream: &UnixStream,
    broker: &Broker,
    (id, welcome): (u32, &Welcome),
    out: &mut Outbox,
) -> io::Result<()> {
    let fd = broker.region.fd().filter(|_| welcome.region);
    let frame = Frame::control(id, welcome).map_err(io::Error::other)?;
    let Some(fd) = fd else {
        out.push(frame.head, &frame.tail);
        return Ok(());
    };
    let mut bytes = BytesMut::new();
    frame.write_to(&mut bytes);
    loop {
        stream.writable().await?;
        let send = || send_with_fd(stream.as_fd(), &bytes, fd);
        match stream.try_io(Interest::WRITABLE, send) {
            Ok(sent) => {
                out.rest_of_frame(&bytes[sent..]);
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn send_with_fd(socket: BorrowedFd<'_>, bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    // The space is that of one descriptor.
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let flags = SendFlags::NOSIGNAL;
    Ok(sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        flags,
    )?)
}
