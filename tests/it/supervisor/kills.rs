//! Deaths of workers, of the broker and of the supervisor.

use super::ganger::{kill, Ganger, Place};
use super::programs::{words, Loads, FRESH, KEPT, SLOW};
use super::{rounds, script, system};
use crate::harness::{open, wait_until};
use crate::load::{Kind, Load, Plan, Report, Shape};
use ganger_client::Kv;
use ganger_supervisor::report::WorkerStatus;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A worker that dies so often counts as hopeless, and waits for longer each time, unless it is told
/// otherwise.
const OFTEN: &[&str] = &["--max-crashes", "100000", "--restart-delay", "0"];

/// Every worker's queue belongs to the supervisor. A victim is stopped first, so that its queue
/// fills and it can be seen which connections it has accepted: only those may fail.
#[test]
fn a_hundred_killed_workers_lose_what_they_were_answering_and_nothing_from_their_queues() {
    let Some(command) = script("node", "node/http.js") else {
        return;
    };
    let recipe = Place::new("worker kills").recipe(&command).option(OFTEN);
    let ganger = recipe.start();
    let fresh = Load::start(Plan::new(ganger.at(), 250.0));
    let slow = Load::start(Plan::new(ganger.at(), 40.0).shape(Shape::Slow(100)));
    fresh.wait_answers(20);
    let mut victims_had = BTreeSet::new();
    for _ in 0..rounds(100) {
        let pids = ganger.pids();
        let victim = pids[pids.len() - 1];
        kill(victim, Signal::STOP);
        // Answers of the others are proof that time has passed for its queue too.
        // Few are enough where the stopped one has lost its share by then.
        wait_until("connections in the queue of a stopped worker", || {
            status(&ganger, victim).is_none_or(|worker| match worker.weight {
                0 => worker.queue > 0,
                _ => worker.queue >= 3,
            })
        });
        victims_had.extend(system::accepted(victim, ganger.place.address));
        kill(victim, Signal::KILL);
        wait_for_replacements(&ganger, &[victim]);
    }
    for (name, load) in [("a connection each", fresh), ("slow requests", slow)] {
        let report = load.stop();
        eprintln!("{name}: {report}");
        for failure in &report.failures {
            let was_the_victims = failure.port.is_some_and(|port| victims_had.contains(&port));
            assert!(was_the_victims, "lost from a queue: {failure}\n{report}");
        }
    }
    ganger.stop();
}

/// What is reported of a process, if it still is one of the workers.
fn status(ganger: &Ganger, pid: u32) -> Option<WorkerStatus> {
    let mut workers = ganger.app()?.workers.into_iter();
    workers.find(|worker| worker.pid == self::pid(pid))
}

/// Waits until others are in the place of the killed and have taken over what waited: who is killed
/// again and again before it takes anything serves nobody.
fn wait_for_replacements(ganger: &Ganger, killed: &[u32]) {
    wait_until("replacements that have taken over the queues", || {
        let ready = ganger.ready();
        let is_new = |worker: &WorkerStatus| killed.iter().all(|killed| worker.pid != pid(*killed));
        ready.len() == 2
            && ready
                .iter()
                .all(|worker| is_new(worker) && worker.queue == 0)
    });
}

/// As it is reported.
fn pid(pid: u32) -> Option<i32> {
    i32::try_from(pid).ok()
}

/// The same without stopping it first, and all workers of it: what was being answered fails, and
/// whoever comes then waits for the replacement instead of being refused.
#[test]
fn nobody_is_refused_when_all_workers_are_killed_at_once() {
    let Some(command) = script("node", "node/http.js") else {
        return;
    };
    let recipe = Place::new("all killed").recipe(&command).option(OFTEN);
    let ganger = recipe.start();
    let load = Load::start(Plan::new(ganger.at(), 100.0));
    for _ in 0..rounds(10) {
        load.wait_answers(10);
        let pids = ganger.pids();
        for pid in &pids {
            kill(*pid, Signal::KILL);
        }
        wait_for_replacements(&ganger, &pids);
    }
    let report = load.stop();
    // A hello takes a worker no time: at most a few are under way at the instant of a kill.
    assert!(report.failed() <= 3 * rounds(10) as u64, "{report}");
    assert_eq!(report.count(Kind::Refused), 0, "{report}");
    assert_eq!(report.count(Kind::Late), 0, "{report}");
    eprintln!("all workers killed: {report}");
    ganger.stop();
}

