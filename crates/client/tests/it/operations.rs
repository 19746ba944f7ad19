use ganger_client::{
    Change, Config, Cursor, Expiry, FeedItem, Kv, KvError, KvOptions, Result, SetOptions, WhenFull,
    WriteError,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// A region with a clock that the test moves, in milliseconds.
fn region() -> (Kv, Arc<AtomicU64>) {
    let now = Arc::new(AtomicU64::new(1_000));
    let clock = Arc::clone(&now);
    let options = KvOptions::new().clock(move || clock.load(Ordering::Relaxed));
    (options.create(Config::new(1 << 20)).unwrap(), now)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_handle_is_cloned_sent_and_shared() {
    fn shareable<T: Clone + Send + Sync + 'static>(_: &T) {}
    let (kv, _) = region();
    shareable(&kv);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    kv.incr("count", 1).unwrap();
                }
            });
        }
    });
    let clone = kv.clone();
    let sum = std::thread::spawn(move || clone.incr("count", 0)).join();
    assert_eq!(sum.unwrap().unwrap(), 4000);
    // Clones share one session.
    assert_eq!(kv.stats().sessions_attached, 1);
}

#[test]
fn keys_and_values_are_anything_that_is_bytes() {
    let (kv, _) = region();
    kv.set("a", b"1").unwrap();
    kv.set(String::from("b"), vec![2]).unwrap();
    kv.set(b"c", "3").unwrap();
    kv.set([0, 255], [0]).unwrap();
    assert_eq!(kv.get(b"a").unwrap().unwrap(), b"1");
    assert_eq!(kv.get(String::from("b")).unwrap().unwrap(), [2]);
    assert_eq!(kv.get(vec![b'c']).unwrap().unwrap(), b"3");
    assert_eq!(kv.get([0, 255]).unwrap().unwrap(), [0]);
}

#[test]
fn reads_see_what_writes_did() {
    let (kv, _) = region();
    let revision = kv.set("key", "value").unwrap();
    let mut value = b"old".to_vec();
    assert!(kv.get_into("key", &mut value).unwrap());
    assert_eq!(value, b"value");
    assert!(!kv.get_into("none", &mut value).unwrap() && value.is_empty());
    assert_eq!(
        kv.get_many(&["key", "none"]).unwrap(),
        [Some(b"value".to_vec()), None]
    );
    assert_eq!(kv.entry("key").unwrap().unwrap().revision, revision);
    assert_eq!(kv.append("key", "!").unwrap(), 6);
    assert!(!kv.delete_if("key", revision).unwrap());
    assert!(kv.delete("key").unwrap() && !kv.exists("key").unwrap());
    assert_eq!(kv.incr_for("count", 2, seconds(9)).unwrap(), 2);
    assert_eq!(kv.ttl("count").unwrap(), Some(Expiry::In(seconds(9))));
}

#[test]
fn conditions_hold_or_nothing_changes() {
    let (kv, _) = region();
    let options = SetOptions::new();
    assert_eq!(kv.set_with("key", "1", options.if_present()).unwrap(), None);
    let first = kv
        .set_with("key", "1", options.if_absent())
        .unwrap()
        .unwrap();
    assert_eq!(kv.set_with("key", "2", options.if_absent()).unwrap(), None);
    let second = kv.set_with("key", "2", options.if_revision(first)).unwrap();
    assert_eq!(
        kv.set_with("key", "3", options.if_revision(first)).unwrap(),
        None
    );
    assert_eq!(kv.get("key").unwrap().unwrap(), b"2");
    assert!(kv.delete_if("key", second.unwrap()).unwrap());
}

