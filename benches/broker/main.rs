//! `cargo bench --bench broker`: ganger's broker beside Redis, nats-server and ZeroMQ.
//!
//! Every publisher, subscriber, asker and answerer is a process of its own, and the systems take
//! turns within each round. Like is compared with like: `ganger`, through the `Client` that its users
//! have, with `redis-rs`, the client of Redis's users; `ganger, bare socket` with `redis`, both with
//! hand-written clients that do no more than they must, as NATS and ZeroMQ have them too. Systems that are
//! not installed are left out (Debian's packages: `redis-server nats-server libzmq3-dev`).
//!
//! Options, after `--`: `--quick` for short slices, `--only NAME` for what has NAME in its name
//! (`stream`, `latency`, `request`, `store`, `stopped`, `idle`, `command`, `profile`, `scaling`), `--json
//! FILE`, `--markdown`.

// Whatever fails here ends the benchmark, and its numbers are far from where these casts would
// hurt.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod bare;
mod ganger;
mod hop;
mod link;
mod measure;
mod nats;
mod profile;
mod redis;
mod redis_rs;
#[path = "../report.rs"]
mod report;
mod roles;
mod scaling;
mod zeromq;

use link::System;
use report::Report;
use std::process::ExitCode;
use std::time::Duration;

/// How much is measured, and how long.
pub(crate) struct Effort {
    pub(crate) is_quick: bool,
    pub(crate) rounds: usize,
    /// Length of one measurement of one side.
    pub(crate) slice: Duration,
    only: Option<String>,
}

impl Effort {
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        // `cargo bench` passes an argument, `cargo test --all-targets` does not: that is no time
        // to measure.
        None => println!("nothing measured; run: cargo bench --bench broker"),
        Some("--role") => roles::play(&words[1..]),
        Some(_) => return measure_all(words),
    }
    ExitCode::SUCCESS
}

fn measure_all(words: Vec<String>) -> ExitCode {
    let mut effort = Effort {
        is_quick: false,
        rounds: 7,
        slice: Duration::from_secs(2),
        only: None,
    };
    let (mut json, mut markdown) = (None, false);
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            // What cargo passes to every benchmark.
            "--bench" => {}
            "--quick" => {
                effort.is_quick = true;
                effort.rounds = 3;
                effort.slice = Duration::from_millis(500);
            }
            "--only" => effort.only = words.next(),
            "--json" => json = words.next(),
            "--markdown" => markdown = true,
            other => {
                eprintln!("what is {other}? See benches/broker/main.rs");
                return ExitCode::from(2);
            }
        }
    }
    let mut report = Report::default();
    let mut systems = measure::installed(&mut report);
    measure::streams(&mut report, &effort, &systems);
    measure::requests(&mut report, &effort, &systems);
    measure::store(&mut report, &effort, &systems);
    measure::stopped(&mut report, &effort);
    measure::rest(&mut report, &effort);
    // What is left is about servers, whatever client they have.
    systems.retain(|system| !matches!(system, System::GangerBare | System::RedisRs));
    profile::run(&mut report, &effort, &systems);
    scaling::fan_out(&mut report, &effort, &systems);
    report.print(markdown);
    if let Some(path) = json {
        if let Err(error) = report.write_json(&path) {
            eprintln!("{path}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
