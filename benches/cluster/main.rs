//! `cargo bench --bench cluster`: one app under ganger, node:cluster, PM2 and alone, on two workers.
//!
//! All sides run at once, idle but for the one that is measured, and take turns within each round;
//! ratios are taken round by round: whatever else the machine does falls on all of them. The load
//! is wrk's. What is not installed is named and left out: wrk from the distribution, PM2 by
//! `scripts/fixtures`. Run it on a quiet machine with at least two processors.
//!
//! Options, after `--`: `--quick` for short slices, `--only NAME` for what has NAME in its name
//! (`throughput`, `slow`, `reload under load`, `kill under load`, `start`, `kill`, `status`,
//! `scaling`), `--json FILE`, `--markdown`.

// Whatever fails here ends the benchmark, and its numbers are far from where these casts would
// hurt.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod disturbed;
mod nginx;
#[path = "../report.rs"]
mod report;
mod scaling;
mod sides;
mod slow;
mod starts;
mod system;
mod throughput;
mod wrk;

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
}

fn main() -> ExitCode {
    // `cargo bench` passes an argument, `cargo test --all-targets` does not: that is no time to
    // measure.
    if std::env::args().len() == 1 {
        println!("nothing measured; run: cargo bench --bench cluster");
        return ExitCode::SUCCESS;
    }
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let mut report = Report::default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    report.note(format!(
        "{processors} processors, {} workers",
        sides::WORKERS
    ));
    throughput::run(&mut report, &args.effort);
    slow::run(&mut report, &args.effort);
    disturbed::run(&mut report, &args.effort);
    starts::run(&mut report, &args.effort);
    scaling::run(&mut report, &args.effort);
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
            rounds: 5,
            slice: Duration::from_secs(5),
            starts: 24,
            only: None,
        },
        json: None,
        markdown: false,
    };
    while let Some(word) = words.next() {
        let mut next = |what: &str| words.next().ok_or(format!("{word} needs {what}"));
        match word.as_str() {
            // What cargo passes to every benchmark.
            "--bench" => {}
            "--quick" => {
                args.effort.rounds = 3;
                args.effort.slice = Duration::from_secs(2);
                args.effort.starts = 7;
            }
            "--only" => args.effort.only = Some(next("a name")?),
            "--json" => args.json = Some(next("a file")?),
            "--markdown" => args.markdown = true,
            other => return Err(format!("what is {other}? See benches/cluster/main.rs")),
        }
    }
    Ok(args)
}
