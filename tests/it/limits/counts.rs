//! Limits that are numbers: attempts, handles, shards.

use super::region;
use crate::harness::{open, report, Child, Watchdog};
use crate::regions::{another, assert_clean, handed_over, path};
use ganger_region::{
    Access, AttachError, Config, CreateError, Cursor, Options, ReadError, Region, SessionError,
    SetOptions, TypedError, WhenFull, WriteError,
};
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Times a read, and an update, begins again.
const READ_ATTEMPTS: u64 = 1_000_000;
const UPDATE_ATTEMPTS: u32 = 100_000;
/// Handles with a session of one process.
const HANDLES_MAX: usize = 1024;

type Read<'a> = &'a mut dyn FnMut() -> Result<(), ReadError>;

/// A handle whose reads are overtaken by another handle's write of the same key each time they look
/// at it, because its clock writes; and how often that was.
fn overtaken(region: &Region) -> (Region, Arc<AtomicU64>) {
    let writer = another(region);
    let writes = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&writes);
    let clock = move || {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        // Only an entry that expires makes a read ask the clock.
        let expiring = SetOptions::new().ttl_ms(3_600_000);
        let set = writer.set_with(b"key", &number.to_le_bytes(), expiring);
        assert!(set.unwrap().is_some());
        0
    };
    let reader = handed_over(&path(region), Options::new().clock(clock));
    (reader, writes)
}

