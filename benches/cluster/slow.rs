//! One slow worker: what the policies do to the tail, so that users can choose.

use crate::report::Report;
use crate::sides::{Kind, Side, WORKERS};
use crate::{wrk, Effort};
use std::time::Duration;

/// What a request costs the slow worker, in milliseconds of processor time.
const SLOW_MS: u32 = 2;
const CONNECTIONS: u32 = 16;

pub(crate) fn run(report: &mut Report, effort: &Effort) {
    if !effort.wants("slow") || !wrk::is_installed() {
        return;
    }
    let kinds = [
        Kind::Ganger,
        Kind::GangerShared,
        Kind::ClusterRr,
        Kind::ClusterNone,
    ];
    let sides: Vec<Side> = kinds
        .into_iter()
        .map(|kind| {
            let (side, _) = Side::start(kind, WORKERS, SLOW_MS);
            side.wait_workers();
            side
        })
        .collect();
    for is_kept in [false, true] {
        let what = format!("one slow worker, {}", wrk::use_of_connections(is_kept));
        let mut all = vec![[const { Vec::new() }; 4]; sides.len()];
        for _ in 0..effort.rounds {
            for (side, rounds) in sides.iter().zip(&mut all) {
                let (per_second, outcome) = slice(side, is_kept, effort.slice);
                let values = [per_second, outcome.p50_ms, outcome.p99_ms, outcome.p999_ms];
                for (round, value) in rounds.iter_mut().zip(values) {
                    round.push(value);
                }
            }
        }
        for (side, rounds) in sides.iter().zip(&all) {
            for (name, unit, values) in [
                ("requests", "/s", &rounds[0]),
                ("p50", "ms", &rounds[1]),
                ("p99", "ms", &rounds[2]),
                ("p99.9", "ms", &rounds[3]),
            ] {
                report.figure(&format!("{what}: {name}"), side.kind.name(), unit, values);
            }
        }
    }
}

fn slice(side: &Side, is_kept: bool, time: Duration) -> (f64, wrk::Outcome) {
    let outcome = wrk::load(side.address, CONNECTIONS, is_kept, time);
    (outcome.requests / time.as_secs_f64(), outcome)
}
