//! One subscriber stands still. The broker's memory stays at its cap, and the others get everything.

use super::history::{payload, History};
use super::keeper::Keeper;
use super::{run, soon};
use crate::harness::Watchdog;
use ganger_client::{Client, Subscription};
use ganger_protocol::pubsub::Subscribe;
use ganger_protocol::{Frame, Limits};

/// Subscribers that go on.
const OTHERS: u64 = 99;
/// Messages, and the bytes of each: half more than a channel keeps.
const MESSAGES: u64 = 3072;
const LEN: usize = 32 << 10;

#[test]
fn a_stopped_subscriber_among_a_hundred_costs_a_bounded_memory_and_the_others_nothing() {
    let _watchdog = Watchdog::new("broker_faults::bystanders", 600);
    let keeper = Keeper::plain(&[]);
    let limits = Limits::default();
    assert!(MESSAGES * LEN as u64 > (limits.ring_bytes + limits.outbox_bytes) as u64);
    let mut still = super::hostile::Raw::greeted(&keeper);
    let subscribe = Subscribe {
        pattern: "n".into(),
        ..Subscribe::default()
    };
    still.send(&Frame::control(1, &subscribe).unwrap());
    run(async {
        let publisher = keeper.connect().await;
        let mut others = Vec::new();
        for _ in 0..OTHERS {
            // One connection each.
            let client = keeper.connect().await;
            let messages = client.subscribe("n").await.unwrap();
            others.push(tokio::spawn(read_all(client, messages)));
        }
        let mut message = vec![0; LEN];
        for number in 0..MESSAGES {
            message[..16].copy_from_slice(&payload(0, number));
            publisher.publish("n", &message).await.unwrap();
            if number % 64 == 0 {
                soon("the broker", publisher.flush()).await.unwrap();
            }
        }
        for other in others {
            let history = other.await.unwrap();
            assert_eq!(history.messages + history.lost, MESSAGES);
        }
    });
    // The ring, what waits in the connection, and the broker itself with its hundred clients.
    let cap = limits.ring_bytes + limits.outbox_bytes + (48 << 20);
    let peak = keeper.status_kib("VmHWM:") << 10;
    assert!(peak < cap as u64, "{} MiB", peak >> 20);
    drop(still);
}

async fn read_all(client: Client, mut messages: Subscription) -> History {
    let mut history = History::from(1);
    while history.messages + history.lost < MESSAGES {
        let event = messages.next().await.unwrap();
        history.take(&event).unwrap();
    }
    drop(client);
    history
}
