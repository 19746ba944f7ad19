use crate::harness::fork::Forked;
use crate::harness::{listen, report, wait_until, Child, Watchdog, PATIENCE};
use crate::regions::{another, assert_clean, handed_over, path};
use ganger_region::{
    Access, AttachError, Config, CreateError, Options, Region, SessionError, SetOptions, WriteError,
};
use rustix::process::Signal;
use rustix::thread::{unshare_unsafe, UnshareFlags};
use std::time::{Duration, Instant};

fn region(sessions: u64) -> Region {
    Region::create(&Config::new(2 << 20).sessions(sessions), Options::new()).unwrap()
}

fn ephemeral() -> SetOptions {
    SetOptions::new().ephemeral().if_absent()
}

fn attached(region: &Region) -> u64 {
    region.stats().sessions_attached
}

pub(crate) fn play(role: &str, arguments: &[&str]) -> bool {
    match (role, arguments) {
        ("sessions-count", [path, times]) => count(path, times.parse().unwrap()),
        ("sessions-own", [path, key]) => own(path, key),
        ("sessions-orphan", [path]) => orphan(path),
        ("sessions-bereaved", [path]) => bereaved(path),
        ("sessions-crowded", [path]) => crowded(path),
        ("sessions-elsewhere", [path, key]) => elsewhere(path, key),
        _ => return false,
    }
    true
}

/// Counts when told to.
fn count(path: &str, times: u64) {
    let region = handed_over(path, Options::new());
    report("attached");
    if listen().is_some() {
        for _ in 0..times {
            region.incr(b"sum", 1).unwrap();
        }
    }
}

/// Writes an ephemeral key and keeps it.
fn own(path: &str, key: &str) {
    let region = handed_over(path, Options::new());
    let set = region.set_with(key.as_bytes(), b"mine", ephemeral());
    assert!(set.unwrap().is_some());
    report("owns");
    listen();
}

