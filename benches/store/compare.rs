//! Every operation, pattern and number of processes at values of 64 bytes; then get and set of
//! values of every size; then single operations at a steady pace.

use crate::histogram::Histogram;
use crate::report::{Limit, Report, Spread};
use crate::sides::{Contents, Filling, Operation};
use crate::stores::{Kind, Side};
use crate::work::{Board, Job, Seen, Task};
use crate::workload::Pattern;
use crate::Effort;
use std::time::Duration;

const SIZES: [usize; 9] = [
    16,
    64,
    256,
    1 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
];
/// Bytes that all values of a store have together at most.
const VALUES_BYTES: usize = 64 << 20;
/// Operations per second of the one process that keeps to a pace.
const PACE: u32 = 5000;

pub(crate) fn run(report: &mut Report, effort: &Effort) {
    let kinds = installed(report);
    let board = &Board::new();
    if effort.wants("operations") {
        for contents in [Contents::Values, Contents::Counters] {
            let mut sides = start(&kinds, board, &Filling::usual(contents));
            operations(report, effort, board, &mut sides, contents);
        }
    }
    if effort.wants("steady") {
        // Sixteen at once are more work than one.
        let kinds = kinds.iter().copied();
        let kinds: Vec<Kind> = kinds.filter(|kind| *kind != Kind::RedisPipelined).collect();
        let mut sides = start(&kinds, board, &Filling::usual(Contents::Values));
        steady(report, effort, board, &mut sides);
    }
    if effort.wants("sizes") {
        for value_len in SIZES {
            let filling = Filling {
                contents: Contents::Values,
                keys: (VALUES_BYTES / value_len).min(100_000) as u64,
                value_len,
            };
            let mut sides = start(&kinds, board, &filling);
            size(report, effort, board, &mut sides, value_len);
        }
    }
}

/// Whether a get from the mapped region is at least as fast as one from Redis, which no noise can
/// change; `None` without Redis.
pub(crate) fn check(report: &mut Report, effort: &Effort) -> Option<bool> {
    let kinds = [Kind::Region, Kind::Redis];
    if kinds.iter().any(|kind| kind.lacks().is_some()) {
        return None;
    }
    let board = &Board::new();
    let mut sides = start(&kinds, board, &Filling::usual(Contents::Values));
    let job = Job {
        task: Task::One(Operation::Get),
        pattern: Pattern::Uniform,
        interval: None,
    };
    let rounds = measure(effort, board, &mut sides, 1, job, effort.slice);
    judge(report, &sides, &rounds);
    Some(report.is_every_target_met())
}

/// The kinds that can take part here.
fn installed(report: &mut Report) -> Vec<Kind> {
    let is_there = |kind: &Kind| match kind.lacks() {
        None => true,
        Some(package) => {
            let name = kind.name();
            report.note(format!("{name} is left out: apt-get install {package}"));
            false
        }
    };
    Kind::ALL.into_iter().filter(is_there).collect()
}

fn start(kinds: &[Kind], board: &Board, filling: &Filling) -> Vec<Side> {
    let start = |kind: &Kind| Side::start(*kind, board, filling);
    kinds.iter().map(start).collect()
}

fn operations(
    report: &mut Report,
    effort: &Effort,
    board: &Board,
    sides: &mut [Side],
    contents: Contents,
) {
    for task in Task::ALL {
        let of = match task {
            Task::One(operation) => operation.contents(),
            Task::GetMany => Contents::Values,
        };
        // Sixteen times the same key are no batch.
        let patterns = Pattern::ALL.into_iter().filter(|pattern| {
            of == contents && !(task == Task::GetMany && *pattern == Pattern::Hot)
        });
        for pattern in patterns {
            for processes in [1, 2, 4] {
                let job = Job {
                    task,
                    pattern,
                    interval: None,
                };
                let rounds = measure(effort, board, sides, processes, job, effort.slice);
                let (name, pattern) = (task.name(), pattern.name());
                let what = format!("{name}, {pattern}, 64 B, {}", processes_text(processes));
                tell(report, &what, sides, &rounds);
                if (task, job.pattern, processes)
                    == (Task::One(Operation::Get), Pattern::Uniform, 1)
                {
                    judge(report, sides, &rounds);
                }
            }
        }
    }
}

/// What no noise may change, if anything here means something.
fn judge(report: &mut Report, sides: &[Side], rounds: &[Vec<Seen>]) {
    let rate = |kind: Kind| -> Option<Vec<f64>> {
        let side = sides.iter().position(|side| side.kind == kind)?;
        Some(rounds[side].iter().map(|seen| seen.per_second).collect())
    };
    if let (Some(ganger), Some(redis)) = (rate(Kind::Region), rate(Kind::Redis)) {
        report.target(
            "get, uniform, 64 B, 1 process: ganger region / redis",
            "x",
            Spread::of_ratio(&ganger, &redis),
            Limit::AtLeast(1.0),
        );
    }
}

