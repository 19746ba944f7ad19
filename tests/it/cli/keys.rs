//! Verbs on keys: directly in the region, and over the socket.

use super::{broker, broker_with, fed, region, run, Running};
use crate::harness::Watchdog;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;

/// Arguments, exit code, standard output.
type Step<'a> = (&'a [&'a str], i32, &'a str);

const STEPS: &[Step<'_>] = &[
    (&["get", "k"], 1, ""),
    (&["del", "k"], 1, ""),
    (&["ttl", "k"], 1, ""),
    (&["expire", "k", "1h"], 1, ""),
    (&["set", "k", "v", "--if-present"], 1, ""),
    (&["set", "k", "v", "--if-absent"], 0, ""),
    (&["set", "k", "w", "--if-absent"], 1, ""),
    (&["get", "k"], 0, "v"),
    (&["ttl", "k"], 0, "never\n"),
    (&["--json", "ttl", "k"], 0, "{\"ttl_ms\":null}\n"),
    (&["expire", "k", "1h"], 0, ""),
    (&["expire", "k", "1s", "--at-least"], 0, ""),
    (&["set", "k", "v", "--keep-ttl"], 0, ""),
    (&["append", "k", "-7"], 0, "3\n"),
    (&["update", "k", "w", "--if-value", "v-7"], 0, ""),
    (&["update", "k", "x", "--if-value", "v-7"], 1, ""),
    (&["update", "k", "x", "--if-revision", "1"], 1, ""),
    (&["update", "k", "--", "tr", "a-z", "A-Z"], 0, ""),
    (&["update", "k", "--", "sh", "-c", "exit 9"], 9, ""),
    (&["update", "k", "x"], 2, ""),
    (&["get", "k"], 0, "W"),
    (&["expire", "k", "never"], 0, ""),
    (&["ttl", "k"], 0, "never\n"),
    (&["del", "k", "l"], 0, "1\n"),
    (&["incr", "n"], 0, "1\n"),
    (&["incr", "n", "-3"], 0, "-2\n"),
    (&["incr", "n", "--", "-3"], 0, "-5\n"),
    (&["get", "n"], 0, "-5\n"),
    (&["scan", "--values"], 0, "n\t-5\n"),
    (&["incr", "n", "-9223372036854775808"], 4, ""),
    (&["set", "t", "x"], 0, ""),
    (&["incr", "t"], 4, ""),
    (&["scan", "--count"], 0, "2\n"),
    (&["--json", "scan", "--count"], 0, "{\"count\":2}\n"),
    (&["del", "n", "t"], 0, "2\n"),
    (&["scan"], 0, ""),
];

#[test]
fn every_verb_on_keys_works_directly_and_over_the_socket() {
    let _watchdog = Watchdog::new("cli::keys", 240);
    let broker = broker();
    for way in [&[][..], &["--socket"]] {
        for (arguments, code, out) in STEPS {
            let done = run(&broker, &[way, arguments].concat());
            let told = (done.code, std::str::from_utf8(&done.out).unwrap());
            assert_eq!(told, (*code, *out), "{arguments:?}: {}", done.err);
            let lines = usize::from(*code != 0 && *code != 9);
            assert_eq!(
                done.err.lines().count(),
                lines,
                "{arguments:?}: {}",
                done.err
            );
        }
    }
    let key = "ttl";
    run(&broker, &["set", key, "x", "--ttl", "1h"]).text();
    run(&broker, &["expire", key, "1s", "--at-least"]).text();
    let left: f64 = run(&broker, &["ttl", key]).text().trim().parse().unwrap();
    assert!(left > 3000.0 && left <= 3600.0, "{left}");
    let direct = run(&broker, &["-v", "get", key]);
    assert!(direct.err.contains("directly"), "{}", direct.err);
    let socket = run(&broker, &["-v", "--socket", "get", key]);
    assert!(socket.err.contains("socket"), "{}", socket.err);
}

