//! Both sides of a connection may be of different versions: what a later one adds is ignored, what
//! an earlier one lacks has a default, and what can't be understood is an error that says so.

use crate::samples::{self, Sample};
use bytes::Bytes;
use ganger_protocol::kv::{KvReply, KvRequest};
use ganger_protocol::lease::LeaseRequest;
use ganger_protocol::pubsub::{Gap, GapCause, Policy, Start, Subscribe};
use ganger_protocol::{Body, DecodeError, ErrorBody, ErrorCode, Frame, FrameError, Limits};
use rmpv::Value;

/// The fields that messages can't do without, for ever. All others may be left out.
const REQUIRED: &[(&str, &[&str])] = &[
    ("Hello", &["versions"]),
    ("Welcome", &["version", "epoch", "connection"]),
    ("ErrorBody", &["code"]),
    ("Subscribe", &["pattern"]),
    ("Subscribed", &["next"]),
    ("Gap", &["from", "to"]),
    ("Watch", &["select"]),
    ("Watching", &["position"]),
    ("SnapshotEnd", &["entries", "position"]),
    ("KvRequest.get", &["key"]),
    ("KvRequest.entry", &["key"]),
    ("KvRequest.set", &["key", "value"]),
    ("KvRequest.delete", &["key"]),
    ("KvRequest.incr", &["key", "by"]),
    ("KvRequest.append", &["key", "value"]),
    ("KvRequest.expire", &["key", "ttl_ms"]),
    ("KvRequest.touch", &["key", "ttl_ms"]),
    ("KvRequest.persist", &["key"]),
    ("KvRequest.ttl", &["key"]),
    ("KvRequest.exists", &["key"]),
    ("KvRequest.get_many", &["keys"]),
    ("KvRequest.batch", &["requests"]),
    ("KvReply.done", &["done"]),
    ("KvReply.sum", &["value"]),
    ("KvReply.count", &["count"]),
    ("KvReply.ttl", &["exists"]),
    ("KvReply.page", &["entries"]),
    ("KvReply.values", &["values"]),
    ("KvReply.stats", &["stats"]),
    ("KvReply.batch", &["replies"]),
    ("KvReply.failed", &["error"]),
    ("LeaseRequest.renew", &["name", "token"]),
    ("LeaseRequest.release", &["name", "token"]),
    ("LeaseRequest.observe", &["name"]),
    ("LeaseEvent.queued", &["ahead"]),
    ("LeaseEvent.granted", &["token"]),
    ("LeaseEvent.lost", &["token", "error"]),
    ("LeaseEvent.holders", &["holders"]),
    ("AdminRequest.tap", &["pattern"]),
    ("AdminRequest.disconnect", &["connection"]),
    ("AdminReply.topics", &["topics"]),
    ("AdminReply.clients", &["clients"]),
    ("AdminReply.leases", &["leases"]),
    ("AdminReply.stats", &["stats"]),
    ("AdminReply.metrics", &["text"]),
    ("AdminReply.snapshot", &["name", "entries", "bytes"]),
    ("AdminReply.audit", &["entries", "problems"]),
    ("AdminReply.done", &["done"]),
];

fn parse(bytes: &[u8]) -> Value {
    rmpv::decode::read_value(&mut &bytes[..]).unwrap()
}

fn to_bytes(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).unwrap();
    bytes
}

type Fields = Vec<(Value, Value)>;

/// The sample's bytes after a change of its fields.
fn with_fields(sample: &Sample, change: impl FnOnce(&mut Fields)) -> Vec<u8> {
    fn map(value: &mut Value) -> &mut Fields {
        match value {
            Value::Map(fields) => fields,
            other => panic!("{other} is no map"),
        }
    }
    let mut value = parse(&sample.bytes);
    let fields = match sample.variant() {
        None => map(&mut value),
        Some(_) => map(&mut map(&mut value)[0].1),
    };
    change(fields);
    to_bytes(&value)
}

fn fields(sample: &Sample) -> Vec<String> {
    let mut names = vec![];
    with_fields(sample, |fields| {
        names.extend(
            fields
                .iter()
                .map(|(name, _)| name.as_str().unwrap().to_owned()),
        );
    });
    names
}

#[test]
fn every_message_comes_back_as_it_went() {
    for sample in samples::all() {
        assert_eq!((sample.read)(&sample.bytes), Ok(true), "{}", sample.name);
        assert_eq!((sample.read)(&to_bytes(&parse(&sample.bytes))), Ok(true));
    }
}

#[test]
fn fields_of_a_later_version_are_ignored() {
    let later = Value::Map(vec![("deep".into(), vec![Value::Nil, 7.into()].into())]);
    for sample in samples::all() {
        for at_end in [false, true] {
            let bytes = with_fields(&sample, |fields| {
                let at = if at_end { fields.len() } else { 0 };
                fields.insert(at, ("of_a_later_version".into(), later.clone()));
            });
            assert_eq!((sample.read)(&bytes), Ok(true), "{}", sample.name);
        }
    }
}

#[test]
fn fields_come_in_any_order() {
    for sample in samples::all() {
        let bytes = with_fields(&sample, |fields| fields.reverse());
        assert_eq!((sample.read)(&bytes), Ok(true), "{}", sample.name);
    }
}

