//! Locks, semaphores and elections through the broker, also when holders and the broker die.

use crate::brokers::{run, Broker};
use crate::harness::{wait_until, Child};
use ganger_client::protocol::{ErrorCode, Limits};
use ganger_client::{Client, Error, Lease, LeaseOptions, PublishOptions, SetOptions};
use rustix::process::Signal;
use std::time::{Duration, Instant};

#[test]
fn a_lock_is_one_holders_at_a_time_and_goes_to_who_waited_longest() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let first = client.lock("l").await.unwrap();
        assert!(client.try_lock("l").await.unwrap().is_none());
        let mut waiting = Vec::new();
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        for number in 0..5 {
            let waiter = broker.connect().await;
            let done = done.clone();
            waiting.push(tokio::spawn(async move {
                let lease = waiter.lock("l").await.unwrap();
                done.send((number, lease.token())).unwrap();
                lease.release().await.unwrap();
            }));
            queue_of(&client, "l", number + 1).await;
        }
        let mut token = first.token();
        first.release().await.unwrap();
        for number in 0..5 {
            let (who, next) = order.recv().await.unwrap();
            assert_eq!(who, number);
            assert!(next > token, "tokens grow");
            token = next;
        }
        for waiter in waiting {
            waiter.await.unwrap();
        }
        assert_eq!(client.leases("").await.unwrap().len(), 0);
    });
}

/// Waits until so many wait for a lease.
async fn queue_of(client: &Client, name: &str, waiting: u64) {
    loop {
        let leases = client.leases(name).await.unwrap();
        if leases.iter().any(|lease| lease.waiting == waiting) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn a_semaphore_has_its_permits_and_a_wait_its_end() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(client.semaphore("s", 3).await.unwrap());
        }
        let once = LeaseOptions::new("s").permits(3).wait(Duration::ZERO);
        assert!(matches!(
            client.acquire(once.clone()).await,
            Err(Error::Taken)
        ));
        let patient = once.clone().wait(Duration::from_millis(20));
        assert!(matches!(client.acquire(patient).await, Err(Error::Timeout)));
        let disagree = client.semaphore("s", 2).await.map(drop).unwrap_err();
        assert_eq!(disagree.refusal().unwrap().code, ErrorCode::Invalid);
        drop(held.pop());
        let patient = once.wait(Duration::from_secs(60));
        client.acquire(patient).await.unwrap();
    });
}

#[test]
fn a_leader_is_seen_by_observers_and_followed_by_the_next() {
    run(async {
        let broker = Broker::start();
        let (one, two) = (broker.connect().await, broker.connect().await);
        let observer = broker.connect().await;
        let mut leaders = observer.observe_leader("e").await.unwrap();
        let mut values = async |wanted: &[&str]| loop {
            let holders = leaders.next().await.unwrap();
            let values: Vec<_> = holders.iter().map(|holder| &holder.value[..]).collect();
            if values
                == wanted
                    .iter()
                    .map(|value| value.as_bytes())
                    .collect::<Vec<_>>()
            {
                break;
            }
        };
        let leader = one.elect("e", "one").await.unwrap();
        values(&["one"]).await;
        leader.set_value("one, elsewhere").await.unwrap();
        values(&["one, elsewhere"]).await;
        let waits = tokio::spawn(async move {
            let lead = two.elect("e", "two").await.unwrap();
            (two, lead)
        });
        queue_of(&observer, "e", 1).await;
        drop(leader);
        values(&["two"]).await;
        let (two, lead) = waits.await.unwrap();
        two.close().await.unwrap();
        values(&[]).await;
        assert!(!lead.is_held());
    });
}