/// The broker is on no request's path, and the region's content is not in it.
#[test]
fn a_hundred_killed_brokers_cost_no_request_and_no_key() {
    let Some(command) = script("node", "node/http.js") else {
        return;
    };
    let recipe = Place::new("broker kills").recipe(&command).with_broker();
    let ganger = recipe.option(OFTEN).start();
    wait_until("a broker", || broker(&ganger).is_some());
    let workers = ganger.pids();
    let kv = attach(&ganger);
    kv.set("kept", "through all").unwrap();
    let loads = Loads::start(&[FRESH, KEPT, SLOW], &ganger);
    for round in 0..rounds(100) as i64 {
        let victim = broker(&ganger).unwrap();
        kv.incr("rounds", 1).unwrap();
        kill(victim, Signal::KILL);
        wait_until("another broker", || {
            broker(&ganger).is_some_and(|pid| pid != victim)
        });
        let counted = attach(&ganger).incr("rounds", 0).unwrap();
        assert_eq!(counted, round + 1, "what was written is there");
    }
    let kept = attach(&ganger).get("kept").unwrap();
    assert_eq!(kept.as_deref(), Some(&b"through all"[..]));
    loads.go_on(5);
    loads.judge(Report::assert_perfect);
    assert_eq!(workers, ganger.pids(), "no worker was replaced");
    ganger.stop();
}

fn broker(ganger: &Ganger) -> Option<u32> {
    ganger.status()?.broker?.pid?.try_into().ok()
}

/// The region, by the descriptor that the first worker inherited.
fn attach(ganger: &Ganger) -> Kv {
    let pid = ganger.pids()[0];
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let fd = environment
        .split('\0')
        .find_map(|entry| entry.strip_prefix("GANGER_REGION_FD="))
        .expect("a worker is told of the region");
    Kv::from_fd(open(&format!("/proc/{pid}/fd/{fd}"))).unwrap()
}

/// With the supervisor dead at once, nothing of it stays; and its home can be used again.
#[test]
fn a_killed_supervisor_leaves_nothing_behind() {
    let Some([node, path]) = script("node", "node/http.js") else {
        return;
    };
    let direct = words(&[&node, &path]);
    let below_a_shell = words(&["sh", "-c", &format!("echo on; {node} {path}")]);
    // A process that has left its session, its group and its parent.
    let runaway = format!("(setsid sleep 1000 &) ; {node} {path}");
    let runaway = words(&["sh", "-c", &runaway]);
    for command in [direct, below_a_shell, runaway] {
        let place = Place::new("supervisor kill");
        let ganger = place.recipe(&command).with_broker().start();
        let has_all = ganger.place.processes().len() > 3;
        assert!(has_all, "{:?}", ganger.place.processes());
        let started = Instant::now();
        ganger.signal(Signal::KILL);
        wait_until("all to be gone", || ganger.place.processes().is_empty());
        eprintln!("{command:?}: all gone after {:?}", started.elapsed());
        let place = ganger.into_place();
        place.assert_empty();
        // Sockets that nobody listens on, and a lock that nobody holds, are no obstacle.
        place.recipe(&command).start().stop();
    }
}

/// A supervisor that is killed at any moment of a start or a stop leaves nothing either.
#[test]
fn a_supervisor_killed_while_it_starts_leaves_nothing_behind() {
    let Some(command) = script("node", "node/http.js") else {
        return;
    };
    for step in 0..rounds(10) as u64 {
        let ganger = Place::new("early kill")
            .recipe(&command)
            .with_broker()
            .launch();
        // The moment is what varies; every one must do.
        std::thread::sleep(Duration::from_millis(step * step * 4));
        ganger.signal(Signal::KILL);
        wait_until("all to be gone", || ganger.place.processes().is_empty());
        ganger.into_place().assert_empty();
    }
}

#[test]
fn a_supervisor_asked_to_stop_while_it_starts_stops_and_leaves_nothing() {
    let Some(command) = script("node", "node/http.js") else {
        return;
    };
    for step in 0..rounds(10) as u64 {
        let mut ganger = Place::new("early stop")
            .recipe(&command)
            .with_broker()
            .launch();
        std::thread::sleep(Duration::from_millis(20 + step * step * 4));
        ganger.signal(Signal::TERM);
        ganger.wait();
        ganger.into_place().assert_empty();
    }
}
