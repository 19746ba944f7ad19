//! Reloads and kills while requests come: how many of them fail.

use crate::report::Report;
use crate::sides::{Kind, Side, WORKERS};
use crate::{system, wrk, Effort};
use rustix::process::Signal;
use std::time::Duration;

const CONNECTIONS: u32 = 64;
/// Length of one measurement; a second after its start is the reload, or the kill.
const SLICE: Duration = Duration::from_secs(4);

pub(crate) fn run(report: &mut Report, effort: &Effort) {
    let is_wanted = effort.wants("reload under load") || effort.wants("kill under load");
    if !is_wanted || !wrk::is_installed() {
        return;
    }
    let kinds = Kind::ALL.into_iter();
    let kinds = kinds.filter(|kind| kind.is_manager() && kind.lacks().is_none());
    let sides: Vec<Side> = kinds.map(|kind| Side::start(kind, WORKERS, 0).0).collect();
    for (what, disturb) in [
        ("reload under load", Side::reload as fn(&Side)),
        ("kill under load", kill_one),
    ] {
        if !effort.wants(what) {
            continue;
        }
        for is_kept in [false, true] {
            measure(report, effort, &sides, (what, disturb), is_kept);
        }
    }
}

fn measure(
    report: &mut Report,
    effort: &Effort,
    sides: &[Side],
    (what, disturb): (&str, fn(&Side)),
    is_kept: bool,
) {
    let mut all = vec![(Vec::new(), Vec::new()); sides.len()];
    for _ in 0..effort.rounds {
        for (side, (failed, answered)) in sides.iter().zip(&mut all) {
            side.wait_workers();
            let outcome = slice(side, disturb, is_kept);
            failed.push(outcome.errors);
            answered.push(outcome.per_second);
        }
    }
    for (side, (failed, answered)) in sides.iter().zip(&all) {
        let name = side.kind.name();
        let title = format!("{what}, {}", wrk::use_of_connections(is_kept));
        report.figure(&format!("{title}: failed requests"), name, "each", failed);
        report.figure(&format!("{title}: requests"), name, "/s", answered);
    }
}

fn slice(side: &Side, disturb: fn(&Side), is_kept: bool) -> wrk::Outcome {
    let address = side.address;
    let load = std::thread::spawn(move || wrk::load(address, CONNECTIONS, is_kept, SLICE));
    std::thread::sleep(Duration::from_secs(1));
    disturb(side);
    load.join().unwrap()
}

/// Kills a worker that has answered something.
fn kill_one(side: &Side) {
    let counts = side.counts();
    let victim = counts
        .keys()
        .find(|pid| system::command(**pid).contains("app.js"));
    system::kill(*victim.expect("a worker is alive"), Signal::KILL);
}
