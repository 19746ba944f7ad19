//! The mechanical rules of CONTRIBUTING.md, held against the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines a source file may have.
const LINES_MAX: usize = 600;
/// Where `unsafe` may stand: the seam to the operating system, and the tests and benches that play
/// foul.
const UNSAFE_ALLOWED: [&str; 10] = [
    "crates/region/src/areas.rs",
    "crates/region/src/memory.rs",
    "crates/region/src/model.rs",
    "crates/region/src/backing/",
    "crates/region/src/futex.rs",
    "crates/region/src/event.rs",
    "crates/region/tests/it/files.rs",
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
    let all: BTreeSet<String> = sources()
        .flat_map(|(path, text)| {
            let tests = tests_of(&text).into_iter();
            let name = |test| format!("{}::{test}", module_of(&path));
            tests.map(name).collect::<Vec<_>>()
        })
        .collect();
    let code = specification.split('`').skip(1).step_by(2);
    let named: Vec<&str> = code.filter(|code| code.contains("::")).collect();
    assert!(
        named.len() > 10,
        "the specification names its tests as `module::test`"
    );
    for test in named {
        // Unit tests stand in a module of their own, as files have it.
        let place = test.replace("::tests::", "::");
        let parts: Vec<&str> = place.rsplit("::").take(2).collect();
        let place = format!("{}::{}", parts[1], parts[0]);
        assert!(all.contains(&place), "there is no test {test}");
    }
}

#[test]
fn only_what_the_test_runner_runs_is_taken_for_a_test() {
    let text = [
        "#[test]",
        "fn plain() {",
        "#[tokio::test(flavor = \"multi_thread\")]",
        "async fn later() {",
        "#[test]",
        "#[ignore]",
        "fn left_out() {",
        "fn helper() {",
        "macro_rules! one_for_each {",
        "    ($($test:ident: $of:ident),*) => {$(",
        "        #[test]",
        "        fn $test() { prove(stringify!($of)); }",
        "    )*};",
        "}",
        "fn prove(of: &str) {",
        "one_for_each!(",
        "    made: of_this,",
        "    made_too,",
        ");",
    ];
    let text = text.join("\n");
    assert_eq!(tests_of(&text), ["plain", "later", "made", "made_too"]);
}

/// The names of the tests in a source file: functions with the attribute, and what its macros make.
fn tests_of(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut tests = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        if *line != "#[test]" && !line.starts_with("#[tokio::test") {
            continue;
        }
        let signature = |line: &&&str| line.starts_with("fn ") || line.starts_with("async fn ");
        let attributes = lines[number..].iter().take_while(|line| !signature(line));
        let is_run = attributes.clone().all(|line| !line.starts_with("#[ignore"));
        let function = lines[number + attributes.count()..].first();
        let name = function
            .and_then(|line| line.split_once("fn ")?.1.split_once('('))
            .map(|(name, _)| name);
        tests.extend(name.filter(|name| is_run && is_name(name)));
    }
    for definition in text.split("macro_rules! ").skip(1) {
        let Some((name, rest)) = definition.split_once(' ') else {
            continue;
        };
        let body = rest.split("\n}").next().unwrap_or_default();
        if !body.contains("#[test]") {
            continue;
        }
        for call in text.split(&format!("\n{name}!(")).skip(1) {
            let items = call.split("\n);").next().unwrap_or_default().lines();
            let names = items.filter_map(|item| item.trim().split([':', ',']).next());
            tests.extend(names.filter(|name| is_name(name)));
        }
    }
    tests
}

fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !text.is_empty() && text.bytes().all(is_part)
}

/// The last part of the name of a file's module, `mod tests` left out.
fn module_of(path: &str) -> &str {
    let mut parts = path.trim_end_matches(".rs").rsplit('/');
    let is_named = |part: &&str| !["mod", "tests"].contains(part);
    parts.find(is_named).unwrap_or_default()
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
