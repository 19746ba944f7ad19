//! Just enough of a broker to try clients on, with the faults of one at hand: it can lose its
//! connections, freeze, and be started anew. In threads, so that it shares no runtime with the client.

mod keys;
mod leases;
mod messages;

use bytes::BytesMut;
use ganger_client::Kv;
use ganger_protocol::admin::{AdminProgress, AdminReply, AdminRequest};
use ganger_protocol::hello::{Hello, Welcome, BY_REFERENCE};
use ganger_protocol::kv::{KvReply, KvRequest};
use ganger_protocol::kv_fast::Command;
use ganger_protocol::pubsub::Subscribe;
use ganger_protocol::watch::{ChangeKind, Watch};
use ganger_protocol::{
    Body, ErrorBody, ErrorCode, Flags, Frame, FrameCodec, Head, Limits, Op, Pattern, Tail,
};
use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::collections::BTreeMap;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::codec::Decoder;

/// A directory of its own, removed at the end.
pub(crate) struct TempHome(pub(crate) PathBuf);

impl TempHome {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ganger-client-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        ganger_client::Home::at(&path).create().unwrap();
        Self(path)
    }
}

impl Drop for TempHome {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A broker in threads of this process.
pub(crate) struct Fake {
    home: TempHome,
    pub(crate) state: Arc<Mutex<State>>,
    stopping: Arc<AtomicBool>,
    frozen: Arc<AtomicBool>,
    kv: Option<Kv>,
}

#[derive(Default)]
pub(crate) struct State {
    epoch: u64,
    /// The end of its connections tells it nothing.
    dies: bool,
    connections: BTreeMap<u64, UnixStream>,
    last: u64,
    /// Messages by pattern.
    channels: BTreeMap<String, Vec<Tail>>,
    subscriptions: Vec<Sub>,
    requests: Vec<Asked>,
    retained: BTreeMap<Vec<u8>, Tail>,
    keys: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
    log: Vec<(ChangeKind, Vec<u8>)>,
    /// Numbers below are not in the log any more.
    pub(crate) log_from: u64,
    watches: Vec<(u64, u32, Watch)>,
    holders: BTreeMap<String, (u64, u32, u64)>,
    waiters: Vec<(String, u64, u32)>,
    observers: Vec<(String, u64, u32)>,
    tokens: u64,
    /// Sequence numbers that were acknowledged.
    pub(crate) acks: Vec<u64>,
    /// Operations that came, in order.
    pub(crate) seen: Vec<Op>,
}

struct Sub {
    connection: u64,
    id: u32,
    pattern: Pattern,
    asked: Subscribe,
}

struct Asked {
    number: u64,
    requester: (u64, u32),
    responder: u64,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self::with(None)
    }

    pub(crate) fn with(kv: Option<Kv>) -> Self {
        let fake = Self {
            home: TempHome::new(),
            state: Arc::default(),
            stopping: Arc::default(),
            frozen: Arc::default(),
            kv,
        };
        fake.start();
        fake
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home.0
    }

    /// A broker with an empty memory, but for the keys and the leases.
    pub(crate) fn start(&self) {
        let listener = UnixListener::bind(self.home().join("broker.sock")).unwrap();
        {
            let mut state = self.state.lock().unwrap();
            state.epoch += 1;
            state.dies = false;
            state.channels.clear();
            state.log.clear();
            state.log_from = 1;
        }
        self.stopping.store(false, Ordering::SeqCst);
        let (state, stopping) = (Arc::clone(&self.state), Arc::clone(&self.stopping));
        let (frozen, kv) = (Arc::clone(&self.frozen), self.kv.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopping.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                let (state, frozen, kv) = (Arc::clone(&state), Arc::clone(&frozen), kv.clone());
                std::thread::spawn(move || serve(stream, &state, &frozen, kv.as_ref()));
            }
        });
    }

    /// As if it were killed.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let socket = self.home().join("broker.sock");
        // So that the listener wakes up.
        drop(UnixStream::connect(&socket));
        std::fs::remove_file(socket).unwrap();
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .dies = true;
        self.cut();
        self.frozen.store(false, Ordering::SeqCst);
        let connected = || match self.state.lock() {
            Ok(state) => state.connected(),
            // The test has failed already.
            Err(_) => 0,
        };
        while connected() > 0 {
            // One may have come in just now.
            self.cut();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in state.connections.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// As if it were stopped, or no longer.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
    }

    /// Publishes as if another client had.
    pub(crate) fn publish(&self, subject: &str, payload: &[u8]) {
        let tail = Tail::new(subject.as_bytes(), b"", payload).unwrap();
        self.state.lock().unwrap().publish(&tail, Flags::NONE);
    }

    pub(crate) fn set(&self, key: &[u8], value: &[u8]) {
        self.state.lock().unwrap().store(key, Some(value));
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if !self.stopping.load(Ordering::SeqCst) {
            self.stop();
        }
    }
}

fn serve(mut stream: UnixStream, state: &Mutex<State>, frozen: &AtomicBool, kv: Option<&Kv>) {
    let number = {
        let mut state = state.lock().unwrap();
        state.last += 1;
        let number = state.last;
        state
            .connections
            .insert(number, stream.try_clone().unwrap());
        number
    };
    let mut codec = FrameCodec::new(&Limits::default());
    let mut received = BytesMut::new();
    let mut piece = [0; 65_536];
    while let Ok(len @ 1..) = stream.read(&mut piece) {
        received.extend_from_slice(&piece[..len]);
        while frozen.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        while let Ok(Some(frame)) = codec.decode(&mut received) {
            if frame.head.op == Op::Hello {
                let epoch = state.lock().unwrap().epoch;
                welcome(&stream, &frame, epoch, number, kv);
                continue;
            }
            let mut state = state.lock().unwrap();
            state.seen.push(frame.head.op);
            if let Err(error) = state.answer(number, &frame) {
                state.send(number, frame.head.id, &error);
            }
        }
    }
    state.lock().unwrap().gone(number);
}

