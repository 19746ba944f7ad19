//! What is measured: each figure's sides take turns within a round.

use crate::link::{Server, System};
use crate::report::{Limit, Report, Spread};
use crate::roles::{self, Pace, Role};
use crate::{ganger, hop, latency, nats, Effort};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs every side once per round, the last one first in every second round, and returns the figures by
/// side.
pub(crate) fn rounds<S: Copy, F>(
    count: usize,
    sides: &[S],
    mut measure: impl FnMut(S) -> F,
) -> Vec<Vec<F>> {
    let mut figures: Vec<_> = sides.iter().map(|_| Vec::new()).collect();
    for round in 0..count {
        let mut turns: Vec<_> = sides.iter().zip(&mut figures).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (side, figures) in turns {
            figures.push(measure(*side));
        }
    }
    figures
}

/// The systems that are installed here, ganger first.
pub(crate) fn installed(report: &mut Report) -> Vec<System> {
    let is_there = |system: &System| Server::start(*system).is_some();
    let (here, missing): (Vec<System>, Vec<System>) = System::ALL.into_iter().partition(is_there);
    for system in missing {
        let (name, package) = (system.name(), system.package());
        report.note(format!("{name} is left out: apt-get install {package}"));
    }
    here
}

/// Messages that arrive per second, and how long one takes at a steady rate.
pub(crate) fn streams(report: &mut Report, effort: &Effort, systems: &[System]) {
    for (payload_len, subscribers) in [(64, 1), (64, 4), (4096, 1), (4096, 4)] {
        let name = format!("{payload_len} B, 1 to {subscribers}");
        if effort.wants(&format!("stream {name}")) {
            throughput(report, effort, systems, &name, payload_len, subscribers);
        }
        if effort.wants(&format!("latency {name}")) {
            latency::run(report, effort, systems, &name, payload_len, subscribers);
        }
    }
    if effort.wants("stream 1 MiB") {
        let systems: Vec<System> = systems
            .iter()
            .copied()
            .filter(|system| matches!(system, System::Ganger | System::Redis | System::RedisRs))
            .collect();
        throughput(report, effort, &systems, "1 MiB, 1 to 1", 1 << 20, 1);
    }
}

fn throughput(
    report: &mut Report,
    effort: &Effort,
    systems: &[System],
    name: &str,
    payload_len: usize,
    subscribers: usize,
) {
    let what = format!("messages received, {name}");
    let figures = rounds(effort.rounds, systems, |system| {
        let fast = Pace::AsFastAsPossible;
        let seen = roles::stream(system, subscribers, payload_len, fast, effort.slice);
        seen.iter()
            .map(|seen| seen.messages as f64 / seen.seconds)
            .sum::<f64>()
            / 1e3
    });
    for (system, rounds) in systems.iter().zip(&figures) {
        let ratio = Spread::of_ratio(rounds, &figures[0]);
        report.figure_with_ratio(&what, system.name(), "k/s", rounds, ratio);
        let at_least = match (system, payload_len) {
            (System::Redis | System::RedisRs, 1_048_576) => 5.0,
            (System::Redis | System::RedisRs, _) => 2.0,
            (System::Nats, _) => 1.0,
            _ => continue,
        };
        let (ours, figures) = counterpart(systems, &figures, *system);
        let ratio = Spread::of_ratio(figures, rounds);
        let what = format!("{what}: {} / {}", ours.name(), system.name());
        report.target(&what, "x", ratio, Limit::AtLeast(at_least));
    }
}

/// Ganger as it is compared with this system, and its figures. Without a bare client among the sides, it
/// is the one that users have.
fn counterpart<'f>(
    systems: &[System],
    figures: &'f [Vec<f64>],
    system: System,
) -> (System, &'f [f64]) {
    let mut sides = systems.iter().zip(figures);
    let (ours, figures) = sides
        .find(|(side, _)| **side == system.counterpart())
        .unwrap_or((&systems[0], &figures[0]));
    (*ours, figures)
}