#[test]
fn a_read_that_is_overtaken_a_million_times_says_so() {
    // Where others wait for a processor, each of many yields takes a while.
    let _watchdog = Watchdog::new("a_read_that_is_overtaken_a_million_times", 600);
    let region = region(2 << 20, WhenFull::Reject);
    region.set(b"other", b"value").unwrap();
    let expiring = SetOptions::new().ttl_ms(3_600_000);
    region.set_with(b"key", &[0; 8], expiring).unwrap();
    let (reader, writes) = overtaken(&region);
    let mut value = b"of before".to_vec();
    let mut reads: [(&str, Read<'_>); 2] = [
        ("get_into", &mut || {
            reader.get_into(b"key", &mut value).map(drop)
        }),
        ("scan", &mut || {
            reader.scan(b"key", Cursor::START, 10).map(drop)
        }),
    ];
    for (name, read) in &mut reads {
        let before = writes.load(Ordering::Relaxed);
        let error = read().unwrap_err();
        assert!(matches!(error, ReadError::Contended), "{name}: {error:?}");
        assert!(error.to_string().contains("faster than"), "{error}");
        // It tried all that time, with one or two looks at the clock for each attempt, and no longer.
        let tried = writes.load(Ordering::Relaxed) - before;
        let attempts = READ_ATTEMPTS..2 * READ_ATTEMPTS + 10;
        assert!(attempts.contains(&tried), "{name}: {tried}");
    }
    // Keys that stay as they are can be read meanwhile, and every write is there.
    assert_eq!(
        reader.get(b"other").unwrap().as_deref(),
        Some(&b"value"[..])
    );
    let last = writes.load(Ordering::Relaxed).to_le_bytes();
    assert_eq!(region.get(b"key").unwrap().as_deref(), Some(&last[..]));
    assert_clean(&region);
}

#[test]
fn an_update_that_is_overtaken_a_hundred_thousand_times_says_so_and_changes_nothing() {
    let _watchdog = Watchdog::new("an_update_that_is_overtaken", 300);
    let region = region(2 << 20, WhenFull::Reject);
    let writer = another(&region);
    region.set_typed(b"key", &0_u32).unwrap();
    for new in [Some(1_u32), None] {
        let mut attempts = 0;
        // Others write between the look at the old value and the store of the new one.
        let updated = region.update_typed(b"key", |old: Option<u32>| {
            attempts += 1;
            writer.set_typed(b"key", &(old.unwrap() + 7)).unwrap();
            new
        });
        let Err(TypedError::Write(error)) = updated else {
            panic!("{updated:?}")
        };
        let told =
            matches!(error, WriteError::Contended { attempts } if attempts == UPDATE_ATTEMPTS);
        assert!(told && attempts == UPDATE_ATTEMPTS, "{attempts}, {error:?}");
        let text = error.to_string();
        assert!(text.contains("gave up after 100000 attempts"), "{text}");
    }
    // Each of the writer's changes was made to the one before.
    let sum = region.get_typed::<u32>(b"key").unwrap();
    assert_eq!(sum, Some(2 * 7 * UPDATE_ATTEMPTS));
    assert_clean(&region);
}

#[test]
fn two_hundred_and_fifty_six_shards_work_and_one_more_is_refused() {
    let _watchdog = Watchdog::new("two_hundred_and_fifty_six_shards", 120);
    for shards in [0, 3, 257, 512, u64::MAX] {
        let config = Config::new(64 << 20).shards(shards);
        let error = Region::create(&config, Options::new()).unwrap_err();
        assert!(matches!(error, CreateError::Size { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("a power of two up to 256"), "{text}");
    }
    let config = Config::new(64 << 20).shards(256);
    let region = Region::create(&config, Options::new()).unwrap();
    assert_eq!(region.stats().shards, 256);
    let keys: Vec<[u8; 4]> = (0..8192_u32).map(u32::to_le_bytes).collect();
    let shards = keys.iter().map(|key| region.shard_of_key(key));
    let used: std::collections::HashSet<u64> = shards.collect();
    assert_eq!(used.len(), 256);
    for key in &keys {
        region.set(key, key).unwrap();
    }
    for key in &keys {
        assert_eq!(region.get(key).unwrap().as_deref(), Some(&key[..]));
    }
    assert_clean(&region);
}

/// The child's part: attaches as often as it may.
pub(crate) fn hold_all(path: &str) {
    raise_descriptors();
    let attach = || Region::from_fd(open(path), Options::new());
    let assert_refused = |error: &SessionError| {
        let limit = matches!(error, SessionError::Handles { limit } if *limit == HANDLES_MAX);
        assert!(limit, "{error:?}");
        assert!(error.to_string().contains("drop one"), "{error}");
    };
    let assert_no_other = || {
        let error = attach().unwrap_err();
        let AttachError::Session(session) = &error else {
            panic!("{error:?}")
        };
        assert_refused(session);
        let error = Region::create(&Config::new(1 << 20), Options::new()).unwrap_err();
        let CreateError::Session(session) = &error else {
            panic!("{error:?}")
        };
        assert_refused(session);
    };
    let mut handles: Vec<Region> = (0..HANDLES_MAX).map(|_| attach().unwrap()).collect();
    assert_no_other();
    // A handle for reading has no session, and a clone has its original's.
    let reader = handed_over(path, Options::new().access(Access::ReadOnly));
    assert_eq!(reader.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    handles.push(handles[0].clone());
    for handle in &handles {
        handle.incr(b"count", 1).unwrap();
    }
    // Who lets one go may have another.
    drop(handles.remove(500));
    handles.push(attach().unwrap());
    handles.last().unwrap().incr(b"count", 1).unwrap();
    assert_no_other();
    report("held all");
    crate::harness::listen();
}

#[test]
fn one_handle_more_than_a_process_may_have_is_refused_and_the_others_go_on() {
    let _watchdog = Watchdog::new("one_handle_more_than_a_process_may_have", 180);
    // Each handle has two descriptors.
    let hard = getrlimit(Resource::Nofile).maximum;
    if hard.is_some_and(|hard| hard < 4096) {
        eprintln!("SKIPPED: a thousand handles take more than {hard:?} descriptors");
        return;
    }
    let config = Config::new(4 << 20).sessions(2048);
    let region = Region::create(&config, Options::new()).unwrap();
    region.set(b"key", b"value").unwrap();
    let mut child = Child::spawn("limits-handles", &[path(&region)]);
    assert_eq!(child.hear(), "held all");
    let attached = region.stats().sessions_attached;
    assert_eq!(attached, 1 + HANDLES_MAX as u64);
    assert_eq!(
        region.incr(b"count", 0).unwrap(),
        HANDLES_MAX as i64 + 1 + 1
    );
    assert!(child.wait().success());
    assert_eq!(region.reap().unwrap().sessions, 0);
    assert_eq!(region.stats().sessions_attached, 1);
    assert_clean(&region);
}

/// Lets this process have as many descriptors as its limit can be raised to.
fn raise_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}
