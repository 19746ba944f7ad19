//! Watching keys through the broker: the state at one moment, then every change; whatever happens
//! in between, a watcher ends up with what is there.

mod large;

use crate::brokers::{run, Broker};
use ganger_client::{ChangeKind, Client, GapCause, Kv, Watch, WatchEvent, WatchOptions};
use std::collections::BTreeMap;
use std::time::Duration;

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a watcher knows, from what it is told alone.
#[derive(Default)]
struct Model {
    state: State,
    revisions: BTreeMap<Vec<u8>, u64>,
    /// Whether the state is complete.
    is_whole: bool,
    gaps: Vec<GapCause>,
    begins: u32,
}

impl Model {
    fn learn(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Begin { gap } => {
                let gaps = std::mem::take(&mut self.gaps);
                let begins = self.begins + 1;
                *self = Self {
                    begins,
                    gaps,
                    ..Self::default()
                };
                self.gaps.extend(gap);
            }
            WatchEvent::Entry(entry) => {
                assert!(!self.is_whole);
                let key = entry.key().to_vec();
                self.revisions.insert(key.clone(), entry.revision());
                let before = self.state.insert(key, entry.value().to_vec());
                assert_eq!(before, None, "an entry stands in a snapshot once");
            }
            WatchEvent::End { entries } => {
                assert_eq!(entries, self.state.len() as u64);
                self.is_whole = true;
            }
            WatchEvent::Change(kind, changed) => {
                assert!(self.is_whole);
                let key = changed.key().to_vec();
                let known = self.revisions.get(&key).copied().unwrap_or(0);
                if changed.revision() <= known {
                    return;
                }
                self.revisions.insert(key.clone(), changed.revision());
                match kind {
                    ChangeKind::Set => drop(self.state.insert(key, changed.value().to_vec())),
                    _ => drop(self.state.remove(&key)),
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// Learns until it knows what is there.
    async fn follow(&mut self, watch: &mut Watch, wanted: &State) {
        while !self.is_whole || self.state != *wanted {
            let next = tokio::time::timeout(Duration::from_secs(60), watch.next()).await;
            let next = next
                .unwrap_or_else(|_| panic!("{} of {} keys known", self.state.len(), wanted.len()));
            self.learn(next.expect("the watch goes on"));
        }
    }
}

fn state(kv: &Kv, prefix: &str) -> State {
    let (mut found, mut cursor) = (State::new(), Some(ganger_client::Cursor::START));
    while let Some(from) = cursor {
        let page = kv.scan(prefix, from, 1000).unwrap();
        found.extend(
            page.entries
                .into_iter()
                .map(|(key, entry)| (key, entry.value)),
        );
        cursor = page.next;
    }
    found
}

async fn settings(client: &Client) -> (Kv, Watch) {
    let kv = client.kv().unwrap();
    for number in 0..500 {
        kv.set(format!("a:{number}"), "begun").unwrap();
        kv.set(format!("b:{number}"), "not watched").unwrap();
    }
    let watch = client.watch_prefix("a:").await.unwrap();
    (kv, watch)
}

/// Many small programs of writes; a watcher of the prefix and of one key must know the state after
/// each of them.
#[test]
fn a_watcher_knows_the_state_whatever_is_written() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let (kv, mut watch) = settings(&client).await;
        let mut one = client.watch("a:7").await.unwrap();
        let (mut model, mut single) = (Model::default(), Model::default());
        model.follow(&mut watch, &state(&kv, "a:")).await;
        let mut random = 7_u64;
        for round in 0..40 {
            for _ in 0..100 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let key = format!("a:{}", (random >> 33) % 20);
                match (random >> 40) % 6 {
                    0 => drop(kv.delete(&key).unwrap()),
                    1 => kv
                        .set_for(&key, "short", Duration::from_millis(1))
                        .map(drop)
                        .unwrap(),
                    2 => drop(kv.append(&key, "+").unwrap()),
                    _ => drop(kv.set(&key, format!("{random}")).unwrap()),
                }
            }
            // What expires is gone for readers before watchers hear of it.
            for number in 0..20 {
                kv.persist(format!("a:{number}")).unwrap();
            }
            let wanted = state(&kv, "a:");
            model.follow(&mut watch, &wanted).await;
            let wanted = wanted
                .into_iter()
                .filter(|(key, _)| key == b"a:7")
                .collect();
            single.follow(&mut one, &wanted).await;
            assert_eq!(model.gaps, [], "round {round}");
        }
        assert_eq!((model.begins, single.begins), (1, 1));
    });
}

