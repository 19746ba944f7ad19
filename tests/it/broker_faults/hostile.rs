//! Senders of what is no protocol, or too much of it: each has its clear end, and the broker serves
//! the others meanwhile.

use super::keeper::Keeper;
use super::{moment, run, soon};
use crate::chaos::Random;
use crate::harness::{wait_until, Watchdog, PATIENCE};
use bytes::{Bytes, BytesMut};
use ganger_client::{Client, Error};
use ganger_protocol::hello::Hello;
use ganger_protocol::kv_fast::Command;
use ganger_protocol::{ErrorBody, ErrorCode, Frame, Limits, Op};
use rustix::process::{getrlimit, setrlimit, Resource};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A connection by hand.
pub(super) struct Raw(UnixStream);

impl Raw {
    pub(super) fn connect(keeper: &Keeper) -> Self {
        let socket = keeper.socket();
        let mut stream = None;
        wait_until("the broker to listen", || {
            stream = UnixStream::connect(&socket).ok();
            stream.is_some()
        });
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// One that has said hello and was welcomed.
    pub(super) fn greeted(keeper: &Keeper) -> Self {
        let mut raw = Self::connect(keeper);
        raw.send(&Frame::control(1, &Hello::new("by hand")).unwrap());
        assert_eq!(raw.next().unwrap().head.op, Op::Welcome);
        raw
    }

    pub(super) fn send(&mut self, frame: &Frame) {
        let mut bytes = BytesMut::new();
        frame.write_to(&mut bytes);
        self.0.write_all(&bytes).unwrap();
    }

    /// The next frame, or `None` at the end.
    pub(super) fn next(&mut self) -> Option<Frame> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut bytes).unwrap();
        Some(Frame::decode(Bytes::from(bytes)).unwrap())
    }

    /// Why the broker ended it: the last frame.
    fn told(mut self) -> Option<ErrorCode> {
        let mut last = None;
        while let Some(frame) = self.next() {
            last = frame.body::<ErrorBody>().ok().map(|error| error.code);
        }
        last
    }
}

/// The others are served.
async fn is_served(client: &Client) {
    soon("an answer", client.remote_kv().incr("served", 1))
        .await
        .unwrap();
}

async fn connections(client: &Client) -> usize {
    client.clients().await.unwrap().len()
}

#[test]
fn a_hello_of_one_byte_now_and_then_has_its_time_and_no_more() {
    let _watchdog = Watchdog::new("broker_faults::hostile::slow", 120);
    let keeper = Keeper::plain(&[]);
    run(async {
        let client = keeper.connect().await;
        let mut slow = Raw::connect(&keeper);
        let mut bytes = BytesMut::new();
        Frame::control(1, &Hello::new("slow"))
            .unwrap()
            .write_to(&mut bytes);
        let patience = Duration::from_millis(Limits::default().hello_ms);
        // It would take four times as long as it may.
        let pause = patience * 4 / bytes.len() as u32;
        let mut sent = 0;
        while slow.0.write_all(&bytes[sent..=sent]).is_ok() {
            sent += 1;
            assert!(
                sent < bytes.len(),
                "the broker took all the time in the world"
            );
            tokio::time::sleep(pause).await;
            is_served(&client).await;
        }
        assert!(sent > 0);
    });
}

#[test]
fn four_gib_that_are_only_declared_end_the_connection_and_cost_nothing() {
    let _watchdog = Watchdog::new("broker_faults::hostile::declared", 120);
    let keeper = Keeper::plain(&[]);
    let before = {
        drop(Raw::greeted(&keeper));
        keeper.status_kib("VmHWM:")
    };
    for _ in 0..20 {
        for mut raw in [Raw::connect(&keeper), Raw::greeted(&keeper)] {
            raw.0.write_all(&u32::MAX.to_be_bytes()).unwrap();
            assert_eq!(raw.told(), Some(ErrorCode::BadFrame));
        }
    }
    let after = keeper.status_kib("VmHWM:");
    assert!(after < before + 4096, "{before} KiB, then {after} KiB");
}

