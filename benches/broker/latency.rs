//! How long messages take at a steady pace.

use crate::link::System;
use crate::measure::{no_worse_than_redis, rounds, tell};
use crate::report::Report;
use crate::roles::{stream, Arrival, Pace, Seen};
use crate::watch::Slow;
use crate::Effort;

/// One way, at 5,000 messages a second. The slowest one in a hundred is compared among those that came
/// while processors ran as usual: they are slow for one to three hundredths of the time, and then all
/// messages are ten times as late.
pub(crate) fn run(
    report: &mut Report,
    effort: &Effort,
    systems: &[System],
    name: &str,
    payload_len: usize,
    subscribers: usize,
) {
    let pace = Pace::PerSecond(5000);
    // The slowest ones differ from one second to the next, so many short turns say more than few long ones.
    let turns = rounds(5 * effort.rounds, systems, |system| {
        let run = || stream(system, subscribers, payload_len, pace, effort.slice / 4);
        let (seen, slow) = Slow::while_running(run);
        Times::of(&seen, &slow)
    });
    let figures = |of: fn(&Times) -> f64| -> Vec<Vec<f64>> {
        let of_side = |turns: &Vec<Times>| turns.iter().map(of).collect();
        turns.iter().map(of_side).collect()
    };
    let what = format!("one way at 5,000/s, {name}");
    let [p50, p99] = ["p50", "p99"].map(|part| format!("{what}, {part}"));
    no_worse_than_redis(report, systems, &p50, "us", &figures(|times| times.p50));
    tell(report, systems, &p99, "us", &figures(|times| times.p99));
    let usual = format!("{p99} while the processors run as usual");
    let figures_of_usual = figures(|times| times.usual_p99);
    no_worse_than_redis(report, systems, &usual, "us", &figures_of_usual);
    let slow = format!("{what}, part of them on a slow processor");
    for (system, turns) in systems.iter().zip(figures(|times| times.on_slow)) {
        report.figure(&slow, system.name(), "%", &turns);
    }
}

/// What one turn showed, in microseconds, of the subscriber that was worst off.
struct Times {
    p50: f64,
    p99: f64,
    /// Of the messages that came while processors ran as usual.
    usual_p99: f64,
    /// Per cent of the messages that did not.
    on_slow: f64,
}

impl Times {
    fn of(seen: &[Seen], slow: &Slow) -> Self {
        let is_usual = |message: &Arrival| slow.spared(message.at - message.took, message.at);
        let all: Vec<Vec<u64>> = seen.iter().map(|seen| times(seen, |_| true)).collect();
        let usual: Vec<Vec<u64>> = seen.iter().map(|seen| times(seen, is_usual)).collect();
        let count = |of: &[Vec<u64>]| of.iter().map(Vec::len).sum::<usize>() as f64;
        Self {
            p50: worst(&all, 0.5),
            p99: worst(&all, 0.99),
            usual_p99: worst(&usual, 0.99),
            on_slow: 100.0 * (1.0 - count(&usual) / count(&all)),
        }
    }
}

/// How long those messages took that count, in order.
fn times(seen: &Seen, counts: impl Fn(&Arrival) -> bool) -> Vec<u64> {
    let counting = seen.arrivals.iter().filter(|message| counts(message));
    let mut times: Vec<u64> = counting.map(|message| message.took).collect();
    times.sort_unstable();
    times
}

/// The greatest of the subscribers' percentiles, in microseconds.
fn worst(subscribers: &[Vec<u64>], part: f64) -> f64 {
    let percentile = |times: &Vec<u64>| {
        let at = (times.len().saturating_sub(1) as f64 * part) as usize;
        times.get(at).copied().unwrap_or_default()
    };
    subscribers.iter().map(percentile).max().unwrap_or_default() as f64 / 1e3
}