#[test]
fn changes_come_in_the_order_of_their_revisions_with_what_happened() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let kv = client.kv().unwrap();
        let mut watch = client.watch("k").await.unwrap();
        let mut told = Vec::new();
        let mut next = async |watch: &mut Watch| loop {
            if let WatchEvent::Change(kind, change) = watch.next().await.unwrap() {
                told.push(change.revision());
                return (kind, change.value().to_vec(), change.is_counter());
            }
        };
        // The state first, so that what follows is a change.
        while !matches!(watch.next().await.unwrap(), WatchEvent::End { .. }) {}
        kv.set("k", "v").unwrap();
        assert_eq!(
            next(&mut watch).await,
            (ChangeKind::Set, b"v".to_vec(), false)
        );
        kv.delete("k").unwrap();
        assert_eq!(next(&mut watch).await, (ChangeKind::Delete, vec![], false));
        kv.incr("k", 3).unwrap();
        let three = 3_i64.to_le_bytes().to_vec();
        assert_eq!(next(&mut watch).await, (ChangeKind::Set, three, true));
        kv.set_for("k", "short", Duration::from_millis(20)).unwrap();
        assert_eq!(
            next(&mut watch).await,
            (ChangeKind::Set, b"short".to_vec(), false)
        );
        assert_eq!(next(&mut watch).await, (ChangeKind::Expire, vec![], false));
        // By way of the socket, too, and by the end of the connection that it belongs to.
        let other = broker.connect().await;
        let ephemeral = ganger_client::SetOptions::new().ephemeral();
        other
            .remote_kv()
            .set_with("k", "here", ephemeral)
            .await
            .unwrap();
        assert_eq!(
            next(&mut watch).await,
            (ChangeKind::Set, b"here".to_vec(), false)
        );
        other.close().await.unwrap();
        let (kind, ..) = next(&mut watch).await;
        assert!(
            matches!(kind, ChangeKind::Delete | ChangeKind::Expire),
            "{kind:?}"
        );
        assert!(told.is_sorted_by(|a, b| a < b), "{told:?}");
    });
}

#[test]
fn a_watch_goes_on_where_another_was_and_begins_anew_where_that_is_unknown() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let (kv, mut watch) = settings(&client).await;
        let mut model = Model::default();
        model.follow(&mut watch, &state(&kv, "a:")).await;
        kv.set("a:1", "one").unwrap();
        model.follow(&mut watch, &state(&kv, "a:")).await;
        let position = watch.position().unwrap();
        drop(watch);
        kv.set("a:1", "two").unwrap();
        kv.delete("a:2").unwrap();
        let resume = |position| WatchOptions::prefix("a:").resume(position);
        let other = broker.connect().await;
        let mut resumed = other.watch_with(resume(position)).await.unwrap();
        model.follow(&mut resumed, &state(&kv, "a:")).await;
        assert_eq!((model.begins, &model.gaps[..]), (1, &[][..]));
        // A position of another run means nothing here.
        let mut elsewhere = position;
        elsewhere.epoch ^= 1;
        let mut anew = other.watch_with(resume(elsewhere)).await.unwrap();
        let mut model = Model::default();
        model.follow(&mut anew, &state(&kv, "a:")).await;
        assert_eq!(model.gaps, [GapCause::Restart]);
    });
}

#[test]
fn a_watcher_that_is_too_slow_is_told_of_the_gap_and_gets_the_state_again() {
    run(async {
        let broker = Broker::start();
        let client = broker
            .client()
            .queue(2000, 1 << 20)
            .connect()
            .await
            .unwrap();
        let (kv, mut watch) = settings(&client).await;
        let mut model = Model::default();
        model.follow(&mut watch, &state(&kv, "a:")).await;
        let mut behind = broker.connect().await.watch_prefix("a:").await.unwrap();
        let mut other = Model::default();
        other.follow(&mut behind, &state(&kv, "a:")).await;
        // Nobody takes anything meanwhile.
        for round in 0..200 {
            for number in 0..500 {
                kv.set(format!("a:{number}"), format!("{round}")).unwrap();
            }
        }
        let wanted = state(&kv, "a:");
        other.follow(&mut behind, &wanted).await;
        model.follow(&mut watch, &wanted).await;
        assert!(!model.gaps.is_empty() && model.begins > 1);
    });
}

/// The region is handed on, so that what was written while there was no broker is in it.
#[test]
fn after_a_restart_of_the_broker_a_watcher_gets_the_state_with_a_gap() {
    run(async {
        let name = format!("ganger-it-watch-{}", std::process::id());
        let _named = Named(name.clone());
        let mut broker = Broker::with(&["--region", &name]);
        let client = broker.connect().await;
        let (kv, mut watch) = settings(&client).await;
        let mut model = Model::default();
        model.follow(&mut watch, &state(&kv, "a:")).await;
        broker.kill();
        kv.set("a:1", "meanwhile").unwrap();
        broker.restart();
        model.follow(&mut watch, &state(&kv, "a:")).await;
        kv.set("a:1", "afterwards").unwrap();
        model.follow(&mut watch, &state(&kv, "a:")).await;
        assert_eq!(model.gaps, [GapCause::Restart]);
    });
}

#[test]
fn one_watch_more_than_allowed_and_keys_that_are_none_are_refused() {
    use ganger_client::protocol::{ErrorCode, Limits};
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let mut held = Vec::new();
        for number in 0..Limits::default().watches {
            held.push(client.watch(format!("{number}")).await.unwrap());
        }
        let code = async |key: &[u8]| {
            let refused = client.watch(key).await.map(drop).unwrap_err();
            refused.refusal().map(|error| error.code.clone())
        };
        assert_eq!(code(b"one more").await, Some(ErrorCode::TooManyWatches));
        drop(held.pop());
        drop(client.watch("one more").await.unwrap());
        assert_eq!(code(b"").await, Some(ErrorCode::KeyLen));
        assert_eq!(code(&[b'k'; 1025]).await, Some(ErrorCode::KeyLen));
        assert_eq!(code(b"\0ganger/lease/").await, Some(ErrorCode::ReservedKey));
        // Others are not concerned.
        broker.connect().await.watch("k").await.unwrap();
    });
}

/// A named region that goes with the test.
pub(crate) struct Named(pub(crate) String);

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Kv::remove(&self.0);
    }
}
