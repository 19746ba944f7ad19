//! The processes of a comparison: this program again, with a role.

use crate::link::{ready, Publish, Receive, Server, Store, System};
use crate::{bare, ganger, hop, nats, redis, redis_rs, zeromq};
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What the last message begins with, in the place of a time.
const END: u64 = u64::MAX;
/// What messages begin with whose times do not count.
const EARLY: u64 = 0;
/// So long a publisher at a steady pace goes on before times count: a server asks for the memory that it
/// keeps messages in as they come first.
const EARLY_NS: u64 = 500_000_000;

/// What a subscriber saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) messages: u64,
    /// From the first message to the last.
    pub(crate) seconds: f64,
    /// The messages that came at a steady pace and count.
    pub(crate) arrivals: Vec<Arrival>,
}

/// A message that arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) at: u64,
    /// One way, nanoseconds.
    pub(crate) took: u64,
}

/// How a publisher goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    AsFastAsPossible,
    PerSecond(u64),
}

/// Starts subscribers, then a publisher for so long, and returns what the subscribers saw.
pub(crate) fn stream(
    system: System,
    subscribers: usize,
    payload_len: usize,
    pace: Pace,
    length: Duration,
) -> Vec<Seen> {
    let server = Server::start(system).unwrap();
    stream_through(&server, system, subscribers, payload_len, pace, length)
}

/// The same, through a server that runs.
pub(crate) fn stream_through(
    server: &Server,
    system: System,
    subscribers: usize,
    payload_len: usize,
    pace: Pace,
    length: Duration,
) -> Vec<Seen> {
    let rate = match pace {
        Pace::AsFastAsPossible => 0,
        Pace::PerSecond(rate) => rate,
    };
    let publish = || {
        let numbers = [
            payload_len as u64,
            rate,
            length.as_millis() as u64,
            subscribers as u64,
        ];
        Role::start("publish", system, &server.address, &numbers)
    };
    // A ZeroMQ publisher binds the socket, and waits for its subscribers itself.
    let early = (system == System::ZeroMq).then(publish);
    let mut crew: Vec<Role> = (0..subscribers)
        .map(|_| Role::start("subscribe", system, &server.address, &[]))
        .collect();
    crew.iter_mut().for_each(Role::wait_until_ready);
    let publisher = early.unwrap_or_else(publish);
    let seen = crew.into_iter().map(Role::seen).collect();
    publisher.end();
    seen
}

/// Messages per second that 99 subscribers of a broker get together, and the broker's memory in MiB
/// at the end, beside another one that runs or is stopped all the time.
pub(crate) fn crowd(is_stopped: bool, length: Duration) -> (f64, f64) {
    const OTHERS: usize = 99;
    let server = Server::start(System::Ganger).unwrap();
    let mut crew: Vec<Role> = (0..=OTHERS)
        .map(|_| Role::start("subscribe-losing", System::Ganger, &server.address, &[]))
        .collect();
    crew.iter_mut().for_each(Role::wait_until_ready);
    let last = crew.pop().unwrap();
    if is_stopped {
        last.signal(rustix::process::Signal::STOP);
    }
    let numbers = [64, 0, length.as_millis() as u64, OTHERS as u64];
    let publisher = Role::start("publish", System::Ganger, &server.address, &numbers);
    let rate = |seen: Seen| seen.messages as f64 / seen.seconds;
    let received = crew.into_iter().map(Role::seen).map(rate).sum();
    publisher.end();
    (received, server.resident_mib())
}

