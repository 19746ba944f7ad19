use crate::fake::Fake;
use crate::{run, until};
use ganger_client::{
    ChangeKind, Client, ClientBuilder, Config, Error, Event, Home, HomeError, Kv, KvError,
    LeaseOptions, Message, PublishOptions, Reconnect, SetOptions, Start, SubscribeOptions,
    WatchEvent, WatchOptions,
};
use ganger_protocol::ErrorCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

async fn connect(fake: &Fake) -> Client {
    ClientBuilder::new()
        .home(fake.home())
        .connect()
        .await
        .unwrap()
}

fn message(event: Option<Event>) -> Message {
    match event {
        Some(Event::Message(message)) => message,
        other => panic!("{other:?} instead of a message"),
    }
}

#[test]
fn users_can_send_and_share_what_they_get() {
    fn shared<T: Send + Sync>() {}
    fn cloned<T: Clone>() {}
    shared::<Client>();
    cloned::<Client>();
    shared::<ganger_client::Subscription>();
    shared::<ganger_client::Responder>();
    shared::<ganger_client::Request>();
    shared::<ganger_client::Watch>();
    shared::<ganger_client::Lease>();
    shared::<ganger_client::RemoteKv>();
    cloned::<ganger_client::RemoteKv>();
    shared::<Error>();
    cloned::<Error>();
}

#[test]
fn without_a_broker_connect_fails_and_names_the_place() {
    run("connect", async {
        let home = crate::fake::TempHome::new();
        let once = ClientBuilder::new().patience(Duration::ZERO).home(&home.0);
        let error = once.connect().await.unwrap_err();
        assert!(matches!(error, Error::Connect { .. }) && error.is_no_broker());
        assert!(
            error.to_string().contains(home.0.to_str().unwrap()),
            "{error}"
        );

        let missing = home.0.join("missing");
        let error = once.clone().home(&missing).connect().await.unwrap_err();
        assert!(matches!(error, Error::Home(HomeError::Missing { .. })) && error.is_no_broker());

        let link = home.0.join("link");
        std::os::unix::fs::symlink(&home.0, &link).unwrap();
        let error = ClientBuilder::new()
            .home(&link)
            .connect()
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            Error::Home(HomeError::NotADirectory { .. })
        ));
        assert!(Home::at(&home.0).check().is_ok());
    });
}

#[test]
fn messages_come_in_order_with_subject_headers_and_number() {
    run("messages", async {
        let fake = Fake::new();
        let client = connect(&fake).await;
        let mut all = client.subscribe("a.>").await.unwrap();
        client.publish("a.b", "1").await.unwrap();
        let options = PublishOptions::new().key("k").header("zone", "eu").ack();
        assert_eq!(
            client.publish_with("a.c", "2", &options).await.unwrap(),
            Some(1)
        );
        client.publish("b.c", "not this").await.unwrap();
        client.try_publish("a.d", "").unwrap().await.unwrap();
        let first = message(all.next().await);
        assert_eq!(
            (first.subject(), first.payload(), first.seq()),
            ("a.b", &b"1"[..], 1)
        );
        let second = message(all.next().await);
        assert_eq!(second.header("key"), Some(&b"k"[..]));
        assert_eq!(second.headers().count(), 2);
        assert_eq!(message(all.next().await).seq(), 3);
        assert_eq!(all.position().unwrap().seq, 4);
        drop(all);
        until("the subscription is gone", || {
            fake.state.lock().unwrap().subscribers() == 0
        })
        .await;
        let bad = client.publish("a..b", "").await.unwrap_err();
        assert!(matches!(bad, Error::Subject(_)));
        let refused = client.subscribe("refused").await.err().unwrap();
        assert_eq!(
            refused.refusal().unwrap().code,
            ErrorCode::TooManySubscriptions
        );
    });
}

#[test]
fn what_was_before_is_had_by_those_who_ask() {
    run("starts", async {
        let fake = Fake::new();
        let client = connect(&fake).await;
        let _keeps = client.subscribe("a").await.unwrap();
        for number in 0..5 {
            client.publish("a", number.to_string()).await.unwrap();
        }
        let retain = PublishOptions::new().retain();
        client.publish_with("a", "last", &retain).await.unwrap();
        let last_two = SubscribeOptions::new().start(Start::LastN(2));
        let mut last_two = client.subscribe_with("a", last_two).await.unwrap();
        let first = message(last_two.next().await);
        assert!(first.is_replayed() && first.payload() == b"4");
        assert_eq!(message(last_two.next().await).payload(), b"last");
        let last = SubscribeOptions::new().start(Start::Last);
        let mut last = client.subscribe_with("*", last).await.unwrap();
        let last = message(last.next().await);
        assert!(last.is_retained() && last.payload() == b"last");
    });
}

