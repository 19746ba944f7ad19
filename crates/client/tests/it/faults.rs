use crate::fake::Fake;
use crate::{run, until};
use ganger_client::{
    Client, ClientBuilder, Error, Event, GapCause, LeaseOptions, Reconnect, WatchEvent,
};
use ganger_protocol::Op;
use std::time::Duration;

async fn connect(fake: &Fake) -> Client {
    ClientBuilder::new()
        .home(fake.home())
        .connect()
        .await
        .unwrap()
}

/// The connection is cut, and noticed to be.
async fn cut(fake: &Fake, client: &Client) {
    let before = client.broker().map(|broker| broker.welcome.connection);
    fake.cut();
    until("there is another connection", || {
        let now = client.broker().map(|broker| broker.welcome.connection);
        now.is_some() && now != before
    })
    .await;
}

async fn payload(messages: &mut ganger_client::Subscription) -> Vec<u8> {
    match messages.next().await {
        Some(Event::Message(message)) => message.payload().to_vec(),
        other => panic!("{other:?} instead of a message"),
    }
}

#[test]
fn a_subscription_goes_on_where_it_was_when_the_connection_is_lost() {
    run("resume", async {
        let fake = Fake::new();
        let client = connect(&fake).await;
        let mut messages = client.subscribe("a").await.unwrap();
        for round in 0..20_u8 {
            fake.publish("a", &[round, 0]);
            if round % 2 == 0 {
                assert_eq!(payload(&mut messages).await, [round, 0]);
            }
            cut(&fake, &client).await;
            fake.publish("a", &[round, 1]);
            if round % 2 == 1 {
                assert_eq!(payload(&mut messages).await, [round, 0]);
            }
            assert_eq!(payload(&mut messages).await, [round, 1]);
        }
    });
}

