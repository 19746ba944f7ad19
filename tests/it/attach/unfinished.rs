//! Regions whose maker died before they were whole, or is still at work.

use super::{read_only, shm, small};
use crate::harness::{wait_until, Watchdog};
use crate::regions::{assert_clean, Name};
use ganger_region::{AttachError, CreateError, Options, Region};
use rustix::fs::{ftruncate, inotify};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// How long who attaches waits for a region that is not finished.
const PATIENCE: Duration = Duration::from_secs(2);

/// A maker killed before it gave the file a length, or before the region was whole.
#[test]
fn a_region_that_was_never_finished_says_so_and_can_be_removed() {
    let _watchdog = Watchdog::new(
        "a_region_that_was_never_finished_says_so_and_can_be_removed",
        120,
    );
    for len in [0, 1 << 20] {
        let name = Name::new("unfinished");
        let _made = shm(&name, len);
        std::thread::scope(|scope| {
            for options in [Options::new(), read_only()] {
                scope.spawn(|| {
                    let error = Region::open_named(name.as_str(), options).unwrap_err();
                    assert!(matches!(error, AttachError::Unfinished), "{error:?}");
                    assert!(error.to_string().contains("remove it"), "{error}");
                });
            }
            scope.spawn(|| {
                let error = Region::open_or_create_named(name.as_str(), &small(), Options::new());
                assert!(matches!(error, Err(AttachError::Unfinished)), "{error:?}");
            });
        });
        let error = Region::create_named(name.as_str(), &small(), Options::new()).unwrap_err();
        assert!(matches!(error, CreateError::Exists(_)), "{error:?}");
        Region::remove_named(name.as_str()).unwrap();
        Region::create_named(name.as_str(), &small(), Options::new()).unwrap();
    }
}

#[test]
fn a_region_that_is_just_being_made_is_waited_for() {
    let _watchdog = Watchdog::new("a_region_that_is_just_being_made_is_waited_for", 120);
    let made = Region::create(&small(), Options::new()).unwrap();
    made.set(b"key", b"value").unwrap();
    let bytes = crate::regions::bytes_of(&made);
    // A maker that this machine kept from its work for as long as anybody waits proves nothing.
    while !is_waited_for(&bytes) {}
}

/// Makes a region bit by bit while another thread opens it, and makes no further bit before that has
/// looked at the last one. `false` if that took longer than anybody waits.
fn is_waited_for(bytes: &[u8]) -> bool {
    let name = Name::new("being-made");
    let file = File::from(shm(&name, 0));
    let looks = Looks::at(&name);
    let started = Instant::now();
    std::thread::scope(|scope| {
        let opened = scope.spawn(|| Region::open_named(name.as_str(), Options::new()));
        looks.wait_for_one(|| opened.is_finished());
        ftruncate(&file, bytes.len() as u64).unwrap();
        looks.wait_for_one(|| opened.is_finished());
        file.write_all_at(&bytes[8..], 8).unwrap();
        looks.wait_for_one(|| opened.is_finished());
        file.write_all_at(&bytes[..8], 0).unwrap();
        match opened.join().unwrap() {
            Ok(region) => {
                assert_eq!(region.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
                assert_clean(&region);
                true
            }
            Err(error) => {
                let waited = started.elapsed();
                assert!(waited >= PATIENCE, "{error} after {waited:?}");
                false
            }
        }
    })
}

/// What the kernel tells of those who open and close a name's file.
struct Looks(OwnedFd);

impl Looks {
    fn at(name: &Name) -> Self {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let looks = inotify::init(flags).unwrap();
        let path = format!("/dev/shm/{}", name.as_str());
        let of_interest = inotify::WatchFlags::OPEN | inotify::WatchFlags::CLOSE;
        inotify::add_watch(&looks, path, of_interest).unwrap();
        Self(looks)
    }

    /// Waits until somebody has begun to look after this was called, and is done with it, or `is_over`.
    /// Who looks opens the file twice at most.
    fn wait_for_one(&self, is_over: impl Fn() -> bool) {
        let opened = || {
            let mut room = [MaybeUninit::uninit(); 1024];
            let mut events = inotify::Reader::new(&self.0, &mut room);
            let events = std::iter::from_fn(|| events.next().ok().map(|event| event.events()));
            events
                .filter(|event| event.contains(inotify::ReadFlags::OPEN))
                .count()
        };
        opened();
        let mut since = 0;
        wait_until("a look at what is not finished", || {
            since += opened();
            since >= 4 || is_over()
        });
    }
}
