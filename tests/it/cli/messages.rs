//! Verbs on messages and requests.

use super::{broker, fed, run, Running};
use crate::brokers::Broker;
use crate::harness::{wait_until, Watchdog};
use rustix::process::Signal;

/// Waits until so many listen to a pattern.
fn wait_for_subscribers(broker: &Broker, pattern: &str, count: usize) {
    wait_until("subscribers", || {
        let topics = run(broker, &["topics", "--subscribers"]);
        let is_one = |line: &&str| line.starts_with(&format!("{pattern} "));
        topics.text().lines().filter(is_one).count() == count
    });
}

#[test]
fn messages_arrive_as_lines_as_json_and_as_they_are() {
    let _watchdog = Watchdog::new("cli::publish", 120);
    let broker = broker();
    let mut lines = Running::start(&broker, &["subscribe", "a.*", "-n", "3", "--headers"]);
    let mut json = Running::start(&broker, &["--json", "subscribe", "a.>", "-n", "3"]);
    let mut raw = Running::start(
        &broker,
        &["--raw", "subscribe", "a.b", "-n", "2", "--payload"],
    );
    let mut tap = Running::start(&broker, &["--json", "tap", "-n", "3"]);
    wait_for_subscribers(&broker, "a.*", 1);
    wait_for_subscribers(&broker, "a.>", 1);
    wait_for_subscribers(&broker, "a.b", 1);
    wait_until("the tap", || {
        let metrics = run(&broker, &["metrics"]);
        metrics.text().contains("\nganger_broker_taps 1\n")
    });
    run(&broker, &["publish", "a.b", "7 pears", "-H", "zone=eu"]).text();
    let acknowledged = fed(&broker, b"\xff\n", &["publish", "a.b", "-", "--ack"]);
    assert_eq!(acknowledged.text(), "3\n");
    assert_eq!(
        fed(&broker, b"one\ntwo", &["publish", "a.c", "--lines"]).text(),
        ""
    );
    assert_eq!(lines.line(), "a.b #1 7 pears  zone=eu");
    assert_eq!(lines.line(), r"a.b #2 \xff\n");
    assert_eq!(lines.line(), "a.c #3 one");
    for reader in [&mut json, &mut tap] {
        let first = reader.line();
        let wanted = r#","payload":"7 pears","headers":{"zone":"eu"}"#;
        assert!(first.contains(wanted), "{first}");
        assert!(reader.line().contains(r#""payload_base64":"/wo=""#));
        assert!(reader.line().contains(r#""subject":"a.c""#));
    }
    let mut bytes = Vec::new();
    let from = raw.lines.as_mut().unwrap();
    std::io::Read::read_to_end(from, &mut bytes).unwrap();
    assert_eq!(bytes, b"7 pears\xff\n");
    for mut ended in [lines, json, raw, tap] {
        assert_eq!(ended.end(), (Some(0), String::new()));
    }
}

#[test]
fn the_retained_message_comes_to_those_who_are_late() {
    let _watchdog = Watchdog::new("cli::retain", 120);
    let broker = broker();
    run(&broker, &["publish", "config", "v1", "--retain"]).text();
    let late = run(
        &broker,
        &["subscribe", "config", "--last", "0", "-n", "1", "--payload"],
    );
    assert_eq!(late.text(), "v1\n");
    let nothing = run(
        &broker,
        &["subscribe", "other", "-n", "1", "--idle", "50ms"],
    );
    nothing.fails(4, "no message");
    run(&broker, &["subscribe", "a..b"]).fails(2, "token");
}

#[test]
fn requests_are_answered_by_values_and_commands_and_failures_are_told() {
    let _watchdog = Watchdog::new("cli::request", 120);
    let broker = broker();
    run(&broker, &["request", "upper", "x"]).fails(4, "nobody answers");
    let mut upper = Running::start(
        &broker,
        &["reply", "upper", "-n", "2", "--", "tr", "a-z", "A-Z"],
    );
    let mut failing = Running::start(
        &broker,
        &["reply", "fails", "-n", "1", "--", "sh", "-c", "exit 3"],
    );
    let mut fixed = Running::start(&broker, &["reply", "version", "1.2", "-n", "1"]);
    for pattern in ["upper", "fails", "version"] {
        wait_for_subscribers(&broker, pattern, 1);
    }
    assert_eq!(run(&broker, &["request", "upper", "pears"]).text(), "PEARS");
    let bytes = fed(&broker, b"a\0\xff", &["request", "upper", "-"]);
    assert_eq!((bytes.code, &*bytes.out), (0, &b"A\0\xff"[..]));
    run(&broker, &["request", "fails"]).fails(4, "exit status: 3");
    let json = run(&broker, &["--json", "request", "version"]);
    assert_eq!(json.text(), "{\"payload\":\"1.2\",\"headers\":{}}\n");
    for ended in [&mut upper, &mut failing, &mut fixed] {
        assert_eq!(ended.end(), (Some(0), String::new()));
    }
}

#[test]
fn who_waits_for_messages_ends_on_a_signal_and_says_nothing() {
    let _watchdog = Watchdog::new("cli::signals", 120);
    let broker = broker();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut subscriber = Running::start(&broker, &["subscribe", ">"]);
        wait_for_subscribers(&broker, ">", 1);
        subscriber.signal(signal);
        assert_eq!(subscriber.end(), (Some(code), String::new()));
        wait_for_subscribers(&broker, ">", 0);
    }
}
