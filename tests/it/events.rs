use crate::harness::{listen, report, wait_until, Child, Watchdog, PATIENCE};
use crate::regions::{handed_over, header_word, path};
use ganger_region::layout::{events, header};
use ganger_region::{Access, Config, EventError, EventReset, Options, Region};
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PASSED: &[u8] = b"passed";

fn region() -> Region {
    Region::create(&Config::new(1 << 20), Options::new()).unwrap()
}

fn passed(region: &Region) -> i64 {
    region.entry(PASSED).unwrap().map_or(0, |entry| {
        i64::from_le_bytes(entry.value.try_into().unwrap())
    })
}

pub(crate) fn play(role: &str, arguments: &[&str]) -> bool {
    match (role, arguments) {
        ("events-pong", [path, rounds]) => pong(path, rounds.parse().unwrap()),
        ("events-wait", [path, slot]) => wait(path, slot.parse().unwrap()),
        ("events-wait-read-only", [path, slot]) => wait_read_only(path, slot.parse().unwrap()),
        _ => return false,
    }
    true
}

/// Answers each event 0 with an event 1.
fn pong(path: &str, rounds: u64) {
    let region = handed_over(path, Options::new());
    let ping = region.event(0, EventReset::Auto).unwrap();
    let pong = region.event(1, EventReset::Auto).unwrap();
    for round in 0..rounds {
        assert!(ping.wait_timeout(PATIENCE));
        region.set(b"round", &round.to_le_bytes()).unwrap();
        pong.set().unwrap();
    }
}

/// Waits for an event, even slots being manual and odd ones auto, and counts itself when it passed.
fn wait(path: &str, slot: u64) {
    let region = handed_over(path, Options::new());
    let event = region.event(slot, reset_of(slot)).unwrap();
    report("waiting");
    assert!(event.wait_timeout(PATIENCE));
    region.incr(PASSED, 1).unwrap();
    report("passed");
    listen();
}

fn wait_read_only(path: &str, slot: u64) {
    let region = handed_over(path, Options::new().access(Access::ReadOnly));
    let event = region.event(slot, EventReset::Manual).unwrap();
    assert!(matches!(event.set(), Err(EventError::ReadOnly)));
    assert!(matches!(event.clear(), Err(EventError::ReadOnly)));
    report("waiting");
    report(&event.wait_timeout(PATIENCE).to_string());
}

fn reset_of(slot: u64) -> EventReset {
    if slot.is_multiple_of(2) {
        EventReset::Manual
    } else {
        EventReset::Auto
    }
}

/// A child that is asleep in its wait.
fn waiter(region: &Region, role: &str, slot: u64) -> Child {
    let mut child = Child::spawn(role, &[path(region), slot.to_string()]);
    assert_eq!(child.hear(), "waiting");
    wait_until("the waiter to sleep", || is_asleep(child.pid()));
    child
}

/// Whether all threads of a process sleep.
fn is_asleep(pid: i32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.map(|task| task.unwrap().path()).all(|task| {
        let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('S'))
    })
}

#[test]
fn two_processes_take_turns_through_events() {
    let _watchdog = Watchdog::new("two_processes_take_turns_through_events", 120);
    let region = region();
    let (ping, pong) = (
        region.event(0, EventReset::Auto).unwrap(),
        region.event(1, EventReset::Auto).unwrap(),
    );
    let rounds = 2000_u64;
    let mut child = Child::spawn("events-pong", &[path(&region), rounds.to_string()]);
    for round in 0..rounds {
        ping.set().unwrap();
        assert!(pong.wait_timeout(PATIENCE), "round {round}");
        let seen = region.get(b"round").unwrap().unwrap();
        assert_eq!(seen, round.to_le_bytes());
    }
    assert!(child.wait().success());
    assert!(!ping.wait_timeout(Duration::ZERO));
    assert!(!pong.wait_timeout(Duration::ZERO));
}

#[test]
fn an_auto_reset_event_lets_exactly_one_waiter_pass() {
    let _watchdog = Watchdog::new("an_auto_reset_event_lets_exactly_one_waiter_pass", 120);
    let region = region();
    let event = region.event(3, EventReset::Auto).unwrap();
    let _waiters = [(); 3].map(|()| waiter(&region, "events-wait", 3));
    for expected in 1..=3 {
        event.set().unwrap();
        wait_until("a waiter to pass", || passed(&region) >= expected);
        // Four times as long as a waiter sleeps at most before it looks again.
        assert!(!event.wait_timeout(Duration::from_millis(200)));
        assert_eq!(passed(&region), expected);
    }
    // Nobody waits any more, so it stays set for the next one, once.
    event.set().unwrap();
    event.set().unwrap();
    assert!(event.wait_timeout(Duration::ZERO));
    assert!(!event.wait_timeout(Duration::ZERO));
}

