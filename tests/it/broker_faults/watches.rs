//! What a watch tells adds up to the state, at all times, though the broker is killed and the watcher
//! too slow.

use super::keeper::Keeper;
use super::{kills, run, soon};
use crate::chaos::Random;
use crate::harness::Watchdog;
use ganger_client::{ChangeKind, Kv, Watch, WatchEvent};
use std::collections::BTreeMap;
use std::time::Duration;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Forty keys change at random, directly in the shared memory. Between two rounds they rest, and the
/// watcher's model becomes the state; meanwhile no key goes back to an older revision.
#[test]
fn a_watch_adds_up_to_the_state_at_all_times() {
    let _watchdog = Watchdog::new("broker_faults::watches", 600);
    let mut keeper = Keeper::holding(&[]);
    let mut random = Random::new(11);
    run(async {
        let client = keeper.connect().await;
        let mut watch = client.watch_prefix("w.").await.unwrap();
        let mut model = Model::new();
        for round in 0..kills(40) {
            // Far more than is kept for one who does not listen, now and then.
            let changes = if round % 8 == 7 { 20_000 } else { 200 };
            change(keeper.kv(), &mut random, changes);
            if round % 4 == 3 {
                keeper.kill();
                change(keeper.kv(), &mut random, 50);
                keeper.start();
            }
            let state = state(keeper.kv());
            soon("the state", follow(&mut watch, &mut model, &state)).await;
        }
    });
}

fn change(kv: &Kv, random: &mut Random, changes: u64) {
    for _ in 0..changes {
        let key = format!("w.{}", random.below(40));
        match random.below(10) {
            0 | 1 => drop(kv.delete(key).unwrap()),
            2 => drop(kv.append(key, "x").map_err(|error| error.to_string())),
            3 => drop(kv.set_for(key, "short", Duration::from_secs(3600)).unwrap()),
            _ => drop(kv.set(key, random.next().to_le_bytes()).unwrap()),
        }
    }
}

/// Applies what comes until it adds up to the state, which does not change any more.
async fn follow(watch: &mut Watch, model: &mut Model, state: &Model) {
    // While a state is being told, it is not one yet.
    let mut is_whole = true;
    let mut revisions = BTreeMap::new();
    while !is_whole || model != state {
        let event = watch.next().await.unwrap();
        if let WatchEvent::Change(_, change) = &event {
            let last = revisions.insert(change.key().to_vec(), change.revision());
            assert!(last < Some(change.revision()), "{last:?}, then {event:?}");
        }
        match event {
            WatchEvent::Begin { .. } => {
                model.clear();
                revisions.clear();
                is_whole = false;
            }
            WatchEvent::Entry(entry) | WatchEvent::Change(ChangeKind::Set, entry) => {
                model.insert(entry.key().to_vec(), entry.value().to_vec());
            }
            WatchEvent::Change(_, entry) => drop(model.remove(entry.key())),
            WatchEvent::End { entries } => {
                assert_eq!(entries, model.len() as u64);
                is_whole = true;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn state(kv: &Kv) -> Model {
    let mut state = Model::new();
    for entry in kv.scan_all("w.") {
        let (key, entry) = entry.unwrap();
        state.insert(key, entry.value);
    }
    state
}
