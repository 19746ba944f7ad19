//! What a reader of one hot key loses while another process writes.

use crate::crew::{Crew, Seat};
use crate::report::{Limit, Report, Spread};
use crate::sides::{Contents, Filling, Ganger, Operation, Store, REGION_BYTES};
use crate::workload::{Draws, Pattern};
use crate::Effort;
use std::hint::spin_loop;

const READER: usize = 0;
/// Works without touching memory, to tell the cost of a busy second processor from that of its
/// writes.
const SPINNER: usize = 1;
const WRITES_OTHERS: usize = 2;
const WRITES_SAME: usize = 3;

pub(crate) fn run(report: &mut Report, effort: &Effort) {
    if !effort.wants("neighbour") {
        return;
    }
    let region = Ganger::filled(&Filling::usual(Contents::Values), REGION_BYTES);
    let mut crew = Crew::of_processes(4, |index, seat| serve(&region, index, seat));
    let cases = [
        ("alone", vec![READER]),
        ("beside one that computes", vec![READER, SPINNER]),
        ("beside a writer of other keys", vec![READER, WRITES_OTHERS]),
        ("beside a writer of the same key", vec![READER, WRITES_SAME]),
    ];
    let mut rounds = vec![Vec::new(); cases.len()];
    for round in 0..=effort.rounds {
        for ((_, seats), rounds) in cases.iter().zip(&mut rounds) {
            let nanos = crew.slice(seats, effort.slice)[READER].busy;
            // The first round is the warm-up.
            if round > 0 {
                rounds.push(nanos);
            }
        }
    }
    for ((case, _), times) in cases.iter().zip(&rounds) {
        let ratio = Spread::of_ratio(times, &rounds[0]);
        report.figure_with_ratio(&format!("hot get {case}"), "ganger", "ns/op", times, ratio);
    }
    let lost: Vec<f64> = rounds[0]
        .iter()
        .zip(&rounds[2])
        .map(|(alone, beside)| (1.0 - alone / beside) * 100.0)
        .collect();
    report.target(
        "hot get: speed lost to a writer of other keys",
        "%",
        Spread::of(&lost),
        Limit::Below(20.0),
    );
}

fn serve(region: &ganger_region::Region, index: usize, seat: Seat<'_>) {
    let mut store = Ganger::attach(region);
    match index {
        READER => {
            let mut draws = Draws::new(Pattern::Hot, 1);
            seat.serve(|| store.batch(Operation::Get, &mut draws));
        }
        SPINNER => seat.serve(|| {
            (0..256).for_each(|_| spin_loop());
            256
        }),
        _ => {
            let mut draws = if index == WRITES_OTHERS {
                Draws::all_but_hot(2)
            } else {
                Draws::new(Pattern::Hot, 2)
            };
            seat.serve(|| store.batch(Operation::Set, &mut draws));
        }
    }
}
