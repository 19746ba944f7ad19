//! `cargo bench --bench region`: ganger's region beside its peers, and its promises about time and
//! memory.
//!
//! The sides of a comparison take turns within each round, and ratios are taken round by round:
//! whatever else the machine does falls on all of them. Workers are processes of their own, each
//! kept on one processor. Run it on a quiet machine with at least two processors.
//!
//! Options, after `--`: `--quick` for short slices, `--only NAME` for what has NAME in its name
//! (`hot get`, `uniform set`, `neighbour`, `growth`, `takeover`, `footprint`, `get-many`, `scaling`), `--json
//! FILE`, `--markdown`, and `--callgrind get|set|incr OPS`, the bare loop that
//! `scripts/instructions` counts.

// Whatever fails here ends the benchmark, and its numbers are far from where these casts would
// hurt.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod batch;
mod compare;
#[allow(dead_code)] // benches/store uses the rest
mod crew;
mod footprint;
mod growth;
mod instructions;
mod lmdb;
mod naive;
mod neighbour;
#[path = "../options.rs"]
mod options;
#[path = "../report.rs"]
mod report;
mod scaling;
mod shared;
#[allow(dead_code)] // benches/store uses the rest
mod sides;
mod takeover;
#[path = "../witness.rs"]
mod witness;
#[allow(dead_code)] // benches/store uses the rest
mod workload;

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
        let (rounds, slice_ms) = if options.is_quick { (5, 30) } else { (31, 50) };
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
    let mut callgrind = None;
    let options = Options::read("region", |word, more| {
        if word == "--callgrind" {
            let mut next = |what: &str| more.next().ok_or(format!("--callgrind needs {what}"));
            let operation = next("get, set or incr")?;
            let ops: u64 = next("a number")?
                .parse()
                .map_err(|_| "--callgrind needs a number of operations")?;
            callgrind = Some((operation, ops));
        }
        Ok(word == "--callgrind")
    });
    let effort = match options {
        Ok(options) => Effort::of(options),
        Err(code) => return code,
    };
    if let Some((operation, ops)) = callgrind {
        if let Err(error) = instructions::run(&operation, ops) {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
        return ExitCode::SUCCESS;
    }
    let mut report = Report::default();
    compare::run(&mut report, &effort);
    neighbour::run(&mut report, &effort);
    growth::run(&mut report, &effort);
    takeover::run(&mut report, &effort);
    footprint::run(&mut report, &effort);
    batch::run(&mut report, &effort);
    scaling::run(&mut report, &effort);
    let (disturbed, measured) = crew::disturbed();
    if disturbed > 0 {
        report.note(format!(
            "{disturbed} of {measured} measurements of one process alone shared their processor \
             with others: it was not a quiet machine"
        ));
    }
    effort.options.tell(&report)
}
