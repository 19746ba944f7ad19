//! `lock` and `elect`: held, released, killed, lost.

use super::{broker, run, Running};
use crate::harness::{wait_until, Watchdog};
use rustix::process::Signal;
use std::fs;

/// Whether a process is gone, or only a name that nobody asked for yet.
fn is_gone(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn a_command_runs_under_the_lock_and_its_exit_code_is_passed_on() {
    let _watchdog = Watchdog::new("cli::lock", 120);
    let broker = broker();
    let locked = |script: &'static str| run(&broker, &["lock", "l", "--", "sh", "-c", script]);
    let token = |text: &str| text.trim().parse::<u64>().unwrap();
    let first = token(locked("echo $GANGER_LOCK_TOKEN").text());
    assert!(token(locked("echo $GANGER_LOCK_TOKEN").text()) > first);
    assert_eq!(locked("exit 7").code, 7);
    assert_eq!(locked("kill -9 $$").code, 137);
    let missing = run(&broker, &["lock", "l", "--", "/no/such/program"]);
    missing.fails(127, "can't run");
    run(&broker, &["lock", "l", "--", "/"]).fails(126, "can't run");

    let mut holder = Running::start(
        &broker,
        &["lock", "l", "--", "sh", "-c", "echo held; exec sleep 600"],
    );
    assert_eq!(holder.line(), "held");
    let taken = ["lock", "l", "--no-wait", "--", "true"];
    run(&broker, &taken).fails(1, "others hold l");
    run(&broker, &["lock", "l", "--wait", "50ms", "--", "true"]).fails(1, "others hold l");
    assert!(run(&broker, &["leases"]).text().contains("broker-cli"));
    holder.signal(Signal::TERM);
    assert_eq!(holder.end(), (Some(143), String::new()));
    run(&broker, &taken).text();
}

#[test]
fn a_killed_holder_takes_its_command_along_and_the_lock_is_free() {
    let _watchdog = Watchdog::new("cli::killed", 120);
    let broker = broker();
    let mut holder = Running::start(
        &broker,
        &["lock", "l", "--", "sh", "-c", "echo $$; exec sleep 600"],
    );
    let pid = holder.line();
    assert!(!is_gone(&pid));
    let mut next = Running::start(&broker, &["lock", "l", "--", "echo", "next"]);
    holder.signal(Signal::KILL);
    assert_eq!(next.line(), "next");
    wait_until("the command to be killed", || is_gone(&pid));
    assert_eq!(next.end(), (Some(0), String::new()));
}

#[test]
fn signals_reach_the_command_under_the_lock() {
    let _watchdog = Watchdog::new("cli::forwarded", 120);
    let broker = broker();
    for (name, signal) in [
        ("TERM", Signal::TERM),
        ("INT", Signal::INT),
        ("USR1", Signal::USR1),
    ] {
        let script = format!("trap 'exit 9' {name}; echo ready; while :; do sleep 0.05; done");
        let mut holder = Running::start(&broker, &["lock", "l", "--", "sh", "-c", &script]);
        assert_eq!(holder.line(), "ready");
        holder.signal(signal);
        assert_eq!(holder.end(), (Some(9), String::new()), "{name}");
    }
}

#[test]
fn a_lock_that_is_lost_ends_the_command() {
    let _watchdog = Watchdog::new("cli::lost", 120);
    let broker = broker();
    let mut holder = Running::start(
        &broker,
        &[
            "lock",
            "l",
            "--ttl",
            "200ms",
            "--",
            "sh",
            "-c",
            "echo $$; exec sleep 600",
        ],
    );
    let pid = holder.line();
    holder.signal(Signal::STOP);
    run(&broker, &["lock", "l", "--", "true"]).text();
    holder.signal(Signal::CONT);
    let (code, said) = holder.end();
    assert_eq!(code, Some(4));
    assert!(said.contains("l was lost"), "{said}");
    wait_until("the command to end", || is_gone(&pid));
}

#[test]
fn one_leads_and_those_who_look_see_who() {
    let _watchdog = Watchdog::new("cli::elect", 120);
    let broker = broker();
    let mut seen = Running::start(&broker, &["elect", "s", "--observe"]);
    assert_eq!(seen.line(), "nobody");
    let mut first = Running::start(&broker, &["elect", "s", "--value", "here"]);
    assert!(first.line().starts_with("leading s, token "));
    let leader = seen.line();
    assert!(leader.starts_with("broker-cli (process ") && leader.ends_with("  here"));
    let mut second = Running::start(&broker, &["elect", "s", "--", "echo", "second"]);
    first.signal(Signal::INT);
    assert_eq!(second.line(), "second");
    assert_eq!(first.end(), (Some(130), String::new()));
    assert_eq!(second.end(), (Some(0), String::new()));
    seen.signal(Signal::TERM);
    assert_eq!(seen.end(), (Some(143), String::new()));
}