fn size(report: &mut Report, effort: &Effort, board: &Board, sides: &mut [Side], value_len: usize) {
    for operation in [Operation::Get, Operation::Set] {
        let job = Job {
            task: Task::One(operation),
            pattern: Pattern::Uniform,
            interval: None,
        };
        let rounds = measure(effort, board, sides, 1, job, effort.slice);
        let (name, size) = (operation.name(), bytes_text(value_len));
        for (side, rounds) in sides.iter().zip(&rounds) {
            let times: Vec<f64> = rounds.iter().map(|seen| 1e6 / seen.per_second).collect();
            let what = format!("{name} of {size}, 1 process");
            report.figure(&what, side.kind.name(), "us/op", &times);
            report.on_curve(&format!("{name} by value size"), value_len as f64);
        }
    }
}

/// Latency at a pace that all can keep, counted from when the operation was due.
fn steady(report: &mut Report, effort: &Effort, board: &Board, sides: &mut [Side]) {
    for operation in [Operation::Get, Operation::Set] {
        let job = Job {
            task: Task::One(operation),
            pattern: Pattern::Uniform,
            interval: Some(Duration::from_secs(1) / PACE),
        };
        let length = effort.slice * 4;
        let rounds = measure(effort, board, sides, 1, job, length);
        let what = format!("{} at {PACE}/s, uniform, 64 B", operation.name());
        for (side, rounds) in sides.iter().zip(&rounds) {
            for (name, part) in QUANTILES {
                let times: Vec<f64> = quantiles(rounds, part);
                report.figure(&format!("{what}: {name}"), side.kind.name(), "us", &times);
            }
            let mut all = Histogram::new();
            rounds.iter().for_each(|seen| all.merge(&seen.times));
            report.distribution(&what, side.kind.name(), "ns", all.points());
        }
    }
}

/// Each side once per round; a round before the first is the warm-up.
fn measure(
    effort: &Effort,
    board: &Board,
    sides: &mut [Side],
    processes: usize,
    job: Job,
    length: Duration,
) -> Vec<Vec<Seen>> {
    let mut rounds = vec![Vec::new(); sides.len()];
    for side in sides.iter_mut() {
        side.slice(board, processes, job, length / 4);
    }
    for _ in 0..effort.rounds {
        for (side, rounds) in sides.iter_mut().zip(&mut rounds) {
            rounds.push(side.slice(board, processes, job, length));
        }
    }
    rounds
}

const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

fn quantiles(rounds: &[Seen], part: f64) -> Vec<f64> {
    let quantile = |seen: &Seen| seen.times.quantile(part) / 1e3;
    rounds.iter().map(quantile).collect()
}

fn tell(report: &mut Report, what: &str, sides: &[Side], rounds: &[Vec<Seen>]) {
    let names = sides.iter().map(|side| side.kind.name());
    tell_all(report, what, &names.collect::<Vec<_>>(), rounds);
}

/// The figures of some sides, the first of which is ganger's.
pub(crate) fn tell_all(report: &mut Report, what: &str, names: &[&str], rounds: &[Vec<Seen>]) {
    let rate =
        |rounds: &[Seen]| -> Vec<f64> { rounds.iter().map(|seen| seen.per_second / 1e3).collect() };
    let ganger = rate(&rounds[0]);
    for (name, rounds) in names.iter().zip(rounds) {
        let rates = rate(rounds);
        let ratio = Spread::of_ratio(&rates, &ganger);
        let operations = format!("{what}: operations");
        report.figure_with_ratio(&operations, name, "k/s", &rates, ratio);
        for (quantile, part) in QUANTILES {
            let times = quantiles(rounds, part);
            report.figure(&format!("{what}: {quantile}"), name, "us", &times);
        }
        let cpu: Vec<f64> = rounds.iter().map(|seen| seen.cpu_us).collect();
        report.figure(&format!("{what}: CPU"), name, "us/op", &cpu);
    }
}

fn processes_text(processes: usize) -> String {
    match processes {
        1 => "1 process".to_owned(),
        more => format!("{more} processes"),
    }
}

fn bytes_text(bytes: usize) -> String {
    match bytes {
        mib if mib >= 1 << 20 => format!("{} MiB", mib >> 20),
        kib if kib >= 1 << 10 => format!("{} KiB", kib >> 10),
        few => format!("{few} B"),
    }
}
