use crate::harness::{become_user, listen, open, report, wait_until, Child, Watchdog};
use crate::regions::{assert_clean, handed_over, header_word, path, Name};
use ganger_region::layout::header;
use ganger_region::{
    Access, AttachError, Config, CreateError, Options, Region, SetOptions, WriteError,
};
use rustix::fs::{ftruncate, Mode};
use std::io;
use std::os::fd::OwnedFd;

/// Headers and files that are none.
mod foreign;
/// Regions that are not finished.
mod unfinished;

fn small() -> Config {
    Config::new(1 << 20)
}

fn read_only() -> Options {
    Options::new().access(Access::ReadOnly)
}

pub(crate) fn play(role: &str, arguments: &[&str]) -> bool {
    match (role, arguments) {
        ("attach-race", _) => race(),
        ("attach-churn", [name]) => churn(name),
        ("attach-make", [name]) => make(name),
        ("attach-count-named", [name]) => {
            count(&Region::open_named(name, Options::new()).unwrap());
        }
        ("attach-count", [path]) => count(&handed_over(path, Options::new())),
        ("attach-as-nobody", [name, path]) => as_nobody(name, path),
        ("attach-without-descriptors", [name]) => without_descriptors(name),
        _ => return false,
    }
    true
}

/// Opens or makes each region it is told, and says which one it got.
fn race() {
    let mut attached = Vec::new();
    report("ready");
    while let Some(name) = listen() {
        let region = Region::open_or_create_named(&name, &small(), Options::new()).unwrap();
        let place = region.incr(b"attached", 1).unwrap();
        report(&format!(
            "{} {place}",
            header_word(&region, header::REGION_ID)
        ));
        attached.push(region);
    }
}

fn make(name: &str) {
    let region = Region::create_named(name, &small(), Options::new()).unwrap();
    region.set(b"key", b"value").unwrap();
    region.incr(b"count", 3).unwrap();
}

/// Counts until its input ends.
fn count(region: &Region) {
    report("counts");
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| while listen().is_some() {});
        while !ended.is_finished() {
            region.incr(b"count", 1).unwrap();
        }
    });
}

/// Makes and removes regions of one name, again and again.
fn churn(name: &str) {
    report("churns");
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| while listen().is_some() {});
        while !ended.is_finished() {
            drop(Region::create_named(name, &small(), Options::new()).unwrap());
            Region::remove_named(name).unwrap();
        }
    });
}

fn as_nobody(name: &str, path: &str) {
    const NOBODY: libc::uid_t = 65534;
    become_user(NOBODY);
    for options in [Options::new(), read_only()] {
        let error = Region::open_named(name, options).unwrap_err();
        let AttachError::Io(system) = &error else {
            panic!("{error:?}")
        };
        assert_eq!(system.kind(), io::ErrorKind::PermissionDenied);
        report(&error.to_string());
    }
    let refused = std::fs::File::open(path).unwrap_err();
    report(&refused.to_string());
}

/// Makes a region when only one more descriptor can be had, which is not enough.
fn without_descriptors(name: &str) {
    let next = std::fs::File::open("/dev/null").unwrap();
    let next = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&next)).unwrap();
    let limit = rustix::process::Rlimit {
        current: Some(next + 2),
        maximum: Some(next + 2),
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let error = Region::create_named(name, &small(), Options::new()).unwrap_err();
    report(&error.to_string());
}

/// What is under a name in the system's shared memory, made by hand.
fn shm(name: &Name, len: u64) -> OwnedFd {
    use rustix::shm::OFlags;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
    let fd = rustix::shm::open(
        format!("/{}", name.as_str()),
        flags,
        Mode::RUSR | Mode::WUSR,
    );
    let fd = fd.unwrap();
    ftruncate(&fd, len).unwrap();
    fd
}

