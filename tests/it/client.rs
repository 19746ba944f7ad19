//! The client against the real broker: every kind of call, and a broker that is killed, stopped and
//! started again under it.

use crate::brokers::{run, Broker};
use ganger_client::{
    ClientBuilder, Error, Event, GapCause, PublishOptions, Reconnect, Start, SubscribeOptions,
};
use rustix::process::Signal;
use std::time::Duration;

#[test]
fn messages_requests_and_keys_go_through_the_broker() {
    run(async {
        let broker = Broker::start();
        let (client, other) = (broker.connect().await, broker.connect().await);
        let mut messages = client.subscribe("a.*").await.unwrap();
        for number in 0..1000_u32 {
            other.publish("a.b", number.to_string()).await.unwrap();
        }
        for number in 0..1000_u32 {
            let message = messages.next_message().await.unwrap();
            assert_eq!(message.payload(), number.to_string().as_bytes());
            assert_eq!(message.seq(), u64::from(number) + 1);
        }
        let options = PublishOptions::new().retain().ack().header("zone", "eu");
        assert_eq!(
            other.publish_with("a.b", "x", &options).await.unwrap(),
            Some(1)
        );
        assert_eq!(
            messages.next_message().await.unwrap().header("zone"),
            Some(&b"eu"[..])
        );
        let last = SubscribeOptions::new().start(Start::Last);
        let mut last = other.subscribe_with("a.>", last).await.unwrap();
        assert!(last.next_message().await.unwrap().is_retained());

        let nobody = client.request("price", "").await.unwrap_err();
        assert!(matches!(nobody, Error::NoResponders), "{nobody}");
        let mut requests = other.respond("price").await.unwrap();
        let answering = async {
            requests.next().await.unwrap().reply("1.20").await.unwrap();
            drop(requests.next().await.unwrap());
            let _in_hand = requests.next().await.unwrap();
            other.close().await.unwrap();
        };
        let asking = async {
            assert_eq!(
                client.request("price", "").await.unwrap().payload(),
                b"1.20"
            );
            let dropped = client.request("price", "").await.unwrap_err();
            assert!(matches!(dropped, Error::Unanswered), "{dropped}");
            let died = client.request("price", "").await.unwrap_err();
            assert!(matches!(died, Error::WorkerDied), "{died}");
        };
        tokio::join!(answering, asking);

        let kv = client.remote_kv();
        assert_eq!(kv.incr("visits", 2).await.unwrap(), 2);
        assert_eq!(client.kv().unwrap().incr("visits", 1).unwrap(), 3);
        let entry = kv.entry("visits").await.unwrap().unwrap();
        assert!(entry.counter && entry.value == 3_i64.to_le_bytes()[..]);
        assert_eq!(kv.scan("", 0, 10).await.unwrap().entries.len(), 1);
        assert_eq!(kv.stats().await.unwrap().entries, 1);
    });
}

#[test]
fn a_queue_group_shares_messages_and_passes_on_those_of_the_dead() {
    run(async {
        let broker = Broker::start();
        let (client, dies, lives) = (
            broker.connect().await,
            broker.connect().await,
            broker.connect().await,
        );
        let member = || SubscribeOptions::new().group("g").redeliver();
        let mut dying = dies.subscribe_with("jobs", member()).await.unwrap();
        for number in 0..10_u8 {
            client.publish("jobs", [number]).await.unwrap();
        }
        for number in 0..5_u8 {
            assert_eq!(dying.next_message().await.unwrap().payload(), [number]);
        }
        let mut living = lives.subscribe_with("jobs", member()).await.unwrap();
        // Its last message was in hand, and nobody asked for the next.
        dies.close().await.unwrap();
        let mut rest = Vec::new();
        for _ in 4..10 {
            let message = living.next_message().await.unwrap();
            assert_eq!(message.redeliveries(), 1);
            rest.push(message.payload()[0]);
        }
        rest.sort_unstable();
        assert_eq!(rest, [4, 5, 6, 7, 8, 9]);
    });
}

#[test]
fn large_payloads_go_through_the_region_and_to_those_without_one() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let without = ClientBuilder::new().without_region().home(&broker.home);
        let without = without.connect().await.unwrap();
        let mut direct = client.subscribe("large").await.unwrap();
        let mut inline = without.subscribe("large").await.unwrap();
        for number in 0..50_u8 {
            let payload = vec![number; 1 << 20];
            let sender = if number % 2 == 0 { &client } else { &without };
            sender.publish("large", &payload).await.unwrap();
            for messages in [&mut direct, &mut inline] {
                assert_eq!(messages.next_message().await.unwrap().payload(), payload);
            }
        }
        // 8 MiB of the publisher's payloads stay for who has not read them: an eighth of the region.
        assert!((1..=8).contains(&client.kv().unwrap().stats().entries));
    });
}

/// A child that publishes large payloads and waits to be killed.
pub(crate) fn play(role: &str, arguments: &[&str]) -> bool {
    let ("large-publisher", [home]) = (role, arguments) else {
        return false;
    };
    run(async {
        let client = crate::brokers::builder(home.as_ref())
            .connect()
            .await
            .unwrap();
        for _ in 0..6 {
            client.publish("large", vec![7; 1 << 20]).await.unwrap();
        }
        client.flush().await.unwrap();
        crate::harness::report("published");
        std::future::pending::<()>().await;
    });
    true
}