fn welcome(stream: &UnixStream, frame: &Frame, epoch: u64, connection: u64, kv: Option<&Kv>) {
    let hello: Hello = frame.body().unwrap();
    let kv = kv.filter(|_| hello.wants_region);
    let welcome = Welcome {
        version: 1,
        capabilities: kv.map(|_| BY_REFERENCE.to_owned()).into_iter().collect(),
        epoch,
        connection,
        limits: Limits::default(),
        region: kv.is_some(),
        software: "fake/1".into(),
    };
    let mut out = BytesMut::new();
    Frame::control(frame.head.id, &welcome)
        .unwrap()
        .write_to(&mut out);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = kv.and_then(Kv::fd).map(|fd| [fd]);
    if let Some(fds) = &fds {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    // The descriptor comes with the first byte; the rest may come later.
    let first = [IoSlice::new(&out[..1])];
    // The client may be gone already.
    if sendmsg(stream, &first, &mut control, SendFlags::NOSIGNAL).is_ok() {
        let mut stream = stream;
        let _ = stream.write_all(&out[1..]);
    }
}

impl State {
    fn frame(&mut self, connection: u64, frame: &Frame) {
        let mut out = BytesMut::new();
        frame.write_to(&mut out);
        if let Some(mut stream) = self.connections.get(&connection) {
            let _ = stream.write_all(&out);
        }
    }

    fn send<B: Body>(&mut self, connection: u64, id: u32, body: &B) {
        self.frame(connection, &Frame::control(id, body).unwrap());
    }

    fn bare(&mut self, connection: u64, head: Head) {
        self.frame(connection, &Frame::bare(head));
    }

    fn gone(&mut self, connection: u64) {
        self.connections.remove(&connection);
        self.subscriptions
            .retain(|sub| sub.connection != connection);
        self.watches.retain(|watch| watch.0 != connection);
        self.observers.retain(|observer| observer.1 != connection);
        self.waiters.retain(|waiter| waiter.1 != connection);
        let held = |holder: &(u64, u32, u64)| holder.0 == connection;
        let free: Vec<_> = match self.dies {
            true => vec![],
            false => self
                .holders
                .iter()
                .filter(|(_, holder)| held(holder))
                .map(|(name, _)| name.clone())
                .collect(),
        };
        for name in free {
            self.holders.remove(&name);
            self.grant_next(&name);
        }
        let died = |asked: &Asked| asked.responder == connection;
        let dead: Vec<_> = self
            .requests
            .iter()
            .filter(|asked| died(asked))
            .map(|asked| asked.requester)
            .collect();
        self.requests.retain(|asked| !died(asked));
        for (requester, id) in dead {
            self.send(requester, id, &ErrorBody::from(ErrorCode::WorkerDied));
        }
    }

    fn answer(&mut self, connection: u64, frame: &Frame) -> Result<(), ErrorBody> {
        let id = frame.head.id;
        if let Some(command) = Command::of(frame)? {
            return self.command(connection, id, command);
        }
        match frame.head.op {
            Op::Ping => self.bare(connection, Head::new(Op::Pong, id)),
            Op::Publish => {
                let reached = self.publish(&frame.tail, frame.head.flags);
                if frame.head.flags.has(Flags::WANT_ACK) {
                    self.bare(connection, Head::new(Op::Ok, id).seq(reached));
                }
            }
            Op::Ack => self.acks.push(frame.head.seq),
            Op::Subscribe => self.subscribe(connection, id, frame.body()?)?,
            Op::Cancel => self.cancel(connection, id),
            Op::Request => self.request(connection, frame)?,
            Op::Reply => self.reply(frame),
            Op::Kv => {
                let reply = match frame.body()? {
                    KvRequest::Len {} => KvReply::Count {
                        count: self.keys.len() as u64,
                    },
                    _ => return Err(ErrorCode::UnknownOperation.into()),
                };
                self.send(connection, id, &reply);
            }
            Op::Watch => self.watch(connection, id, frame.body()?),
            Op::Lease => self.lease(connection, id, frame.body()?)?,
            Op::Admin => match frame.body()? {
                AdminRequest::Audit {} => {
                    self.send(connection, id, &AdminProgress { done: 1, total: 2 });
                    let reply = AdminReply::Audit {
                        entries: 2,
                        problems: vec![],
                    };
                    self.send(connection, id, &reply);
                }
                AdminRequest::Snapshot {} => {
                    self.send(connection, id, &AdminProgress { done: 1, total: 2 });
                    let name = "s1".into();
                    let reply = AdminReply::Snapshot {
                        name,
                        entries: 2,
                        bytes: 9,
                        refused: vec![],
                    };
                    self.send(connection, id, &reply);
                }
                _ => return Err(ErrorCode::UnknownOperation.into()),
            },
            _ => return Err(ErrorCode::UnknownOperation.into()),
        }
        Ok(())
    }

    pub(crate) fn subscribers(&self) -> usize {
        self.subscriptions.len()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) fn held(&self) -> usize {
        self.holders.len()
    }

    pub(crate) fn watchers(&self) -> usize {
        self.watches.len()
    }

    pub(crate) fn asked(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn connected(&self) -> usize {
        self.connections.len()
    }
}
