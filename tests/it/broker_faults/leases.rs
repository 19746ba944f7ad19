//! Who holds a lock dies, stands still, or waits and dies: it is one holder's at a time, tokens only
//! rise, and who waited longest is next.

use super::keeper::{builder, Keeper};
use super::{kills, moment, run, soon};
use crate::chaos::Random;
use crate::harness::{listen, report, Child, Watchdog};
use ganger_client::{Client, LeaseOptions};
use rustix::process::Signal;
use std::time::Duration;

const NAME: &str = "l";

/// Five processes take a lock in turns and write, while they hold it, with their token. They are
/// killed and stopped at random. The lock has a time to live, so a stopped holder loses it: whoever
/// writes with a token that is not the highest would be refused, and must know by then that it lost.
#[test]
fn a_lock_is_one_holders_at_a_time_and_tokens_rise_while_holders_die_and_stand_still() {
    let _watchdog = Watchdog::new("broker_faults::leases::fencing", 600);
    let keeper = Keeper::holding(&[]);
    let home = keeper.home.to_str().unwrap().to_owned();
    let holder = |number: u64| Child::spawn("fault-holder", &[home.clone(), number.to_string()]);
    let mut births = 5;
    let mut holders: Vec<Child> = (0..births).map(holder).collect();
    let (kv, mut random) = (keeper.kv(), Random::new(5));
    let grants = || kv.incr("grants", 0).unwrap();
    run(async {
        for _ in 0..kills(40) {
            let before = grants();
            let victim = random.below(5) as usize;
            if random.chance(60) {
                // It is killed while it holds the lock, waits for it, or is just being born.
                holders[victim] = holder(births);
                births += 1;
            } else {
                holders[victim].signal(Signal::STOP);
                soon("others to have the lock", async {
                    while grants() < before + 3 {
                        moment().await;
                    }
                })
                .await;
                holders[victim].signal(Signal::CONT);
            }
            soon("the lock to go on", async {
                while grants() < before + 5 {
                    moment().await;
                }
            })
            .await;
        }
    });
    drop(holders);
    assert_eq!(kv.incr("violations", 0).unwrap(), 0);
}

pub(super) fn play_holder(home: &str, number: &str) {
    run(async {
        let client = builder(home).connect().await.unwrap();
        let kv = client.kv().unwrap();
        loop {
            let options = LeaseOptions::new(NAME).ttl(Duration::from_millis(300));
            let Ok(lease) = client.acquire(options).await else {
                continue;
            };
            kv.incr("grants", 1).unwrap();
            // What a store does that is protected by the token: a lower one than it has seen is
            // late, and the same one again is the same holder.
            let mut is_late = false;
            let write = kv.update("resource", |old| {
                let highest = old.map_or(0, |old| u64::from_le_bytes(old.try_into().unwrap()));
                is_late = lease.token() < highest;
                Some(lease.token().max(highest).to_le_bytes().to_vec())
            });
            write.unwrap();
            // Let the clock of the lease see what happened meanwhile.
            if is_late && lease.is_held() {
                kv.incr("violations", 1).unwrap();
            }
            let mine = format!("{number} {}", lease.token());
            kv.set("holder", &mine).unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
            let other = kv.get("holder").unwrap();
            if lease.is_held() && other.as_deref() != Some(mine.as_bytes()) {
                let is_later = |other: &[u8]| {
                    let token = std::str::from_utf8(other).unwrap().split(' ').nth(1);
                    token.unwrap().parse::<u64>().unwrap() > lease.token()
                };
                // A late writer may have been here; a later holder may not, before we lost it.
                if other.is_some_and(|other| is_later(&other)) && lease.is_held() {
                    kv.incr("violations", 1).unwrap();
                }
            }
            let _ = lease.release().await;
        }
    });
}

/// Six processes queue for a lock. Two of them are killed while they wait, and the holder while it
/// holds: the others get it in the order in which they came.
#[test]
fn who_waited_longest_is_next_though_holder_and_waiters_are_killed() {
    let _watchdog = Watchdog::new("broker_faults::leases::fair", 120);
    let keeper = Keeper::plain(&[]);
    let home = keeper.home.to_str().unwrap().to_owned();
    run(async {
        let client = keeper.connect().await;
        let waiter = || Child::spawn("fault-waiter", std::slice::from_ref(&home));
        let mut holder = waiter();
        let first: u64 = holder.hear().parse().unwrap();
        let mut queue = Vec::new();
        for waiting in 1..=6 {
            queue.push(waiter());
            queue_is(&client, waiting).await;
        }
        drop(queue.remove(4));
        drop(queue.remove(1));
        queue_is(&client, 4).await;
        holder.kill();
        let mut last = first;
        for mut next in queue {
            // The one that is heard is the one that has it: the others wait for it.
            let token: u64 = next.hear().parse().unwrap();
            assert!(token > last, "{token} after {last}");
            last = token;
            next.tell("release");
            assert!(next.wait().success());
        }
        assert!(client.try_lock(NAME).await.unwrap().unwrap().token() > last);
    });
}

async fn queue_is(client: &Client, waiting: u64) {
    soon("the queue", async {
        loop {
            let leases = client.leases(NAME).await.unwrap();
            if leases.first().is_some_and(|lease| lease.waiting == waiting) {
                return;
            }
            moment().await;
        }
    })
    .await;
}

pub(super) fn play_waiter(home: &str) {
    run(async {
        let client = builder(home).connect().await.unwrap();
        let lease = client.lock(NAME).await.unwrap();
        report(&lease.token().to_string());
        if listen().is_some() {
            lease.release().await.unwrap();
        }
    });
}
