//! How much memory entries take beyond their keys and values, and how much of it comes back.

use crate::report::{Limit, Report, Spread};
use crate::workload::{key, shuffled, KEY_LEN, VALUE, VALUE_LEN};
use crate::Effort;
use ganger_region::{Config, Options, Region};
use std::fs::File;
use std::os::unix::fs::MetadataExt;

const ENTRIES: u64 = 1_000_000;
const DELETED: u64 = 100_000;

pub(crate) fn run(report: &mut Report, effort: &Effort) {
    if effort.wants("footprint") {
        per_entry(report);
        given_back(report);
    }
}

fn per_entry(report: &mut Report) {
    let region = Region::create(&Config::new(512 << 20), Options::new()).unwrap();
    let empty = Memory::of(&region);
    for index in shuffled(ENTRIES) {
        region.set(&key(index), &VALUE).unwrap();
    }
    let full = Memory::of(&region);
    let payload = (KEY_LEN + VALUE_LEN) as f64;
    let over = |bytes: f64| bytes / ENTRIES as f64 - payload;
    let committed = [over(full.committed - empty.committed)];
    let blocks = [over(full.blocks - empty.blocks)];
    let what = "memory per entry beyond 16 B key + 64 B value, 1M entries";
    report.figure(what, "by stats", "bytes", &committed);
    report.figure(what, "by fstat", "bytes", &blocks);
    let larger = Spread::of(&[committed[0].max(blocks[0])]);
    report.target(what, "bytes", larger, Limit::AtMost(80.0));
}

fn given_back(report: &mut Report) {
    let region = Region::create(&Config::new(64 << 20), Options::new()).unwrap();
    let empty = Memory::of(&region);
    for index in shuffled(DELETED) {
        region.set(&key(index), &VALUE).unwrap();
    }
    let full = Memory::of(&region);
    for index in shuffled(DELETED) {
        assert!(region.delete(&key(index)).unwrap());
    }
    let deleted = Memory::of(&region);
    let megabytes = |bytes: f64| [bytes / f64::from(1 << 20)];
    for (state, memory) in [
        ("empty", empty),
        ("100k entries", full),
        ("all deleted", deleted),
    ] {
        let what = format!("memory of a region, {state}");
        report.figure(&what, "by stats", "MiB", &megabytes(memory.committed));
        report.figure(&what, "by fstat", "MiB", &megabytes(memory.blocks));
    }
    let used = Spread::of(&[deleted.pages_used - empty.pages_used]);
    let what = "pages still in use after deleting 100k entries";
    report.target(what, "pages", used, Limit::AtMost(0.0));
    // A few free pages are kept, so that the next entries need no system call.
    let kept = (deleted.blocks - empty.blocks) / (full.blocks - empty.blocks);
    let returned = Spread::of(&[(1.0 - kept) * 100.0]);
    let what = "memory given back to the system after deleting 100k entries";
    report.target(what, "%", returned, Limit::AtLeast(50.0));
}

/// Bytes, as the region and as the kernel count them.
#[derive(Clone, Copy)]
struct Memory {
    committed: f64,
    blocks: f64,
    pages_used: f64,
}

impl Memory {
    fn of(region: &Region) -> Self {
        let stats = region.stats();
        let file = File::from(region.fd().unwrap().try_clone_to_owned().unwrap());
        Self {
            committed: stats.committed_bytes as f64,
            blocks: (file.metadata().unwrap().blocks() * 512) as f64,
            pages_used: stats.pages_used as f64,
        }
    }
}
