//! Just enough of a broker to try a client on: one connection at a time, keys in a map, everything
//! answered by this crate's own types, whose bytes are so held against the client's.

use bytes::{Bytes, BytesMut};
use ganger_protocol::hello::{negotiate, Ended, Hello, Welcome, VERSIONS};
use ganger_protocol::kv::{Entry, KvReply, KvRequest};
use ganger_protocol::kv_fast::{Answer, Command};
use ganger_protocol::lease::{LeaseEvent, LeaseRequest};
use ganger_protocol::pubsub::{Gap, GapCause, Position, Start, Subscribe, Subscribed};
use ganger_protocol::request::RequestTag;
use ganger_protocol::{
    check_subject, Body, ErrorBody, ErrorCode, Flags, Frame, FrameCodec, Head, Limits, Op, Pattern,
    Tail,
};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use tokio_util::codec::Decoder;

const EPOCH: u64 = 1 << 63;

#[derive(Clone)]
struct Stored {
    value: Vec<u8>,
    revision: u64,
    ttl_ms: Option<u64>,
    counter: bool,
}

/// State of the broker, and the frames that are to be sent.
#[derive(Default)]
struct Fake {
    keys: BTreeMap<Vec<u8>, Stored>,
    writes: u64,
    subscriptions: Vec<(u32, Pattern, bool, u64)>,
    requests: Vec<(u64, u32)>,
    held: Option<u64>,
    out: BytesMut,
}

/// Serves one connection until it ends.
pub(crate) fn serve(mut stream: UnixStream) {
    let mut fake = Fake::default();
    let mut codec = FrameCodec::new(&Limits::default());
    let mut received = BytesMut::new();
    let mut piece = [0; 4096];
    loop {
        while let Some(frame) = codec.decode(&mut received).unwrap() {
            if let Err(error) = fake.answer(&frame) {
                fake.send(frame.head.id, &error);
            }
        }
        stream.write_all(&fake.out.split()).unwrap();
        match stream.read(&mut piece).unwrap() {
            0 => return,
            len => received.extend_from_slice(&piece[..len]),
        }
    }
}

impl Fake {
    fn send<B: Body>(&mut self, id: u32, body: &B) {
        Frame::control(id, body).unwrap().write_to(&mut self.out);
    }

    fn bare(&mut self, head: Head) {
        Frame::bare(head).write_to(&mut self.out);
    }

    fn answer(&mut self, frame: &Frame) -> Result<(), ErrorBody> {
        let id = frame.head.id;
        if let Some(command) = Command::of(frame)? {
            return self.command(id, command);
        }
        match frame.head.op {
            Op::Hello => {
                let hello: Hello = frame.body()?;
                let version = negotiate(hello.versions, VERSIONS)?;
                let welcome = Welcome {
                    version,
                    capabilities: vec![],
                    epoch: EPOCH,
                    connection: 1,
                    limits: Limits::default(),
                    region: false,
                    software: String::new(),
                };
                self.send(id, &welcome);
            }
            Op::Ping => self.bare(Head::new(Op::Pong, id).seq(frame.head.seq)),
            Op::Kv => {
                let reply = self.kv(frame.body()?)?;
                self.send(id, &reply);
            }
            Op::Publish => self.publish(frame)?,
            Op::Subscribe => self.subscribe(id, &frame.body()?)?,
            Op::Cancel => {
                self.subscriptions.retain(|(other, ..)| *other != id);
                self.send(id, &Ended::default());
            }
            Op::Request => self.request(frame)?,
            Op::Reply => {
                let number = RequestTag::from_seq(frame.head.seq).number();
                let at = self.requests.iter().position(|(other, _)| *other == number);
                let (_, requester) = self.requests.remove(at.unwrap());
                let head = Head::new(Op::Reply, requester);
                Frame::new(head, frame.tail.clone()).write_to(&mut self.out);
            }
            Op::Lease => {
                let event = self.lease(frame.body()?)?;
                self.send(id, &event);
            }
            _ => return Err(ErrorCode::UnknownOperation.into()),
        }
        Ok(())
    }

    fn command(&mut self, id: u32, command: Command<'_>) -> Result<(), ErrorBody> {
        let (Command::Get { key }
        | Command::Set { key, .. }
        | Command::Delete { key, .. }
        | Command::Incr { key, .. }) = command;
        check_key(key)?;
        let stored = self.keys.get(key).cloned();
        let answer = match (command, &stored) {
            (Command::Get { .. } | Command::Delete { .. }, None) => Answer::Nothing,
            (Command::Get { .. }, Some(stored)) => Answer::Value {
                value: &stored.value,
                revision: stored.revision,
                counter: stored.counter,
            },
            (Command::Delete { .. }, Some(_)) => {
                self.keys.remove(key);
                Answer::Ok(0)
            }
            (Command::Incr { by, .. }, _) => Answer::Ok(self.incr(key, by)?.cast_unsigned()),
            (Command::Set { value, options, .. }, _) => {
                let revision = stored.map(|stored| stored.revision);
                let fails = options.if_absent && revision.is_some()
                    || options.if_revision.is_some() && options.if_revision != revision;
                match fails {
                    true => Answer::Nothing,
                    false => Answer::Ok(self.store(key, value, options.ttl_ms, false)),
                }
            }
        };
        answer.write(id, &mut self.out).unwrap();
        Ok(())
    }