/// Tells what each side took.
pub(crate) fn tell(
    report: &mut Report,
    systems: &[System],
    what: &str,
    unit: &'static str,
    figures: &[Vec<f64>],
) {
    for (system, rounds) in systems.iter().zip(figures) {
        let ratio = Spread::of_ratio(rounds, &figures[0]);
        report.figure_with_ratio(what, system.name(), unit, rounds, ratio);
    }
}

/// The same, and wants Ganger to take no more than Redis by the same kind of client.
pub(crate) fn no_worse_than_redis(
    report: &mut Report,
    systems: &[System],
    what: &str,
    unit: &'static str,
    figures: &[Vec<f64>],
) {
    tell(report, systems, what, unit, figures);
    for (system, rounds) in systems.iter().zip(figures) {
        if matches!(system, System::Redis | System::RedisRs) {
            let (ours, figures) = counterpart(systems, figures, *system);
            let ratio = Spread::of_ratio(figures, rounds);
            let what = format!("{what}: {} / {}", ours.name(), system.name());
            report.target(&what, "x", ratio, Limit::AtMost(1.0));
        }
    }
}

/// A request, answered by another process, there and back.
pub(crate) fn requests(report: &mut Report, effort: &Effort, systems: &[System]) {
    if !effort.wants("request") {
        return;
    }
    let mut sides = vec!["ganger", "bare hop"];
    if systems.contains(&System::Nats) {
        sides.push("nats");
    }
    let count = if effort.options.is_quick {
        2000
    } else {
        10_000
    };
    let figures = rounds(effort.rounds, &sides, |side| match side {
        "ganger" => {
            let server = Server::start(System::Ganger).unwrap();
            let mut role = Role::start("reply", System::Ganger, &server.address, &[]);
            role.wait_until_ready();
            let mut asker = ganger::Asker::connect(&server.address);
            per_call(count, || asker.ask(&[0x5a; hop::LEN]))
        }
        "nats" => {
            let server = Server::start(System::Nats).unwrap();
            let mut role = Role::start("reply", System::Nats, &server.address, &[]);
            role.wait_until_ready();
            let mut asker = nats::Nats::asking(&server.address);
            per_call(count, || asker.ask(&[0x5a; hop::LEN]))
        }
        _ => bare_hop(count),
    });
    for (side, rounds) in sides.iter().zip(&figures) {
        let ratio = Spread::of_ratio(rounds, &figures[0]);
        report.figure_with_ratio("request and reply, 64 B", side, "us", rounds, ratio);
    }
    let ratio = Spread::of_ratio(&figures[0], &figures[1]);
    let what = "request and reply: ganger / bare hop";
    report.target(what, "x", ratio, Limit::AtMost(2.0));
}

fn bare_hop(count: u32) -> f64 {
    let home = std::env::temp_dir().join(format!("ganger-hop-{}", std::process::id()));
    let address = home.display().to_string();
    let mut relay = Role::start("hop-relay", System::Ganger, &address, &[]);
    relay.wait_until_ready();
    let mut reply = Role::start("hop-reply", System::Ganger, &address, &[]);
    reply.wait_until_ready();
    let mut asker = UnixStream::connect(&address).unwrap();
    let mut bytes = [0x5a; hop::LEN];
    let time = per_call(count, || {
        asker.write_all(&bytes).unwrap();
        asker.read_exact(&mut bytes).unwrap();
    });
    std::fs::remove_file(&home).unwrap();
    time
}

