//! Writers that do it wrong on purpose: if the method did not catch them, it would prove nothing.

use super::contents::{observe, Expected, Written};
use super::image::{Change, Image, Mapping, Scratch};
use super::operations::value;
use super::verify::{attach, Checker};
use super::STUCK;
use crate::harness::{self, Watchdog};
use crate::tracer::{be_traced, mark, OneProcessor, Stop, Tracee};
use ganger_region::layout::{entry, shard, WORD};
use ganger_region::{Access, Config, Options, Region};

const LEN: usize = 104;
const KEY: &[u8] = b"victim";

/// Overwrites a live value where it is: torn after every word but the last.
#[test]
fn a_value_written_in_place_is_caught_as_torn() {
    let problems = problems_of("tears");
    let torn = problems
        .iter()
        .filter(|problem| problem.contains("torn"))
        .count();
    println!(
        "a value of {} words written in place: torn {torn} times",
        LEN / 8
    );
    assert_eq!(torn, LEN / 8 - 1, "{problems:?}");
    let whole = problems
        .iter()
        .any(|problem| problem.contains("new value, but"));
    assert!(whole, "not one revision for two values: {problems:?}");
}

/// Gives a key that has nothing to do with the write another time to live.
#[test]
fn an_expiry_that_nobody_set_is_caught() {
    expect_caught("ages", "nobody writes");
}

/// Changes the count of entries as if it had the lock.
#[test]
fn a_count_that_is_off_is_caught() {
    expect_caught("miscounts", "entries");
}

/// Takes a page and names it nowhere, without a lock that would tell of it.
#[test]
fn a_page_lost_for_good_is_caught() {
    expect_caught("leaks", "page");
}

/// Clears the slot of a key that has nothing to do with the write.
#[test]
fn a_key_lost_is_caught() {
    expect_caught("forgets", "nobody writes");
}

/// Returns before its write is done.
#[test]
fn a_write_acknowledged_too_early_is_caught() {
    expect_caught("boasts", "acknowledged");
}

fn expect_caught(lie: &'static str, word: &str) {
    let problems = problems_of(lie);
    println!("a writer that {lie}: {problems:?}");
    let caught = problems.iter().any(|problem| problem.contains(word));
    assert!(caught, "a writer that {lie} was not caught: {problems:?}");
}

/// What the checker says about a writer, image by image; nothing about those that are fine.
fn problems_of(lie: &'static str) -> Vec<String> {
    let _watchdog = Watchdog::new(lie, STUCK);
    let _one = OneProcessor::new();
    let config = Config::new(1 << 20).shards(1).sessions(8);
    let region = Region::create(&config, Options::new()).unwrap();
    region.set(KEY, &value("old", LEN)).unwrap();
    region.set(b"bystander", &value("bystander", LEN)).unwrap();
    let mapping = Mapping::new(region.fd().unwrap(), region.declared_len());
    let file = Scratch::new(Image::take(&mapping).bytes());
    drop(region);

    let reader = attach(&file, Access::ReadOnly).unwrap();
    let keys = [KEY.to_vec(), b"bystander".to_vec()];
    let before = observe(&reader, keys.iter()).unwrap();
    let changes = [(KEY.to_vec(), Some(Written::plain(&value("new", LEN))))];
    let mut image = Image::take(&file.mapping);
    let expected = Expected::new(&reader, &image, before, &changes);
    let mut checker = Checker::new(&image, expected);
    let path = harness::path_of(file.fd());
    let mut child = Tracee::start("liar", &[lie.to_owned(), path]);
    let mut problems = Vec::new();
    while child.step() == Stop::Instruction {
        if image.follow(&file.mapping) != Change::None {
            problems.extend(checker.verify(&image).err());
        }
    }
    problems.extend(checker.verify_end(&image).err());
    problems
}

/// The child's part: writes to the region's bytes behind the region's back.
pub(crate) fn play_liar(lie: &str, path: &str) {
    let mapping = Mapping::new(harness::open(path), 1 << 20);
    let image = Image::take(&mapping);
    let (victim, _) = image.find(KEY).unwrap();
    let (bystander, _) = image.find(b"bystander").unwrap();
    let new = value("new", LEN);
    let old = value("old", LEN);
    let block = &image.bytes()[usize::try_from(victim).unwrap()..][..256];
    let start = block.windows(LEN).position(|bytes| bytes == old).unwrap();
    let words: Vec<(u64, u64)> = (victim + start as u64..)
        .step_by(8)
        .zip(
            new.chunks(8)
                .map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap())),
        )
        .collect();
    let page = image.pages().last().unwrap();
    let slot = image.slot_of(b"bystander").unwrap();
    be_traced();
    match lie {
        "tears" => {
            for &(offset, word) in &words {
                mapping.set_word(offset, word);
            }
        }
        "miscounts" => mapping.set_word(image.shard_word(0, shard::ENTRIES), 7),
        // A page of values of the first shard.
        "leaks" => mapping.set_word(image.page_state_offset(page), 6),
        "forgets" => mapping.set_word(slot, 0),
        "ages" => mapping.set_word(bystander + entry::EXPIRES_AT * WORD, 1 << 60),
        "boasts" => {}
        _ => panic!("no lie is called {lie}"),
    }
    mark();
    harness::report("done");
}
