//! Any frames come out of any pieces as they went in, and nothing makes the codec panic.

use bytes::{Bytes, BytesMut};
use ganger_protocol::kv::{KvReply, KvRequest, SetOptions};
use ganger_protocol::{Body, Flags, Frame, FrameCodec, Head, Limits, Op, Tail};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio_util::codec::{Decoder, Encoder};

fn frame() -> impl Strategy<Value = Frame> {
    let parts = (
        vec(any::<u8>(), 0..=1024),
        vec(any::<u8>(), 0..500),
        vec(any::<u8>(), 0..5000),
    );
    let head = (any::<u8>(), any::<u16>(), any::<u32>(), any::<u64>());
    (head, parts).prop_map(|((op, flags, id, seq), (subject, headers, payload))| {
        let head = Head::new(Op::from_u8(op), id).flags(Flags(flags)).seq(seq);
        Frame::new(head, Tail::new(&subject, &headers, &payload).unwrap())
    })
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn request() -> impl Strategy<Value = KvRequest> {
    let options = (
        any::<Option<u64>>(),
        any::<[bool; 4]>(),
        any::<Option<u64>>(),
    )
        .prop_map(
            |(ttl_ms, [if_absent, if_present, keep_expiry, ephemeral], if_revision)| SetOptions {
                ttl_ms,
                if_absent,
                if_present,
                if_revision,
                keep_expiry,
                ephemeral,
            },
        );
    prop_oneof![
        bytes().prop_map(|key| KvRequest::Get { key }),
        (bytes(), bytes(), options).prop_map(|(key, value, options)| KvRequest::Set {
            key,
            value,
            options,
        }),
        (bytes(), any::<Option<u64>>())
            .prop_map(|(key, if_revision)| KvRequest::Delete { key, if_revision }),
        (bytes(), any::<i64>(), any::<Option<u64>>())
            .prop_map(|(key, by, ttl_ms)| KvRequest::Incr { key, by, ttl_ms }),
        (bytes(), any::<u64>(), any::<u32>(), any::<bool>()).prop_map(
            |(prefix, cursor, limit, keys_only)| {
                KvRequest::Scan {
                    prefix,
                    cursor,
                    limit,
                    keys_only,
                }
            }
        ),
        vec(bytes(), 0..20).prop_map(|keys| KvRequest::GetMany { keys }),
    ]
}

proptest! {
    #[test]
    fn frames_survive_any_cutting_of_the_stream(
        frames in vec(frame(), 1..6), cuts in vec(1_usize..3000, 1..40),
    ) {
        let mut codec = FrameCodec::new(&Limits::default());
        let mut wire = BytesMut::new();
        for frame in &frames {
            codec.encode(frame, &mut wire).unwrap();
        }
        let (mut received, mut decoded) = (BytesMut::new(), vec![]);
        let mut cuts = cuts.into_iter().cycle();
        while !wire.is_empty() {
            let len = cuts.next().unwrap().min(wire.len());
            received.extend_from_slice(&wire.split_to(len));
            while let Some(frame) = codec.decode(&mut received).unwrap() {
                decoded.push(frame);
            }
        }
        prop_assert!(codec.decode_eof(&mut received).unwrap().is_none());
        prop_assert_eq!(decoded, frames);
    }

    #[test]
    fn garbage_ends_in_an_error_or_in_waiting_for_more(garbage in vec(any::<u8>(), 0..3000)) {
        let mut codec = FrameCodec::new(&Limits::default());
        let mut received = BytesMut::from(&garbage[..]);
        while let Ok(Some(_)) = codec.decode(&mut received) {}
        let _ = Frame::decode(Bytes::from(garbage));
    }

    #[test]
    fn requests_and_replies_survive_the_wire(
        requests in vec(request(), 0..20), values in vec(any::<Option<Vec<u8>>>(), 0..20),
    ) {
        let batch = KvRequest::Batch { requests };
        let frame = Frame::control(1, &batch).unwrap();
        prop_assert_eq!(frame.head.op, Op::Kv);
        prop_assert_eq!(frame.body::<KvRequest>().unwrap(), batch);
        let values = values.into_iter().map(|value| value.map(Bytes::from)).collect();
        let reply = KvReply::Values { values };
        prop_assert_eq!(KvReply::from_bytes(&reply.to_bytes().unwrap()).unwrap(), reply);
    }
}