/// Whoever of publisher, subscriber and broker is killed: the memory of payloads comes back when
/// their time is over, and not a message that was read before is damaged.
#[test]
fn payloads_in_the_region_are_gone_after_their_time_whoever_was_killed() {
    run(async {
        let name = format!("ganger-it-large-{}", std::process::id());
        let _named = crate::watches::Named(name.clone());
        let mut broker = Broker::with(&["--region", &name]);
        let reader = broker.connect().await;
        let kv = reader.kv().unwrap();
        let mut messages = reader.subscribe("large").await.unwrap();
        let home = [broker.home.to_str().unwrap().to_owned()];
        let mut publisher = crate::harness::Child::spawn("large-publisher", &home);
        assert_eq!(publisher.hear(), "published");
        publisher.kill();
        for _ in 0..6 {
            let message = messages.next_message().await.unwrap();
            assert_eq!(message.payload(), vec![7; 1 << 20]);
        }
        let used = kv.stats().pages_used;
        assert!(used > 90, "{used} pages");
        drop(messages);
        broker.kill();
        broker.restart();
        reader.connected().await.unwrap();
        let begun = std::time::Instant::now();
        while kv.stats().pages_used > used - 90 {
            assert!(begun.elapsed() < Duration::from_secs(100), "the pages stay");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(kv.check().unwrap().problems.is_empty());
    });
}

/// A broker that is killed under load, again and again: the messages of each of its runs come in
/// order and without holes, and each end of a run is told.
#[test]
fn after_each_kill_of_the_broker_the_client_is_back_and_says_what_it_missed() {
    run(async {
        let mut broker = Broker::start();
        let (reader, writer) = (broker.connect().await, broker.connect().await);
        let mut messages = reader.subscribe("n").await.unwrap();
        let writing = tokio::spawn(async move {
            for number in 0_u64.. {
                match writer.publish("n", number.to_le_bytes()).await {
                    Ok(()) => tokio::time::sleep(Duration::from_micros(200)).await,
                    Err(error) => panic!("{number}: {error}"),
                }
            }
        });
        let (mut seq, mut number, mut begun) = (0, None, true);
        for round in 0..10 {
            for _ in 0..100 {
                let Some(Event::Message(message)) = messages.next().await else {
                    panic!("no message in round {round}");
                };
                seq = if begun { seq + 1 } else { message.seq() };
                begun = true;
                assert_eq!(message.seq(), seq, "round {round}");
                let now = u64::from_le_bytes(message.payload().try_into().unwrap());
                assert!(number < Some(now), "nothing comes twice, or late");
                number = Some(now);
            }
            broker.kill();
            broker.restart();
            loop {
                match messages.next().await {
                    Some(Event::Gap(gap)) => {
                        assert_eq!((gap.cause, gap.count), (GapCause::Restart, None));
                        break;
                    }
                    // What had been received already.
                    Some(Event::Message(message)) => {
                        seq += 1;
                        assert_eq!(message.seq(), seq);
                        number = Some(u64::from_le_bytes(message.payload().try_into().unwrap()));
                    }
                    other => panic!("{other:?}"),
                }
            }
            // The channel is another: it counts from 1, and this subscription begins somewhere.
            seq = 0;
            begun = false;
        }
        writing.abort();
    });
}

#[test]
fn a_stopped_broker_makes_calls_fail_in_time_and_nothing_else() {
    run(async {
        let broker = Broker::start();
        let builder = ClientBuilder::new()
            .home(&broker.home)
            .patience(Duration::from_secs(20));
        let client = builder
            .timeout(Duration::from_millis(100))
            .connect()
            .await
            .unwrap();
        let kv = client.kv().unwrap();
        let mut messages = client.subscribe("a").await.unwrap();
        client.flush().await.unwrap();
        broker.signal(Signal::STOP);
        let late = client.remote_kv().get("k").await.unwrap_err();
        assert!(matches!(late, Error::Timeout), "{late}");
        kv.set("k", "direct").unwrap();
        client.publish("a", "1").await.unwrap();
        broker.signal(Signal::CONT);
        assert_eq!(messages.next_message().await.unwrap().payload(), b"1");
        loop {
            match client.remote_kv().get("k").await {
                Ok(value) => break assert_eq!(value, Some(b"direct".to_vec())),
                Err(Error::Timeout) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
}

#[test]
fn who_may_not_come_back_is_told_and_keys_go_on_without_a_broker() {
    run(async {
        let mut broker = Broker::start();
        let builder = ClientBuilder::new()
            .home(&broker.home)
            .patience(Duration::from_secs(20));
        let client = builder
            .reconnect(Reconnect::never())
            .connect()
            .await
            .unwrap();
        let kv = client.kv().unwrap();
        let mut messages = client.subscribe("a").await.unwrap();
        broker.kill();
        assert!(messages.next().await.is_none());
        assert!(messages.error().unwrap().is_no_broker());
        kv.set("still", "here").unwrap();
        assert_eq!(kv.get("still").unwrap(), Some(b"here".to_vec()));
    });
}
