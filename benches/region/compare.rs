//! ganger beside its peers: each operation on each pattern of keys, from one process and from two.

use crate::crew::{fork, Crew, Seat};
use crate::lmdb::{Lmdb, LmdbHeld, TempDir};
use crate::naive::Naive;
use crate::report::{Limit, Report, Spread};
use crate::shared::Mapping;
use crate::sides::{Bare, Dash, FetchAdd, Filling, Ganger, Operation, Store, REGION_BYTES};
use crate::workload::{Draws, Pattern, Random};
use crate::Effort;
use std::any::Any;

/// A crew of two, and what has to outlive it: what its store lives in.
struct Side {
    name: &'static str,
    crew: Crew,
    _home: Box<dyn Any>,
}

/// What one side needed per operation, round by round.
struct Rounds {
    name: &'static str,
    /// Nanoseconds of processor time per operation of one process alone. It waits for nobody, so
    /// that is the time it takes; and other load on the machine does not count.
    alone: Vec<f64>,
    /// Operations per nanosecond of one process alone, by the clock.
    alone_rate: Vec<f64>,
    /// Operations per nanosecond of two processes together.
    together: Vec<f64>,
}

pub(crate) fn run(report: &mut Report, effort: &Effort) {
    for pattern in Pattern::ALL {
        for operation in Operation::ALL {
            let name = format!("{} {}", pattern.name(), operation.name());
            if effort.wants(&name) {
                let rounds = measure(pattern, operation, effort);
                tell(report, &name, &rounds);
                judge(report, pattern, operation, &rounds);
            }
        }
    }
}

fn measure(pattern: Pattern, operation: Operation, effort: &Effort) -> Vec<Rounds> {
    let mut sides = sides(pattern, operation);
    let mut rounds: Vec<Rounds> = sides.iter().map(|side| Rounds::new(side.name)).collect();
    for side in &mut sides {
        side.crew.slice(&[0, 1], effort.slice);
    }
    for _ in 0..effort.rounds {
        for (side, rounds) in sides.iter_mut().zip(&mut rounds) {
            let one = side.crew.slice(&[0], effort.slice)[0];
            rounds.alone.push(one.busy);
            rounds.alone_rate.push(1.0 / one.wall);
        }
        for (side, rounds) in sides.iter_mut().zip(&mut rounds) {
            let both = side.crew.slice(&[0, 1], effort.slice);
            rounds
                .together
                .push(both.iter().map(|one| 1.0 / one.wall).sum());
        }
    }
    rounds
}

fn sides(pattern: Pattern, operation: Operation) -> Vec<Side> {
    let contents = operation.contents();
    let filling = Filling::usual(contents);
    let draws = |seat: usize| Draws::new(pattern, seat as u64 + 1);
    let mut sides = Vec::new();

    let region = Ganger::filled(&filling, REGION_BYTES);
    let crew = Crew::of_processes(2, |index, seat| {
        serve(seat, Ganger::attach(&region), operation, draws(index));
    });
    sides.push(Side::new("ganger", crew, region));

    // Two threads of one process: a DashMap has no other way.
    let crew = Crew::fork(&[2], |seats| {
        let (values, counters) = Dash::filled(contents);
        let (values, counters) = (&values, &counters);
        std::thread::scope(|scope| {
            for (index, seat) in seats.into_iter().enumerate() {
                let store = Dash { values, counters };
                scope.spawn(move || serve(seat, store, operation, draws(index)));
            }
        });
    });
    sides.push(Side::new("dashmap", crew, ()));

    let lmdb_home = || {
        let home = TempDir::new();
        // LMDB must not be carried through a fork: whoever uses it opens it.
        fork(|| Lmdb::fill(home.path(), &filling)).wait();
        home
    };
    let home = lmdb_home();
    let crew = Crew::of_processes(2, |index, seat| {
        serve(seat, Lmdb::open(home.path()), operation, draws(index));
    });
    sides.push(Side::new("lmdb", crew, home));
    if operation == Operation::Get {
        let home = lmdb_home();
        let crew = Crew::of_processes(2, |index, seat| {
            let store = LmdbHeld(Lmdb::open(home.path()));
            serve(seat, store, operation, draws(index));
        });
        sides.push(Side::new("lmdb-held", crew, home));
    }

    let memory = Naive::filled(&filling);
    let crew = Crew::of_processes(2, |index, seat| {
        serve(
            seat,
            Naive::attach(&memory, &filling),
            operation,
            draws(index),
        );
    });
    sides.push(Side::new("mutex table", crew, memory));

    if operation == Operation::Get {
        let crew = Crew::of_processes(2, |index, seat| {
            let store = Bare(Random::new(index as u64));
            serve(seat, store, operation, draws(index));
        });
        sides.push(Side::new("bare loop", crew, ()));
    }
    if (pattern, operation) == (Pattern::Hot, Operation::Incr) {
        let memory = Mapping::new(4096);
        let crew = Crew::of_processes(2, |index, seat| {
            serve(seat, FetchAdd(memory.word(0)), operation, draws(index));
        });
        sides.push(Side::new("fetch_add", crew, memory));
    }
    sides
}

