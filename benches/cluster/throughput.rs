//! Requests per second, latency, evenness, and what the managers cost.

use crate::report::{Limit, Report, Spread};
use crate::sides::{Kind, Side, WORKERS};
use crate::{system, wrk, Effort};
use std::time::{Duration, Instant};

const CONNECTIONS: u32 = 64;
/// Every side is started so often: where its memory lies and what its processes do first makes as much of a
/// difference as there is between some of them.
const STARTS: usize = 3;

/// What one side did, round by round.
struct Rounds {
    side: Side,
    per_second: Vec<f64>,
    p99_ms: Vec<f64>,
    /// Most loaded worker over least loaded.
    uneven: Vec<f64>,
    errors: f64,
    /// Milliseconds of processor time that its managers use per second, above what they do idle.
    manager_cpu: Vec<f64>,
}

pub(crate) fn run(report: &mut Report, effort: &Effort) {
    if !effort.wants("throughput") && !effort.wants("status") {
        return;
    }
    if !wrk::is_installed() {
        report.note("wrk is not installed: no throughput was measured");
        return;
    }
    let mut all = Vec::new();
    for kind in Kind::ALL {
        if let Some(why) = kind.lacks() {
            report.note(why);
            continue;
        }
        all.push(Rounds::new(start(kind)));
    }
    if effort.wants("throughput") {
        for is_kept in [true, false] {
            measure(report, effort, &mut all, is_kept);
        }
        for rounds in &all {
            tell_memory(report, &rounds.side);
        }
    }
    status(report, effort, &all[0].side);
}

fn measure(report: &mut Report, effort: &Effort, all: &mut [Rounds], is_kept: bool) {
    let what = wrk::use_of_connections(is_kept);
    all.iter_mut().for_each(Rounds::clear);
    // The machine's own pace changes within a minute: short rounds, and many of them. Nobody always
    // comes after the same one.
    let slice = effort.slice.mul_f64(0.4).max(Duration::from_secs(1));
    for again in 0..STARTS {
        for rounds in all.iter_mut() {
            if again > 0 {
                rounds.side = start(rounds.side.kind);
            }
            rounds.warm_up(is_kept);
        }
        for round in 0..effort.rounds {
            for place in 0..all.len() {
                let side = (place + round) % all.len();
                all[side].slice(is_kept, slice);
            }
        }
    }
    let ganger = &all[0];
    for rounds in all.iter() {
        let name = rounds.side.kind.name();
        let ratio = Spread::of_ratio(&rounds.per_second, &ganger.per_second);
        report.figure_with_ratio(
            &format!("{what}: requests"),
            name,
            "/s",
            &rounds.per_second,
            ratio,
        );
        report.figure(&format!("{what}: p99"), name, "ms", &rounds.p99_ms);
        if rounds.side.kind != Kind::Single {
            let what = format!("{what}: most / least loaded");
            report.figure(&what, name, "x", &rounds.uneven);
            let what = what.replace("most / least loaded", "managers' CPU above idle");
            report.figure(&what, name, "ms/s", &rounds.manager_cpu);
        }
        if rounds.errors > 0.0 {
            report.note(format!(
                "{what}, {name}: wrk counted {} errors",
                rounds.errors
            ));
        }
    }
    judge(report, what, all, is_kept);
}

fn start(kind: Kind) -> Side {
    let (side, _) = Side::start(kind, WORKERS, 0);
    side.wait_workers();
    side
}

