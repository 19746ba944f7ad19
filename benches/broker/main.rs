//! `cargo bench --bench broker`: ganger's broker beside Redis, nats-server and ZeroMQ.
//!
//! Every publisher, subscriber, asker and answerer is a process of its own, and the systems take
//! turns within each round. With Redis, like is compared with like: `ganger`, through the `Client` that
//! its users have, with `redis-rs`, the client of Redis's users; `ganger, bare socket` with `redis`, both
//! with hand-written clients that do no more than they must. NATS and ZeroMQ have such ones too, and are
//! compared with `ganger`. Systems that are not installed are left out (Debian's packages: `redis-server
//! nats-server libzmq3-dev`).
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
mod input;
mod latency;
mod link;
mod measure;
mod nats;
#[path = "../options.rs"]
mod options;
mod profile;
mod redis;
mod redis_rs;
#[path = "../report.rs"]
mod report;
mod roles;
mod scaling;
mod watch;
#[path = "../witness.rs"]
mod witness;
mod zeromq;

use link::System;
use options::Options;
use report::Report;
use std::process::ExitCode;
use std::time::Duration;

/// How much is measured, and how long.
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// Length of one measurement of one side.
    pub(crate) slice: Duration,
    pub(crate) options: Options,
}

impl Effort {
    fn of(options: Options) -> Self {
        let (rounds, slice_ms) = if options.is_quick {
            (3, 500)
        } else {
            (7, 2000)
        };
        Self {
            rounds,
            slice: Duration::from_millis(slice_ms),
            options,
        }
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.options.wants(name)
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "--role") {
        roles::play(&words[1..]);
        return ExitCode::SUCCESS;
    }
    match Options::read("broker", |_, _| Ok(false)) {
        Ok(options) => measure_all(&Effort::of(options)),
        Err(code) => code,
    }
}

fn measure_all(effort: &Effort) -> ExitCode {
    let mut report = Report::default();
    let mut systems = measure::installed(&mut report);
    measure::streams(&mut report, effort, &systems);
    measure::requests(&mut report, effort, &systems);
    measure::store(&mut report, effort, &systems);
    measure::stopped(&mut report, effort);
    measure::rest(&mut report, effort);
    // What is left is about servers, whatever client they have.
    systems.retain(|system| !matches!(system, System::GangerBare | System::RedisRs));
    profile::run(&mut report, effort, &systems);
    scaling::fan_out(&mut report, effort, &systems);
    effort.options.tell(&report)
}
