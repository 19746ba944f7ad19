//! A region killed while it is made: whoever gets hold of its file is told that it is unfinished,
//! or attaches to a whole, empty region. Nothing in between.

use super::image::{Mapping, Scratch};
use super::verify::{attach, audit};
use super::{Walked, STUCK};
use crate::harness::{self, Watchdog};
use crate::tracer::{be_traced, mark, OneProcessor, Stop, Tracee};
use ganger_region::{Access, AttachError, Config, Options, Region};
use std::fs::File;
use std::os::fd::OwnedFd;

const LEN: u64 = 1 << 20;
/// Bytes in which a change counts as news: all that lies before the pages.
const TABLES: usize = 64 << 10;

#[test]
fn a_region_killed_while_it_is_made() {
    let _watchdog = Watchdog::new("a birth", STUCK);
    let _one = OneProcessor::new();
    let mut child = Tracee::start("birth", &[]);
    let begun_at = child.steps;
    let file = step_to_file(&mut child);
    let mut early = 0;
    while len_of(&file) < LEN || !is_sealed(&file) {
        // Too short or not sealed: not a region, whoever looks.
        let refused = Region::from_fd(file.try_clone().unwrap().into(), Options::new());
        assert!(
            matches!(
                refused,
                Err(AttachError::NotARegion(_) | AttachError::NotSealed)
            ),
            "{refused:?}"
        );
        early += 1;
        assert_eq!(child.step(), Stop::Instruction);
    }
    let mapping = Mapping::new(&file, LEN);
    let mut last = Vec::new();
    let mut finished = false;
    let mut walked = Walked::default();
    loop {
        if last.is_empty() || mapping.bytes()[..TABLES] != last[..TABLES] {
            last = mapping.bytes().to_vec();
            walked.images += 1;
            let now = is_finished(&last);
            assert!(now || !finished, "a finished region became unfinished");
            finished = now;
        }
        if child.step() == Stop::Mark {
            break;
        }
    }
    assert!(finished, "made, but not to be attached to");
    walked.boundaries = child.steps - begun_at;
    assert!(early > 0 && walked.images > 20);
    walked.tell("making a region");
    assert_eq!(child.release().hear(), "done");
}

/// Steps the child until it has made the memory file, and opens that too.
fn step_to_file(child: &mut Tracee) -> File {
    let directory = format!("/proc/{}/fd", child.pid());
    loop {
        // What the child has open changes only by its system calls, so looking now and then is soon
        // enough.
        for _ in 0..16 {
            assert_eq!(child.step(), Stop::Instruction, "no file was made");
        }
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let target = std::fs::read_link(&path).unwrap_or_default();
            if target.to_string_lossy().contains("memfd:ganger-region") {
                let mut options = File::options();
                return options.read(true).write(true).open(path).unwrap();
            }
        }
    }
}

fn len_of(file: &File) -> u64 {
    file.metadata().unwrap().len()
}

fn is_sealed(file: &File) -> bool {
    let seals = rustix::fs::fcntl_get_seals(file).unwrap();
    seals.contains(rustix::fs::SealFlags::SHRINK)
}

/// Whether the image is a region; panics if it is something in between.
fn is_finished(image: &[u8]) -> bool {
    let scratch = Scratch::new(image);
    let own = || OwnedFd::from(File::from(scratch.fd().try_clone_to_owned().unwrap()));
    let mut finished = [Access::ReadOnly, Access::ReadWrite].map(|access| {
        match Region::from_fd(own(), Options::new().access(access)) {
            Ok(region) => {
                assert_eq!(region.get(b"key").unwrap(), None);
                assert!(region.is_empty());
                true
            }
            Err(AttachError::Unfinished) => false,
            Err(error) => panic!("a half-made region is refused with: {error}"),
        }
    });
    finished.sort_unstable();
    assert_eq!(finished[0], finished[1], "who attaches makes a difference");
    if finished[0] {
        let region = attach(&scratch, Access::ReadWrite).unwrap();
        region.set(b"key", b"value").unwrap();
        assert_eq!(region.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
        audit(&region).unwrap();
    }
    finished[0]
}

/// The child's part.
pub(crate) fn play_birth() {
    let config = Config::new(LEN).shards(1).sessions(8);
    be_traced();
    let region = Region::create(&config, Options::new()).unwrap();
    mark();
    harness::report("done");
    drop(region);
}
