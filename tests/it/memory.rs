use crate::harness::{report, Child, Watchdog};
use crate::regions::{assert_clean, Name};
use ganger_region::{AttachError, Config, CreateError, Options, Region, WriteError};
use rustix::mount::{mount, mount_change, MountFlags, MountPropagationFlags};
use rustix::thread::{unshare_unsafe, UnshareFlags};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

pub(crate) fn play(role: &str, arguments: &[&str]) -> bool {
    match (role, arguments) {
        ("memory-tiny-shm", [name]) => on_a_tiny_shm(name),
        ("memory-full-shm", [name]) => on_a_full_shm(name),
        ("memory-group", [group]) => in_a_group(group),
        _ => return false,
    }
    true
}

const VALUE_LEN: usize = 3000;

fn key_of(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

fn value_of(number: u64) -> Vec<u8> {
    number.to_be_bytes().repeat(VALUE_LEN / 8)
}

/// Fills a region until the system has no more memory, and says how many keys it took.
fn fill(region: &Region) -> u64 {
    for number in 0..1_000_000 {
        match region.set(&key_of(number), &value_of(number)) {
            Ok(_) => {}
            Err(error @ WriteError::NoMemory(_)) => {
                let text = error.to_string();
                assert!(text.contains("gave the region no more memory"), "{text}");
                return number;
            }
            Err(error) => panic!("after {number}: {error}"),
        }
    }
    panic!("memory for a million keys");
}

/// After memory ran out: all is there, and deleting half of the keys makes room for `again` of
/// them.
fn assert_goes_on(region: &Region, keys: u64, again: u64) {
    let assert_there = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            let value = region.get(&key_of(number)).unwrap();
            assert_eq!(value, Some(value_of(number)), "{number} of {keys}");
        }
    };
    assert_there(0..keys);
    assert_clean(region);
    for number in 0..keys / 2 {
        assert!(region.delete(&key_of(number)).unwrap());
    }
    for number in 0..again {
        region.set(&key_of(number), &value_of(number)).unwrap();
    }
    assert_there(0..again);
    assert_there(keys / 2..keys);
    assert_clean(region);
    assert_eq!(region.stats().repairs, 0);
}

/// Fills a region with values that have pages of their own until there is no more memory, and empties
/// it: each time it takes as many.
fn assert_takes_as_many_again(region: &Region) {
    let value = [7; 60_000];
    let fill = || {
        let taken = (0..1_000_000_u64).position(|number| {
            let set = region.set(&key_of(number), &value);
            matches!(set, Err(WriteError::NoMemory(_)))
        });
        let taken = taken.unwrap() as u64;
        let deleted = (0..taken).filter(|&number| region.delete(&key_of(number)).unwrap());
        assert_eq!(deleted.count() as u64, taken);
        taken
    };
    let first = fill();
    // More than the pool's cache of free pages names.
    assert!(first > 2 * 64, "{first}");
    let again = [fill(), fill()];
    // A page more or less goes to the index.
    assert!(
        again.iter().all(|&taken| taken.abs_diff(first) <= 2),
        "{first}, then {again:?}"
    );
    assert_clean(region);
}

/// Puts a shared memory of the size that containers have, only smaller, before this process's eyes.
fn shrink_shm(bytes: u64) {
    // SAFETY: only NEWNS is unshared, which needs no care for descriptors; the other threads, if
    // any, wait.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).unwrap();
    let size = std::ffi::CString::new(format!("size={bytes}")).unwrap();
    let flags = MountFlags::empty();
    mount("tmpfs", "/dev/shm", "tmpfs", flags, size.as_c_str()).unwrap();
}

fn on_a_tiny_shm(name: &str) {
    shrink_shm(24 << 20);
    let large = format!("{name}-large");
    let region = Region::create_named(&large, &Config::new(64 << 20), Options::new()).unwrap();
    assert_takes_as_many_again(&region);
    Region::remove_named(&large).unwrap();
    drop(region);
    shrink_shm(8 << 20);
    let region = Region::create_named(name, &Config::new(64 << 20), Options::new()).unwrap();
    let keys = fill(&region);
    assert!(keys > 1500, "{keys}");
    assert_goes_on(&region, keys, keys / 2);
    let other = Region::open_named(name, Options::new()).unwrap();
    assert_eq!(other.get(&key_of(0)).unwrap(), Some(value_of(0)));
    // There is no room for another region, and no name is left of the attempt.
    let second = format!("{name}-second");
    let error = Region::create_named(&second, &Config::new(64 << 20), Options::new()).unwrap_err();
    assert!(matches!(error, CreateError::NoMemory(_)), "{error:?}");
    let error = Region::open_named(&second, Options::new()).unwrap_err();
    assert!(matches!(error, AttachError::NotFound(_)), "{error:?}");
    report(&keys.to_string());
}

/// A maker that died before its region had any memory; and now there is none left.
fn on_a_full_shm(name: &str) {
    shrink_shm(1 << 20);
    let made = std::fs::File::create(format!("/dev/shm/{name}")).unwrap();
    made.set_len(1 << 20).unwrap();
    let full = std::fs::File::create("/dev/shm/full").unwrap();
    let mut written = 0;
    while full.write_all_at(&[1; 4096], written).is_ok() {
        written += 4096;
    }
    assert!(written >= 1 << 19, "{written}");
    let error = Region::open_named(name, Options::new()).unwrap_err();
    report(&error.to_string());
}

fn in_a_group(group: &str) {
    let procs = PathBuf::from(group).join("cgroup.procs");
    std::fs::write(procs, std::process::id().to_string()).unwrap();
    let region = Region::create(&Config::new(256 << 20), Options::new()).unwrap();
    let keys = fill(&region);
    // Some of the group's memory went into this process's heap meanwhile.
    assert_goes_on(&region, keys, keys / 4);
    report(&keys.to_string());
}

