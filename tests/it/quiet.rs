//! What an operation does not do: no system call, and no store by a read.

use crate::harness::{listen, report, Child, Watchdog};
use crate::regions::bytes_of;
use ganger_region::{Config, Cursor, Options, Region, WhenFull};

pub(crate) fn play(role: &str, arguments: &[&str]) -> bool {
    match (role, arguments) {
        ("quiet-operations", _) => operate_without_system_calls(),
        _ => return false,
    }
    true
}

fn key_of(number: u32) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

/// Uncontended operations, in a thread that the kernel kills for any system call but `read`,
/// `write` and `exit`.
fn operate_without_system_calls() {
    let region = Region::create(&Config::new(4 << 20), Options::new()).unwrap();
    for number in 0..100 {
        region.set(&key_of(number), &[1; 100]).unwrap();
    }
    region.incr(b"counter", 1).unwrap();
    let mut out = Vec::with_capacity(1000);
    // SAFETY: the call takes no pointers. It narrows what this process may do, which is the purpose.
    let narrowed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT, 0, 0, 0) };
    assert_eq!(narrowed, 0);
    for number in 0..1000 {
        let key = key_of(number % 100);
        let found = region.get_into(&key, &mut out).unwrap();
        assert!(found && region.exists(&key).unwrap() && region.ttl(&key).unwrap().is_some());
        region.set(&key, &[2; 100]).unwrap();
        region.incr(b"counter", 1).unwrap();
        if number % 100 == 0 {
            assert!(region.delete(&key).unwrap());
            region.set(&key, &[3; 100]).unwrap();
        }
    }
    report("done");
    // To end takes a call that is not allowed.
    listen();
}

#[test]
fn an_uncontended_operation_makes_no_system_call() {
    let _watchdog = Watchdog::new("no_system_call", 60);
    let mut child = Child::spawn("quiet-operations", &[]);
    assert_eq!(child.hear(), "done");
    child.kill();
}

/// Words, and bits in them, that differ.
fn differences(one: &[u8], other: &[u8]) -> (usize, u32) {
    let words = one.as_chunks::<8>().0.iter().zip(other.as_chunks::<8>().0);
    let changed = words.filter(|(one, other)| one != other);
    changed.fold((0, 0), |(words, bits), (one, other)| {
        let changed = u64::from_le_bytes(*one) ^ u64::from_le_bytes(*other);
        (words + 1, bits + changed.count_ones())
    })
}

#[test]
fn reads_store_nothing_but_the_mark_of_a_cache() {
    let _watchdog = Watchdog::new("reads_store_nothing", 60);
    for when_full in [WhenFull::Reject, WhenFull::Evict] {
        let config = Config::new(4 << 20).when_full(when_full);
        let region = Region::create(&config, Options::new()).unwrap();
        let keys: Vec<_> = (0..2000).map(key_of).collect();
        for key in &keys {
            region.set(key, &[1; 100]).unwrap();
        }
        region.set(b"large", &[2; 100_000]).unwrap();
        let before = bytes_of(&region);
        read_all(&region, &keys);
        let after = bytes_of(&region);
        read_all(&region, &keys);
        // One bit of each slot, once.
        let marks = if when_full == WhenFull::Evict {
            2001
        } else {
            0
        };
        assert_eq!(differences(&before, &after), (marks, marks as u32));
        assert_eq!(differences(&after, &bytes_of(&region)), (0, 0));
    }
}

/// By every operation that reads.
fn read_all(region: &Region, keys: &[Vec<u8>]) {
    let mut out = Vec::new();
    for key in keys {
        assert!(region.get(key).unwrap().is_some() && region.exists(key).unwrap());
        assert!(region.get_into(key, &mut out).unwrap());
        assert!(region.entry(key).unwrap().is_some());
        assert!(region.ttl(key).unwrap().is_some());
    }
    assert!(region.get(b"large").unwrap().is_some());
    assert_eq!(region.get_many(keys).unwrap().len(), keys.len());
    let (mut cursor, mut met) = (Some(Cursor::START), 0);
    while let Some(here) = cursor {
        let page = region.scan(b"", here, 50).unwrap();
        met += page.entries.len();
        cursor = page.next;
    }
    assert_eq!(met as u64, region.len());
    assert_eq!(region.stats().entries, region.len());
}