fn judge(report: &mut Report, what: &str, all: &[Rounds], is_kept: bool) {
    let ganger = &all[0];
    let median = |rounds: &&Rounds| Spread::of(&rounds.per_second).median;
    // nginx starts nothing: what stands before such processes is shown beside, not compared.
    let is_asked = |kind: Kind| !kind.is_ganger() && kind != Kind::Nginx;
    let others = all.iter().filter(|rounds| is_asked(rounds.side.kind));
    let best = others
        .max_by(|a, b| median(a).total_cmp(&median(b)))
        .unwrap();
    let name = best.side.kind.name();
    report.target(
        &format!("{what}: requests of ganger / {name}, the best other"),
        "x",
        Spread::of_ratio(&ganger.per_second, &best.per_second),
        Limit::AtLeast(1.0),
    );
    report.target(
        &format!("{what}: p99 of ganger / {name}"),
        "x",
        Spread::of_ratio(&ganger.p99_ms, &best.p99_ms),
        Limit::AtMost(1.0),
    );
    report.target(
        &format!("{what}: most / least loaded worker of ganger"),
        "x",
        Spread::of(&ganger.uneven),
        Limit::AtMost(if is_kept { 1.6 } else { 1.05 }),
    );
    report.target(
        &format!("{what}: CPU of supervisor and broker above idle"),
        "ms/s",
        Spread::of(&ganger.manager_cpu),
        Limit::AtMost(1.0),
    );
}

fn tell_memory(report: &mut Report, side: &Side) {
    let managers = side.managers();
    if managers.is_empty() {
        return;
    }
    let resident: f64 = managers.iter().map(|pid| system::resident_mib(*pid)).sum();
    report.figure(
        "managers' resident memory",
        side.kind.name(),
        "MiB",
        &[resident],
    );
    if side.kind == Kind::Ganger {
        let what = "resident memory of supervisor and broker";
        report.target(what, "MiB", Spread::of(&[resident]), Limit::Below(12.0));
    }
}

fn status(report: &mut Report, effort: &Effort, side: &Side) {
    if !effort.wants("status") {
        return;
    }
    let times: Vec<f64> = (0..effort.starts * 3)
        .map(|_| {
            let started = Instant::now();
            assert!(side.ganger(&["status"]), "ganger status works");
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    report.figure("ganger status", "ganger", "ms", &times);
    report.target(
        "ganger status",
        "ms",
        Spread::of(&times),
        Limit::Below(10.0),
    );
}

impl Rounds {
    fn new(side: Side) -> Self {
        Self {
            side,
            per_second: Vec::new(),
            p99_ms: Vec::new(),
            uneven: Vec::new(),
            errors: 0.0,
            manager_cpu: Vec::new(),
        }
    }

    fn clear(&mut self) {
        self.per_second.clear();
        self.p99_ms.clear();
        self.uneven.clear();
        self.manager_cpu.clear();
        self.errors = 0.0;
    }

    fn warm_up(&self, is_kept: bool) {
        let second = Duration::from_secs(1);
        wrk::load(self.side.address, CONNECTIONS, is_kept, second);
    }

    fn slice(&mut self, is_kept: bool, time: Duration) {
        let before = self.side.counts();
        let idle = self.manager_cpu_during(|| std::thread::sleep(Duration::from_millis(500)));
        let mut outcome = None;
        let busy = self.manager_cpu_during(|| {
            outcome = Some(wrk::load(self.side.address, CONNECTIONS, is_kept, time));
        });
        let outcome = outcome.unwrap();
        self.per_second.push(outcome.per_second);
        self.p99_ms.push(outcome.p99_ms);
        self.errors += outcome.errors;
        self.manager_cpu.push((busy - idle).max(0.0));
        let answered: Vec<f64> = self
            .side
            .counts()
            .iter()
            .map(|(pid, count)| count - before.get(pid).unwrap_or(&0.0))
            .collect();
        let most = answered.iter().copied().fold(0.0, f64::max);
        let least = answered.iter().copied().fold(f64::INFINITY, f64::min);
        self.uneven.push(most / least.max(1.0));
    }

    /// Milliseconds of processor time per second that the managers use while something is done.
    fn manager_cpu_during(&self, work: impl FnOnce()) -> f64 {
        let managers = self.side.managers();
        let used = || managers.iter().map(|pid| system::cpu_ns(*pid)).sum::<u64>();
        let (before, started) = (used(), Instant::now());
        work();
        (used() - before) as f64 / 1e6 / started.elapsed().as_secs_f64()
    }
}