/// Forks; the child goes on in the region until the key "end" is there, whatever becomes of its
/// parent.
fn orphan(path: &str) {
    let region = handed_over(path, Options::new());
    let set = region.set_with(b"parent's", b"", ephemeral());
    assert!(set.unwrap().is_some());
    if is_child() {
        let started = Instant::now();
        let set = region.set_with(b"child's", b"", ephemeral());
        assert!(set.unwrap().is_some());
        while !region.exists(b"end").unwrap() && started.elapsed() < 2 * PATIENCE {
            assert_eq!(region.get(b"before").unwrap().as_deref(), Some(&b"1"[..]));
            region.incr(b"beat", 1).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        // Detaches in good order, as `exit` would not.
        drop(region);
        std::process::exit(0);
    }
    listen();
}

/// Forks children that end in all ways, and looks whether its own session goes on.
fn bereaved(path: &str) {
    let region = handed_over(path, Options::new());
    let set = region.set_with(b"parent's", b"", ephemeral());
    assert!(set.unwrap().is_some());
    for ending in ["exit", "drop", "kill", "unused"] {
        if is_child() {
            if ending != "unused" {
                region.set(ending.as_bytes(), b"written").unwrap();
                let set = region.set_with(b"child's", ending.as_bytes(), ephemeral());
                assert!(set.unwrap().is_some());
            }
            if ending == "drop" || ending == "unused" {
                drop(region);
            } else if ending == "kill" {
                let own = rustix::process::getpid();
                rustix::process::kill_process(own, Signal::KILL).unwrap();
            }
            std::process::exit(0);
        }
        rustix::process::wait(rustix::process::WaitOptions::empty()).unwrap();
        region.incr(b"went on", 1).unwrap();
        assert!(region.exists(b"parent's").unwrap());
        // The child's keys are no obstacle any more, and `reap` takes what it left.
        wait_until("the child's session to end", || {
            region.reap().unwrap();
            attached(&region) == 2 && !region.exists(b"child's").unwrap()
        });
        assert!(region.exists(b"parent's").unwrap());
    }
    report("went on");
    listen();
}

/// Forks while all sessions are taken: the child reads on, and writes as soon as one is free.
fn crowded(path: &str) {
    let region = handed_over(path, Options::new());
    let mut child = Forked::new(|| {
        let refused = || {
            [
                region.set(b"key", b"child's").map(drop),
                region.set(b"new", b"child's").map(drop),
                region.incr(b"count", 1).map(drop),
                region.delete(b"key").map(drop),
            ]
        };
        for error in refused().map(Result::unwrap_err) {
            let WriteError::Session(SessionError::Exhausted { limit: 3 }) = error else {
                panic!("{error:?}")
            };
            assert!(error.to_string().contains("all 3 sessions"), "{error}");
        }
        assert_eq!(region.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
        report("refused");
        assert_eq!(listen().as_deref(), Some("there is one"));
        region.set(b"new", b"child's").unwrap();
        true
    });
    let mut ended = None;
    wait_until("the child to write", || {
        ended = child.try_wait();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().exit_status(), Some(0));
    assert_eq!(region.incr(b"count", 1).unwrap(), 1);
    report("went on");
}

/// Has a child in a pid namespace of its own that writes an ephemeral key and keeps it.
fn elsewhere(path: &str, key: &str) {
    // SAFETY: only NEWPID is unshared, which changes the namespace of children and no descriptor.
    unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.unwrap();
    let mut child = Forked::new(|| {
        assert_eq!(std::process::id(), 1);
        own(path, key);
        true
    });
    child.wait_killed();
}

/// Forks this process, whose other threads, if any, only wait.
fn is_child() -> bool {
    // SAFETY: no other thread of a role holds a lock (the test runner's main thread waits for this
    // one), so the child may go on as if it were alone, which it is.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    pid == 0
}

#[test]
fn a_hundred_processes_count_exactly_and_leave_nothing() {
    let _watchdog = Watchdog::new("a_hundred_processes_count_exactly", 300);
    let region = region(128);
    let arguments = [path(&region), "1000".to_owned()];
    let mut children: Vec<Child> = (0..100)
        .map(|_| Child::spawn("sessions-count", &arguments))
        .collect();
    for child in &mut children {
        assert_eq!(child.hear(), "attached");
    }
    assert_eq!(attached(&region), 101);
    children.iter_mut().for_each(|child| child.tell("count"));
    for child in &mut children {
        assert!(child.wait().success());
    }
    assert_eq!(region.incr(b"sum", 0).unwrap(), 100 * 1000);
    assert_eq!(attached(&region), 1);
    assert_eq!(region.reap().unwrap().sessions, 0);
    assert_clean(&region);
}

#[test]
fn a_region_with_all_sessions_taken_says_so_and_can_be_read() {
    let _watchdog = Watchdog::new("a_region_with_all_sessions_taken", 120);
    let region = region(4);
    region.set(b"key", b"value").unwrap();
    let (second, _third) = (another(&region), another(&region));
    let mut fourth = Child::spawn("sessions-own", &[path(&region), "theirs".to_owned()]);
    assert_eq!(fourth.hear(), "owns");
    let attach = || {
        let fd = crate::harness::open(&path(&region));
        Region::from_fd(fd, Options::new())
    };
    let error = attach().unwrap_err();
    let exhausted = matches!(
        error,
        AttachError::Session(SessionError::Exhausted { limit: 4 })
    );
    assert!(exhausted, "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("all 4 sessions") && text.contains("detach a process"),
        "{text}"
    );
    let reader = handed_over(&path(&region), Options::new().access(Access::ReadOnly));
    assert_eq!(reader.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    assert_eq!(attached(&region), 4);

    // Who detaches makes room, and so does who dies, without anybody reaping.
    drop(second);
    let _second = attach().unwrap();
    assert!(attach().is_err());
    fourth.kill();
    let mut again = None;
    wait_until("the dead session to be found", || {
        again = attach().ok();
        again.is_some()
    });
    assert!(attach().is_err());
    let again = again.unwrap();
    // The slot is the dead one's, but not its keys.
    assert!(again
        .set_with(b"theirs", b"", ephemeral())
        .unwrap()
        .is_some());
    assert_clean(&region);
}

#[test]
fn a_region_without_sessions_is_not_made() {
    let _watchdog = Watchdog::new("a_region_without_sessions_is_not_made", 120);
    for sessions in [0, 16 * 1024 + 1] {
        let config = Config::new(64 << 20).sessions(sessions);
        let error = Region::create(&config, Options::new()).unwrap_err();
        assert!(matches!(error, CreateError::Size { .. }), "{error:?}");
        assert!(error.to_string().contains("1 to 16384"), "{error}");
    }
}

#[test]
fn ephemeral_keys_go_when_their_owner_detaches() {
    let _watchdog = Watchdog::new("ephemeral_keys_go_when_their_owner_detaches", 120);
    let region = region(8);
    let owner = another(&region);
    let set = |handle: &Region, key: &[u8]| handle.set_with(key, b"value", ephemeral()).unwrap();
    assert!(set(&owner, b"theirs").is_some());
    assert!(set(&region, b"ours").is_some());
    owner.set(b"lasting", b"value").unwrap();
    assert!(set(&region, b"theirs").is_none());
    assert!(region.entry(b"theirs").unwrap().unwrap().is_ephemeral);
    let clone = owner.clone();
    drop(owner);
    assert!(region.exists(b"theirs").unwrap(), "a clone is still there");
    drop(clone);
    assert!(!region.exists(b"theirs").unwrap());
    assert!(region.exists(b"ours").unwrap());
    assert!(region.exists(b"lasting").unwrap());
    assert_clean(&region);
}

#[test]
fn an_ephemeral_key_that_others_change_goes_with_its_owner_all_the_same() {
    let _watchdog = Watchdog::new("an_ephemeral_key_that_others_change", 120);
    let region = region(8);
    let (owner, other) = (another(&region), another(&region));
    for key in [b"updated", b"the old"] {
        owner.set_with(key, b"value", ephemeral()).unwrap().unwrap();
    }
    let longer = |old: Option<&[u8]>| Some([old.unwrap(), b"more"].concat());
    assert!(other.update(b"updated", longer).unwrap().is_some());
    assert_eq!(other.append(b"the old", b"more").unwrap(), 9);
    drop(other);
    for key in [b"updated", b"the old"] {
        let entry = region.entry(key).unwrap().unwrap();
        assert_eq!(
            (&entry.value[..], entry.is_ephemeral),
            (&b"valuemore"[..], true)
        );
    }
    drop(owner);
    assert!(region.is_empty(), "{:?}", region.stats());
    assert_clean(&region);
}

#[test]
fn ephemeral_keys_of_a_killed_owner_go_with_a_reap() {
    let _watchdog = Watchdog::new("ephemeral_keys_of_a_killed_owner_go_with_a_reap", 120);
    let region = region(8);
    let mut owner = Child::spawn("sessions-own", &[path(&region), "lock".to_owned()]);
    assert_eq!(owner.hear(), "owns");
    assert_eq!(region.reap().unwrap().ephemeral, 0);
    assert!(region.exists(b"lock").unwrap());
    owner.kill();
    let mut reaped = (0, 0);
    wait_until("the death to be noticed", || {
        let now = region.reap().unwrap();
        reaped = (reaped.0 + now.sessions, reaped.1 + now.ephemeral);
        now.ephemeral > 0
    });
    assert_eq!(reaped, (1, 1));
    assert!(!region.exists(b"lock").unwrap());
    assert_eq!(attached(&region), 1);
    assert_clean(&region);
}

/// A lock made of an ephemeral key: a stopped owner keeps it, a killed one loses it to the next who
/// asks.
#[test]
fn an_ephemeral_key_of_a_killed_owner_stops_nobody_even_without_a_reap() {
    let _watchdog = Watchdog::new("an_ephemeral_key_of_a_killed_owner_stops_nobody", 120);
    let region = region(8);
    let mut owner = Child::spawn("sessions-own", &[path(&region), "lock".to_owned()]);
    assert_eq!(owner.hear(), "owns");
    let take = || region.set_with(b"lock", b"ours", ephemeral()).unwrap();
    assert!(take().is_none());
    owner.signal(Signal::STOP);
    assert!(take().is_none());
    assert!(take().is_none());
    owner.kill();
    wait_until("the lock", || take().is_some());
    assert_eq!(region.get(b"lock").unwrap().as_deref(), Some(&b"ours"[..]));
    region.reap().unwrap();
    assert_eq!(region.get(b"lock").unwrap().as_deref(), Some(&b"ours"[..]));
    assert_clean(&region);
}

#[test]
fn a_forked_child_has_a_session_of_its_own_and_does_not_keep_its_parent_alive() {
    let _watchdog = Watchdog::new("a_forked_child_has_a_session_of_its_own", 180);
    let region = region(8);
    region.set(b"before", b"1").unwrap();
    let beats = || region.incr(b"beat", 0).unwrap();
    beats();
    let mut parent = Child::spawn("sessions-orphan", &[path(&region)]);
    wait_until("the forked child to write", || beats() > 3);
    assert_eq!(attached(&region), 3);
    region.reap().unwrap();
    assert_eq!(attached(&region), 3);
    parent.kill();
    wait_until("the parent's death to be noticed", || {
        region.reap().unwrap();
        !region.exists(b"parent's").unwrap()
    });
    assert_eq!(attached(&region), 2);
    let then = beats();
    wait_until("the child to go on", || beats() > then + 3);
    assert!(region.exists(b"child's").unwrap());
    region.set(b"end", b"").unwrap();
    wait_until("the child to detach", || attached(&region) == 1);
    assert!(!region.exists(b"child's").unwrap());
    assert_clean(&region);
}

#[test]
fn a_parent_goes_on_whatever_becomes_of_its_forked_children() {
    let _watchdog = Watchdog::new(
        "a_parent_goes_on_whatever_becomes_of_its_forked_children",
        180,
    );
    let region = region(8);
    let mut parent = Child::spawn("sessions-bereaved", &[path(&region)]);
    assert_eq!(parent.hear(), "went on");
    assert_eq!(region.incr(b"went on", 0).unwrap(), 4);
    for key in [&b"exit"[..], b"drop", b"kill"] {
        assert_eq!(region.get(key).unwrap().as_deref(), Some(&b"written"[..]));
    }
    assert!(region.exists(b"parent's").unwrap());
    assert!(parent.wait().success());
    assert!(!region.exists(b"parent's").unwrap());
    assert_eq!(attached(&region), 1);
    assert_clean(&region);
}

#[test]
fn a_child_forked_while_all_sessions_are_taken_reads_and_is_told_when_it_writes() {
    let _watchdog = Watchdog::new("a_child_forked_while_all_sessions_are_taken", 120);
    let region = region(3);
    region.set(b"key", b"value").unwrap();
    let second = another(&region);
    let mut parent = Child::spawn("sessions-crowded", &[path(&region)]);
    assert_eq!(parent.hear(), "refused");
    assert_eq!(attached(&region), 3);
    assert_eq!(region.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    assert!(!region.exists(b"new").unwrap());
    drop(second);
    parent.tell("there is one");
    assert_eq!(parent.hear(), "went on");
    assert_eq!(
        region.get(b"new").unwrap().as_deref(),
        Some(&b"child's"[..])
    );
    assert!(parent.wait().success());
    region.reap().unwrap();
    assert_eq!(attached(&region), 1);
    assert_clean(&region);
}

/// The process ids of another namespace mean nothing here; the locks do.
#[test]
fn a_process_of_another_pid_namespace_is_known_to_live_and_to_be_dead() {
    let _watchdog = Watchdog::new("a_process_of_another_pid_namespace", 120);
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: making a pid namespace takes root");
        return;
    }
    let region = region(4);
    let mut owner = Child::spawn("sessions-elsewhere", &[path(&region), "theirs".to_owned()]);
    assert_eq!(owner.hear(), "owns");
    assert_eq!(attached(&region), 2);
    let take = || region.set_with(b"theirs", b"ours", ephemeral()).unwrap();
    for _ in 0..3 {
        assert_eq!(region.reap().unwrap().sessions, 0);
        assert!(take().is_none());
    }
    // Its child dies with it.
    owner.kill();
    let mut reaped = (0, 0);
    wait_until("the death to be noticed", || {
        let now = region.reap().unwrap();
        reaped = (reaped.0 + now.sessions, reaped.1 + now.ephemeral);
        now.sessions > 0
    });
    assert_eq!(reaped, (1, 1));
    assert!(take().is_some());
    assert_clean(&region);
}
