//! States larger than any queue between the region and the program that watches: they come whole,
//! as fast as they are taken, and who does not take them costs little and holds up nobody.

use super::{state, Model, State};
use crate::brokers::{run, Broker};
use crate::harness::{status_number, wait_until};
use bytes::{Bytes, BytesMut};
use ganger_client::protocol::hello::Hello;
use ganger_client::protocol::watch::{Select, Watch as Wanted};
use ganger_client::protocol::Frame;
use ganger_client::{blocking, Client, Kv, Watch, WatchEvent};
use std::io::Write;
use std::os::unix::net::UnixStream;

const MEBIBYTE: usize = 1 << 20;
/// More than the client's queue has by default, and the broker's for a connection.
const LARGE: usize = 80;

/// A broker with a region that has room for so many large values.
fn roomy() -> Broker {
    Broker::with(&["--region-size", "256MiB"])
}

fn large_values(kv: &Kv) {
    for number in 0..LARGE {
        let byte = u8::try_from(number).unwrap();
        kv.set(format!("a:{number}"), vec![byte; MEBIBYTE]).unwrap();
    }
}

/// The state is begun, and nobody takes it while the broker and the connection have time for more
/// than fits the queue.
async fn left_alone(client: &Client, watch: &mut Watch, model: &mut Model) {
    model.learn(watch.next().await.unwrap());
    for _ in 0..200 {
        client.flush().await.unwrap();
    }
}

#[test]
fn a_hundred_thousand_keys_come_whole_through_a_queue_for_fifty() {
    run(async {
        let broker = Broker::start();
        let client = broker.client().queue(50, 64 << 10).connect().await.unwrap();
        let kv = client.kv().unwrap();
        for number in 0..100_000 {
            kv.set(format!("a:{number}"), "begun").unwrap();
        }
        let mut watch = client.watch_prefix("a:").await.unwrap();
        let mut model = Model::default();
        left_alone(&client, &mut watch, &mut model).await;
        // What changes meanwhile comes behind it.
        for number in 0..1000 {
            kv.set(format!("a:{number}"), "changed").unwrap();
            kv.delete(format!("a:9{number}")).unwrap();
        }
        model.follow(&mut watch, &state(&kv, "a:")).await;
        assert_eq!((model.begins, &model.gaps[..]), (1, &[][..]));
    });
}

#[test]
fn values_of_a_mebibyte_come_whole_through_a_queue_for_four() {
    run(async {
        let broker = roomy();
        let queue = broker.client().queue(1000, 4 * MEBIBYTE);
        let client = queue.connect().await.unwrap();
        let kv = client.kv().unwrap();
        large_values(&kv);
        let mut watch = client.watch_prefix("a:").await.unwrap();
        let mut model = Model::default();
        left_alone(&client, &mut watch, &mut model).await;
        kv.set("a:0", "changed").unwrap();
        model.follow(&mut watch, &state(&kv, "a:")).await;
        assert_eq!((model.begins, &model.gaps[..]), (1, &[][..]));
        // So does a change, however many there are.
        for round in 1..3 {
            for number in 0..LARGE {
                kv.set(format!("a:{number}"), vec![round; MEBIBYTE])
                    .unwrap();
            }
            client.flush().await.unwrap();
        }
        model.follow(&mut watch, &state(&kv, "a:")).await;
        assert_eq!((model.begins, &model.gaps[..]), (1, &[][..]));
    });
}

/// What waits for a stream that nobody takes is not in the way of the others of its connection.
#[test]
fn a_watch_that_is_not_taken_holds_up_nothing_else_of_its_connection() {
    run(async {
        let broker = roomy();
        let queue = broker.client().queue(1000, 2 * MEBIBYTE);
        let client = queue.connect().await.unwrap();
        let kv = client.kv().unwrap();
        large_values(&kv);
        let mut still = client.watch_prefix("a:").await.unwrap();
        let mut model = Model::default();
        left_alone(&client, &mut still, &mut model).await;
        let mut messages = client.subscribe("m").await.unwrap();
        client.publish("m", "here").await.unwrap();
        assert_eq!(messages.next_message().await.unwrap().payload(), b"here");
        let wanted = state(&kv, "a:");
        let mut other = client.watch_prefix("a:").await.unwrap();
        Model::default().follow(&mut other, &wanted).await;
        // It goes on when it is taken.
        model.follow(&mut still, &wanted).await;
        assert_eq!((model.begins, &model.gaps[..]), (1, &[][..]));
    });
}

/// One that reads nothing at all any more, in the middle of its state, and asked for no window.
#[test]
fn a_client_that_stops_reading_costs_a_bounded_memory_and_the_others_nothing() {
    run(async {
        let broker = roomy();
        let client = broker.connect().await;
        let kv = client.kv().unwrap();
        // So many that those of a few buckets would be too much to hold for each watcher.
        for number in 0..800 {
            kv.set(format!("a:{number}"), vec![7; MEBIBYTE / 4])
                .unwrap();
        }
        let mut still = Vec::new();
        for _ in 0..4 {
            let mut stream = UnixStream::connect(broker.socket()).unwrap();
            let watch = Wanted {
                select: Select::Prefix(Bytes::from_static(b"a:")),
                resume: None,
                values: true,
                window: None,
            };
            let mut bytes = BytesMut::new();
            let hello = Frame::control(1, &Hello::new("still")).unwrap();
            hello.write_to(&mut bytes);
            Frame::control(2, &watch).unwrap().write_to(&mut bytes);
            stream.write_all(&bytes).unwrap();
            still.push(stream);
        }
        let mut watch = client.watch_prefix("a:1").await.unwrap();
        let wanted = state(&kv, "a:1");
        Model::default().follow(&mut watch, &wanted).await;
        let waits = async || {
            let clients = client.clients().await.unwrap();
            let still = clients.iter().filter(|client| client.name == "still");
            still.map(|client| client.outbox_bytes).collect::<Vec<_>>()
        };
        let waiting = waits().await;
        let is_bounded = |bytes: &u64| (1..MEBIBYTE as u64).contains(bytes);
        assert!(waiting.iter().all(is_bounded), "{waiting:?}");
        assert_eq!(waiting.len(), still.len());
        let cap = 48 << 10;
        // What the broker has besides the region.
        let anonymous = status_number(broker.pid(), "RssAnon:").unwrap();
        assert!(anonymous < cap, "{anonymous} KiB");
    });
}

#[test]
fn an_iterator_gets_the_whole_state_however_slowly_it_asks() {
    let broker = roomy();
    wait_until("the broker to listen", || {
        UnixStream::connect(broker.socket()).is_ok()
    });
    let client = blocking::Client::connect_with(&broker.client().queue(9, MEBIBYTE)).unwrap();
    let kv = client.kv().unwrap();
    large_values(&kv);
    let wanted: State = state(&kv, "a:");
    let mut model = Model::default();
    let watch = client.watch_prefix("a:").unwrap();
    for event in watch {
        for _ in 0..5 {
            client.flush().unwrap();
        }
        let is_end = matches!(event, WatchEvent::End { .. });
        model.learn(event);
        if is_end {
            break;
        }
    }
    assert!(model.is_whole && model.state == wanted);
    assert_eq!((model.begins, &model.gaps[..]), (1, &[][..]));
}