fn serve(seat: Seat<'_>, mut store: impl Store, operation: Operation, mut draws: Draws) {
    seat.serve(|| store.batch(operation, &mut draws));
}

fn tell(report: &mut Report, name: &str, rounds: &[Rounds]) {
    let ganger = &rounds[0];
    for side in rounds {
        let ratio = Spread::of_ratio(&side.alone, &ganger.alone);
        report.figure_with_ratio(
            &format!("{name}, 1 process"),
            side.name,
            "ns/op",
            &side.alone,
            ratio,
        );
    }
    for side in rounds {
        let millions: Vec<f64> = side.together.iter().map(|rate| rate * 1000.0).collect();
        let ratio = Spread::of_ratio(&side.together, &ganger.together);
        report.figure_with_ratio(
            &format!("{name}, 2 processes"),
            side.name,
            "Mop/s",
            &millions,
            ratio,
        );
    }
}

fn judge(report: &mut Report, pattern: Pattern, operation: Operation, rounds: &[Rounds]) {
    let name = format!("{} {}", pattern.name(), operation.name());
    let alone = |side: &str| {
        let side = rounds.iter().find(|rounds| rounds.name == side);
        &side.unwrap().alone
    };
    let ganger = alone("ganger");
    let limit = match (pattern, operation) {
        (Pattern::Hot, Operation::Get) => Some(("dashmap", 1.0)),
        (Pattern::Uniform, Operation::Get) => Some(("dashmap", 1.2)),
        (Pattern::Hot, Operation::Set) => Some(("dashmap", 2.0)),
        (Pattern::Hot, Operation::Incr) => Some(("fetch_add", 4.0)),
        _ => None,
    };
    if let Some((peer, limit)) = limit {
        let what = format!("{name}: time of ganger / {peer}");
        let ratio = Spread::of_ratio(ganger, alone(peer));
        report.target(&what, "x", ratio, Limit::AtMost(limit));
    }
    let limit = match operation {
        Operation::Get => Some(4.0),
        Operation::Set => Some(8.0),
        Operation::Incr => None,
    };
    if let Some(limit) = limit {
        let what = format!("{name}: speed of ganger / lmdb");
        let ratio = Spread::of_ratio(alone("lmdb"), ganger);
        report.target(&what, "x", ratio, Limit::AtLeast(limit));
    }
    if operation == Operation::Get && pattern != Pattern::Zipf {
        let what = format!("{name}: throughput of 2 processes / 1");
        for side in rounds {
            report.figure(&what, side.name, "x", &side.gain());
        }
        let gain = Spread::of(&rounds[0].gain());
        report.target(&what, "x", gain, Limit::AtLeast(1.8));
    }
}

impl Side {
    fn new(name: &'static str, crew: Crew, home: impl Any) -> Self {
        Self {
            name,
            crew,
            _home: Box::new(home),
        }
    }
}

impl Rounds {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            alone: Vec::new(),
            alone_rate: Vec::new(),
            together: Vec::new(),
        }
    }

    /// How many times as much two processes do as one.
    fn gain(&self) -> Vec<f64> {
        let rounds = self.together.iter().zip(&self.alone_rate);
        rounds.map(|(together, alone)| together / alone).collect()
    }
}