#[test]
fn garbage_ends_its_connection_and_no_other() {
    let _watchdog = Watchdog::new("broker_faults::hostile::garbage", 120);
    let keeper = Keeper::plain(&[]);
    let mut random = Random::new(9);
    run(async {
        let client = keeper.connect().await;
        for round in 0..200 {
            let mut raw = match round % 2 {
                0 => Raw::connect(&keeper),
                _ => Raw::greeted(&keeper),
            };
            let mut garbage: Vec<u8> = (0..4096).map(|_| random.next() as u8).collect();
            if round % 4 > 1 {
                // A length that may be, then garbage within the frame.
                garbage[..4].copy_from_slice(&1000_u32.to_be_bytes());
            } else {
                garbage[0] = 0xff;
            }
            // The broker may have closed it before all is written.
            let _ = raw.0.write_all(&garbage);
            let _ = raw.0.shutdown(std::net::Shutdown::Write);
            let mut rest = Vec::new();
            let _ = raw.0.read_to_end(&mut rest);
            is_served(&client).await;
        }
        assert_eq!(connections(&client).await, 1, "only this client is left");
    });
}

#[test]
fn a_flood_of_subscriptions_stops_at_the_limit_and_goes_on_below_it() {
    let _watchdog = Watchdog::new("broker_faults::hostile::flood", 120);
    let keeper = Keeper::plain(&[]);
    run(async {
        let (client, other) = (keeper.connect().await, keeper.connect().await);
        let limit = Limits::default().subscriptions;
        let mut held = Vec::new();
        let refused = loop {
            match client.subscribe(&format!("flood.{}", held.len())).await {
                Ok(subscription) => held.push(subscription),
                Err(error) => break error,
            }
        };
        assert_eq!(held.len(), limit);
        let Error::Refused(body) = refused else {
            panic!("{refused}");
        };
        assert_eq!(
            (body.code, body.limit),
            (ErrorCode::TooManySubscriptions, Some(limit as u64))
        );
        is_served(&client).await;
        is_served(&other).await;
        let mut first = held.swap_remove(0);
        other.publish("flood.0", "still there").await.unwrap();
        assert_eq!(
            soon("it", first.next_message()).await.unwrap().payload(),
            b"still there"
        );
        drop(first);
        soon("room for another", async {
            while client.subscribe("one.more").await.is_err() {
                moment().await;
            }
        })
        .await;
    });
}

#[test]
fn who_asks_faster_than_it_takes_answers_is_read_no_faster_than_it_is_answered() {
    let _watchdog = Watchdog::new("broker_faults::hostile::asks", 120);
    const ANSWERS: usize = 4000;
    // What the socket holds, and what the broker reads at a time; not all that is asked for.
    const AHEAD: usize = 512 << 10;
    let keeper = Keeper::plain(&[]);
    run(async {
        let client = keeper.connect().await;
        let value = vec![7; 100_000];
        let store = client.remote_kv();
        soon("it to be set", store.set("large", &value[..]))
            .await
            .unwrap();
        let mut raw = Raw::greeted(&keeper);
        let mut request = BytesMut::new();
        Command::Get { key: b"large" }
            .write(1, &mut request)
            .unwrap();
        let requests = request.repeat(10_000);
        let mut asked = 0;
        for answered in 0..ANSWERS {
            raw.0.set_nonblocking(true).unwrap();
            while let Ok(len) = raw.0.write(&requests[asked % requests.len()..]) {
                asked += len;
            }
            raw.0.set_nonblocking(false).unwrap();
            let ahead = asked - answered * request.len();
            assert!(ahead < AHEAD, "{ahead} bytes after {answered} answers");
            assert_eq!(raw.next().unwrap().payload(), value);
        }
        is_served(&client).await;
    });
}

#[test]
fn ten_thousand_connections_are_taken_and_let_go_and_the_others_are_served() {
    let _watchdog = Watchdog::new("broker_faults::hostile::ten_thousand", 300);
    const CONNECTIONS: usize = 10_000;
    let limit = getrlimit(Resource::Nofile);
    let enough = |files: Option<u64>| files.is_none_or(|files| files > CONNECTIONS as u64 + 500);
    if !enough(limit.maximum) {
        eprintln!("skipped: a process may open {:?} files only", limit.maximum);
        return;
    }
    if !enough(limit.current) {
        let current = limit.maximum;
        setrlimit(
            Resource::Nofile,
            rustix::process::Rlimit { current, ..limit },
        )
        .unwrap();
    }
    let mut keeper = Keeper::new(&[]);
    // What a login shell has: the broker raises it by itself.
    keeper.start_limited("-S -n 1024");
    run(async {
        let client = keeper.connect().await;
        let mut held = Vec::new();
        while held.len() < CONNECTIONS {
            held.push(Raw::greeted(&keeper));
            if held.len() % 100 == 0 {
                is_served(&client).await;
            }
        }
        assert_eq!(connections(&client).await, CONNECTIONS + 1);
        is_served(&keeper.connect().await).await;
        drop(held);
        soon("all to be gone", async {
            while connections(&client).await > 1 {
                moment().await;
            }
        })
        .await;
    });
}
