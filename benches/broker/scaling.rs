//! How fan-out goes with the number of subscribers.

use crate::link::System;
use crate::measure::rounds;
use crate::report::Report;
use crate::roles::{stream, Pace};
use crate::Effort;

const SUBSCRIBERS: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// Messages that arrive at all subscribers together, published as fast as possible.
pub(crate) fn fan_out(report: &mut Report, effort: &Effort, systems: &[System]) {
    if !effort.wants("scaling") {
        return;
    }
    let is_kept = |index: usize| !effort.options.is_quick || index.is_multiple_of(2);
    for (_, subscribers) in (0..).zip(SUBSCRIBERS).filter(|(index, _)| is_kept(*index)) {
        let figures = rounds(effort.rounds, systems, |system| {
            let seen = stream(
                system,
                subscribers,
                64,
                Pace::AsFastAsPossible,
                effort.slice,
            );
            let rates = seen.iter().map(|seen| seen.messages as f64 / seen.seconds);
            rates.sum::<f64>() / 1e3
        });
        let what = format!("messages received, 64 B, 1 to {subscribers}, all together");
        for (system, rounds) in systems.iter().zip(&figures) {
            report.figure(&what, system.name(), "k/s", rounds);
            report.on_curve("fan-out by number of subscribers", subscribers as f64);
        }
    }
}