/// Whether this process may do what only root may; if not, the test says so.
fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: {what} takes root");
    }
    root
}

#[test]
fn a_tiny_shm_is_an_error_and_never_a_sigbus() {
    let _watchdog = Watchdog::new("a_tiny_shm_is_an_error", 180);
    if !is_root("mounting a small /dev/shm") {
        return;
    }
    let name = Name::new("tiny");
    let mut child = Child::spawn("memory-tiny-shm", &[name.as_str().to_owned()]);
    let keys: u64 = child.hear().parse().unwrap();
    eprintln!("{keys} values of {VALUE_LEN} bytes in 8 MiB");
    assert!(child.wait().success());
}

#[test]
fn an_unfinished_region_on_a_full_shm_is_an_error_and_never_a_sigbus() {
    let _watchdog = Watchdog::new("an_unfinished_region_on_a_full_shm", 120);
    if !is_root("mounting a small /dev/shm") {
        return;
    }
    let name = Name::new("full");
    let mut child = Child::spawn("memory-full-shm", &[name.as_str().to_owned()]);
    let told = child.hear();
    assert!(told.contains("unfinished"), "{told}");
    assert!(child.wait().success());
}

/// A control group of its own, gone in the end.
struct Group(PathBuf);

impl Group {
    /// `None`, and a word why, where there is no memory controller to use.
    fn new(limit: u64) -> Option<Self> {
        let name = format!("ganger-test-{}", std::process::id());
        let places = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        for (root, file) in places {
            let group = Self(PathBuf::from(root).join(&name));
            if std::fs::create_dir(&group.0).is_ok()
                && std::fs::write(group.0.join(file), limit.to_string()).is_ok()
            {
                return Some(group);
            }
        }
        eprintln!("SKIPPED: no memory control group can be made here");
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn the_limit_of_a_control_group_is_an_error_and_not_a_kill() {
    let _watchdog = Watchdog::new("the_limit_of_a_control_group", 180);
    let Some(group) = Group::new(64 << 20) else {
        return;
    };
    let path = group.0.to_str().unwrap().to_owned();
    let mut child = Child::spawn("memory-group", &[path]);
    let keys: u64 = child.hear().parse().unwrap();
    eprintln!("{keys} values of {VALUE_LEN} bytes in a group of 64 MiB");
    // Most of the group's memory went into the region.
    assert!(keys * VALUE_LEN as u64 > 40 << 20, "{keys}");
    assert!(child.wait().success());
}

/// Bytes of memory behind a region's file.
fn used(region: &Region) -> u64 {
    let stat = rustix::fs::fstat(region.fd().unwrap()).unwrap();
    u64::try_from(stat.st_blocks).unwrap() * 512
}

#[test]
fn a_region_costs_what_is_in_it_and_not_what_it_was_declared_with() {
    let _watchdog = Watchdog::new(
        "a_region_costs_what_is_in_it_and_not_what_it_was_declared_with",
        180,
    );
    let region = Region::create(&Config::new(16 << 30), Options::new()).unwrap();
    let empty = used(&region);
    assert_eq!(region.declared_len(), 16 << 30);
    assert!(empty < 32 << 20, "{empty}");
    for number in 0..4096_u64 {
        region.set(&key_of(number), &[7; 1000]).unwrap();
    }
    let with_data = used(&region);
    // Each of the 256 shards begins a page or two of its own.
    assert!(with_data - empty >= 4 << 20, "{empty} {with_data}");
    assert!(with_data - empty < 48 << 20, "{empty} {with_data}");
    let stats = region.stats();
    assert!(stats.committed_bytes.abs_diff(with_data) < 1 << 20);
    eprintln!("16 GiB declared: {empty} bytes empty, {with_data} with 4 MiB of values");
    assert_clean(&region);
}

#[test]
fn memory_comes_back_when_entries_go() {
    let _watchdog = Watchdog::new("memory_comes_back_when_entries_go", 180);
    let region = Region::create(&Config::new(256 << 20), Options::new()).unwrap();
    let empty = used(&region);
    for number in 0..100_000 {
        region.set(&key_of(number), &[7; 500]).unwrap();
    }
    let (full, stats) = (used(&region), region.stats());
    assert!(full - empty > 50 << 20, "{empty} {full}");
    for number in 0..100_000 {
        assert!(region.delete(&key_of(number)).unwrap());
    }
    let (after, left) = (used(&region), region.stats());
    eprintln!(
        "{empty} bytes empty, {full} full ({} pages), {after} after all deletes",
        stats.pages_used
    );
    assert_eq!((left.entries, left.bytes), (0, 0));
    assert!(left.pages_used <= 1, "{left:?}");
    // At most the pages that are kept for the next ones.
    assert!(after - empty <= 5 << 20, "{empty} {after}");
    assert_clean(&region);
}

/// A named region gives no memory back to the system, so it has to use the same again.
#[test]
fn a_named_region_uses_the_memory_of_what_is_gone() {
    let _watchdog = Watchdog::new("a_named_region_uses_the_memory_of_what_is_gone", 180);
    let name = Name::new("again");
    let config = Config::new(64 << 20);
    let region = Region::create_named(name.as_str(), &config, Options::new()).unwrap();
    // 160 pages: more than the pool's cache of free ones names.
    let value = vec![7; 10 << 20];
    let mut committed = Vec::new();
    for _ in 0..20 {
        region.set(b"large", &value).unwrap();
        assert!(region.delete(b"large").unwrap());
        committed.push(region.stats().committed_bytes);
    }
    assert!(committed[19] <= committed[0] + (1 << 20), "{committed:?}");
    assert_clean(&region);
}