    fn store(&mut self, key: &[u8], value: &[u8], ttl_ms: Option<u64>, counter: bool) -> u64 {
        self.writes += 2;
        let stored = Stored {
            value: value.to_vec(),
            revision: self.writes,
            ttl_ms,
            counter,
        };
        self.keys.insert(key.to_vec(), stored);
        self.writes
    }

    fn incr(&mut self, key: &[u8], by: i64) -> Result<i64, ErrorBody> {
        let old = match self.keys.get(key) {
            None => 0,
            Some(stored) if stored.counter => {
                i64::from_le_bytes(stored.value[..].try_into().unwrap())
            }
            Some(_) => return Err(ErrorCode::NotACounter.into()),
        };
        self.store(key, &(old + by).to_le_bytes(), None, true);
        Ok(old + by)
    }

    fn kv(&mut self, request: KvRequest) -> Result<KvReply, ErrorBody> {
        let value = |stored: &Stored| Bytes::copy_from_slice(&stored.value);
        Ok(match request {
            KvRequest::Entry { key } => KvReply::Entry {
                entry: self.keys.get(&key[..]).map(|stored| Entry {
                    value: value(stored),
                    revision: stored.revision,
                    ttl_ms: stored.ttl_ms,
                    counter: stored.counter,
                    ephemeral: false,
                }),
            },
            KvRequest::Ttl { key } => KvReply::Ttl {
                exists: self.keys.contains_key(&key[..]),
                ttl_ms: self.keys.get(&key[..]).and_then(|stored| stored.ttl_ms),
            },
            KvRequest::Append { key, value: more } => {
                let mut value = self.keys[&key[..]].value.clone();
                value.extend_from_slice(&more);
                self.store(&key, &value, None, false);
                let count = value.len() as u64;
                KvReply::Count { count }
            }
            KvRequest::GetMany { keys } => KvReply::Values {
                values: keys
                    .iter()
                    .map(|key| self.keys.get(&key[..]).map(value))
                    .collect(),
            },
            KvRequest::Incr { key, by, .. } => KvReply::Sum {
                value: self.incr(&key, by)?,
            },
            KvRequest::Batch { requests } => {
                let reply = |request| {
                    self.kv(request)
                        .unwrap_or_else(|error| KvReply::Failed { error })
                };
                let replies = requests.into_iter().map(reply).collect();
                KvReply::Batch { replies }
            }
            other => panic!("{other:?} is not part of the conformance"),
        })
    }

    fn publish(&mut self, frame: &Frame) -> Result<(), ErrorBody> {
        let subject = check_subject(frame.subject())?;
        let mut reached = 0;
        for (id, pattern, responds, seq) in &mut self.subscriptions {
            if pattern.matches(subject) && !*responds {
                *seq += 1;
                reached += 1;
                let head = Head::new(Op::Message, *id).seq(*seq);
                Frame::new(head, frame.tail.clone()).write_to(&mut self.out);
            }
        }
        if frame.head.flags.has(Flags::WANT_ACK) {
            self.bare(Head::new(Op::Ok, frame.head.id).seq(reached));
        }
        Ok(())
    }

    fn subscribe(&mut self, id: u32, asked: &Subscribe) -> Result<(), ErrorBody> {
        let pattern = asked.pattern.parse()?;
        self.subscriptions.push((id, pattern, asked.responds, 0));
        let next = Position {
            epoch: EPOCH,
            seq: 1,
        };
        self.send(id, &Subscribed { next, replayed: 0 });
        if matches!(asked.start, Start::From(position) if position.epoch != EPOCH) {
            let gap = Gap {
                from: 0,
                to: 0,
                count: None,
                cause: GapCause::Restart,
            };
            self.send(id, &gap);
        }
        Ok(())
    }

    fn request(&mut self, frame: &Frame) -> Result<(), ErrorBody> {
        let subject = check_subject(frame.subject())?;
        let responder = self
            .subscriptions
            .iter()
            .find(|(_, pattern, responds, _)| *responds && pattern.matches(subject));
        let Some((responder, ..)) = responder else {
            return Err(ErrorCode::NoResponders.into());
        };
        let tag = RequestTag::new(77, frame.head.seq);
        let head = Head::new(Op::Request, *responder).seq(tag.to_seq());
        let tail = Tail::new(frame.subject(), frame.headers(), frame.payload()).unwrap();
        self.requests.push((77, frame.head.id));
        Frame::new(head, tail).write_to(&mut self.out);
        Ok(())
    }

    fn lease(&mut self, request: LeaseRequest) -> Result<LeaseEvent, ErrorBody> {
        match request {
            LeaseRequest::Acquire(_) if self.held.is_some() => Err(ErrorCode::Taken.into()),
            LeaseRequest::Acquire(_) => {
                self.writes += 1;
                self.held = Some(self.writes);
                Ok(LeaseEvent::Granted {
                    token: self.writes,
                    reclaimed: false,
                })
            }
            LeaseRequest::Release { token, .. } if self.held == Some(token) => {
                self.held = None;
                Ok(LeaseEvent::Released {})
            }
            _ => Err(ErrorCode::NotHeld.into()),
        }
    }
}

fn check_key(key: &[u8]) -> Result<(), ErrorBody> {
    match key {
        [] => Err(ErrorBody::from(ErrorCode::KeyLen).actual(0_u64)),
        [0, ..] => Err(ErrorCode::ReservedKey.into()),
        _ => Ok(()),
    }
}
