use crate::fake::Fake;
use crate::{run, until};
use ganger_client::{Client, ClientBuilder, PublishOptions};
use std::future::{poll_fn, Future};
use std::pin::{pin, Pin};
use std::task::Poll;
use std::time::Duration;

type Boxed<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Polls a future so many times, then drops it. Whether it was done by then.
async fn polled(times: usize, future: impl Future<Output = ()>) -> bool {
    let mut future = pin!(future);
    let mut polls = 0;
    poll_fn(|context| {
        if polls == times {
            return Poll::Ready(false);
        }
        polls += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(true),
            // The next poll comes when something has changed, or, so that those are dropped too
            // that wait for nothing, in a while.
            Poll::Pending => {
                let waker = context.waker().clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    waker.wake();
                });
                Poll::Pending
            }
        }
    })
    .await
}

/// Every call, each a future that leaves nothing behind once it is dropped.
fn calls(client: &Client) -> Vec<(&'static str, Boxed<'_>)> {
    let options = || PublishOptions::new().ack();
    let kv = client.remote_kv();
    let other = client.remote_kv();
    vec![
        (
            "publish",
            Box::pin(async { drop(client.publish("other", "x").await) }),
        ),
        (
            "ack",
            Box::pin(async move {
                drop(client.publish_with("other", "x", &options()).await);
            }),
        ),
        (
            "subscribe",
            Box::pin(async {
                if let Ok(mut messages) = client.subscribe("never").await {
                    messages.next().await;
                }
            }),
        ),
        (
            "queue",
            Box::pin(async {
                if let Ok(mut messages) = client.queue_subscribe("never", "g").await {
                    messages.next().await;
                }
            }),
        ),
        (
            "request",
            Box::pin(async { drop(client.request("asked", "x").await) }),
        ),
        (
            "respond",
            Box::pin(async {
                if let Ok(mut requests) = client.respond("never").await {
                    requests.next().await;
                }
            }),
        ),
        ("get", Box::pin(async move { drop(kv.get("k").await) })),
        ("len", Box::pin(async move { drop(other.len().await) })),
        (
            "watch",
            Box::pin(async {
                if let Ok(mut watch) = client.watch("w").await {
                    while watch.next().await.is_some() {}
                }
            }),
        ),
        ("lock", Box::pin(async { drop(client.lock("taken").await) })),
        (
            "free lock",
            Box::pin(async {
                if let Ok(lease) = client.lock("free").await {
                    lease.lost().await;
                }
            }),
        ),
        (
            "release",
            Box::pin(async {
                if let Ok(lease) = client.lock("free").await {
                    drop(lease.release().await);
                }
            }),
        ),
        (
            "observe",
            Box::pin(async {
                if let Ok(mut holders) = client.observe_leader("free").await {
                    while holders.next().await.is_some() {}
                }
            }),
        ),
        ("flush", Box::pin(async { drop(client.flush().await) })),
    ]
}

/// After all that, the connection is right: answers find those who asked, and nothing is left.
async fn is_right(fake: &Fake, client: &Client, held: usize) {
    let kv = client.remote_kv();
    for number in 0..3_u8 {
        kv.set("probe", [number]).await.unwrap();
        assert_eq!(kv.get("probe").await.unwrap(), Some(vec![number]));
    }
    until("nothing is left", || {
        let state = fake.state.lock().unwrap();
        // The test's own: a responder, and a holder, unless its connection was cut.
        (
            state.subscribers(),
            state.watchers(),
            state.waiting(),
            state.held(),
            state.asked(),
        ) == (1, 0, 0, held, 0)
    })
    .await;
}

/// Drops each call after 0, 1, 2, ... polls, under these conditions.
fn each_call_at_each_poll(
    name: &'static str,
    held: usize,
    conditions: impl Fn(&Fake),
    calm: impl Fn(&Fake),
) {
    run(name, async {
        let fake = Fake::new();
        let other = ClientBuilder::new()
            .home(fake.home())
            .connect()
            .await
            .unwrap();
        let _never_answers = other.respond("asked").await.unwrap();
        let _taken = other.lock("taken").await.unwrap();
        let client = ClientBuilder::new()
            .home(fake.home())
            .timeout(Duration::from_secs(5));
        let client = client.connect().await.unwrap();
        for call in 0..calls(&client).len() {
            for times in 0..6 {
                conditions(&fake);
                let (_, future) = calls(&client).swap_remove(call);
                let done = polled(times, future).await;
                calm(&fake);
                if done {
                    break;
                }
            }
        }
        client.connected().await.unwrap();
        is_right(&fake, &client, held).await;
    });
}

#[test]
fn dropping_any_future_at_any_poll_leaves_the_connection_right() {
    each_call_at_each_poll("cancel", 1, |_| {}, |_| {});
}

#[test]
fn dropping_any_future_while_the_broker_is_stuck_leaves_the_connection_right() {
    each_call_at_each_poll(
        "cancel, stuck",
        1,
        |fake| fake.freeze(true),
        |fake| fake.freeze(false),
    );
}

#[test]
fn dropping_any_future_while_the_connection_is_lost_leaves_the_next_right() {
    each_call_at_each_poll("cancel, lost", 0, Fake::cut, |_| {});
}

#[test]
fn a_message_that_waits_for_a_connection_is_taken_back_with_its_future() {
    run("taken back", async {
        let fake = Fake::new();
        let client = ClientBuilder::new()
            .home(fake.home())
            .connect()
            .await
            .unwrap();
        let mut messages = client.subscribe("a").await.unwrap();
        fake.stop();
        until("it is noticed", || !client.is_connected()).await;
        assert!(!polled(3, async { drop(client.publish("a", "dropped").await) }).await);
        let kept = client.publish("a", "kept");
        let started = async {
            fake.start();
            loop {
                if let Some(message) = messages.next_message().await {
                    return message;
                }
            }
        };
        let (sent, message) = tokio::join!(kept, started);
        sent.unwrap();
        assert_eq!(message.payload(), b"kept");
    });
}