#[test]
fn a_message_of_a_group_is_done_when_the_next_is_asked_for_or_when_it_is_said_so() {
    run("groups", async {
        let fake = Fake::new();
        let client = connect(&fake).await;
        let acks = || fake.state.lock().unwrap().acks.clone();
        let mut jobs = client.queue_subscribe("jobs", "g").await.unwrap();
        for _ in 0..3 {
            client.publish("jobs", "").await.unwrap();
        }
        jobs.next_message().await.unwrap();
        client.flush().await.unwrap();
        assert!(acks().is_empty());
        jobs.next_message().await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(acks(), [1]);
        drop(jobs);
        client.flush().await.unwrap();
        assert_eq!(acks(), [1], "what was in hand was not done");

        let manual = SubscribeOptions::new().group("h").manual_ack();
        let mut jobs = client.subscribe_with("jobs", manual).await.unwrap();
        client.publish("jobs", "").await.unwrap();
        client.publish("jobs", "").await.unwrap();
        let first = jobs.next_message().await.unwrap();
        let second = jobs.next_message().await.unwrap();
        jobs.ack(&second);
        jobs.acker().ack(&first);
        client.flush().await.unwrap();
        assert_eq!(acks()[1..], [second.seq(), first.seq()]);
    });
}

#[test]
fn requests_are_answered_or_fail_in_ways_that_can_be_told_apart() {
    run("requests", async {
        let fake = Fake::new();
        let (client, other) = (connect(&fake).await, connect(&fake).await);
        let nobody = client.request("price", "").await.unwrap_err();
        assert!(matches!(nobody, Error::NoResponders));
        let mut requests = other.respond("price").await.unwrap();
        let answering = async {
            requests.next().await.unwrap().reply("1.20").await.unwrap();
            requests
                .next()
                .await
                .unwrap()
                .fail("sold out")
                .await
                .unwrap();
            let third = requests.next().await.unwrap();
            assert_eq!((third.subject(), third.payload()), ("price", &b"plums"[..]));
            assert!(third.time_left() > Duration::from_secs(5));
            drop(third);
            let kept = requests.next().await.unwrap();
            fake.cut();
            kept
        };
        let asking = async {
            assert_eq!(
                client.request("price", "pears").await.unwrap().payload(),
                b"1.20"
            );
            let failed = client.request("price", "figs").await.unwrap_err();
            assert!(matches!(failed, Error::Failed(why) if why.payload() == b"sold out"));
            let dropped = client.request("price", "plums").await.unwrap_err();
            assert!(matches!(dropped, Error::Unanswered));
            client.request("price", "kiwis").await.unwrap_err()
        };
        let (kept, lost) = tokio::join!(answering, asking);
        assert!(matches!(lost, Error::ConnectionLost));
        other.connected().await.unwrap();
        let late = kept.reply("too late").await.unwrap_err();
        assert!(matches!(late, Error::ConnectionLost));
    });
}

#[test]
fn a_responder_that_dies_and_one_that_is_too_slow_are_told_apart() {
    run("deaths", async {
        let fake = Fake::new();
        let (client, other) = (connect(&fake).await, connect(&fake).await);
        let mut requests = other.respond("price").await.unwrap();
        let soon = Duration::from_millis(1);
        // The fake looks at no time: this is the client's own patience.
        let slow = client.request_within("price", "", soon).await.unwrap_err();
        assert!(matches!(slow, Error::Timeout));
        until("the broker knows", || {
            fake.state.lock().unwrap().asked() == 0
        })
        .await;
        let held = requests.next().await.unwrap();
        let dying = async {
            let second = requests.next().await.unwrap();
            other.close().await.unwrap();
            drop((held, second));
        };
        let (died, ()) = tokio::join!(client.request("price", ""), dying);
        assert!(matches!(died, Err(Error::WorkerDied)));
        assert!(matches!(other.publish("a", "").await, Err(Error::Closed)));
        assert!(requests.next().await.is_none());
    });
}

#[test]
fn keys_over_the_socket() {
    run("keys", async {
        let fake = Fake::new();
        let client = connect(&fake).await;
        assert!(matches!(client.kv(), Err(Error::NoRegion)));
        let kv = client.remote_kv();
        let revision = kv.set("a", "1").await.unwrap();
        assert_eq!(revision, 2);
        assert_eq!(kv.get("a").await.unwrap(), Some(b"1".to_vec()));
        assert_eq!(kv.get("b").await.unwrap(), None);
        let absent = SetOptions::new().if_absent();
        assert_eq!(kv.set_with("a", "2", absent).await.unwrap(), None);
        assert_eq!(kv.incr("n", -3).await.unwrap(), -3);
        let overflow = kv.incr("n", i64::MIN).await.unwrap_err();
        assert_eq!(overflow.refusal().unwrap().code, ErrorCode::Overflow);
        assert!(kv.delete("a").await.unwrap() && !kv.delete("a").await.unwrap());
        assert_eq!(kv.len().await.unwrap(), 1);
        let unknown = kv.stats().await.unwrap_err();
        assert_eq!(unknown.refusal().unwrap().code, ErrorCode::UnknownOperation);
        // A thousand at once, in one connection.
        let all = (0..1000).map(|_| {
            let kv = kv.clone();
            tokio::spawn(async move { kv.incr("many", 1).await.unwrap() })
        });
        let mut sums = Vec::new();
        for task in all.collect::<Vec<_>>() {
            sums.push(task.await.unwrap());
        }
        assert_eq!(sums, (1..=1000).collect::<Vec<_>>());
    });
}

