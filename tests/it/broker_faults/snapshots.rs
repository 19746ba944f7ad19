//! The broker is killed while it writes a snapshot. What the next one restores is the last whole one.

use super::keeper::Keeper;
use super::{kills, run};
use crate::chaos::Random;
use crate::harness::Watchdog;
use ganger_client::Client;
use std::time::{Duration, Instant};

const KEYS: usize = 2000;

#[test]
fn a_broker_killed_while_it_writes_a_snapshot_leaves_the_last_whole_one() {
    let _watchdog = Watchdog::new("broker_faults::snapshots", 600);
    let mut keeper = Keeper::plain(&[]);
    let mut random = Random::new(7);
    let (mut whole, mut kept, mut interrupted) = (0, 0, 0);
    // What one takes that nobody interrupts; known after the first.
    let mut time = Duration::from_secs(3600);
    for generation in 1..=kills(40) {
        run(async {
            let client = keeper.connect().await;
            let kv = client.kv().unwrap();
            for number in 0..KEYS {
                let key = format!("key.{number}");
                kv.set(key, generation.to_le_bytes().repeat(64)).unwrap();
            }
            let begun = Instant::now();
            let snapshot = client.snapshot(|_| {});
            // At any moment of it, or just behind its end.
            let part = time.mul_f64(if whole == 0 {
                1.0
            } else {
                random.below(120) as f64 / 100.0
            });
            let is_done = tokio::time::timeout(part, snapshot).await;
            keeper.kill();
            match is_done {
                // Who was told that it is there can rely on it.
                Ok(snapshot) => {
                    snapshot.unwrap();
                    whole = generation;
                    time = begun.elapsed();
                }
                Err(_) => interrupted += 1,
            }
        });
        keeper.start();
        let restored = run(async {
            let client = keeper.connect().await;
            generation_of(&client)
        });
        assert!(
            restored == generation || restored == kept,
            "{restored} is neither {generation} nor {kept}"
        );
        assert!(restored >= whole, "{whole} was there");
        kept = restored;
    }
    println!("{interrupted} of {} snapshots were interrupted", kills(40));
}

/// The one generation that all keys are of; 0 without keys.
fn generation_of(client: &Client) -> u64 {
    let kv = client.kv().unwrap();
    let of = |number: usize| {
        let value = kv.get(format!("key.{number}")).unwrap();
        value.map_or(0, |value| {
            u64::from_le_bytes(value[..8].try_into().unwrap())
        })
    };
    let first = of(0);
    for number in 0..KEYS {
        assert_eq!(of(number), first, "key.{number}");
    }
    first
}