#[test]
fn only_the_fields_that_were_always_there_are_required() {
    for sample in samples::all() {
        let required = REQUIRED.iter().find(|(name, _)| *name == sample.name);
        let required = required.map_or(&[][..], |(_, fields)| fields);
        for field in fields(&sample) {
            let bytes = with_fields(&sample, |fields| {
                fields.retain(|(name, _)| name.as_str() != Some(&field));
            });
            let read = (sample.read)(&bytes);
            let name = &sample.name;
            match required.contains(&field.as_str()) {
                false => assert!(read.is_ok(), "{name}.{field} was optional: {read:?}"),
                true => assert!(
                    matches!(read, Err(DecodeError::Malformed(_))),
                    "{name}.{field}"
                ),
            }
        }
    }
}

#[test]
fn a_variant_of_a_later_version_is_named_and_harms_only_its_request() {
    for bytes in [
        &b"\x81\xa6rename\x81\xa3key\xa1k"[..],
        b"\x81\xa6rename\xc0",
        b"\xa6rename",
        b"\x81\xa5batch\x81\xa8requests\x91\x81\xa6rename\x80",
    ] {
        let Err(error) = KvRequest::from_bytes(bytes) else {
            panic!("{bytes:?}")
        };
        assert!(
            matches!(&error, DecodeError::Unknown(text) if text.contains("rename")),
            "{error}"
        );
        assert_eq!(ErrorBody::from(error).code, ErrorCode::UnknownOperation);
    }
    assert!(matches!(
        LeaseRequest::from_bytes(b"\x81\xa5steal\x80"),
        Err(DecodeError::Unknown(_))
    ));
    let subscribe = b"\x82\xa7pattern\xa1a\xa6policy\xa5guess";
    assert!(matches!(
        Subscribe::from_bytes(subscribe),
        Err(DecodeError::Unknown(_))
    ));
    // A cause is only told, so that an unknown one does no harm.
    let gap = Gap::from_bytes(b"\x83\xa4from\x01\xa2to\x02\xa5cause\xa5whims").unwrap();
    assert_eq!((gap.count, gap.cause), (None, GapCause::Unknown));
}

#[test]
fn messages_of_the_wrong_type_are_malformed() {
    for sample in samples::all() {
        for bytes in [
            &b"\xc0"[..],
            b"\x07",
            b"\x81\x07\x07",
            b"\x81\xa3get\x07",
            b"\xcb\0\0\0\0\0\0\0\0",
        ] {
            let read = (sample.read)(bytes);
            let optional = REQUIRED.iter().all(|(name, _)| *name != sample.name);
            let understood = optional && sample.variant().is_none() && read.is_ok();
            assert!(
                read.is_err() || understood,
                "{} took {bytes:?}",
                sample.name
            );
        }
    }
}

#[test]
fn the_words_on_the_wire_are_those_of_the_document() {
    let text = |body: &[u8]| parse(body).to_string();
    let mut subscribe = Subscribe::new("a.*");
    let written = text(&subscribe.to_bytes().unwrap());
    assert_eq!(
        written,
        "{\"pattern\": \"a.*\", \"responds\": false, \"start\": \"new\", \
         \"policy\": \"drop_oldest\", \"redeliver\": false, \"no_echo\": false}"
    );
    for (start, word) in [
        (Start::Last, r#""last""#),
        (Start::LastN(5), r#"{"last_n": 5}"#),
    ] {
        subscribe.start = start;
        assert!(text(&subscribe.to_bytes().unwrap()).contains(word));
    }
    subscribe.policy = Policy::Block { ms: 7 };
    assert!(text(&subscribe.to_bytes().unwrap()).contains(r#"{"block": {"ms": 7}}"#));
    assert_eq!(
        text(&KvRequest::Len {}.to_bytes().unwrap()),
        r#"{"len": {}}"#
    );
    // Keys and values are bytes, and texts are taken for bytes.
    let get = KvRequest::Get {
        key: Bytes::from_static(b"k"),
    };
    assert_eq!(get.to_bytes().unwrap(), b"\x81\xa3get\x81\xa3key\xc4\x01k");
    assert_eq!(
        KvRequest::from_bytes(b"\x81\xa3get\x81\xa3key\xa1k").unwrap(),
        get
    );
}

#[test]
fn a_broker_that_tells_fewer_limits_has_the_others_by_default() {
    let welcome = b"\x84\xa7version\x01\xa5epoch\x01\xaaconnection\x01\xa6limits\x81\xa5batch\x05";
    let welcome = ganger_protocol::hello::Welcome::from_bytes(welcome).unwrap();
    let expected = Limits {
        batch: 5,
        ..Limits::default()
    };
    assert_eq!(welcome.limits, expected);
}

#[test]
fn a_message_too_long_for_a_frame_is_an_error_of_the_sender() {
    let value = Bytes::from(vec![0; ganger_protocol::limits::FRAME_LEN_MAX]);
    let reply = KvReply::Value { value: Some(value) };
    let refused = Frame::control(1, &reply);
    assert!(matches!(
        refused,
        Err(ganger_protocol::EncodeError::Frame(
            FrameError::TooLong { .. }
        ))
    ));
}