/// A child that holds a lock, a subscription and an ephemeral key, and does nothing.
pub(crate) fn play(role: &str, arguments: &[&str]) -> bool {
    if let ("key-owner", [home, number]) = (role, arguments) {
        own_a_key(home, number);
    }
    let ("lease-holder", [home, ttl_ms]) = (role, arguments) else {
        return false;
    };
    run(async {
        let builder = crate::brokers::builder(home.as_ref());
        let client = builder.connect().await.unwrap();
        let mut options = LeaseOptions::new("held").value("child");
        if let Some(ttl_ms) = ttl_ms.parse().ok().filter(|ttl_ms| *ttl_ms > 0) {
            options = options.ttl(Duration::from_millis(ttl_ms));
        }
        let lease = client.acquire(options).await.unwrap();
        let ephemeral = SetOptions::new().ephemeral();
        let kv = client.remote_kv();
        kv.set_with("remote", "x", ephemeral).await.unwrap();
        client
            .kv()
            .unwrap()
            .set_with("direct", "x", ephemeral)
            .unwrap();
        let _messages = client.subscribe("news").await.unwrap();
        client.flush().await.unwrap();
        crate::harness::report(&lease.token().to_string());
        std::future::pending::<()>().await;
    });
    true
}

/// Has an ephemeral key in the region, for ever.
fn own_a_key(home: &str, number: &str) {
    run(async {
        let client = crate::brokers::builder(home.as_ref())
            .connect()
            .await
            .unwrap();
        let kv = client.kv().unwrap();
        let ephemeral = SetOptions::new().ephemeral();
        kv.set_with(format!("owned:{number}"), "", ephemeral)
            .unwrap();
        crate::harness::report("owned");
        std::future::pending::<()>().await;
    });
}

fn holder(broker: &Broker, ttl_ms: u64) -> (Child, u64) {
    let home = broker.home.to_str().unwrap().to_owned();
    let mut child = Child::spawn("lease-holder", &[home, ttl_ms.to_string()]);
    let token = child.hear().parse().unwrap();
    (child, token)
}

/// A process that is killed holds a lock, ephemeral keys of both kinds and a subscription. All of it
/// is free at once: the median of how long that took is printed, and no test fails for being slow.
#[test]
fn what_a_killed_process_held_is_free_at_once() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let kv = client.kv().unwrap();
        let mut times: Vec<[Duration; 3]> = Vec::new();
        for _ in 0..10 {
            let (child, token) = holder(&broker, 0);
            assert!(kv.exists("remote").unwrap() && kv.exists("direct").unwrap());
            let waiter = client.clone();
            let waits = tokio::spawn(async move {
                let lease = waiter.lock("held").await.unwrap();
                (lease, Instant::now())
            });
            queue_of(&client, "held", 1).await;
            let killed = Instant::now();
            child.signal(Signal::KILL);
            let (lease, granted) = waits.await.unwrap();
            assert!(lease.token() > token);
            // Keys that came over the socket go before the lock does.
            assert!(!kv.exists("remote").unwrap());
            let reached = client
                .publish_with("news", "", &PublishOptions::new().ack())
                .await;
            reached.unwrap();
            let topics = client.topics("news").await.unwrap();
            assert!(topics.iter().all(|topic| topic.subscribers.is_empty()));
            let subscriptions = Instant::now();
            wait_until("the key in the region", || !kv.exists("direct").unwrap());
            times.push([granted, subscriptions, Instant::now()].map(|at| at - killed));
            lease.release().await.unwrap();
        }
        for (at, what) in ["lock", "subscription", "key in the region"]
            .iter()
            .enumerate()
        {
            let mut of_one: Vec<_> = times.iter().map(|times| times[at]).collect();
            of_one.sort_unstable();
            println!(
                "{what} free after {:?} (median of {})",
                of_one[5],
                of_one.len()
            );
        }
        assert!(client.audit().await.unwrap().problems.is_empty());
    });
}

