//! One conformance, twice: by the client in Python, which was written from `docs/protocol.md` alone,
//! and by the one in Rust, on one broker. Both say what they checked in the same words.

use crate::brokers::{run, Broker};
use ganger_client::protocol::kv::{KvReply, KvRequest};
use ganger_client::protocol::ErrorCode;
use ganger_client::{
    Client, Error, Event, GapCause, LeaseOptions, Position, PublishOptions, SetOptions, Start,
    SubscribeOptions,
};
use std::future::Future;
use std::process::Command;
use std::time::Duration;

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/broker_client.py");

/// What the client in Python checks that goes without saying for users of the one in Rust: it
/// answers pings, and has no call that names operations.
const OF_THE_WIRE: [&str; 3] = ["welcome", "ping", "unknown operation"];

#[test]
fn python_and_rust_hold_the_same_conformance() {
    let broker = Broker::start();
    run(async {
        let checked = in_rust(&broker.connect().await).await;
        let output = Command::new("python3")
            .arg("-B")
            .arg(PYTHON)
            .arg(broker.socket())
            .arg("conformance")
            .output()
            .expect("python3 starts: install it, for example by `apt install python3`");
        let told = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}{complaint}");
        let subjects = told.lines().filter_map(|line| line.strip_prefix("ok: "));
        let subjects: Vec<&str> = subjects
            .filter(|subject| !OF_THE_WIRE.contains(subject))
            .collect();
        assert_eq!(subjects, checked, "{told}");
    });
}

fn has_code<T>(outcome: Result<T, Error>, code: ErrorCode) -> bool {
    let error = outcome.err();
    error.is_some_and(|error| error.refusal().is_some_and(|refusal| refusal.code == code))
}

async fn in_rust(client: &Client) -> Vec<&'static str> {
    let mut checked = keys(client).await;
    checked.extend(messages(client).await);
    checked.extend(leases(client).await);
    checked
}

async fn keys(client: &Client) -> Vec<&'static str> {
    let kv = client.remote_kv();
    let (key, counter) = (b"conformance:\xff", b"conformance:\xffn");
    assert_eq!(kv.get(key).await.unwrap(), None);
    assert!(!kv.delete(key).await.unwrap());
    let first = kv.set(key, "one").await.unwrap();
    assert_eq!(kv.get(key).await.unwrap().unwrap(), b"one");
    let if_absent = SetOptions::new().if_absent();
    assert_eq!(kv.set_with(key, "two", if_absent).await.unwrap(), None);
    let if_first = || SetOptions::new().if_revision(first);
    assert!(kv.set_with(key, "two", if_first()).await.unwrap().is_some());
    assert_eq!(kv.set_with(key, "3", if_first()).await.unwrap(), None);
    assert_eq!(kv.incr(counter, -5).await.unwrap(), -5);
    assert_eq!(kv.incr(counter, 2).await.unwrap(), -3);
    assert!(has_code(kv.incr(key, 1).await, ErrorCode::NotACounter));
    assert!(has_code(kv.get("").await, ErrorCode::KeyLen));
    assert!(has_code(kv.get("\0x").await, ErrorCode::ReservedKey));
    let entry = kv.entry(key).await.unwrap().unwrap();
    assert_eq!(entry.value, "two");
    kv.set_for(key, "three", Duration::from_secs(60))
        .await
        .unwrap();
    assert!(kv.ttl(key).await.unwrap().is_some());
    let batch = vec![
        KvRequest::Append {
            key: key.to_vec().into(),
            value: "!".into(),
        },
        KvRequest::GetMany {
            keys: vec![key.to_vec().into(), b"conformance:\xff?".to_vec().into()],
        },
        KvRequest::Incr {
            key: key.to_vec().into(),
            by: 1,
            ttl_ms: None,
        },
    ];
    let replies = kv.batch(batch).await.unwrap();
    assert_eq!(replies[0], KvReply::Count { count: 6 });
    let values = vec![Some("three!".into()), None];
    assert_eq!(replies[1], KvReply::Values { values });
    assert!(
        matches!(&replies[2], KvReply::Failed { error } if error.code == ErrorCode::NotACounter)
    );
    assert!(kv.delete(key).await.unwrap() && kv.get(key).await.unwrap().is_none());
    assert!(kv.delete(counter).await.unwrap());
    vec![
        "absent",
        "get",
        "if absent",
        "if revision",
        "incr",
        "not a counter",
        "key length",
        "entry",
        "time to live",
        "batch",
        "a part that fails",
        "delete",
    ]
}

async fn messages(client: &Client) -> Vec<&'static str> {
    let mut here = client.subscribe("conformance.*").await.unwrap();
    let ack = PublishOptions::new().ack();
    for payload in ["1", "2"] {
        client
            .publish_with("conformance.a", payload, &ack)
            .await
            .unwrap();
    }
    let (one, two) = (
        here.next_message().await.unwrap(),
        here.next_message().await.unwrap(),
    );
    assert_eq!((one.payload(), two.payload()), (&b"1"[..], &b"2"[..]));
    assert_eq!((two.seq(), one.subject()), (one.seq() + 1, "conformance.a"));
    drop(here);
    let position = Position {
        epoch: client.broker().unwrap().welcome.epoch ^ 1,
        seq: 5,
    };
    let elsewhere = SubscribeOptions::new().start(Start::From(position));
    let mut behind = client
        .subscribe_with("conformance.gap", elsewhere)
        .await
        .unwrap();
    assert!(matches!(behind.next().await, Some(Event::Gap(gap)) if gap.cause == GapCause::Restart));
    assert!(client.publish("conformance..a", "").await.is_err());
    let nobody = client.request("conformance.sum", "").await;
    assert!(matches!(nobody, Err(Error::NoResponders)));
    let mut responder = client.respond("conformance.sum").await.unwrap();
    let (reply, ()) = within(async {
        tokio::join!(client.request("conformance.sum", "2 3"), async {
            let request = responder.next().await.unwrap();
            assert_eq!(request.payload(), b"2 3");
            request.reply("5").await.unwrap();
        })
    })
    .await;
    assert_eq!(reply.unwrap().payload(), b"5");
    vec![
        "publish",
        "in order",
        "cancel",
        "gap",
        "bad subject",
        "no responders",
        "request",
    ]
}

async fn leases(client: &Client) -> Vec<&'static str> {
    let options = || LeaseOptions::new("conformance").ttl(Duration::from_secs(60));
    let held = client.acquire(options()).await.unwrap();
    assert!(client.try_lock("conformance").await.unwrap().is_none());
    let token = held.token();
    held.release().await.unwrap();
    let next = client.try_lock("conformance").await.unwrap().unwrap();
    assert!(next.token() > token);
    next.release().await.unwrap();
    // A lease that was given back can't be given back again: the type does not allow it.
    vec!["lock", "fencing", "not held"]
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, what).await.expect("it hangs")
}
