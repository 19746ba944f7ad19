//! A new connection, up to its welcome.

use super::error::Error;
use super::payload::Mapped;
use super::settings::Settings;
use super::table::refusal;
use crate::attach;
use bytes::BytesMut;
use ganger_protocol::hello::{Hello, Welcome, BY_REFERENCE, VERSIONS};
use ganger_protocol::{Frame, FrameCodec, Limits, Op};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::unix::pipe::Receiver;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::codec::Decoder;

/// Software and version, as the broker's listings show it.
const SOFTWARE: &str = concat!("ganger-client/", env!("CARGO_PKG_VERSION"));

/// A connection that was greeted.
pub(crate) struct Established {
    pub(crate) stream: Receiver,
    pub(crate) welcome: Welcome,
    pub(crate) mapped: Option<Mapped>,
    /// What came behind the welcome.
    pub(crate) received: BytesMut,
}

pub(crate) async fn establish(settings: &Settings) -> Result<Established, Error> {
    settings.home.check()?;
    let socket = settings.home.socket();
    match timeout(settings.greeting, greet(settings, &socket)).await {
        Ok(done) => done,
        Err(_) => Err(Error::Silent {
            socket,
            waited: settings.greeting,
        }),
    }
}

async fn greet(settings: &Settings, socket: &Path) -> Result<Established, Error> {
    let failed = |error: io::Error| Error::Connect {
        socket: socket.to_owned(),
        error: Arc::new(error),
    };
    let stream = UnixStream::connect(socket).await.map_err(failed)?;
    let mut hello = Hello::new(settings.name.clone());
    SOFTWARE.clone_into(&mut hello.software);
    hello.wants_region = settings.wants_region;
    if !settings.wants_region {
        hello.capabilities.retain(|name| name != BY_REFERENCE);
    }
    let mut out = BytesMut::new();
    Frame::control(1, &hello)?.write_to(&mut out);
    let sent = send(&stream, &out).await;
    let mut received = BytesMut::new();
    // A broker that is full says so without waiting for a hello, and closes: then the hello can't be
    // sent any more, but why can be read.
    let first = first_bytes(&stream, &mut received).await;
    let mut fd = first
        .map_err(|error| sent.err().unwrap_or(error))
        .map_err(failed)?;
    let mut codec = FrameCodec::new(&Limits::default());
    let frame = loop {
        if let Some(frame) = codec.decode(&mut received).map_err(unreadable)? {
            break frame;
        }
        receive(&stream, &mut received).await.map_err(failed)?;
    };
    let welcome: Welcome = match frame.head.op {
        Op::Welcome => frame.body()?,
        Op::Error => return Err(refusal(&frame)),
        other => return Err(Error::protocol(format!("{other:?} instead of a welcome"))),
    };
    if !(VERSIONS.min..=VERSIONS.max).contains(&welcome.version) {
        let what = format!("version {}, which was not offered", welcome.version);
        return Err(Error::protocol(what));
    }
    let fd = fd
        .take()
        .filter(|_| welcome.region && settings.wants_region);
    let mapped = fd.map(Mapped::new).transpose().map_err(failed)?;
    Ok(Established {
        stream: Receiver::from_owned_fd_unchecked(stream.into_std().map_err(failed)?.into())
            .map_err(failed)?,
        welcome,
        mapped,
        received,
    })
}

pub(crate) fn unreadable(error: ganger_protocol::FrameError) -> Error {
    Error::protocol(error.to_string())
}

async fn send(stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(len) => bytes = &bytes[len..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn receive(stream: &UnixStream, received: &mut BytesMut) -> io::Result<()> {
    loop {
        stream.readable().await?;
        received.reserve(4096);
        match stream.try_read_buf(received) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The first piece, and the descriptor that came with it.
async fn first_bytes(stream: &UnixStream, received: &mut BytesMut) -> io::Result<Option<OwnedFd>> {
    loop {
        stream.readable().await?;
        let receive = || attach::receive(stream, received);
        match stream.try_io(Interest::READABLE, receive) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}
