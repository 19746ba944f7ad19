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
    if effort.wants("start to first answer") {
        starts(report, effort, &kinds);
    }
    if effort.wants("kill to replacement's answer") {
        kills(report, effort, &kinds);
    }
}

fn starts(report: &mut Report, effort: &Effort, kinds: &[Kind]) {
    let start = |kind: Kind| ms(Side::start(kind, 1, 0).1);
    let mut all = vec![Vec::new(); kinds.len()];
    let find = |kind| kinds.iter().position(|one| *one == kind).unwrap();
    let (ganger, single) = (find(Kind::Ganger), find(Kind::Single));
    for round in 0..effort.starts {
        for (place, kind) in kinds.iter().enumerate() {
            if ![ganger, single].contains(&place) {
                all[place].push(start(*kind));
            }
        }
        // Side by side, since the machine's pace changes; neither always comes behind what the others
        // leave to be cleared up.
        for place in in_turn(round, [ganger, single]) {
            all[place].push(start(kinds[place]));
        }
    }
    for (kind, times) in kinds.iter().zip(&all) {
        report.figure("start to first answer", kind.name(), "ms", times);
    }
    report.target(
        "start to first answer: ganger above the program's own",
        "ms",
        difference(&all[ganger], &all[single]),
        Limit::AtMost(30.0),
    );
}

fn kills(report: &mut Report, effort: &Effort, kinds: &[Kind]) {
    let managed = kinds.iter().filter(|kind| **kind != Kind::Single);
    let sides: Vec<Side> = managed.map(|kind| Side::start(*kind, 1, 0).0).collect();
    let mut all = vec![Vec::new(); sides.len()];
    let mut own = Vec::new();
    for round in 0..effort.starts {
        // Some of them leave clients hanging for seconds.
        if round % 3 == 0 {
            for (side, times) in sides.iter().zip(&mut all).skip(1) {
                times.push(to_replacement(side));
            }
        }
        for is_ganger in in_turn(round, [true, false]) {
            if is_ganger {
                all[0].push(to_replacement(&sides[0]));
            } else {
                own.push(ms(Side::start(Kind::Single, 1, 0).1));
            }
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

/// Milliseconds from the kill of a side's only worker to the answer of the next.
fn to_replacement(side: &Side) -> f64 {
    let victim = side.wait_answer(|_| true);
    // Restarts of a worker that lives only for an instant are held back by some.
    std::thread::sleep(Duration::from_millis(1100));
    let killed = Instant::now();
    system::kill(victim, Signal::KILL);
    side.wait_answer(|pid| pid != victim);
    ms(killed.elapsed())
}

/// Now one first, now the other.
fn in_turn<T>(round: usize, mut pair: [T; 2]) -> [T; 2] {
    if round % 2 == 1 {
        pair.reverse();
    }
    pair
}

fn difference(ours: &[f64], own: &[f64]) -> Spread {
    let above: Vec<f64> = ours.iter().zip(own).map(|(ours, own)| ours - own).collect();
    Spread::of(&above)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