#[test]
fn a_name_that_is_none_is_refused_everywhere() {
    let _watchdog = Watchdog::new("a_name_that_is_none_is_refused_everywhere", 120);
    for name in ["", "a/b", "/a", ".", "..", "a\0b", &"n".repeat(251)] {
        let created = Region::create_named(name, &small(), Options::new()).unwrap_err();
        assert!(matches!(created, CreateError::Name(_)), "{created:?}");
        let errors = [
            Region::open_named(name, Options::new()).map(drop),
            Region::open_or_create_named(name, &small(), Options::new()).map(drop),
            Region::remove_named(name),
        ];
        for error in errors.map(Result::unwrap_err) {
            assert!(matches!(error, AttachError::Name(_)), "{error:?}");
            assert!(error.to_string().contains("use 1 to 250 bytes"), "{error}");
        }
    }
}

#[test]
fn a_name_of_250_bytes_is_one() {
    let _watchdog = Watchdog::new("a_name_of_250_bytes_is_one", 120);
    let name = format!("{:n<250}", Name::new("long").as_str());
    let region = Region::create_named(&name, &small(), Options::new()).unwrap();
    drop(region);
    Region::remove_named(&name).unwrap();
}

#[test]
fn a_name_without_a_region_and_one_with_are_told_apart() {
    let _watchdog = Watchdog::new("a_name_without_a_region_and_one_with_are_told_apart", 120);
    let name = Name::new("told-apart");
    let missing = [
        Region::open_named(name.as_str(), Options::new()).map(drop),
        Region::open_named(name.as_str(), read_only()).map(drop),
        Region::remove_named(name.as_str()),
    ];
    for error in missing.map(Result::unwrap_err) {
        assert!(matches!(error, AttachError::NotFound(_)), "{error:?}");
        assert!(error.to_string().contains(name.as_str()), "{error}");
    }
    let region = Region::create_named(name.as_str(), &small(), Options::new()).unwrap();
    region.set(b"key", b"value").unwrap();
    let error = Region::create_named(name.as_str(), &small(), Options::new()).unwrap_err();
    assert!(matches!(error, CreateError::Exists(_)), "{error:?}");
    assert!(error.to_string().contains("open it, or remove it"));
    let other = Region::open_named(name.as_str(), Options::new()).unwrap();
    assert_eq!(other.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    assert_clean(&other);
}

#[test]
fn a_named_region_outlives_its_processes_until_it_is_removed() {
    let _watchdog = Watchdog::new("a_named_region_outlives_its_processes", 120);
    let name = Name::new("outlives");
    let mut maker = Child::spawn("attach-make", &[name.as_str().to_owned()]);
    assert!(maker.wait().success());
    for _ in 0..2 {
        let region = Region::open_named(name.as_str(), Options::new()).unwrap();
        assert_eq!(region.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
        assert_eq!(region.stats().sessions_attached, 1);
        assert_clean(&region);
    }
    let region = Region::open_named(name.as_str(), Options::new()).unwrap();
    Region::remove_named(name.as_str()).unwrap();
    assert_eq!(region.incr(b"count", 1).unwrap(), 4);
    let error = Region::open_named(name.as_str(), Options::new()).unwrap_err();
    assert!(matches!(error, AttachError::NotFound(_)), "{error:?}");
    // The name is free for another region, and the old one none the wiser.
    let next = Region::open_or_create_named(name.as_str(), &small(), Options::new()).unwrap();
    assert!(next.is_empty());
    assert_eq!(region.incr(b"count", 1).unwrap(), 5);
}

#[test]
fn of_eight_processes_that_race_one_makes_the_region_and_all_get_it() {
    let _watchdog = Watchdog::new("of_eight_processes_that_race", 180);
    let mut children: Vec<Child> = (0..8).map(|_| Child::spawn("attach-race", &[])).collect();
    for child in &mut children {
        assert_eq!(child.hear(), "ready");
    }
    for round in 0..20 {
        let name = Name::new("race");
        children
            .iter_mut()
            .for_each(|child| child.tell(name.as_str()));
        let told: Vec<(u64, u64)> = children
            .iter_mut()
            .map(|child| {
                let told = child.hear();
                let (id, place) = told.split_once(' ').unwrap();
                (id.parse().unwrap(), place.parse().unwrap())
            })
            .collect();
        assert!(
            told.iter().all(|(id, _)| *id == told[0].0),
            "{round}: {told:?}"
        );
        let mut places: Vec<u64> = told.iter().map(|(_, place)| *place).collect();
        places.sort_unstable();
        assert_eq!(places, (1..=8).collect::<Vec<_>>(), "{round}");
        let region = Region::open_named(name.as_str(), Options::new()).unwrap();
        assert_eq!(region.stats().sessions_attached, 9);
        assert_clean(&region);
    }
}

#[test]
fn a_region_that_could_not_be_made_leaves_no_name() {
    let _watchdog = Watchdog::new("a_region_that_could_not_be_made_leaves_no_name", 120);
    let name = Name::new("no-descriptors");
    let mut child = Child::spawn("attach-without-descriptors", &[name.as_str().to_owned()]);
    let error = child.hear();
    assert!(error.contains("Too many open files"), "{error}");
    let error = Region::open_named(name.as_str(), Options::new()).unwrap_err();
    assert!(matches!(error, AttachError::NotFound(_)), "{error:?}");
}

/// Attaching opens the name twice, for the memory and for the locks that prove life: both must be
/// of one file.
#[test]
fn a_name_that_changes_hands_is_never_attached_by_halves() {
    let _watchdog = Watchdog::new("a_name_that_changes_hands", 180);
    let name = Name::new("churn");
    let mut churn = Child::spawn("attach-churn", &[name.as_str().to_owned()]);
    assert_eq!(churn.hear(), "churns");
    let mut attached = 0;
    while attached < 400 {
        match Region::open_named(name.as_str(), Options::new()) {
            Ok(region) => {
                assert_eq!(flags_of_mappings(&region).len(), 1, "after {attached}");
                attached += 1;
            }
            Err(AttachError::NotFound(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(churn.wait().success());
}

#[test]
fn a_read_only_handle_follows_a_writer_and_refuses_to_write() {
    let _watchdog = Watchdog::new("a_read_only_handle_follows_a_writer", 120);
    let name = Name::new("read-only");
    let named = Region::create_named(name.as_str(), &small(), Options::new()).unwrap();
    let anonymous = Region::create(&small(), Options::new()).unwrap();
    let file = std::fs::File::open(path(&anonymous)).unwrap();
    let mut cases = [
        (
            Region::open_named(name.as_str(), read_only()).unwrap(),
            Child::spawn("attach-count-named", &[name.as_str().to_owned()]),
        ),
        (
            handed_over(&path(&anonymous), read_only()),
            Child::spawn("attach-count", &[path(&anonymous)]),
        ),
        (
            Region::from_fd(file.into(), read_only()).unwrap(),
            Child::spawn("attach-count", &[path(&anonymous)]),
        ),
    ];
    for (reader, writer) in &mut cases {
        assert_eq!(writer.hear(), "counts");
        assert!(!reader.is_writable());
        assert_refuses_writes(reader);
        let mut last = 0;
        wait_until("many counts", || {
            let count = reader.get(b"count").unwrap();
            let count = count.map_or(0, |value| i64::from_le_bytes(value.try_into().unwrap()));
            assert!(count >= last);
            last = count;
            count > 20_000
        });
        assert!(writer.wait().success());
    }
    for region in [named, anonymous] {
        assert_eq!(region.stats().sessions_attached, 1);
        assert_clean(&region);
    }
}

fn assert_refuses_writes(reader: &Region) {
    let refused = [
        reader.set(b"key", b"value").map(drop),
        reader.set(b"count", b"value").map(drop),
        reader
            .set_with(b"key", b"value", SetOptions::new().if_absent())
            .map(drop),
        reader.delete(b"count").map(drop),
        reader.delete_if(b"count", 2).map(drop),
        reader.incr(b"count", 1).map(drop),
        reader.append(b"key", b"value").map(drop),
        reader.expire(b"count", 1).map(drop),
        reader.touch(b"count", 1).map(drop),
        reader.persist(b"count").map(drop),
        reader.update(b"key", |_| Some(Vec::new())).map(drop),
        reader.get_or_insert_with(b"key", Vec::new).map(drop),
        reader.clear().map(drop),
        reader.sweep().map(drop),
        reader.reap().map(drop),
        reader.check().map(drop),
    ];
    for error in refused.map(Result::unwrap_err) {
        assert!(matches!(error, WriteError::ReadOnly), "{error:?}");
        assert!(error.to_string().contains("read-only"), "{error}");
    }
}

#[test]
fn a_descriptor_that_only_reads_gives_no_writer() {
    let _watchdog = Watchdog::new("a_descriptor_that_only_reads_gives_no_writer", 120);
    let region = Region::create(&small(), Options::new()).unwrap();
    let file = std::fs::File::open(path(&region)).unwrap();
    let error = Region::from_fd(file.into(), Options::new()).unwrap_err();
    let AttachError::Io(system) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(system.kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn only_the_user_may_open_a_region() {
    let _watchdog = Watchdog::new("only_the_user_may_open_a_region", 120);
    let name = Name::new("mode");
    let named = Region::create_named(name.as_str(), &small(), Options::new()).unwrap();
    let anonymous = Region::create(&small(), Options::new()).unwrap();
    for region in [&named, &anonymous] {
        let stat = rustix::fs::fstat(region.fd().unwrap()).unwrap();
        assert_eq!(stat.st_mode & 0o777, 0o600);
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: becoming another user takes root");
        return;
    }
    let arguments = [name.as_str().to_owned(), path(&anonymous)];
    let mut child = Child::spawn("attach-as-nobody", &arguments);
    for _ in 0..3 {
        let told = child.hear();
        assert!(told.contains("Permission denied"), "{told}");
    }
}

#[test]
fn nobody_can_cut_or_lengthen_an_anonymous_region() {
    let _watchdog = Watchdog::new("nobody_can_cut_or_lengthen_an_anonymous_region", 120);
    let region = Region::create(&small(), Options::new()).unwrap();
    region.set(b"key", b"value").unwrap();
    let reopened = open(&path(&region));
    for len in [0, 4096, (1 << 20) - 1, 2 << 20] {
        for refused in [
            ftruncate(region.fd().unwrap(), len),
            ftruncate(&reopened, len),
        ] {
            assert_eq!(refused, Err(rustix::io::Errno::PERM));
        }
    }
    assert_eq!(region.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
}

#[test]
fn a_region_is_not_part_of_core_dumps() {
    let _watchdog = Watchdog::new("a_region_is_not_part_of_core_dumps", 120);
    let name = Name::new("core");
    let named = Region::create_named(name.as_str(), &small(), Options::new()).unwrap();
    let named_reader = Region::open_named(name.as_str(), read_only()).unwrap();
    let anonymous = Region::create(&small(), Options::new()).unwrap();
    let reader = handed_over(&path(&anonymous), read_only());
    for (region, other) in [(&named, named_reader), (&anonymous, reader)] {
        let flags = flags_of_mappings(region);
        assert_eq!(flags.len(), 2, "{flags:?}");
        for flags in flags {
            assert!(flags.split(' ').any(|flag| flag == "dd"), "{flags}");
        }
        drop(other);
    }
}

/// What the kernel says of this process's mappings of a region's file.
fn flags_of_mappings(region: &Region) -> Vec<String> {
    let inode = rustix::fs::fstat(region.fd().unwrap()).unwrap().st_ino;
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut ours = false;
    let mut found = Vec::new();
    for line in maps.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let Some(flags) = line.strip_prefix("VmFlags: ") {
            found.extend(ours.then(|| flags.to_owned()));
        } else if fields.len() >= 5 && fields[0].contains('-') {
            ours = fields[4] == inode.to_string();
        }
    }
    found
}