/// A child with a role.
pub(crate) struct Role {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Role {
    pub(crate) fn start(role: &str, system: System, address: &str, numbers: &[u64]) -> Self {
        let mut command = match system {
            System::ZeroMq => Command::new(zeromq::program().unwrap()),
            _ => Command::new(std::env::current_exe().unwrap()),
        };
        let mut child = command
            .args(["--role", role, system.name(), address])
            .args(numbers.iter().map(u64::to_string))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    pub(crate) fn wait_until_ready(&mut self) {
        assert_eq!(self.line(), "ready");
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn seen(mut self) -> Seen {
        let line = self.line();
        let (messages, seconds) = line.split_once(' ').unwrap();
        let arrival = |line: io::Result<String>| {
            let line = line.unwrap();
            let (at, took) = line.split_once(' ').unwrap();
            Arrival {
                at: at.parse().unwrap(),
                took: took.parse().unwrap(),
            }
        };
        let seen = Seen {
            messages: messages.parse().unwrap(),
            seconds: seconds.parse().unwrap(),
            arrivals: self.lines.by_ref().lines().map(arrival).collect(),
        };
        self.end();
        seen
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn end(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a child does: `words` are the role, the system, the address and numbers.
pub(crate) fn play(words: &[String]) {
    let [role, system, address, numbers @ ..] = words else {
        panic!("--role needs a role, a system and an address");
    };
    let numbers: Vec<u64> = numbers.iter().map(|word| word.parse().unwrap()).collect();
    let system = System::named(system).unwrap();
    match role.as_str() {
        "publish" => {
            let [payload_len, rate, length, _] = numbers[..] else {
                panic!("a publisher needs four numbers");
            };
            let mut link: Box<dyn Publish> = match system {
                System::Ganger => Box::new(ganger::Publisher::connect(address)),
                System::GangerBare => Box::new(bare::Bare::connect(address)),
                System::Redis => Box::new(redis::Redis::connect(address)),
                System::RedisRs => Box::new(redis_rs::Commands::connect(address)),
                System::Nats => Box::new(nats::Nats::connect(address)),
                System::ZeroMq => unreachable!("it has a program of its own"),
            };
            let length = Duration::from_millis(length);
            publish(&mut *link, payload_len as usize, rate, length);
        }
        "subscribe" => {
            let mut link: Box<dyn Receive> = match system {
                System::Ganger => Box::new(ganger::Subscriber::connect(address)),
                System::GangerBare => Box::new(bare::Bare::subscribed(address)),
                System::Redis => Box::new(redis::Redis::subscribed(address)),
                System::RedisRs => Box::new(redis_rs::Subscribed::connect(address)),
                System::Nats => Box::new(nats::Nats::subscribed(address, crate::link::SUBJECT)),
                System::ZeroMq => unreachable!("it has a program of its own"),
            };
            subscribe(&mut *link);
        }
        "subscribe-losing" => subscribe(&mut ganger::Subscriber::losing(address)),
        "reply" => match system {
            System::Ganger => ganger::reply(address),
            _ => {
                let mut nats = nats::Nats::replying(address);
                ready();
                loop {
                    nats.serve();
                }
            }
        },
        "hop-relay" => hop::relay(address),
        "hop-reply" => hop::reply(address),
        other => panic!("there is no role {other}"),
    }
}

/// Nanoseconds on a clock that all processes share.
pub(crate) fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn publish(link: &mut dyn Publish, payload_len: usize, rate: u64, length: Duration) {
    let mut payload = vec![0x5a; payload_len];
    let length_ns = length.as_nanos() as u64;
    match 1_000_000_000_u64.checked_div(rate) {
        Some(every_ns) => publish_at_pace(link, &mut payload, every_ns, length_ns),
        None => publish_fast(link, &mut payload, length_ns),
    }
    stamp(&mut payload, END);
    link.publish(&payload);
    link.end();
}

fn publish_fast(link: &mut dyn Publish, payload: &mut [u8], length_ns: u64) {
    let end = now() + length_ns;
    let count = link.batch(payload.len());
    while now() < end {
        link.publish_all(count, payload, |payload| stamp(payload, EARLY));
        link.flush();
    }
}

/// A message that is due while the one before it still keeps the publisher busy counts from when it was due:
/// where the server reads too late, its publisher can't even send.
fn publish_at_pace(link: &mut dyn Publish, payload: &mut [u8], every_ns: u64, length_ns: u64) {
    let started = now();
    let counts_from = started + EARLY_NS;
    let mut idle_until = started;
    for due in (started..counts_from + length_ns).step_by(every_ns as usize) {
        let left_ns = due.saturating_sub(now());
        if left_ns > 0 {
            std::thread::sleep(Duration::from_nanos(left_ns));
        }
        link.settle();
        if left_ns > 0 {
            idle_until = now();
        }
        let counts = due >= counts_from;
        stamp(payload, if counts { due.max(idle_until) } else { EARLY });
        link.send_one(payload);
    }
}

fn stamp(payload: &mut [u8], time: u64) {
    payload[..8].copy_from_slice(&time.to_le_bytes());
}

fn subscribe(link: &mut dyn Receive) {
    ready();
    let mut arrivals = Vec::new();
    let (mut first, mut last, mut messages) = (0, 0, 0_u64);
    let mut ended = false;
    while !ended {
        link.receive(&mut |payload| {
            let sent = u64::from_le_bytes(payload[..8].try_into().unwrap());
            if sent == END {
                ended = true;
                return;
            }
            last = now();
            if messages == 0 {
                first = last;
            }
            messages += 1;
            if sent != EARLY {
                let took = last.saturating_sub(sent);
                arrivals.push(Arrival { at: last, took });
            }
        });
    }
    let seconds = (last - first) as f64 / 1e9;
    let mut lines = format!("{messages} {seconds}\n");
    for Arrival { at, took } in arrivals {
        writeln!(lines, "{at} {took}").unwrap();
    }
    print!("{lines}");
}

/// The store of a system, or `None` if it has none.
pub(crate) fn store(system: System, address: &str) -> Option<Box<dyn Store>> {
    match system {
        System::Ganger => Some(Box::new(ganger::SocketStore::connect(address))),
        System::GangerBare => Some(Box::new(bare::Bare::connect(address))),
        System::Redis => Some(Box::new(redis::Redis::connect(address))),
        System::RedisRs => Some(Box::new(redis_rs::Commands::connect(address))),
        _ => None,
    }
}