#[test]
fn a_manual_reset_event_lets_all_pass_until_it_is_cleared() {
    let _watchdog = Watchdog::new("a_manual_reset_event_lets_all_pass", 120);
    let region = region();
    let event = region.event(2, EventReset::Manual).unwrap();
    let mut waiters = [(); 4].map(|()| waiter(&region, "events-wait", 2));
    assert_eq!(passed(&region), 0);
    event.set().unwrap();
    for waiter in &mut waiters {
        assert_eq!(waiter.hear(), "passed");
    }
    assert_eq!(passed(&region), 4);
    assert!(event.wait_timeout(Duration::ZERO));
    event.clear().unwrap();
    assert!(!event.wait_timeout(Duration::ZERO));
}

#[test]
fn a_wait_ends_after_its_time_and_not_before() {
    let _watchdog = Watchdog::new("a_wait_ends_after_its_time_and_not_before", 120);
    let region = region();
    for (slot, reset) in [(0, EventReset::Manual), (1, EventReset::Auto)] {
        let event = region.event(slot, reset).unwrap();
        let started = Instant::now();
        assert!(!event.wait_timeout(Duration::from_millis(130)));
        assert!(started.elapsed() >= Duration::from_millis(130));
    }
}

#[test]
fn a_read_only_waiter_is_woken() {
    let _watchdog = Watchdog::new("a_read_only_waiter_is_woken", 120);
    let region = region();
    let event = region.event(63, EventReset::Manual).unwrap();
    let mut waiter = waiter(&region, "events-wait-read-only", 63);
    event.set().unwrap();
    assert_eq!(waiter.hear(), "true");
}

#[test]
fn a_setter_that_died_before_it_woke_anybody_leaves_no_waiter_behind() {
    let _watchdog = Watchdog::new("a_setter_that_died_before_it_woke_anybody", 120);
    let region = region();
    for slot in [4, 5] {
        region.event(slot, reset_of(slot)).unwrap();
        let mut waiter = waiter(&region, "events-wait", slot);
        // All that such a setter did.
        store_without_wake(&region, slot);
        assert_eq!(waiter.hear(), "passed");
    }
}

#[test]
fn a_killed_waiter_takes_no_event_with_it() {
    let _watchdog = Watchdog::new("a_killed_waiter_takes_no_event_with_it", 120);
    let region = region();
    let event = region.event(7, EventReset::Auto).unwrap();
    let mut killed = waiter(&region, "events-wait", 7);
    let mut other = waiter(&region, "events-wait", 7);
    killed.kill();
    event.set().unwrap();
    assert_eq!(other.hear(), "passed");
    assert_eq!(passed(&region), 1);
}

#[test]
fn what_an_event_is_not_for_is_told() {
    let _watchdog = Watchdog::new("what_an_event_is_not_for_is_told", 120);
    let region = region();
    let reader = handed_over(&path(&region), Options::new().access(Access::ReadOnly));
    let error = region.event(events::COUNT, EventReset::Auto).unwrap_err();
    assert!(matches!(error, EventError::Slot { slot: 64 }));
    assert!(error.to_string().contains("0 to 63"), "{error}");

    let error = reader.event(9, EventReset::Manual).unwrap_err();
    assert!(matches!(error, EventError::NotMade { slot: 9 }));
    region.event(9, EventReset::Auto).unwrap();
    let error = region.event(9, EventReset::Manual).unwrap_err();
    let other = matches!(
        error,
        EventError::OtherReset {
            slot: 9,
            made: EventReset::Auto
        }
    );
    assert!(other, "{error:?}");
    assert!(error.to_string().contains("use another number"), "{error}");
    let error = reader.event(9, EventReset::Auto).unwrap_err();
    assert!(matches!(error, EventError::ReadOnly));
    assert!(region.event(9, EventReset::Auto).is_ok());
}

/// Sets an event by one store to its word, without a wake.
fn store_without_wake(region: &Region, slot: u64) {
    let fd = region.fd().unwrap();
    let len = usize::try_from(region.declared_len()).unwrap();
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a mapping at an address of the kernel's choice touches no memory of ours.
    let base = unsafe {
        mmap(
            std::ptr::null_mut(),
            len,
            protection,
            MapFlags::SHARED,
            fd,
            0,
        )
    };
    let base = base.unwrap();
    let offset = header_word(region, header::EVENTS_OFFSET) + slot * events::LEN;
    // SAFETY: the offset is one of the layout's, inside the mapping.
    let word = unsafe { base.byte_add(usize::try_from(offset).unwrap()) };
    // SAFETY: the word is aligned, mapped until the end of this function, and an atomic to
    // everyone.
    unsafe { &*word.cast::<AtomicU64>() }.store(1, Ordering::Release);
    // SAFETY: nothing refers to the mapping any more.
    unsafe { munmap(base, len) }.unwrap();
}