#[test]
fn times_to_live_run_and_change() {
    let (kv, now) = region();
    kv.set_for("key", "value", Duration::from_micros(1500))
        .unwrap();
    assert_eq!(
        kv.ttl("key").unwrap(),
        Some(Expiry::In(Duration::from_millis(2)))
    );
    now.fetch_add(1, Ordering::Relaxed);
    assert!(kv.touch("key", seconds(10)).unwrap() && kv.touch("key", seconds(1)).unwrap());
    assert_eq!(kv.ttl("key").unwrap(), Some(Expiry::In(seconds(10))));
    assert!(kv.expire("key", seconds(2)).unwrap());
    let kept = SetOptions::new().keep_expiry();
    kv.set_with("key", "other", kept).unwrap();
    assert_eq!(kv.ttl("key").unwrap(), Some(Expiry::In(seconds(2))));
    assert!(kv.persist("key").unwrap());
    assert_eq!(kv.ttl("key").unwrap(), Some(Expiry::Never));
    kv.expire("key", seconds(2)).unwrap();
    now.fetch_add(2000, Ordering::Relaxed);
    assert_eq!(kv.ttl("key").unwrap(), None);
    assert_eq!((kv.len(), kv.sweep().unwrap(), kv.len()), (1, 1, 0));
    let forever = kv.set_for("key", "value", Duration::MAX).unwrap_err();
    assert!(matches!(forever, KvError::Write(WriteError::Ttl { .. })));
}

#[derive(Debug, PartialEq)]
enum Refused {
    Full,
    Kv(String),
}

impl From<KvError> for Refused {
    fn from(error: KvError) -> Self {
        Self::Kv(error.to_string())
    }
}

#[test]
fn updates_apply_fail_or_delete() {
    let (kv, _) = region();
    assert_eq!(kv.get_or_insert_with("key", || vec![1]).unwrap(), [1]);
    assert_eq!(kv.get_or_insert_with("key", || vec![2]).unwrap(), [1]);
    let doubled = kv.update("key", |old| Some([old.unwrap(), old.unwrap()].concat()));
    assert_eq!(doubled.unwrap().unwrap(), [1, 1]);
    let refused = kv.try_update("key", |_| Err(Refused::Full));
    assert_eq!(refused, Err(Refused::Full));
    let bad_key = kv
        .try_update::<Refused>("", |_| unreachable!())
        .unwrap_err();
    assert!(matches!(bad_key, Refused::Kv(text) if text.contains("1 to 1024")));
    assert_eq!(kv.get("key").unwrap().unwrap(), [1, 1]);
    assert_eq!(kv.update("key", |_| None).unwrap(), None);
    assert!(!kv.exists("key").unwrap());
}

#[test]
fn typed_values_keep_their_type() {
    let (kv, _) = region();
    kv.set_typed("pair", &(7_u8, "seven")).unwrap();
    let pair: (u8, String) = kv.get_typed("pair").unwrap().unwrap();
    assert_eq!(pair, (7, "seven".to_owned()));
    assert!(matches!(
        kv.get_typed::<u64>("pair"),
        Err(KvError::Typed(_))
    ));
    let bad_key = kv.get_typed::<u64>("").unwrap_err();
    assert!(matches!(bad_key, KvError::Read(_)), "{bad_key:?}");
    let absent = SetOptions::new().if_absent();
    assert_eq!(kv.set_typed_with("pair", &1, absent).unwrap(), None);
    let grown = kv.update_typed("list", |list: Option<Vec<u8>>| {
        Some([list.unwrap_or_default(), vec![1]].concat())
    });
    assert_eq!(grown.unwrap(), Some(vec![1]));
}

#[test]
fn a_scan_meets_every_key_once() {
    let (kv, _) = region();
    for number in 0..500 {
        kv.set(format!("a{number}"), "x").unwrap();
        kv.set(format!("b{number}"), "x").unwrap();
    }
    let keys: Result<Vec<Vec<u8>>> = kv
        .scan_all("b")
        .map(|entry| entry.map(|(key, _)| key))
        .collect();
    let mut keys = keys.unwrap();
    keys.sort();
    let mut expected: Vec<Vec<u8>> = (0..500).map(|n| format!("b{n}").into_bytes()).collect();
    expected.sort();
    assert_eq!(keys, expected);
    let page = kv.scan("", Cursor::START, 10).unwrap();
    assert!(page.entries.len() >= 10 && page.next.is_some());
    assert_eq!(kv.clear().unwrap(), 1000);
    assert!(kv.is_empty());
}

