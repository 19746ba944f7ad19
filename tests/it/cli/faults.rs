//! What goes wrong: each with its exit code and one line.

use super::{broker, command, fed, region, run, Run};
use crate::brokers::Broker;
use crate::harness::{wait_until, Watchdog};
use crate::regions::Name;
use ganger_client::{Config, Kv};
use rustix::process::Signal;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

#[test]
fn no_broker_is_told_with_where_it_was_looked_for() {
    let _watchdog = Watchdog::new("cli::no_broker", 120);
    let idle = Broker::idle(&[]);
    let missing = idle.home.join("missing");
    for verb in [
        &["get", "k"][..],
        &["set", "k", "v"],
        &["publish", "a", "b"],
        &["topics"],
    ] {
        let socket = idle.socket();
        run(&idle, verb).fails(3, socket.to_str().unwrap());
        let run = Run::of(command(&missing).args(verb), b"");
        run.fails(3, missing.to_str().unwrap());
    }
    let link = idle.home.join("link");
    std::os::unix::fs::symlink(&idle.home, &link).unwrap();
    Run::of(command(&link).args(["get", "k"]), b"").fails(3, "symbolic link");
    fs::set_permissions(&idle.home, Permissions::from_mode(0o777)).unwrap();
    run(&idle, &["get", "k"]).fails(3, "written to by others");
    let long = idle.home.join("h".repeat(200));
    Run::of(command(&long).args(["get", "k"]), b"").fails(3, "too long");
}

#[test]
fn a_killed_broker_leaves_its_socket_and_a_named_region_is_there_without_one() {
    let _watchdog = Watchdog::new("cli::killed_broker", 120);
    let mut broker = broker();
    broker.kill();
    run(&broker, &["get", "k"]).fails(3, "no broker at ");
    let name = Name::new("cli");
    let with = |rest: &[&'static str]| {
        let region = ["--region", name.as_str()];
        run(&broker, &[&region[..], rest].concat())
    };
    with(&["get", "k"]).fails(3, "no region named");
    let kv = Kv::create_named(name.as_str(), Config::new(4 << 20)).unwrap();
    with(&["set", "k", "v"]).text();
    assert_eq!(kv.get("k").unwrap(), Some(b"v".to_vec()));
    assert_eq!(with(&["get", "k"]).text(), "v");
    assert_eq!(with(&["audit"]).text(), "sound: 1 entry\n");
    assert!(with(&["stats"]).text().starts_with("region  1 entry,"));
    let by_environment = Run::of(
        command(&broker.home)
            .env("GANGER_REGION", name.as_str())
            .args(["get", "k"]),
        b"",
    );
    assert_eq!(by_environment.text(), "v");
}

#[test]
fn keys_go_on_while_the_broker_is_stopped() {
    let _watchdog = Watchdog::new("cli::stopped", 120);
    let broker = broker();
    run(&broker, &["set", "k", "v"]).text();
    broker.signal(Signal::STOP);
    let got = run(&broker, &["-v", "get", "k"]);
    assert_eq!((got.code, &*got.out), (0, &b"v"[..]));
    assert!(got.err.contains("does not answer"), "{}", got.err);
    run(&broker, &["set", "k", "w"]).text();
    let socket = ["--socket", "--timeout", "100ms", "get", "k"];
    run(&broker, &socket).fails(3, "said nothing");
    broker.signal(Signal::CONT);
    wait_until("the broker to go on", || run(&broker, &socket).out == b"w");
}

#[test]
fn wrong_use_is_told_in_one_line() {
    let _watchdog = Watchdog::new("cli::usage", 120);
    let broker = broker();
    let key = "k".repeat(1025);
    for (arguments, why) in [
        (&["get", &key][..], "keys are 1 to 1024 bytes"),
        (&["--socket", "get", &key], "1024 bytes"),
        (&["set", &key, "v"], "keys are 1 to 1024 bytes"),
        (&["get", ""], "at least one byte"),
        (&["-e", "get", r"\0k"], "Ganger's own"),
        (&["-e", "get", r"\q"], "no escape"),
        (&["get"], "<KEY>"),
        (&["set", "k"], "no value"),
        (&["set", "k", "--file", "/no/such/file"], "/no/such/file"),
        (&["set", "k", "v", "--ttl", "soon"], "times are like"),
        (
            &["set", "k", "v", "--if-absent", "--if-present"],
            "cannot be used",
        ),
        (&["expire", "k", "soon"], "times are like"),
        (&["nonsense"], "unrecognized subcommand"),
        (&["get", "k", "--nonsense"], "--nonsense"),
        (&["lock", "l"], "COMMAND"),
        (&["publish", "a", "b", "-H", "zone"], "NAME=VALUE"),
        (&["completions", "cmd"], "cmd"),
    ] {
        run(&broker, arguments).fails(2, why);
    }
    let longest = "k".repeat(1024);
    run(&broker, &["set", &longest, "v"]).text();
    assert_eq!(run(&broker, &["get", &longest]).text(), "v");
    let nothing = run(&broker, &[""; 0]);
    assert!(nothing.code == 2 && nothing.err.contains("Usage: broker-cli"));
}

#[test]
fn a_full_region_and_a_value_too_long_are_told() {
    let _watchdog = Watchdog::new("cli::full", 120);
    let broker = broker();
    let kv = region(&broker);
    let value = vec![7; usize::try_from(kv.value_len_max()).unwrap() + 1];
    fed(&broker, &value, &["set", "long", "-"]).fails(2, "values in this region are up to");
    let mut number = 0;
    while kv.set(format!("fill:{number}"), vec![1; 256 << 10]).is_ok() {
        number += 1;
    }
    for way in [&[][..], &["--socket"]] {
        let more = fed(
            &broker,
            &value[..512 << 10],
            &[way, &["set", "more", "-"]].concat(),
        );
        more.fails(4, "full");
    }
    run(&broker, &["del", "fill:0", "fill:1", "fill:2"]).text();
    fed(&broker, &value[..512 << 10], &["set", "more", "-"]).text();
}

#[test]
fn an_output_that_takes_nothing_is_told_and_one_that_is_closed_is_not() {
    let _watchdog = Watchdog::new("cli::output", 120);
    let broker = broker();
    run(&broker, &["set", "k", "v"]).text();
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let mut to_full = command(&broker.home);
    let status = to_full
        .args(["get", "k"])
        .stdout(full())
        .stderr(Stdio::piped());
    let ended = status.output().unwrap();
    assert_eq!(ended.status.code(), Some(4));
    assert!(String::from_utf8(ended.stderr)
        .unwrap()
        .contains("the output can't be written"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut to_nobody = command(&broker.home);
    let ended = to_nobody
        .args(["get", "k"])
        .stdout(writer)
        .stderr(Stdio::piped());
    let ended = ended.output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr.len()), (Some(0), 0));
}
