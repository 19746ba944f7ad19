//! Topics, one thing at a time.

use crate::pubsub::{message, number, LIMITS};
use ganger_broker::ids::{ConnectionId, Subscriber};
use ganger_broker::message::Message;
use ganger_broker::topics::channel::{Batch, Delivery, Drained, Policy, Start, Wish};
use ganger_broker::topics::group::MemberOptions;
use ganger_broker::topics::retained::RetainError;
use ganger_broker::topics::{
    Chosen, Effects, Joined, Published, SubscribeError, Subscription, TopicLimits, Topics,
};
use ganger_protocol::{Flags, Tail};
use std::sync::Arc;

fn subscribe(topics: &Topics, pattern: &str, wish: Wish) -> Joined {
    let who = Subscriber::new(1, 1);
    let mut effects = Effects::default();
    topics
        .subscribe(&pattern.parse().unwrap(), who, wish, None, &mut effects)
        .unwrap()
}

fn starting(start: Start) -> Wish {
    Wish {
        start,
        ..Wish::default()
    }
}

fn publish(topics: &Topics, subject: &str, count: usize) {
    for at in 0..count {
        let published = topics.publish(&message(subject, at), &mut Effects::default());
        assert!(matches!(published, Ok(Published::Done(_))));
    }
}

fn numbers(subscription: &Subscription) -> Vec<usize> {
    let batch = Batch {
        messages: usize::MAX,
        bytes: usize::MAX,
    };
    let mut numbers = Vec::new();
    subscription.drain(batch, &mut Effects::default(), |item| {
        if let Delivery::Message(_, message) = item {
            numbers.push(number(message));
        }
    });
    numbers
}

fn from(connection: u64, subject: &str, payload: &[u8], flags: Flags) -> Arc<Message> {
    let tail = Tail::new(subject.as_bytes(), b"", payload).unwrap();
    Arc::new(Message::new(tail, flags, ConnectionId(connection)))
}

#[test]
fn one_pattern_more_than_allowed_is_refused_and_counted() {
    let topics = Topics::new(
        TopicLimits {
            topics: 3,
            ..LIMITS
        },
        1,
    );
    let _held = ["a", "b.*", "c"].map(|pattern| subscribe(&topics, pattern, Wish::default()));
    subscribe(&topics, "a", Wish::default());
    for pattern in ["d", "d.*"] {
        let (pattern, who) = (pattern.parse().unwrap(), Subscriber::new(1, 2));
        let mut effects = Effects::default();
        let fourth = topics.subscribe(&pattern, who, Wish::default(), None, &mut effects);
        assert_eq!(fourth.unwrap_err(), SubscribeError::Topics { limit: 3 });
    }
    assert_eq!(topics.totals().topics_refused, 2);
}

#[test]
fn too_many_lingering_channels_go_before_their_time_the_oldest_first() {
    let topics = Topics::new(
        TopicLimits {
            lingering: 2,
            ..LIMITS
        },
        1,
    );
    for (now, pattern) in ["a", "b", "c"].into_iter().enumerate() {
        let joined = subscribe(&topics, pattern, Wish::default());
        let now = u64::try_from(now).unwrap();
        topics.unsubscribe(joined.subscription, now, &mut Effects::default());
    }
    assert_eq!((topics.len(), topics.lingering()), (2, 2));
    assert_eq!(topics.totals().lingering_cut, 1);
    assert_eq!(topics.next_deadline(), Some(101));
    topics.expire(101);
    assert_eq!((topics.len(), topics.next_deadline()), (1, Some(102)));
}

#[test]
fn lingering_channels_have_a_budget_of_their_own() {
    let cost = message("a", 0).cost();
    let limits = TopicLimits {
        lingering_bytes: 3 * cost,
        ..LIMITS
    };
    let topics = Topics::new(limits, 1);
    let joined = subscribe(&topics, "a", Wish::default());
    publish(&topics, "a", 8);
    assert_eq!(topics.bytes(), (8 * cost, 0));
    topics.unsubscribe(joined.subscription, 0, &mut Effects::default());
    assert_eq!(topics.bytes(), (0, 3 * cost));
    publish(&topics, "a", 8);
    assert_eq!(topics.bytes(), (0, 3 * cost));
    let joined = subscribe(&topics, "a", starting(Start::Last(9)));
    assert_eq!(topics.bytes(), (3 * cost, 0));
    assert_eq!(numbers(&joined.subscription), [5, 6, 7]);
}