/// Many die in quick succession: each is noticed, also while the one before is looked for.
#[test]
fn the_keys_of_many_that_die_one_after_the_other_all_go() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let kv = client.kv().unwrap();
        let home = broker.home.to_str().unwrap().to_owned();
        let arguments = |number: usize| [home.clone(), number.to_string()];
        let spawn = |number| Child::spawn("key-owner", &arguments(number));
        let mut children: Vec<_> = (0..10).map(spawn).collect();
        for child in &mut children {
            child.hear();
        }
        for (number, mut child) in children.into_iter().enumerate() {
            child.kill();
            let begun = Instant::now();
            while kv.exists(format!("owned:{number}")).unwrap() {
                // Far below the time after which it would be found without anybody's death.
                assert!(
                    begun.elapsed() < Duration::from_secs(15),
                    "number {number} stays"
                );
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
}

/// One that is stopped and not renewed loses its lease; when it goes on it is told, and its token is
/// smaller than that of who has it now.
#[test]
fn a_stopped_holder_loses_a_lease_with_a_time_to_live_and_keeps_one_without() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let (child, token) = holder(&broker, 100);
        child.signal(Signal::STOP);
        let next = client.lock("held").await.unwrap();
        assert!(next.token() > token);
        child.signal(Signal::CONT);
        assert!(next.is_held());
        next.release().await.unwrap();
        drop(child);
        let (child, token) = holder(&broker, 0);
        child.signal(Signal::STOP);
        let once = LeaseOptions::new("held").wait(Duration::from_millis(300));
        assert!(matches!(client.acquire(once).await, Err(Error::Timeout)));
        child.signal(Signal::CONT);
        let held = client.leases("held").await.unwrap();
        assert_eq!(held[0].holders[0].token, token);
    });
}

/// Over the broker's death a lease stays its holder's, and nobody else gets it in between.
#[test]
fn a_lease_outlives_the_broker_if_its_holder_comes_back() {
    run(async {
        let name = format!("ganger-it-lease-{}", std::process::id());
        let _named = crate::watches::Named(name.clone());
        let mut broker = Broker::with(&["--region", &name]);
        let (stays, other) = (broker.connect().await, broker.connect().await);
        let (mut goes, token) = holder(&broker, 0);
        let lease = stays.lock("mine").await.unwrap();
        broker.kill();
        // Its holder dies while there is nobody to see it.
        goes.kill();
        broker.restart();
        other.connected().await.unwrap();
        let next = other.lock("held").await.unwrap();
        assert!(next.token() > token && next.token() > lease.token());
        assert!(other.try_lock("mine").await.unwrap().is_none());
        assert!(lease.is_held());
        let mine = other.leases("mine").await.unwrap();
        assert_eq!(mine[0].holders[0].token, lease.token());
        assert_ne!(mine[0].holders[0].connection, 0, "it was claimed again");
        lease.release().await.unwrap();
        assert!(other.try_lock("mine").await.unwrap().is_some());
    });
}

/// Holders are killed again and again; whoever holds the lock writes its token, and none is ever
/// smaller than one that was written before.
#[test]
fn tokens_never_go_back_under_kills() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let mut last = 0;
        for round in 0..20 {
            let (mut child, token) = holder(&broker, if round % 2 == 0 { 0 } else { 10_000 });
            assert!(token > last, "round {round}");
            last = token;
            child.kill();
        }
        let lease: Lease = client.lock("held").await.unwrap();
        assert!(lease.token() > last);
    });
}

#[test]
fn what_is_beyond_the_limits_of_leases_is_refused() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let limits = Limits::default();
        let code = async |options: LeaseOptions| {
            let refused = client.acquire(options).await.map(drop);
            refused
                .err()
                .and_then(|error| error.refusal().map(|error| error.code.clone()))
        };
        let value = |len| LeaseOptions::new("v").value(vec![b'v'; len]);
        assert_eq!(code(value(limits.lease_value_bytes)).await, None);
        assert_eq!(
            code(value(limits.lease_value_bytes + 1)).await,
            Some(ErrorCode::Invalid)
        );
        let ttl = |ms| LeaseOptions::new("t").ttl(Duration::from_millis(ms));
        assert_eq!(code(ttl(limits.lease_ttl_ms)).await, None);
        assert_eq!(
            code(ttl(limits.lease_ttl_ms + 1)).await,
            Some(ErrorCode::Invalid)
        );
        let mut held = Vec::new();
        for number in 0..limits.leases {
            held.push(client.lock(&format!("{number}")).await.unwrap());
        }
        let more = client.lock("one-more").await;
        let more = more.map(|lease| lease.token()).unwrap_err();
        let refusal = more.refusal().unwrap_or_else(|| panic!("{more}"));
        assert_eq!(refusal.code, ErrorCode::TooManyLeases);
        let other = broker.connect().await;
        drop(other.lock("one-more").await.unwrap());
        let info = client.clients().await.unwrap();
        assert_eq!(
            info.iter().map(|client| client.leases).max(),
            Some(limits.leases as u64)
        );
    });
}
