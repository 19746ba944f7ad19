//! `cargo bench --bench parts`: parts by themselves, under criterion: operations of the region, frames,
//! matching of subjects, fan-out. `benches/region` compares the first with what others have.

// Whatever fails here ends the benchmark.
#![allow(clippy::unwrap_used)]

use bytes::BytesMut;
use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion, Throughput};
use ganger_broker::ids::Subscriber;
use ganger_broker::message::Message;
use ganger_broker::topics::channel::{Batch, Delivery, Wish};
use ganger_broker::topics::trie::Trie;
use ganger_broker::topics::{Effects, Subscription, TopicLimits, Topics};
use ganger_protocol::{Flags, Frame, FrameCodec, Head, Limits, Op, Pattern, Tail};
use ganger_region::{Config, Options, Region};
use std::hint::black_box;
use std::sync::Arc;
use tokio_util::codec::{Decoder, Encoder};

/// Operations on one of 100,000 keys of 16 bytes, another one each time.
fn region(criterion: &mut Criterion) {
    const KEYS: usize = 100_000;
    /// Has no factor in common with `KEYS`: each key has its turn, and none is near the one before.
    const STEP: usize = 61_803;
    const MANY: usize = 16;
    let mut group = criterion.benchmark_group("region, 100,000 keys");
    let keys: Vec<[u8; 16]> = (0..KEYS)
        .map(|number| format!("{:016}", number * STEP % KEYS).into_bytes())
        .map(|key| key.try_into().unwrap())
        .collect();
    let mut turns = keys.iter().cycle();
    let mut next = || turns.next().unwrap();
    for value_len in [64, 4096] {
        let region = Region::create(&Config::new(2 << 30), Options::new()).unwrap();
        let value = vec![0x5a; value_len];
        for key in &keys {
            region.set(key, &value).unwrap();
        }
        let mut into = Vec::new();
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("get", value_len), |bencher| {
            bencher.iter(|| assert!(region.get_into(next(), &mut into).unwrap()));
        });
        group.bench_function(BenchmarkId::new("set", value_len), |bencher| {
            bencher.iter(|| region.set(next(), &value).unwrap());
        });
        group.bench_function(BenchmarkId::new("delete and set", value_len), |bencher| {
            bencher.iter(|| {
                let key = next();
                assert!(region.delete(key).unwrap());
                region.set(key, &value).unwrap()
            });
        });
        let mut batches = keys.chunks(MANY).cycle();
        group.throughput(Throughput::Elements(MANY as u64));
        group.bench_function(BenchmarkId::new("get of 16", value_len), |bencher| {
            bencher.iter(|| region.get_many(batches.next().unwrap()).unwrap());
        });
    }
    let region = Region::create(&Config::new(1 << 30), Options::new()).unwrap();
    group.throughput(Throughput::Elements(1));
    group.bench_function("incr", |bencher| {
        bencher.iter(|| region.incr(next(), 1).unwrap());
    });
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for payload_len in [64_u32, 4096, 65_536] {
        let payload = vec![0x5a; payload_len as usize];
        let tail = Tail::new(b"orders.new", b"", &payload).unwrap();
        let frame = Frame::new(Head::new(Op::Message, 7).flags(Flags::NONE).seq(1), tail);
        let mut codec = FrameCodec::new(&Limits::default());
        let mut encoded = BytesMut::new();
        codec.encode(&frame, &mut encoded).unwrap();
        group.throughput(Throughput::Elements(1));
        let mut out = BytesMut::with_capacity(encoded.len());
        group.bench_function(BenchmarkId::new("encode", payload_len), |bencher| {
            bencher.iter(|| {
                out.clear();
                codec.encode(black_box(&frame), &mut out).unwrap();
            });
        });
        // With the copy of what the socket would have brought: both read from a buffer of their own.
        group.bench_function(
            BenchmarkId::new("copy and decode", payload_len),
            |bencher| {
                bencher.iter(|| {
                    let mut received = BytesMut::from(&encoded[..]);
                    black_box(codec.decode(&mut received).unwrap().unwrap())
                });
            },
        );
    }
    group.finish();
}

fn subjects(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("subject");
    let pattern: Pattern = "orders.*.created.>".parse().unwrap();
    group.bench_function("one pattern", |bencher| {
        bencher.iter(|| pattern.matches(black_box("orders.eu.created.web.1")));
    });
    for patterns in [10, 1000, 100_000] {
        let mut trie = Trie::new();
        for number in 0..patterns {
            trie.insert(format!("orders.{number}.*.>").as_bytes(), number);
        }
        trie.insert(b"orders.*.created.>", patterns);
        group.bench_function(BenchmarkId::new("trie, 2 match", patterns), |bencher| {
            bencher.iter(|| {
                let mut sum = 0;
                let subject = black_box(b"orders.7.created.web.1");
                trie.matches(subject, &mut |number| sum += number);
                sum
            });
        });
    }
    group.finish();
}

/// A message to each of some subscribers, without sockets.
fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan-out, 64 B");
    for subscribers in [1_u32, 16, 256] {
        let topics = Topics::new(TopicLimits::from(&Limits::default()), 1);
        let mut effects = Effects::default();
        let subscriptions: Vec<Subscription> = (0..subscribers)
            .map(|number| {
                let who = Subscriber::new(u64::from(number), 1);
                let pattern = "orders.new".parse().unwrap();
                let joined = topics.subscribe(&pattern, who, Wish::default(), None, &mut effects);
                joined.unwrap().subscription
            })
            .collect();
        let batch = Batch {
            messages: 16,
            bytes: 1 << 20,
        };
        group.throughput(Throughput::Elements(u64::from(subscribers)));
        group.bench_function(BenchmarkId::from_parameter(subscribers), |bencher| {
            bencher.iter(|| {
                let message = Arc::new(Message::plain(b"orders.new", &[0x5a; 64]).unwrap());
                topics.publish(&message, &mut effects).unwrap();
                effects.wake.clear();
                let mut delivered = 0;
                for subscription in &subscriptions {
                    subscription.drain(batch, &mut effects, |item| {
                        delivered += u32::from(matches!(item, Delivery::Message(..)));
                    });
                }
                assert_eq!(delivered, subscribers);
            });
        });
    }
    group.finish();
}

criterion_group!(parts, region, frames, subjects, fan_out);
criterion_main!(parts);
