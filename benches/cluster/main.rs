//! `cargo bench --bench cluster`: one app under ganger, node:cluster, PM2 and alone, on two workers.
//!
//! All sides run at once, idle but for the one that is measured, and take turns within each round;
//! ratios are taken round by round: whatever else the machine does falls on all of them. The load
//! is wrk's. What is not installed is named and left out: wrk from the distribution, PM2 by
//! `scripts/fixtures`. Run it on a quiet machine with at least two processors.
//!
//! Options, after `--`: `--quick` for short slices, `--only NAME` for what has NAME in its name
//! (`throughput`, `slow`, `reload under load`, `kill under load`, `start to first`, `kill to
//! replacement`, `status`, `scaling`), `--json FILE`, `--markdown`.

// Whatever fails here ends the benchmark, and its numbers are far from where these casts would
// hurt.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod disturbed;
mod nginx;
#[path = "../options.rs"]
mod options;
#[path = "../report.rs"]
mod report;
mod scaling;
mod sides;
mod slow;
mod starts;
mod system;
mod throughput;
mod wrk;

use options::Options;
use report::Report;
use std::process::ExitCode;
use std::time::Duration;

/// How much is measured, and how long.
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// Length of one measurement of one side.
    pub(crate) slice: Duration,
    /// Starts and kills of each side.
    pub(crate) starts: usize,
    options: Options,
}

impl Effort {
    fn of(options: Options) -> Self {
        let (rounds, seconds, starts) = match options.is_quick {
            true => (3, 2, 7),
            false => (5, 5, 24),
        };
        Self {
            rounds,
            slice: Duration::from_secs(seconds),
            starts,
            options,
        }
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.options.wants(name)
    }
}

fn main() -> ExitCode {
    let effort = match Options::read("cluster", |_, _| Ok(false)) {
        Ok(options) => Effort::of(options),
        Err(code) => return code,
    };
    let mut report = Report::default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    report.note(format!(
        "{processors} processors, {} workers",
        sides::WORKERS
    ));
    throughput::run(&mut report, &effort);
    slow::run(&mut report, &effort);
    disturbed::run(&mut report, &effort);
    starts::run(&mut report, &effort);
    scaling::run(&mut report, &effort);
    effort.options.tell(&report)
}