#[test]
fn a_broker_that_was_started_anew_is_a_gap_and_then_messages_come_again() {
    run("restart", async {
        let fake = Fake::new();
        let client = connect(&fake).await;
        let mut messages = client.subscribe("a").await.unwrap();
        let mut group = client.queue_subscribe("a", "g").await.unwrap();
        fake.publish("a", b"1");
        assert_eq!(payload(&mut messages).await, b"1");
        assert_eq!(payload(&mut group).await, b"1");
        fake.stop();
        fake.start();
        until("both are back", || {
            fake.state.lock().unwrap().subscribers() == 2
        })
        .await;
        fake.publish("a", b"2");
        for messages in [&mut messages, &mut group] {
            match messages.next().await {
                Some(Event::Gap(gap)) => {
                    assert_eq!((gap.count, gap.cause), (None, GapCause::Restart));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(payload(messages).await, b"2");
            assert_eq!(messages.position().unwrap().seq, 2);
        }
    });
}

/// A client that keeps three messages and 1000 bytes for so long.
async fn offline(fake: &Fake, time: Duration) -> Client {
    let builder = ClientBuilder::new().home(fake.home());
    builder.offline(3, 1000, time).connect().await.unwrap()
}

#[test]
fn what_is_published_while_disconnected_has_its_fate_told() {
    run("offline", async {
        let fake = Fake::new();
        let client = offline(&fake, Duration::from_millis(200)).await;
        fake.stop();
        until("it is noticed", || !client.is_connected()).await;
        let kept: Vec<_> = (0..3)
            .map(|_| client.try_publish("a", "x").unwrap())
            .collect();
        assert!(matches!(
            client.try_publish("a", "x"),
            Err(Error::BufferFull)
        ));
        assert!(matches!(
            client.publish("a", "x").await,
            Err(Error::BufferFull)
        ));
        for fate in kept {
            assert!(matches!(fate.await, Err(Error::Expired)));
        }
        let long = client.try_publish("a", [7; 990]);
        assert!(
            matches!(long, Err(Error::BufferFull)),
            "its frame is longer"
        );
        fake.start();
        // With more patience, they are sent.
        let client = offline(&fake, Duration::from_secs(60)).await;
        fake.stop();
        until("it is noticed", || !client.is_connected()).await;
        let kept: Vec<_> = (0..3)
            .map(|_| client.try_publish("a", "x").unwrap())
            .collect();
        fake.start();
        for fate in kept {
            fate.await.unwrap();
        }
        let seen = || fake.state.lock().unwrap().seen.clone();
        until("all came", || {
            seen().iter().filter(|op| **op == Op::Publish).count() == 3
        })
        .await;
    });
}

#[test]
fn calls_fail_when_the_connection_is_lost_and_wait_for_the_next_when_there_is_none() {
    run("calls", async {
        let fake = Fake::new();
        let client = connect(&fake).await;
        let kv = client.remote_kv();
        fake.freeze(true);
        let calls = async { tokio::join!(kv.get("a"), client.flush(), client.lock("l")) };
        let cut = async {
            until("they wait", || client.is_connected()).await;
            tokio::task::yield_now().await;
            fake.cut();
            fake.freeze(false);
        };
        let ((got, flushed, lock), ()) = tokio::join!(calls, cut);
        // What lasts is asked for again.
        assert!(lock.unwrap().is_held());
        for result in [got.map(drop), flushed] {
            assert!(matches!(result, Err(Error::ConnectionLost)));
        }
        fake.stop();
        until("it is noticed", || !client.is_connected()).await;
        let started = async { fake.start() };
        let (got, ()) = tokio::join!(kv.get("a"), started);
        assert_eq!(got.unwrap(), None);

        let hasty = ClientBuilder::new()
            .home(fake.home())
            .timeout(Duration::from_millis(20));
        let hasty = hasty.connect().await.unwrap();
        fake.freeze(true);
        assert!(matches!(
            hasty.remote_kv().get("a").await,
            Err(Error::Timeout)
        ));
        fake.stop();
        until("it is noticed", || !hasty.is_connected()).await;
        assert!(matches!(
            hasty.remote_kv().get("a").await,
            Err(Error::NotConnected)
        ));
    });
}

#[test]
fn a_lease_outlives_a_restart_and_is_lost_when_somebody_else_has_it() {
    run("leases", async {
        let fake = Fake::new();
        let client = connect(&fake).await;
        let lease = client.lock("l").await.unwrap();
        fake.stop();
        until("it is noticed", || !client.is_connected()).await;
        assert!(lease.is_held(), "it may be: who knows");
        fake.start();
        client.connected().await.unwrap();
        client.flush().await.unwrap();
        assert!(lease.is_held());
        let other = connect(&fake).await;
        assert!(other.try_lock("l").await.unwrap().is_none());

        fake.stop();
        fake.state.lock().unwrap().forget("l");
        fake.start();
        lease.lost().await;
        assert!(!lease.is_held());
        // The new grant, which nobody has asked for, is given back.
        until("it is free", || fake.state.lock().unwrap().held() == 0).await;

        // A broker that does not come back within the grace time has given it to somebody else.
        let lease = client.acquire(LeaseOptions::new("m")).await.unwrap();
        fake.stop();
        lease.lost().await;
        assert!(!lease.is_held());
    });
}

#[test]
fn a_watch_goes_on_or_begins_anew() {
    run("watch", async {
        let fake = Fake::new();
        let client = connect(&fake).await;
        fake.set(b"k", b"0");
        let mut watch = client.watch("k").await.unwrap();
        for _ in 0..3 {
            watch.next().await.unwrap();
        }
        cut(&fake, &client).await;
        fake.set(b"k", b"1");
        assert!(
            matches!(watch.next().await, Some(WatchEvent::Change(_, key)) if key.value() == b"1")
        );
        fake.stop();
        fake.start();
        let begun = watch.next().await.unwrap();
        assert!(
            matches!(begun, WatchEvent::Begin { gap: Some(_) }),
            "{begun:?}"
        );
        assert!(matches!(watch.next().await, Some(WatchEvent::Entry(_))));
        assert!(matches!(
            watch.next().await,
            Some(WatchEvent::End { entries: 1 })
        ));
    });
}

#[test]
fn a_slow_consumer_loses_its_own_messages_with_their_number_and_nobody_elses() {
    run("slow", async {
        let fake = Fake::new();
        let client = ClientBuilder::new().home(fake.home()).queue(10, 1 << 20);
        let client = client.connect().await.unwrap();
        let mut slow = client.subscribe("a").await.unwrap();
        let mut fast = client.subscribe("a").await.unwrap();
        for number in 0..100_u8 {
            fake.publish("a", &[number]);
            assert_eq!(payload(&mut fast).await, [number]);
        }
        match slow.next().await {
            Some(Event::Gap(gap)) => assert_eq!((gap.from, gap.to, gap.count), (1, 90, Some(90))),
            other => panic!("{other:?}"),
        }
        for number in 90..100_u8 {
            assert_eq!(payload(&mut slow).await, [number]);
        }
        // The same by bytes: three of them fit.
        let client = ClientBuilder::new().home(fake.home()).queue(1000, 4000);
        let client = client.connect().await.unwrap();
        let mut slow = client.subscribe("b").await.unwrap();
        for _ in 0..5 {
            fake.publish("b", &[7; 1200]);
        }
        client.flush().await.unwrap();
        match slow.next().await {
            Some(Event::Gap(gap)) => assert_eq!((gap.from, gap.to), (1, 2)),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_watch_that_is_taken_too_slowly_begins_anew() {
    run("slow watch", async {
        let fake = Fake::new();
        let client = ClientBuilder::new().home(fake.home()).queue(10, 1 << 20);
        let client = client.connect().await.unwrap();
        let mut watch = client.watch("k").await.unwrap();
        for number in 0..100_u8 {
            fake.set(b"k", &[number]);
        }
        client.flush().await.unwrap();
        assert!(watch.position().is_none());
        let begun = watch.next().await.unwrap();
        assert!(
            matches!(
                begun,
                WatchEvent::Begin {
                    gap: Some(GapCause::Slow)
                }
            ),
            "{begun:?}"
        );
        assert!(matches!(watch.next().await, Some(WatchEvent::Entry(key)) if key.value() == [99]));
        assert!(matches!(
            watch.next().await,
            Some(WatchEvent::End { entries: 1 })
        ));
        fake.set(b"k", b"last");
        assert!(
            matches!(watch.next().await, Some(WatchEvent::Change(_, key)) if key.value() == b"last")
        );
        drop(watch);
        until("it is gone", || fake.state.lock().unwrap().watchers() == 0).await;
    });
}

#[test]
fn a_broker_that_does_not_read_makes_publishers_wait_and_fail_in_the_end() {
    run("backpressure", async {
        let fake = Fake::new();
        let client = ClientBuilder::new()
            .home(fake.home())
            .outbox_bytes(100_000)
            .timeout(Duration::from_millis(300))
            .connect()
            .await
            .unwrap();
        fake.freeze(true);
        let mut sent = 0;
        let error = loop {
            match client.publish("a", [7; 1000]).await {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Timeout));
        assert!(matches!(
            client.try_publish("a", ""),
            Err(Error::BufferFull)
        ));
        assert!((100..10_000).contains(&sent), "{sent} were taken");
        fake.freeze(false);
        let seen = || {
            let state = fake.state.lock().unwrap();
            state.seen.iter().filter(|op| **op == Op::Publish).count()
        };
        until("all came", || seen() == sent).await;
    });
}

#[test]
fn a_client_that_may_not_try_again_says_so_to_everybody() {
    run("never", async {
        let fake = Fake::new();
        let client = ClientBuilder::new()
            .home(fake.home())
            .reconnect(Reconnect::never());
        let client = client.connect().await.unwrap();
        let mut messages = client.subscribe("a").await.unwrap();
        let lease = client.lock("l").await.unwrap();
        fake.stop();
        assert!(messages.next().await.is_none());
        assert!(messages.error().unwrap().is_no_broker());
        lease.lost().await;
        assert!(client.publish("a", "").await.unwrap_err().is_no_broker());
        assert!(client.connected().await.is_err());
    });
}

#[test]
fn garbage_and_silence_end_the_connection_and_nothing_else() {
    run("garbage", async {
        use std::io::{Read, Write};
        use std::os::unix::net::UnixListener;
        let home = crate::fake::TempHome::new();
        let listener = UnixListener::bind(home.0.join("broker.sock")).unwrap();
        let answers: [&[u8]; 3] = [b"\xff\xff\xff\xff garbage", b"\x00\x00\x00\x14\x09", b""];
        let server = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                stream.write_all(answer).unwrap();
            }
        });
        let builder = ClientBuilder::new().home(&home.0).patience(Duration::ZERO);
        let garbage = builder.connect().await.unwrap_err();
        assert!(matches!(garbage, Error::Protocol { .. }), "{garbage}");
        for _ in 0..2 {
            let ended = builder.connect().await.unwrap_err();
            assert!(matches!(ended, Error::Connect { .. }), "{ended}");
        }
        server.join().unwrap();
    });
}