/// Microseconds, the median of calls.
fn per_call(count: u32, mut call: impl FnMut()) -> f64 {
    (0..count / 10).for_each(|_| call());
    let mut times: Vec<f64> = (0..count)
        .map(|_| {
            let started = Instant::now();
            call();
            started.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Gets and sets over the socket, one at a time and 100 at a time.
pub(crate) fn store(report: &mut Report, effort: &Effort, systems: &[System]) {
    if !effort.wants("store") {
        return;
    }
    let has_store = |system: &System| !matches!(system, System::Nats | System::ZeroMq);
    let sides: Vec<System> = systems.iter().copied().filter(has_store).collect();
    let keys: Vec<[u8; 16]> = (0..10_000_u64)
        .map(|number| format!("key:{number:012}").into_bytes().try_into().unwrap())
        .collect();
    for at_once in [1, 100] {
        for operation in ["get", "set"] {
            let figures = rounds(effort.rounds, &sides, |system| {
                let server = Server::start(system).unwrap();
                let mut store = roles::store(system, &server.address).unwrap();
                keys.chunks(100)
                    .for_each(|keys| store.set(keys, &[0x5a; 64]));
                let mut done = 0;
                let started = Instant::now();
                for keys in keys.chunks(at_once).cycle() {
                    match operation {
                        "get" => store.get(keys),
                        _ => store.set(keys, &[0x5a; 64]),
                    }
                    done += keys.len();
                    if started.elapsed() > effort.slice {
                        break;
                    }
                }
                started.elapsed().as_secs_f64() * 1e6 / done as f64
            });
            let what = format!("{operation} over the socket, {at_once} at a time");
            no_worse_than_redis(report, &sides, &what, "us/op", &figures);
        }
    }
}

/// What one stopped subscriber among 100 does to the others, and to the broker's memory.
pub(crate) fn stopped(report: &mut Report, effort: &Effort) {
    if !effort.wants("stopped") {
        return;
    }
    let mut memory = [Vec::new(), Vec::new()];
    let figures = rounds(effort.rounds, &[false, true], |is_stopped| {
        let (received, resident) = roles::crowd(is_stopped, effort.slice);
        memory[usize::from(is_stopped)].push(resident);
        received / 1e3
    });
    let sides = ["all run", "one is stopped"];
    for ((side, rounds), memory) in sides.iter().zip(&figures).zip(&memory) {
        report.figure("99 of 100 subscribers, 64 B", side, "k/s", rounds);
        report.figure("broker with 100 subscribers", side, "MiB", memory);
    }
    let ratio = Spread::of_ratio(&figures[1], &figures[0]);
    let what = "99 subscribers beside a stopped one / a running one";
    report.target(what, "x", ratio, Limit::AtLeast(0.9));
}

/// What the broker costs when nothing happens, and how fast a command is.
pub(crate) fn rest(report: &mut Report, effort: &Effort) {
    if effort.wants("idle") {
        let server = Server::start(System::Ganger).unwrap();
        let clients: Vec<_> = (0..100)
            .map(|_| ganger::Idle::connect(&server.address))
            .collect();
        std::thread::sleep(Duration::from_secs(1));
        let before = cpu_ticks(server.pid());
        std::thread::sleep(Duration::from_secs(if effort.options.is_quick {
            2
        } else {
            10
        }));
        let ticks = cpu_ticks(server.pid()) - before;
        let resident = server.resident_mib();
        drop(clients);
        report.figure(
            "broker with 100 idle clients, processor",
            "ganger",
            "ticks",
            &[ticks],
        );
        report.figure(
            "broker with 100 idle clients, memory",
            "ganger",
            "MiB",
            &[resident],
        );
        report.target(
            "processor ticks while idle",
            "",
            Spread::of(&[ticks]),
            Limit::AtMost(0.0),
        );
        report.target(
            "resident memory",
            "MiB",
            Spread::of(&[resident]),
            Limit::Below(8.0),
        );
    }
    if effort.wants("command") {
        let server = Server::start(System::Ganger).unwrap();
        let is_done = |words: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_broker-cli"));
            command.arg("--home").arg(server.home()).args(words);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command.status().unwrap().success()
        };
        if !is_done(&["set", "key", "value"]) {
            report.note("broker-cli can't set a key: left out");
            return;
        }
        let run = |words: &[&str]| assert!(is_done(words));
        let times: Vec<f64> = (0..effort.rounds)
            .map(|_| per_call(20, || run(&["get", "key"])) / 1e3)
            .collect();
        report.figure("broker-cli get, start to exit", "ganger", "ms", &times);
        let what = "broker-cli get, start to exit";
        report.target(what, "ms", Spread::of(&times), Limit::Below(5.0));
    }
}

fn cpu_ticks(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // After the name: utime and stime are fields 14 and 15 of the line.
    fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
}
