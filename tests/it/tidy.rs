//! The mechanical rules of CONTRIBUTING.md, held against the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines a source file may have.
const LINES_MAX: usize = 600;
/// Where `unsafe` may stand: the seam to the operating system, and the tests and benches that play
/// foul.
const UNSAFE_ALLOWED: [&str; 9] = [
    "crates/region/src/areas.rs",
    "crates/region/src/memory.rs",
    "crates/region/src/model.rs",
    "crates/region/src/backing/",
    "crates/region/src/futex.rs",
    "crates/region/src/event.rs",
    "crates/supervisor/",
    "tests/",
    "benches/",
];

#[test]
fn no_source_file_is_too_long() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(
            lines <= LINES_MAX,
            "{path} has {lines} lines: split it where a reader would"
        );
    }
}

/// `docs/region.md` says what a reader needs in so few words that one is written in a hundred lines.
#[test]
fn the_python_reader_has_a_hundred_lines() {
    let reader = root().join("examples/region_reader/region.py");
    let lines = fs::read_to_string(reader).unwrap().lines().count();
    assert!(lines <= 100, "region.py has {lines} lines");
}

#[test]
fn sources_are_ascii_and_fit_the_screen() {
    for (path, text) in sources() {
        for (number, line) in (1..).zip(text.lines()) {
            assert!(line.is_ascii(), "{path}:{number} is not ASCII");
            assert!(
                line.len() <= 110,
                "{path}:{number} has {} columns",
                line.len()
            );
        }
    }
}

#[test]
fn unsafe_stands_only_at_the_seams() {
    for (path, text) in sources() {
        let may = UNSAFE_ALLOWED.iter().any(|place| path.starts_with(place));
        for (number, line) in (1..).zip(text.lines()) {
            let code = line.split("//").next().unwrap_or_default();
            let uses = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait"];
            let found = uses.iter().any(|word| code.contains(word));
            assert!(
                may || !found,
                "{path}:{number} uses unsafe outside the seams"
            );
        }
    }
}

#[test]
fn the_region_names_atomics_through_one_module() {
    for (path, text) in sources() {
        if path.starts_with("crates/region/src") && !path.ends_with("sync.rs") {
            let named = text.contains("std::sync::atomic") || text.contains("core::sync::atomic");
            assert!(
                !named,
                "{path} names atomics itself; crate::sync is the place for that"
            );
        }
    }
}

#[test]
fn nothing_is_left_for_later() {
    for (path, text) in sources().filter(|(path, _)| !path.ends_with("tidy.rs")) {
        for marker in ["todo!(", "unimplemented!(", "FIXME", "XXX", "dbg!("] {
            assert!(!text.contains(marker), "{path} contains {marker}");
        }
    }
}

#[test]
fn every_test_the_specification_names_is_there() {
    let specification = fs::read_to_string(root().join("SPECIFICATION.md")).unwrap();
    let all: String = sources().map(|(_, text)| text).collect();
    let named: Vec<&str> = specification
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| code.split_once("::").map(|_| code))
        .filter_map(|path| path.rsplit("::").next())
        .collect();
    assert!(
        named.len() > 10,
        "the specification names its tests as `module::test`"
    );
    for test in named {
        assert!(
            all.contains(&format!("fn {test}(")),
            "there is no test {test}"
        );
    }
}

/// Path (from the root) and text of every Rust file of ours.
fn sources() -> impl Iterator<Item = (String, String)> {
    let mut folders: Vec<PathBuf> = ["src", "crates", "tests", "benches", "examples"]
        .map(|folder| root().join(folder))
        .into();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 30);
    files.into_iter().map(|path| {
        let name = path
            .strip_prefix(root())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        (name, fs::read_to_string(&path).unwrap())
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
