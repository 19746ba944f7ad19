//! From a start to the first answer, and from a kill to the replacement's first answer.

use crate::report::{Limit, Report, Spread};
use crate::sides::{Kind, Side};
use crate::{system, Effort};
use rustix::process::Signal;
use std::time::{Duration, Instant};

pub(crate) fn run(report: &mut Report, effort: &Effort) {
    let kinds: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| kind.is_manager() || *kind == Kind::Single)
        .filter(|kind| kind.lacks().is_none() && *kind != Kind::GangerShared)
        .collect();
    if effort.wants("start") {
        starts(report, effort, &kinds);
    }
    if effort.wants("kill") {
        kills(report, effort, &kinds);
    }
}

fn starts(report: &mut Report, effort: &Effort, kinds: &[Kind]) {
    let mut all = vec![Vec::new(); kinds.len()];
    for _ in 0..effort.starts {
        for (kind, times) in kinds.iter().zip(&mut all) {
            let (_side, took) = Side::start(*kind, 1, 0);
            times.push(ms(took));
        }
    }
    for (kind, times) in kinds.iter().zip(&all) {
        report.figure("start to first answer", kind.name(), "ms", times);
    }
    let find = |kind| kinds.iter().position(|one| *one == kind).unwrap();
    report.target(
        "start to first answer: ganger above the program's own",
        "ms",
        difference(&all[find(Kind::Ganger)], &all[find(Kind::Single)]),
        Limit::AtMost(30.0),
    );
}

fn kills(report: &mut Report, effort: &Effort, kinds: &[Kind]) {
    let managed: Vec<Kind> = kinds
        .iter()
        .copied()
        .filter(|kind| *kind != Kind::Single)
        .collect();
    let sides: Vec<Side> = managed
        .iter()
        .map(|kind| Side::start(*kind, 1, 0).0)
        .collect();
    let mut all = vec![Vec::new(); sides.len()];
    // The program's own starts, in between: a start's time changes with what the machine does.
    let mut own = Vec::new();
    for _ in 0..effort.starts {
        own.push(ms(Side::start(Kind::Single, 1, 0).1));
        for (side, times) in sides.iter().zip(&mut all) {
            let victim = side.wait_answer(|_| true);
            // Restarts of a worker that lives only for an instant are held back by some.
            std::thread::sleep(Duration::from_millis(1100));
            let killed = Instant::now();
            system::kill(victim, Signal::KILL);
            side.wait_answer(|pid| pid != victim);
            times.push(ms(killed.elapsed()));
        }
    }
    for (side, times) in sides.iter().zip(&all) {
        report.figure(
            "kill to replacement's answer",
            side.kind.name(),
            "ms",
            times,
        );
    }
    report.target(
        "kill to replacement's answer: ganger above the program's own start",
        "ms",
        difference(&all[0], &own),
        Limit::AtMost(20.0),
    );
}

fn difference(ours: &[f64], own: &[f64]) -> Spread {
    let above: Vec<f64> = ours.iter().zip(own).map(|(ours, own)| ours - own).collect();
    Spread::of(&above)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
