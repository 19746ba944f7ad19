use crate::harness::Watchdog;
use crate::regions::assert_clean;
use ganger_region::{Config, Cursor, Options, Region, SetOptions, WriteError};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// A clock that stands still unless it is told.
#[derive(Clone)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn at(now_ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(now_ms)))
    }

    fn set(&self, now_ms: u64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }

    fn options(&self) -> Options {
        let hands = self.clone();
        Options::new().clock(move || hands.0.load(Ordering::SeqCst))
    }
}

fn region(len: u64) -> (Region, Hands) {
    let hands = Hands::at(1000);
    let region = Region::create(&Config::new(len), hands.options()).unwrap();
    (region, hands)
}

fn ttl(ttl_ms: u64) -> SetOptions {
    SetOptions::new().ttl_ms(ttl_ms)
}

#[test]
fn a_key_is_absent_to_every_read_from_its_last_millisecond_on() {
    let _watchdog = Watchdog::new(
        "a_key_is_absent_to_every_read_from_its_last_millisecond_on",
        120,
    );
    let (region, hands) = region(1 << 20);
    region.set_with(b"key", b"value", ttl(100)).unwrap();
    hands.set(1099);
    assert_eq!(region.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    assert_eq!(region.ttl(b"key").unwrap(), Some(Some(1)));
    assert_eq!(region.entry(b"key").unwrap().unwrap().ttl_ms, Some(1));
    hands.set(1100);
    assert_eq!(region.get(b"key").unwrap(), None);
    assert_eq!(region.get_many(&[b"key"]).unwrap(), [None]);
    assert_eq!(region.entry(b"key").unwrap(), None);
    assert_eq!(region.ttl(b"key").unwrap(), None);
    assert!(!region.exists(b"key").unwrap());
    let listed = region.scan(b"", Cursor::START, 10).unwrap();
    assert!(listed.entries.is_empty());
    // Its space is still taken, until a sweep.
    assert_eq!(region.len(), 1);
    assert_eq!(region.sweep().unwrap(), 1);
    assert_eq!((region.len(), region.stats().expired), (0, 1));
    assert_clean(&region);
}

#[test]
fn every_write_treats_an_expired_key_as_absent() {
    let _watchdog = Watchdog::new("every_write_treats_an_expired_key_as_absent", 120);
    let (region, hands) = region(1 << 20);
    let all: [&[u8]; 9] = [
        b"present",
        b"absent",
        b"revision",
        b"delete",
        b"incr",
        b"append",
        b"expire",
        b"touch",
        b"persist",
    ];
    for key in all {
        region.set_with(key, b"old", ttl(50)).unwrap();
    }
    let revision = region.entry(b"revision").unwrap().unwrap().revision;
    hands.set(1050);
    let set = |key: &[u8], options| region.set_with(key, b"new", options).unwrap();
    assert_eq!(set(b"present", SetOptions::new().if_present()), None);
    assert_eq!(
        set(b"revision", SetOptions::new().if_revision(revision)),
        None
    );
    assert!(set(b"absent", SetOptions::new().if_absent()).is_some());
    assert!(!region.delete(b"delete").unwrap());
    assert_eq!(region.incr(b"incr", 5).unwrap(), 5);
    assert_eq!(region.append(b"append", b"new").unwrap(), 3);
    assert!(!region.expire(b"expire", 10).unwrap());
    assert!(!region.touch(b"touch", 10).unwrap());
    assert!(!region.persist(b"persist").unwrap());
    for key in [&b"absent"[..], b"incr", b"append"] {
        assert_eq!(region.ttl(key).unwrap(), Some(None), "{key:?}");
    }
    assert_clean(&region);
}

#[test]
fn expire_sets_touch_only_extends_persist_ends() {
    let _watchdog = Watchdog::new("expire_sets_touch_only_extends_persist_ends", 120);
    let (region, _hands) = region(1 << 20);
    region.set(b"key", b"value").unwrap();
    let revision = region.entry(b"key").unwrap().unwrap().revision;
    let ttl_of = || region.ttl(b"key").unwrap().unwrap();
    assert_eq!(ttl_of(), None);
    assert!(region.touch(b"key", 10).unwrap());
    assert_eq!(ttl_of(), None);
    assert!(region.expire(b"key", 500).unwrap());
    assert_eq!(ttl_of(), Some(500));
    assert!(region.touch(b"key", 400).unwrap());
    assert_eq!(ttl_of(), Some(500));
    assert!(region.touch(b"key", 600).unwrap());
    assert_eq!(ttl_of(), Some(600));
    assert!(region.expire(b"key", 300).unwrap());
    assert_eq!(ttl_of(), Some(300));
    assert!(region.persist(b"key").unwrap());
    assert_eq!(ttl_of(), None);
    assert!(!region.expire(b"missing", 300).unwrap());
    assert!(!region.touch(b"missing", 300).unwrap());
    assert!(!region.persist(b"missing").unwrap());
    assert_eq!(region.entry(b"key").unwrap().unwrap().revision, revision);
    assert!(region.expire(b"key", 0).unwrap());
    assert!(!region.exists(b"key").unwrap());
    assert_clean(&region);
}

#[test]
fn writes_keep_an_expiry_or_end_it_as_they_say() {
    let _watchdog = Watchdog::new("writes_keep_an_expiry_or_end_it_as_they_say", 120);
    let (region, _hands) = region(1 << 20);
    let ttl_of = |key: &[u8]| region.ttl(key).unwrap().unwrap();
    let begin = |key: &[u8]| region.set_with(key, b"value", ttl(700)).unwrap();
    begin(b"set");
    region.set(b"set", b"new").unwrap();
    assert_eq!(ttl_of(b"set"), None);
    begin(b"keep");
    let keep = SetOptions::new().keep_expiry();
    region.set_with(b"keep", b"new", keep).unwrap();
    assert_eq!(ttl_of(b"keep"), Some(700));
    // A key that is new has none to keep, and gets what the options say.
    region.set_with(b"fresh", b"new", keep.ttl_ms(9)).unwrap();
    assert_eq!(ttl_of(b"fresh"), Some(9));
    begin(b"append");
    region.append(b"append", b"more").unwrap();
    assert_eq!(ttl_of(b"append"), Some(700));
    begin(b"update");
    let update = |_: Option<&[u8]>| Some(b"new".to_vec());
    region.update(b"update", update).unwrap();
    assert_eq!(ttl_of(b"update"), Some(700));
    region.incr_with(b"count", 1, Some(60)).unwrap();
    region.incr_with(b"count", 1, Some(90)).unwrap();
    region.incr(b"count", 1).unwrap();
    assert_eq!(ttl_of(b"count"), Some(60));
    assert_clean(&region);
}

#[test]
fn a_time_to_live_beyond_the_clock_is_refused_and_changes_nothing() {
    let _watchdog = Watchdog::new(
        "a_time_to_live_beyond_the_clock_is_refused_and_changes_nothing",
        120,
    );
    let (region, _hands) = region(1 << 20);
    region.set_with(b"key", b"value", ttl(700)).unwrap();
    for ttl_ms in [u64::MAX, u64::MAX - 1000, 1 << 62] {
        let errors = [
            region.set_with(b"key", b"new", ttl(ttl_ms)).unwrap_err(),
            region.expire(b"key", ttl_ms).unwrap_err(),
            region.touch(b"key", ttl_ms).unwrap_err(),
            region.incr_with(b"new", 1, Some(ttl_ms)).unwrap_err(),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(text.contains(&ttl_ms.to_string()), "{text}");
            assert!(matches!(error, WriteError::Ttl { ttl_ms: told } if told == ttl_ms));
        }
    }
    assert_eq!(region.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    assert_eq!(region.ttl(b"key").unwrap(), Some(Some(700)));
    assert!(!region.exists(b"new").unwrap());
    let longest = (1 << 62) - 1 - 1000;
    assert!(region.expire(b"key", longest).unwrap());
    assert_eq!(region.ttl(b"key").unwrap(), Some(Some(longest)));
    assert_clean(&region);
}

#[test]
fn a_sweep_gives_the_space_back_and_leaves_the_rest() {
    let _watchdog = Watchdog::new("a_sweep_gives_the_space_back_and_leaves_the_rest", 120);
    let (region, hands) = region(16 << 20);
    let keep = |number: u32| number >= 19_800;
    for number in 0..20_000_u32 {
        let options = if keep(number) {
            SetOptions::new()
        } else {
            ttl(500)
        };
        let value = number.to_le_bytes().repeat(50);
        let set = region.set_with(&number.to_le_bytes(), &value, options);
        assert!(set.unwrap().is_some());
    }
    let before = region.stats();
    assert_eq!(region.sweep().unwrap(), 0);
    hands.set(1500);
    assert_eq!(region.sweep().unwrap(), 19_800);
    let after = region.stats();
    assert_eq!((after.entries, after.expired), (200, 19_800));
    // What stays lies in the pages that were begun last, of each shard.
    assert!(after.pages_used * 3 < before.pages_used, "{after:?}");
    for number in (0..20_000_u32).filter(|number| keep(*number)) {
        let value = region.get(&number.to_le_bytes()).unwrap().unwrap();
        assert_eq!(value, number.to_le_bytes().repeat(50));
    }
    assert_clean(&region);
    assert_eq!(region.clear().unwrap(), 200);
    assert_eq!(region.stats().pages_used, 0);
}

#[test]
fn writers_sweep_as_they_go() {
    let _watchdog = Watchdog::new("writers_sweep_as_they_go", 120);
    let (region, hands) = region(4 << 20);
    for number in 0..5000_u32 {
        let set = region.set_with(&number.to_le_bytes(), b"value", ttl(10));
        assert!(set.unwrap().is_some());
    }
    hands.set(1010);
    // Each write of these keys replaces; what is removed, they removed on their way.
    let mut writes = 0_u32;
    while region.stats().expired < 5000 {
        region.set(&(writes % 16).to_be_bytes(), b"new").unwrap();
        writes += 1;
        assert!(writes < 200_000, "{:?}", region.stats());
    }
    assert!(region.len() <= 16);
    assert_eq!(region.get(&[0; 4]).unwrap().as_deref(), Some(&b"new"[..]));
    assert_clean(&region);
}

#[test]
fn the_boot_clock_expires_keys_too() {
    let _watchdog = Watchdog::new("the_boot_clock_expires_keys_too", 120);
    let region = Region::create(&Config::new(1 << 20), Options::new()).unwrap();
    region.set_with(b"key", b"value", ttl(30)).unwrap();
    region.set_with(b"later", b"value", ttl(600_000)).unwrap();
    crate::harness::wait_until("the key to expire", || !region.exists(b"key").unwrap());
    assert!(region.exists(b"later").unwrap());
    assert_eq!(region.sweep().unwrap(), 1);
}