#[test]
fn the_region_comes_with_the_welcome_and_large_payloads_go_through_it() {
    run("region", async {
        let region = Kv::create(Config::new(64 << 20)).unwrap();
        let fake = Fake::with(Some(region.clone()));
        let client = connect(&fake).await;
        client.kv().unwrap().set("direct", "yes").unwrap();
        assert!(region.exists("direct").unwrap());

        let mut large = client.subscribe("large").await.unwrap();
        let payload = vec![7; 1 << 20];
        client.publish("large", &payload).await.unwrap();
        let before = fake.state.lock().unwrap().seen.len();
        let received = message(large.next().await);
        assert_eq!(received.payload(), payload);
        assert_eq!(region.stats().entries, 2, "it went through the region");
        // One that is gone by the time it is wanted is told as lost.
        client.publish("large", &payload).await.unwrap();
        client.flush().await.unwrap();
        region.clear().unwrap();
        match large.next().await {
            Some(Event::Gap(gap)) => assert_eq!((gap.from, gap.to, gap.count), (2, 2, Some(1))),
            other => panic!("{other:?}"),
        }
        // More than is kept: the region does not fill up.
        for _ in 0..100 {
            client.publish("large", &payload).await.unwrap();
            message(large.next().await);
        }
        assert!(region.stats().entries <= 8);
        assert!(fake.state.lock().unwrap().seen.len() > before);

        let mut requests = client.respond("echo").await.unwrap();
        let answering = async {
            let request = requests.next().await.unwrap();
            let echo = request.payload().to_vec();
            request.reply(echo).await.unwrap();
        };
        let (reply, ()) = tokio::join!(client.request("echo", &payload), answering);
        assert_eq!(reply.unwrap().payload(), payload);

        let without = ClientBuilder::new().without_region().home(fake.home());
        let without = without.connect().await.unwrap();
        assert!(matches!(without.kv(), Err(Error::NoRegion)));
    });
}

/// Of 64 MiB, 8 are kept of a publisher's payloads, and of those 2 may be ahead of the broker.
#[test]
fn large_payloads_get_ahead_of_a_slow_broker_by_no_more_than_is_kept() {
    run("ahead", async {
        let region = Kv::create(Config::new(64 << 20)).unwrap();
        let fake = Fake::with(Some(region.clone()));
        let soon = ClientBuilder::new().timeout(Duration::from_millis(300));
        let client = soon.home(fake.home()).connect().await.unwrap();
        let mut large = client.subscribe("large").await.unwrap();
        let payload = vec![7; 1 << 20];
        fake.freeze(true);
        for _ in 0..2 {
            client.publish("large", &payload).await.unwrap();
        }
        let third = client.publish("large", &payload).await;
        assert!(matches!(third, Err(Error::Timeout)), "{third:?}");
        assert_eq!(region.stats().entries, 2, "the third was not stored");
        let waiting = tokio::spawn({
            let (client, payload) = (client.clone(), payload.clone());
            async move { client.publish("large", &payload).await }
        });
        fake.freeze(false);
        waiting.await.unwrap().unwrap();
        // More than may be ahead goes alone.
        client.publish("large", vec![7; 5 << 20]).await.unwrap();
        for len in [1 << 20, 1 << 20, 1 << 20, 5 << 20] {
            assert_eq!(message(large.next().await).payload().len(), len);
        }
        // A lost connection answers for nothing any more.
        fake.freeze(true);
        client.publish("large", &payload).await.unwrap();
        fake.cut();
        fake.freeze(false);
        client.connected().await.unwrap();
        for _ in 0..10 {
            client.publish("large", &payload).await.unwrap();
        }
        client.flush().await.unwrap();
    });
}

