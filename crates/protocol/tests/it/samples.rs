//! One of each message, with every field set, and one of each kind of frame.

use bytes::Bytes;
use ganger_protocol::admin::{
    AdminProgress, AdminReply, AdminRequest, BrokerStats, ClientInfo, LeaseInfo, Subscriber, Topic,
};
use ganger_protocol::hello::{Ended, Goodbye, Hello, Welcome};
use ganger_protocol::kv::{Entry, KvReply, KvRequest, PageEntry, RegionStats, SetOptions};
use ganger_protocol::lease::{Acquire, Holder, LeaseEvent, LeaseRequest};
use ganger_protocol::pubsub::{Gap, GapCause, Policy, Position, Start, Subscribe, Subscribed};
use ganger_protocol::watch::{
    Select, SnapshotBegin, SnapshotEnd, Watch, WatchValue, Watching, Window,
};
use ganger_protocol::{
    headers, Body, DecodeError, ErrorBody, ErrorCode, Flags, Frame, Head, Limits, Op, Reference,
    Tail,
};
use std::fmt::Debug;

/// A message, its type forgotten.
pub(crate) struct Sample {
    /// `Type.variant`, or `Type`.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// Reads bytes as the sample's type: whether they are the same message.
    pub(crate) read: Box<Read>,
}

type Read = dyn Fn(&[u8]) -> Result<bool, DecodeError>;

impl Sample {
    /// The name of the variant, if its type is an enum.
    pub(crate) fn variant(&self) -> Option<&str> {
        self.name.split_once('.').map(|(_, variant)| variant)
    }
}

fn sample<B: Body + PartialEq + Debug + 'static>(body: B) -> Sample {
    let bytes = body.to_bytes().unwrap();
    let kind = std::any::type_name::<B>().rsplit("::").next().unwrap();
    let is_enum = [
        "KvRequest",
        "KvReply",
        "LeaseRequest",
        "LeaseEvent",
        "AdminRequest",
        "AdminReply",
    ];
    let mut name = kind.to_owned();
    if is_enum.contains(&kind) {
        let value = rmpv::decode::read_value(&mut &bytes[..]).unwrap();
        let variant = value.as_map().unwrap()[0].0.as_str().unwrap().to_owned();
        name = format!("{kind}.{variant}");
    }
    Sample {
        name,
        bytes,
        read: Box::new(move |bytes| B::from_bytes(bytes).map(|read| read == body)),
    }
}

