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
#[path = "../report.rs"]
mod report;
mod scaling;
mod shared;
#[allow(dead_code)] // benches/store uses the rest
mod sides;
mod takeover;
#[allow(dead_code)] // benches/store uses the rest
mod workload;

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

struct Args {
    effort: Effort,
    json: Option<String>,
    markdown: bool,
    callgrind: Option<(String, u64)>,
}

fn main() -> ExitCode {
    // `cargo bench` passes an argument, `cargo test --all-targets` does not: that is no time to
    // measure.
    if std::env::args().len() == 1 {
        println!("nothing measured; run: cargo bench --bench region");
        return ExitCode::SUCCESS;
    }
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if let Some((operation, ops)) = args.callgrind {
        if let Err(error) = instructions::run(&operation, ops) {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
        return ExitCode::SUCCESS;
    }
    let mut report = Report::default();
    compare::run(&mut report, &args.effort);
    neighbour::run(&mut report, &args.effort);
    growth::run(&mut report, &args.effort);
    takeover::run(&mut report, &args.effort);
    footprint::run(&mut report, &args.effort);
    batch::run(&mut report, &args.effort);
    scaling::run(&mut report, &args.effort);
    let (disturbed, measured) = crew::disturbed();
    if disturbed > 0 {
        report.note(format!(
            "{disturbed} of {measured} measurements of one process alone shared their processor \
             with others: it was not a quiet machine"
        ));
    }
    report.print(args.markdown);
    if let Some(path) = args.json {
        if let Err(error) = report.write_json(&path) {
            eprintln!("{path}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut args = Args {
        effort: Effort {
            is_quick: false,
            rounds: 7,
            slice: Duration::from_millis(150),
            only: None,
        },
        json: None,
        markdown: false,
        callgrind: None,
    };
    while let Some(word) = words.next() {
        let mut next = |what: &str| words.next().ok_or(format!("{word} needs {what}"));
        match word.as_str() {
            // What cargo passes to every benchmark.
            "--bench" => {}
            "--quick" => {
                args.effort.is_quick = true;
                args.effort.rounds = 5;
                args.effort.slice = Duration::from_millis(30);
            }
            "--only" => args.effort.only = Some(next("a name")?),
            "--json" => args.json = Some(next("a file")?),
            "--markdown" => args.markdown = true,
            "--callgrind" => {
                let operation = next("get, set or incr")?;
                let ops = next("a number")?.parse();
                let ops = ops.map_err(|_| "--callgrind needs a number of operations")?;
                args.callgrind = Some((operation, ops));
            }
            other => return Err(format!("what is {other}? See benches/region/main.rs")),
        }
    }
    Ok(args)
}