#[test]
fn a_watch_tells_the_state_then_changes() {
    run("watch", async {
        let fake = Fake::new();
        let client = connect(&fake).await;
        fake.set(b"c:1", b"one");
        fake.set(b"d:1", b"not this");
        let mut watch = client.watch_prefix("c:").await.unwrap();
        let mut events = Vec::new();
        for _ in 0..3 {
            events.push(watch.next().await.unwrap());
        }
        assert!(matches!(&events[0], WatchEvent::Begin { gap: None }));
        assert!(matches!(&events[1], WatchEvent::Entry(entry)
            if entry.key() == b"c:1" && entry.value() == b"one" && entry.revision() == 2));
        assert!(matches!(&events[2], WatchEvent::End { entries: 1 }));
        let kv = client.remote_kv();
        kv.set("c:2", "two").await.unwrap();
        kv.delete("c:1").await.unwrap();
        assert!(
            matches!(watch.next().await.unwrap(), WatchEvent::Change(ChangeKind::Set, key)
            if key.key() == b"c:2" && key.value() == b"two")
        );
        assert!(
            matches!(watch.next().await.unwrap(), WatchEvent::Change(ChangeKind::Delete, key)
            if key.key() == b"c:1")
        );
        let position = watch.position().unwrap();
        drop(watch);
        kv.set("c:3", "three").await.unwrap();
        let options = WatchOptions::prefix("c:").resume(position);
        let mut watch = client.watch_with(options).await.unwrap();
        assert!(
            matches!(watch.next().await.unwrap(), WatchEvent::Change(ChangeKind::Set, key)
            if key.key() == b"c:3")
        );
    });
}

#[test]
fn a_lock_goes_from_one_to_the_next() {
    run("locks", async {
        let fake = Fake::new();
        let (client, other) = (connect(&fake).await, connect(&fake).await);
        let mut leaders = other.observe_leader("l").await.unwrap();
        assert!(leaders.next().await.unwrap().is_empty());
        let first = client.lock("l").await.unwrap();
        assert!(first.is_held() && first.name() == "l");
        assert_eq!(leaders.next().await.unwrap()[0].token, first.token());
        assert!(other.try_lock("l").await.unwrap().is_none());
        let waiting = tokio::spawn(async move { other.lock("l").await });
        until("it waits", || fake.state.lock().unwrap().waiting() == 1).await;
        first.release().await.unwrap();
        let second = waiting.await.unwrap().unwrap();
        assert!(second.token() > 1);
        fake.state.lock().unwrap().take_away("l");
        second.lost().await;
        assert!(!second.is_held());

        let elected = client.elect("l", "here").await.unwrap();
        elected.set_value("there").await.unwrap();
        let short = LeaseOptions::new("l")
            .wait(Duration::from_millis(1))
            .permits(1);
        // The fake looks at no time, and the client adds its own.
        drop(elected);
        client.acquire(short).await.unwrap();
    });
}

#[test]
fn a_time_to_live_is_renewed_as_long_as_the_lease_is_held() {
    run("ttl", async {
        let fake = Fake::new();
        let client = connect(&fake).await;
        let options = LeaseOptions::new("l").ttl(Duration::from_millis(300));
        let lease = client.acquire(options).await.unwrap();
        let renewals = || {
            let state = fake.state.lock().unwrap();
            state
                .seen
                .iter()
                .filter(|op| **op == ganger_protocol::Op::Lease)
                .count()
        };
        until("it was renewed often", || renewals() > 5).await;
        assert!(lease.is_held());
        // Now nobody answers.
        fake.freeze(true);
        lease.lost().await;
        assert!(!lease.is_held());
        fake.freeze(false);
    });
}

#[test]
fn administration_tells_how_far_it_has_come() {
    run("admin", async {
        let fake = Fake::new();
        let client = connect(&fake).await;
        assert_eq!(client.audit().await.unwrap().entries, 2);
        let far = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&far);
        let written = client.snapshot(move |progress| told.store(progress.done, Ordering::Relaxed));
        assert_eq!(written.await.unwrap().name, "s1");
        assert_eq!(far.load(Ordering::Relaxed), 1);
        assert!(client.topics("").await.is_err());
        let info = client.broker().unwrap().welcome;
        assert_eq!(info.software, "fake/1");
    });
}

#[test]
fn a_client_and_its_task_end_when_nobody_needs_them() {
    run("ends", async {
        let fake = Fake::new();
        let client = ClientBuilder::new()
            .home(fake.home())
            .reconnect(Reconnect::never());
        let client = client.connect().await.unwrap();
        let mut messages = client.subscribe("a").await.unwrap();
        client.publish("a", "1").await.unwrap();
        drop(client);
        // A subscription keeps the connection.
        message(messages.next().await);
        drop(messages);
        until("the connection is gone", || {
            fake.state.lock().unwrap().connected() == 0
        })
        .await;
    });
}

#[test]
fn errors_keep_the_regions_own() {
    let error = Error::from(KvError::NoRegion);
    assert!(error.to_string().contains("GANGER_REGION"));
}