pub(crate) fn all() -> Vec<Sample> {
    [
        connection(),
        messages(),
        kv(),
        kv_replies(),
        leases(),
        admin(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn error() -> ErrorBody {
    ErrorBody::new(ErrorCode::ValueLen, "too long")
        .limit(5_u64)
        .actual(6_u64)
        .value(-7)
}

fn connection() -> Vec<Sample> {
    vec![
        sample(Hello {
            wants_region: true,
            ..Hello::new("worker 3")
        }),
        sample(Welcome {
            version: 1,
            capabilities: vec!["by_reference".into()],
            epoch: 1 << 60,
            connection: 7,
            limits: Limits {
                batch: 9,
                ..Limits::default()
            },
            region: true,
            software: "ganger/0.1.0".into(),
        }),
        sample(error()),
        sample(Ended {
            error: Some(error()),
        }),
        sample(Goodbye {
            reason: "restart".into(),
            closes_in_ms: 2000,
        }),
    ]
}

fn messages() -> Vec<Sample> {
    let position = Position { epoch: 5, seq: 9 };
    vec![
        sample(Subscribe {
            pattern: "orders.>".into(),
            group: Some("billing".into()),
            responds: true,
            start: Start::From(position),
            policy: Policy::Block { ms: 100 },
            max_lag: Some(1000),
            redeliver: true,
            max_unacknowledged: Some(16),
            no_echo: true,
        }),
        sample(Subscribed {
            next: position,
            replayed: 3,
        }),
        sample(Gap {
            from: 3,
            to: 8,
            count: Some(6),
            cause: GapCause::Slow,
        }),
        sample(Watch {
            select: Select::Prefix(Bytes::from_static(b"user:\xff")),
            resume: Some(position),
            values: false,
            window: Some(Window {
                frames: 100,
                bytes: 1 << 20,
            }),
        }),
        sample(Watching { position }),
        sample(SnapshotBegin {
            gap: Some(GapCause::Expired),
        }),
        sample(SnapshotEnd {
            entries: 12,
            position,
        }),
    ]
}

fn kv() -> Vec<Sample> {
    let key = || Bytes::from_static(b"key\xff");
    let value = || Bytes::from_static(b"value\x00");
    let requests = vec![
        KvRequest::Get { key: key() },
        KvRequest::Entry { key: key() },
        KvRequest::Set {
            key: key(),
            value: value(),
            options: SetOptions {
                ttl_ms: Some(5),
                if_absent: true,
                if_present: true,
                if_revision: Some(4),
                keep_expiry: true,
                ephemeral: true,
            },
        },
        KvRequest::Delete {
            key: key(),
            if_revision: Some(6),
        },
        KvRequest::Incr {
            key: key(),
            by: i64::MIN,
            ttl_ms: Some(1000),
        },
        KvRequest::Append {
            key: key(),
            value: value(),
        },
        KvRequest::Expire {
            key: key(),
            ttl_ms: 1,
        },
        KvRequest::Touch {
            key: key(),
            ttl_ms: u64::MAX,
        },
        KvRequest::Persist { key: key() },
        KvRequest::Ttl { key: key() },
        KvRequest::Exists { key: key() },
        KvRequest::Len {},
        KvRequest::Scan {
            prefix: key(),
            cursor: u64::MAX,
            limit: 10,
            keys_only: true,
        },
        KvRequest::Clear {},
        KvRequest::GetMany {
            keys: vec![key(), value()],
        },
        KvRequest::Stats {},
    ];
    let batch = KvRequest::Batch {
        requests: requests.clone(),
    };
    requests.into_iter().chain([batch]).map(sample).collect()
}

fn kv_replies() -> Vec<Sample> {
    let value = Bytes::from_static(b"\x01\0\0\0\0\0\0\0");
    let entry = Entry {
        value: value.clone(),
        revision: 8,
        ttl_ms: Some(9),
        counter: true,
        ephemeral: true,
    };
    let replies = vec![
        KvReply::Value {
            value: Some(value.clone()),
        },
        KvReply::Entry {
            entry: Some(entry.clone()),
        },
        KvReply::Written { revision: Some(2) },
        KvReply::Done { done: true },
        KvReply::Sum { value: -1 },
        KvReply::Count { count: 3 },
        KvReply::Ttl {
            exists: true,
            ttl_ms: Some(4),
        },
        KvReply::Page {
            entries: vec![PageEntry {
                key: value.clone(),
                entry,
            }],
            next: Some(1 << 56),
        },
        KvReply::Values {
            values: vec![None, Some(value)],
        },
        KvReply::Stats {
            stats: RegionStats {
                entries: 5,
                ..RegionStats::default()
            },
        },
        KvReply::Failed { error: error() },
    ];
    let batch = KvReply::Batch {
        replies: replies.clone(),
    };
    replies.into_iter().chain([batch]).map(sample).collect()
}

fn leases() -> Vec<Sample> {
    let name = || "nightly".to_owned();
    let value = || Bytes::from_static(b"10.0.0.7");
    vec![
        sample(LeaseRequest::Acquire(Acquire {
            name: name(),
            permits: 3,
            ttl_ms: Some(5000),
            wait_ms: Some(0),
            value: value(),
            reclaim: Some(17),
        })),
        sample(LeaseRequest::Renew {
            name: name(),
            token: 18,
            ttl_ms: Some(1),
            value: Some(value()),
        }),
        sample(LeaseRequest::Release {
            name: name(),
            token: 18,
        }),
        sample(LeaseRequest::Observe { name: name() }),
        sample(LeaseEvent::Queued { ahead: 2 }),
        sample(LeaseEvent::Granted {
            token: 18,
            reclaimed: true,
        }),
        sample(LeaseEvent::Renewed {}),
        sample(LeaseEvent::Released {}),
        sample(LeaseEvent::Lost {
            token: 18,
            error: error(),
        }),
        sample(LeaseEvent::Holders {
            holders: vec![holder()],
            waiting: 1,
        }),
    ]
}

fn holder() -> Holder {
    Holder {
        token: 18,
        value: Bytes::from_static(b"10.0.0.7"),
        client: "worker 3".into(),
        pid: 4321,
        connection: 7,
    }
}

fn admin() -> Vec<Sample> {
    let text = || "orders".to_owned();
    let requests = vec![
        AdminRequest::Topics {
            prefix: text(),
            after: Some(text()),
        },
        AdminRequest::Clients { after: 5 },
        AdminRequest::Leases {
            prefix: text(),
            after: Some(text()),
        },
        AdminRequest::Stats {},
        AdminRequest::Metrics {},
        AdminRequest::Tap { pattern: text() },
        AdminRequest::Snapshot {},
        AdminRequest::Restore { name: Some(text()) },
        AdminRequest::Audit {},
        AdminRequest::Disconnect { connection: 7 },
    ];
    let progress = AdminProgress { done: 1, total: 2 };
    let requests = requests.into_iter().map(sample).chain([sample(progress)]);
    requests
        .chain(admin_replies().into_iter().map(sample))
        .collect()
}

fn admin_replies() -> Vec<AdminReply> {
    let text = || "orders".to_owned();
    vec![
        AdminReply::Topics {
            topics: vec![Topic {
                pattern: text(),
                subscribers: vec![Subscriber {
                    group: Some(text()),
                    ..Subscriber::default()
                }],
                ..Topic::default()
            }],
            next: Some(text()),
        },
        AdminReply::Clients {
            clients: vec![ClientInfo {
                name: text(),
                ..ClientInfo::default()
            }],
            next: Some(3),
        },
        AdminReply::Leases {
            leases: vec![LeaseInfo {
                holders: vec![holder()],
                ..LeaseInfo::default()
            }],
            next: Some(text()),
        },
        AdminReply::Stats {
            stats: Box::new(BrokerStats {
                counters: [(text(), 5)].into(),
                ..BrokerStats::default()
            }),
        },
        AdminReply::Metrics { text: text() },
        AdminReply::Snapshot {
            name: text(),
            entries: 1,
            bytes: 2,
            refused: vec![text()],
        },
        AdminReply::Audit {
            entries: 3,
            problems: vec![text()],
        },
        AdminReply::Done { done: true },
    ]
}

/// One of each kind of frame that is not all MessagePack, and a few that are.
pub(crate) fn frames() -> Vec<Frame> {
    let tail = |subject: &[u8], headers: &[u8], payload: &[u8]| {
        Tail::new(subject, headers, payload).unwrap()
    };
    let headers = headers::encode(&[("key", "sensor-7"), ("traceparent", "00-1-2-03")]).unwrap();
    let reference = Reference {
        len: 1 << 20,
        key: b"\0ganger/payload/1",
    };
    let watched = WatchValue {
        key: b"user:1",
        revision: 8,
        value: b"Ada",
    };
    let publish = Head::new(Op::Publish, 3).flags(Flags::WANT_ACK.with(Flags::RETAIN));
    let conditional = Flags::TTL.with(Flags::IF_REVISION);
    vec![
        Frame::control(1, &Hello::new("worker")).unwrap(),
        Frame::new(publish, tail(b"orders.new", &headers, b"7 pears")),
        Frame::new(
            Head::new(Op::Message, 9).flags(Flags::BY_REFERENCE).seq(5),
            tail(b"orders.new", b"", &reference.to_payload()),
        ),
        Frame::bare(Head::new(Op::Ack, 9).flags(Flags::UP_TO).seq(5)),
        Frame::new(
            Head::new(Op::Request, 4).seq(2500),
            tail(b"sum", b"", b"1 2"),
        ),
        Frame::new(
            Head::new(Op::Reply, 4).flags(Flags::FAILED),
            tail(b"", b"", b"no"),
        ),
        Frame::new(Head::new(Op::Get, 5), tail(b"key", b"", b"")),
        Frame::new(
            Head::new(Op::Set, 6).flags(conditional).seq(8),
            tail(b"key", &5_u64.to_be_bytes(), b"value"),
        ),
        Frame::new(Head::new(Op::Incr, 7).seq(u64::MAX), tail(b"key", b"", b"")),
        Frame::new(Head::new(Op::Value, 5).seq(8), tail(b"", b"", b"value")),
        Frame::new(Head::new(Op::Change, 2).seq(77), watched.to_tail().unwrap()),
        Frame::control(8, &KvRequest::Len {}).unwrap(),
        Frame::bare(Head::new(Op::Unknown(0xee), 1)),
    ]
}