#[test]
fn the_feed_tells_of_changes() {
    let (kv, _) = region();
    let mut feed = kv.feed().unwrap();
    kv.wake_read_only_waiters(true).unwrap();
    kv.set("key", "value").unwrap();
    kv.delete("key").unwrap();
    assert!(feed.wait(seconds(30)));
    let mut changes = Vec::new();
    feed.poll(|item| match item {
        FeedItem::Change { change, key, .. } => changes.push((change, key)),
        other => panic!("{other:?}"),
    });
    let key = || b"key".to_vec();
    assert_eq!(changes, [(Change::Set, key()), (Change::Delete, key())]);
    assert!(kv.shard_of_key("key") < kv.stats().shards);
}

#[test]
fn ephemeral_keys_go_with_their_handle_and_a_cache_evicts() {
    let cache = Kv::create(Config::new(1 << 20).when_full(WhenFull::Evict)).unwrap();
    let other = Kv::from_fd(cache.fd().unwrap().try_clone_to_owned().unwrap()).unwrap();
    other
        .set_with("lock", "me", SetOptions::new().ephemeral())
        .unwrap();
    assert!(cache.exists("lock").unwrap());
    drop(other);
    assert!(!cache.exists("lock").unwrap());
    for number in 0..2000 {
        cache.set(format!("{number}"), [7; 2000]).unwrap();
    }
    assert!(cache.stats().evicted > 0 && cache.exists("1999").unwrap());
    assert_eq!(cache.reap().unwrap().sessions, 0);
    assert_eq!(cache.check().unwrap().problems, Vec::<String>::new());
}

/// A read-only handle reads everything and writes nothing.
#[test]
fn a_read_only_handle_refuses_every_write() {
    let (kv, _) = region();
    kv.set("key", "value").unwrap();
    kv.incr("count", 1).unwrap();
    let fd = kv.fd().unwrap().try_clone_to_owned().unwrap();
    let reader = KvOptions::new().read_only().from_fd(fd).unwrap();
    let options = SetOptions::new();
    fn refused<T>(result: Result<T>) -> bool {
        matches!(result, Err(KvError::Write(WriteError::ReadOnly)))
    }
    assert!(refused(reader.set("key", "x")));
    assert!(refused(reader.set_for("key", "x", seconds(1))));
    assert!(refused(reader.set_with("key", "x", options)));
    assert!(refused(reader.append("key", "x")));
    assert!(refused(reader.delete("key")));
    assert!(refused(reader.delete_if("key", 2)));
    assert!(refused(reader.incr("count", 1)));
    assert!(refused(reader.incr_for("count", 1, seconds(1))));
    assert!(refused(reader.expire("key", seconds(1))));
    assert!(refused(reader.touch("key", seconds(1))));
    assert!(refused(reader.persist("key")));
    assert!(refused(reader.get_or_insert_with("none", Vec::new)));
    assert!(refused(reader.update("key", |_| None)));
    assert!(refused(reader.set_typed("key", &1)));
    assert!(refused(reader.set_typed_with("key", &1, options)));
    assert!(refused(
        reader.update_typed("none", |_: Option<u8>| Some(1))
    ));
    assert!(refused(reader.clear()));
    assert!(refused(reader.sweep()));
    assert!(refused(reader.reap()));
    assert!(refused(reader.check()));
    assert!(refused(reader.feed()));
    assert!(refused(reader.wake_read_only_waiters(true)));
    assert_eq!(reader.get("key").unwrap().unwrap(), b"value");
    assert_eq!((reader.len(), reader.scan_all("").count()), (2, 2));
    assert_eq!(kv.get("count").unwrap().unwrap(), 1_i64.to_le_bytes());
}

#[test]
fn a_full_region_and_a_value_too_long_are_named_errors() {
    let (kv, _) = region();
    let long = vec![0; usize::try_from(kv.value_len_max()).unwrap() + 1];
    let refused = kv.set("key", &long).unwrap_err();
    assert!(matches!(
        refused,
        KvError::Write(WriteError::ValueLen { .. })
    ));
    let full = (0..).find_map(|number: u32| kv.set(number.to_le_bytes(), [1; 4000]).err());
    assert!(matches!(full, Some(KvError::Write(WriteError::Full))));
    assert_eq!(kv.declared_len(), 1 << 20);
    assert!(kv.region().is_writable() && kv.is_writable());
    assert!(format!("{kv:?}").starts_with("Kv(Region"));
}