#[test]
fn values_of_all_bytes_and_of_megabytes_go_in_and_out_as_they_are() {
    let _watchdog = Watchdog::new("cli::values", 240);
    let broker = broker();
    let all: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    let file = broker.home.join("value");
    fs::write(&file, &all).unwrap();
    let file = file.to_str().unwrap();
    for way in [&[][..], &["--socket"]] {
        let with = |rest: &[&'static str]| [way, rest].concat();
        fed(&broker, &all, &with(&["set", "stdin", "-"])).text();
        run(&broker, &[way, &["set", "file", "--file", file]].concat()).text();
        for key in ["stdin", "file"] {
            let got = run(&broker, &[way, &["get", key]].concat());
            assert!(got.code == 0 && got.out == all, "{key} {way:?}");
        }
        assert_eq!(
            fed(&broker, b"\0\xff", &with(&["append", "a", "-"])).text(),
            "2\n"
        );
        let json = run(&broker, &with(&["--json", "get", "a"]));
        assert!(json
            .text()
            .starts_with(r#"{"key":"a","value_base64":"AP8=","#));
        run(&broker, &with(&["-e", "set", r"\xff\n", r"a\x00\\"])).text();
        assert_eq!(run(&broker, &with(&["-e", "get", r"\xff\n"])).out, b"a\0\\");
        let shown = run(&broker, &with(&["-e", "scan", r"\xff", "--values"]));
        assert_eq!(shown.text(), "\\xff\\n\ta\\x00\\\\\n");
        assert_eq!(run(&broker, &with(&["scan", "a", "--null"])).out, b"a\0");
        fed(&broker, b"", &with(&["set", "empty", "-"])).text();
        assert_eq!(run(&broker, &with(&["get", "empty"])).text(), "");
        run(&broker, &with(&["del", "a", "stdin", "file"])).text();
    }
    // Bytes that are no UTF-8 may stand on the command line as they are.
    let key = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xfe");
    run(&broker, &[OsStr::new("set"), key, key]).text();
    assert_eq!(run(&broker, &[OsStr::new("get"), key]).out, b"\xfe");
}

#[test]
fn values_of_rust_programs_are_shown_as_json_and_made_of_it() {
    let _watchdog = Watchdog::new("cli::msgpack", 120);
    let broker = broker();
    let kv = region(&broker);
    kv.set_typed("cart", &vec![("pears", 7)]).unwrap();
    let shown = run(&broker, &["--msgpack", "get", "cart"]);
    assert_eq!(shown.text(), "[[\"pears\",7]]\n");
    run(&broker, &["--msgpack", "set", "cart", r#"[["bread",1]]"#]).text();
    let cart: Vec<(String, u32)> = kv.get_typed("cart").unwrap().unwrap();
    assert_eq!(cart, [("bread".to_owned(), 1)]);
    kv.set("text", "no\u{7f}").unwrap();
    run(&broker, &["--msgpack", "get", "text"]).fails(4, "no MessagePack");
    run(&broker, &["--msgpack", "set", "text", "{"]).fails(2, "no JSON");
}

#[test]
fn a_scan_of_thousands_of_keys_meets_each_once() {
    let _watchdog = Watchdog::new("cli::scan", 120);
    let broker = broker();
    let kv = region(&broker);
    let mut keys = BTreeSet::new();
    for number in 0..5000 {
        let key = format!("user:{number}");
        kv.set(&key, number.to_string()).unwrap();
        keys.insert(key);
    }
    kv.set("other", "").unwrap();
    for way in [&[][..], &["--socket"]] {
        let found = run(&broker, &[way, &["scan", "user:"]].concat());
        let found: Vec<String> = found.text().lines().map(str::to_owned).collect();
        assert_eq!(found.len(), keys.len());
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), keys);
        let count = run(&broker, &[way, &["scan", "--count"]].concat());
        assert_eq!(count.text(), "5001\n");
        let some = run(&broker, &[way, &["scan", "user:", "-n", "7"]].concat());
        assert_eq!(some.text().lines().count(), 7);
    }
    // Who takes one line and goes is no error.
    let mut reader = Running::start(&broker, &["--json", "scan", "--values"]);
    assert!(reader.line().starts_with("{\"key\":"));
    reader.close();
    assert_eq!(reader.end(), (Some(0), String::new()));
}

#[test]
fn a_watch_shows_a_state_that_is_larger_than_its_queue() {
    let _watchdog = Watchdog::new("cli::large_watch", 120);
    let broker = broker_with(&["--region-size", "256MiB"]);
    let kv = region(&broker);
    let value = vec![b'v'; 1 << 20];
    for number in 0..80 {
        kv.set(format!("a:{number}"), &value).unwrap();
    }
    let mut watch = Running::start(&broker, &["watch", "a:", "--prefix", "-n", "81"]);
    let mut keys = std::collections::HashSet::new();
    for _ in 0..80 {
        let line = watch.line();
        assert!(line.starts_with("entry a:") && line.len() > 1 << 20);
        assert!(keys.insert(line[..14].split(' ').nth(1).unwrap().to_owned()));
    }
    kv.set("a:0", "new").unwrap();
    assert!(watch.line().starts_with("set a:0 = new  (revision "));
    assert_eq!(watch.end(), (Some(0), String::new()));
}

#[test]
fn a_watch_shows_the_state_and_then_every_change() {
    let _watchdog = Watchdog::new("cli::watch", 120);
    let broker = broker();
    run(&broker, &["set", "k", "old"]).text();
    let mut watch = Running::start(&broker, &["watch", "k", "-n", "4"]);
    assert!(watch.line().starts_with("entry k = old  (revision "));
    let mut json = Running::start(&broker, &["--json", "watch", "", "--prefix"]);
    assert!(json
        .line()
        .starts_with(r#"{"event":"entry","key":"k","value":"old","#));
    run(&broker, &["-e", "set", "k", r"new\n\xff"]).text();
    assert!(watch.line().starts_with(r"set k = new\n\xff  (revision "));
    assert!(json
        .line()
        .starts_with(r#"{"event":"set","key":"k","value_base64":"#));
    run(&broker, &["del", "k"]).text();
    assert!(watch.line().starts_with("delete k  (revision "));
    run(&broker, &["incr", "k", "5"]).text();
    assert!(watch.line().starts_with("set k = 5  (revision "));
    assert_eq!(watch.end(), (Some(0), String::new()));
}
