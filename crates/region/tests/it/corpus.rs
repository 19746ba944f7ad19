//! What the fuzzer found worth keeping, run without it.

use crate::bodies::{region_attach, region_ops};
use crate::watchdog::Watchdog;
use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let watchdog = Watchdog::new(target);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let mut count = 0;
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        watchdog.next(path.display().to_string());
        run(&std::fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count > 0, "nothing in {}", folder.display());
}

#[test]
fn the_corpus_of_damaged_regions_is_survived() {
    replay("region_attach", region_attach::run);
}

#[test]
fn the_corpus_of_programs_agrees_with_a_map() {
    replay("region_ops", region_ops::run);
}