#[test]
fn a_kept_pattern_replays_to_who_comes_later() {
    let topics = Topics::new(LIMITS, 1);
    topics
        .keep(&"log.>".parse().unwrap(), &mut Effects::default())
        .unwrap();
    publish(&topics, "log.a", 10);
    let joined = subscribe(&topics, "log.>", starting(Start::Last(3)));
    assert_eq!(numbers(&joined.subscription), [7, 8, 9]);
    topics.unsubscribe(joined.subscription, 0, &mut Effects::default());
    topics.expire(u64::MAX);
    assert_eq!((topics.len(), topics.lingering()), (1, 0));
}

#[test]
fn a_blocked_message_reaches_everybody_once() {
    let topics = Topics::new(LIMITS, 1);
    let mut effects = Effects::default();
    let block = Wish {
        policy: Policy::Block { wait_ms: 50 },
        ..Wish::default()
    };
    let slow = subscribe(&topics, "a.x", block);
    let quick = subscribe(&topics, "a.*", Wish::default());
    publish(&topics, "a.x", 8);
    let ninth = from(7, "a.x", &8_usize.to_le_bytes(), Flags::NONE);
    let Ok(Published::Blocked(pending)) = topics.publish(&ninth, &mut effects) else {
        panic!("the slow one holds it up");
    };
    assert_eq!(
        (pending.wait_ms, pending.publisher()),
        (50, Some(ConnectionId(7)))
    );
    assert_eq!(numbers(&quick.subscription), [1, 2, 3, 4, 5, 6, 7, 8]);
    // Too early, then in time because there is room, then too late for one who never reads.
    let Published::Blocked(pending) = topics.publish_rest(pending, false, &mut effects) else {
        panic!("there is no room yet");
    };
    assert!(effects.resume.is_empty());
    let batch = Batch {
        messages: 1,
        bytes: 1,
    };
    assert_eq!(
        slow.subscription.drain(batch, &mut effects, |_| {}),
        Drained::More
    );
    assert_eq!(effects.resume, [ConnectionId(7)]);
    let through = topics.publish_rest(pending, false, &mut effects);
    assert!(matches!(through, Published::Done(2)));
    let tenth = from(7, "a.x", &9_usize.to_le_bytes(), Flags::NONE);
    let Ok(Published::Blocked(pending)) = topics.publish(&tenth, &mut effects) else {
        panic!("it is full again");
    };
    let through = topics.publish_rest(pending, true, &mut effects);
    assert!(matches!(through, Published::Done(2)));
    assert_eq!(numbers(&slow.subscription), [2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(numbers(&quick.subscription), [9]);
}

#[test]
fn each_group_and_all_subscribers_get_a_message_and_responders_get_none() {
    let topics = Topics::new(LIMITS, 1);
    let mut effects = Effects::default();
    let options = MemberOptions {
        cap: 5,
        redeliver: true,
    };
    let mut members = Vec::new();
    for (number, (pattern, group)) in [
        ("a.x", Some("g")),
        ("a.x", Some("g")),
        ("a.x", Some("h")),
        ("a.*", Some("g")),
        ("a.x", None),
    ]
    .into_iter()
    .enumerate()
    {
        let who = Subscriber::new(1, u32::try_from(number).unwrap());
        let pattern = pattern.parse().unwrap();
        members.push(
            topics
                .join(&pattern, group, who, options, &mut effects)
                .unwrap(),
        );
    }
    let subscribed = subscribe(&topics, ">", Wish::default());
    let published = topics.publish(&message("a.x", 0), &mut effects).unwrap();
    assert!(matches!(published, Published::Done(4)));
    let mut to: Vec<u32> = effects
        .assignments
        .iter()
        .map(|a| a.to.subscription.0)
        .collect();
    to.sort_unstable();
    assert_eq!(to, [0, 2, 3]);
    assert_eq!(numbers(&subscribed.subscription), [0]);

    // The last of a group dies: its message waits for the next one, for as long as channels linger.
    topics.quit(members.remove(2), 10, &mut effects);
    effects.assignments.clear();
    let who = Subscriber::new(2, 9);
    let again = topics.join(
        &"a.x".parse().unwrap(),
        Some("h"),
        who,
        options,
        &mut effects,
    );
    assert_eq!(
        (
            effects.assignments[0].to,
            effects.assignments[0].redeliveries
        ),
        (who, 1)
    );
    topics.quit(again.unwrap(), 20, &mut effects);
    assert_eq!(topics.next_deadline(), Some(110));
    topics.expire(110);
    topics.expire(120);
    assert_eq!(
        (topics.totals().group_lost, topics.next_deadline()),
        (1, None)
    );
}

#[test]
fn a_request_goes_to_the_responder_with_the_fewest_in_hand() {
    let topics = Topics::new(LIMITS, 1);
    let mut effects = Effects::default();
    let request = message("rpc.sum", 0);
    let none = topics.request(&request, &mut effects);
    assert!(matches!(none, Chosen::NoResponders));
    let options = MemberOptions {
        cap: 1,
        redeliver: false,
    };
    let [exact, wild] = [("rpc.sum", 1), ("rpc.*", 2)].map(|(pattern, number)| {
        let who = Subscriber::new(number, 1);
        topics.join(
            &pattern.parse().unwrap(),
            None,
            who,
            options,
            &mut Effects::default(),
        )
    });
    let mut routes = Vec::new();
    for _ in 0..2 {
        let Chosen::Responder(route) = topics.request(&request, &mut effects) else {
            panic!("one is free");
        };
        routes.push(route);
    }
    let chosen: Vec<u64> = routes
        .iter()
        .map(|route| route.responder.connection.0)
        .collect();
    assert_eq!(chosen, [1, 2]);
    assert!(matches!(
        topics.request(&request, &mut effects),
        Chosen::Busy
    ));
    topics.request_ended(&routes[1], &mut effects);
    let Chosen::Responder(route) = topics.request(&request, &mut effects) else {
        panic!("it is free again");
    };
    assert_eq!(route.responder.connection, ConnectionId(2));
    for member in [exact, wild] {
        topics.quit(member.unwrap(), 0, &mut effects);
    }
    let none = topics.request(&request, &mut effects);
    assert!(matches!(none, Chosen::NoResponders));
    assert!(topics.is_empty());
}

#[test]
fn a_retained_message_is_there_for_who_comes_later() {
    let topics = Topics::new(
        TopicLimits {
            retained: 2,
            ..LIMITS
        },
        1,
    );
    let mut effects = Effects::default();
    let mut retain = |subject, payload: &[u8]| {
        let message = from(1, subject, payload, Flags::RETAIN);
        topics.publish(&message, &mut effects).map(|_| ())
    };
    retain("state.a", b"1").unwrap();
    retain("state.b", b"1").unwrap();
    retain("state.a", b"2").unwrap();
    assert_eq!(
        retain("state.c", b"1"),
        Err(RetainError::Messages { limit: 2 })
    );
    let found = topics.retained_for(&"state.*".parse().unwrap());
    let payloads: Vec<&[u8]> = found
        .iter()
        .map(|message| message.tail().payload())
        .collect();
    assert_eq!(payloads, [b"2", b"1"]);
    retain("state.a", b"").unwrap();
    assert_eq!(topics.retained_len().0, 1);
    assert_eq!(topics.totals().retain_refused, 1);
}

#[test]
fn statistics_tell_lag_and_losses_of_each() {
    let topics = Topics::new(LIMITS, 1);
    let behind = subscribe(&topics, "a", Wish::default());
    let close = subscribe(&topics, "a", Wish::default());
    publish(&topics, "a", 8);
    numbers(&close.subscription);
    publish(&topics, "a", 2);
    let stats = topics.all()[0].stats().channel.unwrap();
    assert_eq!(
        (
            stats.first,
            stats.next,
            stats.messages,
            stats.totals.messages
        ),
        (3, 11, 8, 10)
    );
    let each: Vec<_> = stats
        .subscribers
        .iter()
        .map(|s| (s.lag, s.delivered, s.lost))
        .collect();
    assert_eq!(each, [(10, 0, 2), (2, 8, 0)]);
    assert_eq!(behind.subscription.topic().pattern().as_str(), "a");
}
