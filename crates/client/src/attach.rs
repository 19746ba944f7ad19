//! The region of a home, for programs that want nothing else of the broker: no connection is kept,
//! no runtime is needed.
//!
//! The broker hands the descriptor over with its welcome. One that stands still (stopped, or stuck)
//! does not get there; then the descriptor is found where the kernel shows it, among those of the
//! process that listens on the socket. The system lets only the same user open it there.

use crate::client::{refusal, unreadable, Error};
use crate::error::KvError;
use crate::home::Home;
use crate::kv::Kv;
use crate::options::KvOptions;
use bytes::BytesMut;
use ganger_protocol::hello::{Hello, Welcome};
use ganger_protocol::{Frame, FrameCodec, Limits, Op};
use ganger_region::AttachError;
use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::{set_socket_timeout, socket_peercred, Timeout};
use rustix::net::{
    connect, recvmsg, send, socket_with, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage,
    RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::fs;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::codec::Decoder;

/// How the kernel names a region among the descriptors of a process.
const REGION_LINK: &str = "/memfd:ganger-region (deleted)";
/// Descriptors of a process that are looked at, at most.
const DESCRIPTORS_MAX: usize = 65_536;

/// How a region was got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Via {
    /// The broker handed it over.
    Broker,
    /// The broker did not answer, and this process, which listens for it, had it open.
    Process(u32),
}

/// # The region of a home
impl Kv {
    /// Attaches to the region of the broker of a home, and lets go of the broker at once. If it
    /// says nothing for `patience`, its region is taken from its process.
    ///
    /// Blocks, twice `patience` at most. Fails with [`Error::NoRegion`] if the broker is another
    /// user's or has none to hand over, and as [`Client::connect`](crate::Client::connect) does if
    /// there is no broker.
    ///
    /// ```no_run
    /// use ganger_client::{Home, Kv, KvOptions};
    /// use std::time::Duration;
    ///
    /// let patience = Duration::from_millis(250);
    /// let (kv, via) = Kv::of_home(&Home::find(), &KvOptions::new(), patience)?;
    /// println!("{} entries, {via:?}", kv.len());
    /// # Ok::<(), ganger_client::Error>(())
    /// ```
    pub fn of_home(
        home: &Home,
        options: &KvOptions,
        patience: Duration,
    ) -> Result<(Self, Via), Error> {
        home.check()?;
        let path = home.socket();
        let silent = || Error::Silent {
            socket: path.clone(),
            waited: patience,
        };
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => silent(),
            _ => Error::Connect {
                socket: path.clone(),
                error: Arc::new(error),
            },
        };
        let socket = open_socket(&path, patience).map_err(failed)?;
        let (fd, via) = match handed_over(&socket, patience) {
            Ok(fd) => (fd, Via::Broker),
            Err(HandoverError::Told(error)) => return Err(error),
            Err(HandoverError::Io(error)) => match failed(error) {
                error @ Error::Silent { .. } => {
                    let found = found_open(&socket).map_err(|_| error)?;
                    (found.0, Via::Process(found.1))
                }
                error => return Err(error),
            },
        };
        Ok((options.from_fd(fd)?, via))
    }
}

fn open_socket(path: &Path, patience: Duration) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // A time of 0 would mean: for ever.
    let patience = Some(patience.max(Duration::from_millis(1)));
    // The one for sending holds for connecting too, to a broker whose queue is full.
    set_socket_timeout(&socket, Timeout::Send, patience)?;
    set_socket_timeout(&socket, Timeout::Recv, patience)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

enum HandoverError {
    Io(io::Error),
    Told(Error),
}

impl<E: Into<Error>> From<E> for HandoverError {
    fn from(error: E) -> Self {
        Self::Told(error.into())
    }
}

/// The descriptor that comes with the welcome.
fn handed_over(socket: &OwnedFd, patience: Duration) -> Result<OwnedFd, HandoverError> {
    let until = Instant::now() + patience;
    let mut hello = Hello::new("");
    hello.capabilities.clear();
    hello.wants_region = true;
    let mut out = BytesMut::new();
    Frame::control(1, &hello)?.write_to(&mut out);
    // It fits the buffer of a fresh socket.
    send(socket, &out, SendFlags::NOSIGNAL).map_err(|errno| HandoverError::Io(errno.into()))?;
    let (mut received, mut fd) = (BytesMut::new(), None);
    let mut codec = FrameCodec::new(&Limits::default());
    let frame = loop {
        if let Some(frame) = codec.decode(&mut received).map_err(unreadable)? {
            break frame;
        }
        // Byte by byte it could take for ever.
        if Instant::now() >= until {
            return Err(HandoverError::Io(io::ErrorKind::TimedOut.into()));
        }
        let got = receive(socket, &mut received).map_err(HandoverError::Io)?;
        fd = fd.or(got);
    };
    match frame.head.op {
        Op::Welcome => {
            let welcome: Welcome = frame.body()?;
            fd.filter(|_| welcome.region)
                .ok_or(HandoverError::Told(Error::NoRegion))
        }
        Op::Error => Err(HandoverError::Told(refusal(&frame))),
        other => Err(Error::protocol(format!("{other:?} instead of a welcome")).into()),
    }
}

/// One piece of what the broker says, and the descriptor that came with it.
pub(crate) fn receive(
    socket: impl std::os::fd::AsFd,
    received: &mut BytesMut,
) -> io::Result<Option<OwnedFd>> {
    let mut piece = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut pieces = [IoSliceMut::new(&mut piece)];
    let got = recvmsg(socket, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    received.extend_from_slice(&piece[..got.bytes]);
    Ok(fd)
}

/// The region that the listening process has open, and the process. If it has two, nobody can say
/// which it is.
fn found_open(socket: &OwnedFd) -> Result<(OwnedFd, u32), Error> {
    let peer = socket_peercred(socket).map_err(|_| Error::NoRegion)?;
    let pid = peer.pid.as_raw_nonzero().get().unsigned_abs();
    let mut found: Option<((u64, u64), OwnedFd)> = None;
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).map_err(|_| Error::NoRegion)?;
    for entry in entries.flatten().take(DESCRIPTORS_MAX) {
        let link = fs::read_link(entry.path()).unwrap_or_default();
        if link.as_os_str() != REGION_LINK {
            continue;
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let fd = rustix::fs::open(entry.path(), flags, Mode::empty());
        let fd = fd.map_err(|errno| KvError::Attach(AttachError::Io(errno.into())))?;
        let stat = rustix::fs::fstat(&fd).map_err(|_| Error::NoRegion)?;
        let which = (stat.st_dev, stat.st_ino);
        match &found {
            Some((other, _)) if *other != which => return Err(Error::NoRegion),
            Some(_) => {}
            None => found = Some((which, fd)),
        }
    }
    let (_, fd) = found.ok_or(Error::NoRegion)?;
    Ok((fd, pid))
}
