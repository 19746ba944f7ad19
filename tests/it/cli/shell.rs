//! What is for people and their shells: help, completions, the repl, listings.

use super::{broker, fed, region, run};
use crate::harness::Watchdog;

const VERBS: [&str; 29] = [
    "get",
    "set",
    "del",
    "incr",
    "append",
    "ttl",
    "expire",
    "scan",
    "watch",
    "update",
    "publish",
    "subscribe",
    "request",
    "reply",
    "lock",
    "elect",
    "topics",
    "clients",
    "leases",
    "stats",
    "metrics",
    "tap",
    "top",
    "snapshot",
    "restore",
    "audit",
    "bench",
    "repl",
    "completions",
];

#[test]
fn every_verb_has_help_with_examples_and_is_completed() {
    let _watchdog = Watchdog::new("cli::help", 120);
    let broker = broker();
    let all = run(&broker, &["--help"]);
    for verb in VERBS {
        assert!(all.text().contains(&format!("\n  {verb} ")), "{verb}");
        let help = run(&broker, &["help", verb]);
        assert!(help.text().contains("Examples:"), "{verb}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&broker, &["completions", shell]);
        for word in VERBS.into_iter().chain(["if-absent"]) {
            assert!(script.text().contains(word), "{shell} does not know {word}");
        }
    }
}

#[test]
fn a_script_runs_in_the_repl_and_a_failed_line_stops_nothing() {
    let _watchdog = Watchdog::new("cli::repl", 120);
    let broker = broker();
    let script = b"set k 'a value'\n# nothing\n\nget nope\nincr n 3\n--json get n\n\
          '\nscan --count\nexit\nget k\n";
    let done = fed(&broker, script, &["repl"]);
    let out = String::from_utf8(done.out).unwrap();
    assert!(
        out.starts_with("3\n{\"key\":\"n\",\"value\":3,\"revision\":"),
        "{out}"
    );
    assert!(out.ends_with("\"ephemeral\":false}\n2\n"), "{out}");
    assert_eq!(done.code, 2);
    let told: Vec<&str> = done.err.lines().collect();
    assert_eq!(
        told,
        [
            "broker-cli: nope is not there",
            "broker-cli: a quote is not closed"
        ]
    );
    assert_eq!(run(&broker, &["get", "k"]).text(), "a value");
    let sound = fed(&broker, b"publish a b\ntopics\n", &["--socket", "repl"]);
    assert!(sound.text().starts_with("TOPIC"));
}

#[test]
fn listings_are_tables_and_json() {
    let _watchdog = Watchdog::new("cli::listings", 120);
    let broker = broker();
    run(&broker, &["set", "k", "v"]).text();
    let clients = run(&broker, &["clients"]);
    assert!(clients
        .text()
        .lines()
        .nth(1)
        .unwrap()
        .contains("broker-cli"));
    let json = run(&broker, &["--json", "clients"]);
    assert!(json.text().contains(r#""name":"broker-cli""#));
    run(&broker, &["clients", "--disconnect", "999999"]).fails(1, "no connection");
    assert!(run(&broker, &["topics"]).text().starts_with("TOPIC"));
    assert!(run(&broker, &["leases"]).text().starts_with("NAME"));
    assert!(run(&broker, &["stats"])
        .text()
        .contains("\nregion  1 entry,"));
    let json = run(&broker, &["--json", "stats"]);
    assert!(json.text().contains(r#""region":{"entries":1,"#));
    let metrics = run(&broker, &["metrics"]);
    assert!(metrics.text().contains("\nganger_broker_connections 1\n"));
    let top = run(&broker, &["--json", "top", "-n", "1", "--every", "10ms"]);
    assert!(top.text().contains(r#""entries":1,"#));
    let top = run(&broker, &["top", "-n", "2", "--every", "10ms"]);
    assert!(top.text().contains("region  1 entry,"));
    // No colours but on a terminal, or when asked for.
    assert!(!top.text().contains('\u{1b}'));
    let colored = run(&broker, &["--color", "always", "topics"]);
    assert!(colored.text().starts_with('\u{1b}'));
}

#[test]
fn a_snapshot_is_restored_and_the_region_is_sound() {
    let _watchdog = Watchdog::new("cli::snapshot", 120);
    let broker = broker();
    run(&broker, &["set", "k", "v"]).text();
    let name = run(&broker, &["snapshot"]).text().trim().to_owned();
    assert!(broker.home.join(&name).is_file());
    run(&broker, &["del", "k"]).text();
    let json = run(&broker, &["--json", "restore", &name]);
    assert!(json.text().contains(r#""entries":1,"#));
    assert_eq!(run(&broker, &["get", "k"]).text(), "v");
    run(&broker, &["restore", "nonsense"]).fails(2, "there are only the snapshots");
    for way in [&[][..], &["--socket"]] {
        let audit = run(&broker, &[way, &["audit"]].concat());
        assert!(audit.text().starts_with("sound: "));
    }
}

#[test]
fn a_bench_measures_and_leaves_nothing() {
    let _watchdog = Watchdog::new("cli::bench", 120);
    let broker = broker();
    let kv = region(&broker);
    let table = run(&broker, &["bench", "--time", "20ms", "--keys", "10"]);
    for what in ["set", "get", "incr", "publish", "request"] {
        assert!(table.text().contains(&format!("\n{what} ")), "{what}");
    }
    let json = run(
        &broker,
        &["--json", "--socket", "bench", "get", "--time", "20ms"],
    );
    assert!(json.text().starts_with(r#"{"what":"get","per_second":"#));
    assert_eq!(kv.len(), 0);
}
