//! `cargo bench --bench store`: shared memory against sockets. Ganger's region beside its own
//! socket, Redis, memcached, LMDB, a table under one mutex and a map within one process.
//!
//! The sides take turns within each round; each has four processes (threads, for the map), of which
//! one, two or four work, wherever the system puts them. Times of single operations are those of
//! one that asks again as soon as it is answered; those at a steady pace are counted from when the
//! operation was due. What is not installed is named and left out.
//!
//! Options, after `--`: `--quick` for short slices, `--only NAME` for what has NAME in its name
//! (`limits`, `operations`, `steady`, `sizes`), `--json FILE`, `--markdown`; and `--check`, which takes
//! a second and fails if a get from the region is slower than one from Redis.

// Whatever fails here ends the benchmark, and its numbers are far from where these casts would
// hurt.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
// The other benchmarks use the rest of what they share with this one.
#![allow(dead_code)]

mod compare;
#[path = "../region/crew.rs"]
mod crew;
mod dash;
#[path = "../broker/ganger.rs"]
mod ganger;
mod histogram;
#[path = "../broker/input.rs"]
mod input;
mod limits;
#[path = "../broker/link.rs"]
mod link;
#[path = "../region/lmdb.rs"]
mod lmdb;
mod memcached;
#[path = "../region/naive.rs"]
mod naive;
#[path = "../options.rs"]
mod options;
#[path = "../broker/redis.rs"]
mod redis;
#[path = "../report.rs"]
mod report;
#[path = "../region/shared.rs"]
mod shared;
#[path = "../region/sides.rs"]
mod sides;
mod stores;
#[path = "../cluster/system.rs"]
mod system;
mod work;
#[path = "../region/workload.rs"]
mod workload;
#[path = "../broker/zeromq.rs"]
mod zeromq;

use options::Options;
use report::Report;
use std::process::ExitCode;
use std::time::Duration;

/// How much is measured, and how long.
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// Length of one measurement of one side.
    pub(crate) slice: Duration,
    options: Options,
}

impl Effort {
    fn of(options: Options) -> Self {
        Self {
            rounds: 5,
            slice: Duration::from_millis(if options.is_quick { 20 } else { 100 }),
            options,
        }
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.options.wants(name)
    }
}

fn main() -> ExitCode {
    let mut is_check = false;
    let options = Options::read("store", |word, _| {
        is_check |= word == "--check";
        Ok(word == "--check")
    });
    let effort = match options {
        Ok(options) => Effort::of(options),
        Err(code) => return code,
    };
    let mut report = Report::default();
    if is_check {
        return check(&mut report, &effort);
    }
    limits::run(&mut report, &effort);
    compare::run(&mut report, &effort);
    effort.options.tell(&report)
}

fn check(report: &mut Report, effort: &Effort) -> ExitCode {
    let is_met = compare::check(report, effort);
    report.print(false);
    match is_met {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => {
            eprintln!("--check needs Redis: apt-get install redis-server");
            ExitCode::from(2)
        }
    }
}
