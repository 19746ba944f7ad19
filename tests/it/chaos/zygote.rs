//! The process that forks the clients of the chaos run, kills, stops and continues them. It has no
//! region open and no second thread at work, so a fork copies nothing but itself.

use super::client::{Client, Task};
use super::log::{now, Logs, SLOTS};
use super::random::{derive, Random};
use crate::harness::fork::Forked;
use crate::harness::{listen, report, PATIENCE};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// How long clients go on after the last kill: what the dead left is taken over by those who follow.
const CALM: Duration = Duration::from_millis(50);

/// Plays rounds: the parent tells `seed milliseconds`, and hears how many were killed and stopped.
pub(crate) fn play(region: &str, logs: &str, evicts: &str) {
    let evicts = evicts.parse().unwrap();
    let task = Task { region, evicts };
    let logs = Logs::open(logs);
    while let Some(line) = listen() {
        let (seed, ms) = line.split_once(' ').unwrap();
        let mut round = Round::new(&task, logs, seed.parse().unwrap());
        round.rage(Duration::from_millis(ms.parse().unwrap()));
        round.resume(true);
        std::thread::sleep(CALM);
        round.end();
        report(&format!("{} {}", round.kills, round.stops));
    }
}

struct Round<'r> {
    task: &'r Task<'r>,
    logs: &'r Logs,
    seed: u64,
    random: Random,
    clients: Vec<Forked>,
    /// When a stopped client is to go on.
    stopped: [Option<Instant>; SLOTS],
    kills: u64,
    stops: u64,
}

impl<'r> Round<'r> {
    fn new(task: &'r Task<'r>, logs: &'r Logs, seed: u64) -> Self {
        logs.reset();
        let mut round = Self {
            task,
            logs,
            seed,
            random: Random::new(seed),
            clients: Vec::new(),
            stopped: [None; SLOTS],
            kills: 0,
            stops: 0,
        };
        for slot in 0..SLOTS {
            let client = round.fork(slot);
            round.clients.push(client);
        }
        round
    }

    fn fork(&self, slot: usize) -> Forked {
        let seed = derive(self.seed, self.kills << 8 | slot as u64);
        Forked::new(|| {
            Client::attach(self.logs, slot, self.task, seed).run();
            true
        })
    }

    fn rage(&mut self, time: Duration) {
        let started = Instant::now();
        while started.elapsed() < time {
            self.resume(false);
            match self.random.below(100) {
                0..=49 => self.kill_some(),
                // All that work on the region die at the same moment.
                50..=51 => self.kill(&Vec::from_iter(0..SLOTS)),
                52..=97 => self.stop_one(),
                _ => {}
            }
            std::thread::sleep(Duration::from_micros(self.random.below(1500)));
        }
    }

    fn kill_some(&mut self) {
        let first = self.pick();
        let count = 1 + self.pick() / 3;
        let slots = Vec::from_iter((0..count).map(|next| (first + next) % SLOTS));
        self.kill(&slots);
        if self.random.chance(20) {
            // Their successors do not get far: they die while they attach, or soon after.
            std::thread::sleep(Duration::from_micros(self.random.below(400)));
            self.kill(&slots);
        }
    }

    /// Kills clients, logs their deaths, and forks their successors.
    fn kill(&mut self, slots: &[usize]) {
        let alive = Vec::from_iter(slots.iter().map(|slot| {
            let alive = now();
            self.clients[*slot].signal(Signal::KILL);
            alive
        }));
        for (&slot, alive) in slots.iter().zip(alive) {
            let other_end = self.clients[slot].kill();
            if let Some(status) = other_end {
                eprintln!("client {slot} ended by itself: {status:?}");
                self.logs.count_fault();
            }
            self.logs.log_death(slot, alive);
            self.kills += 1;
            self.stopped[slot] = None;
            self.clients[slot] = self.fork(slot);
        }
    }

    fn stop_one(&mut self) {
        let slot = self.pick();
        if self.stopped[slot].is_none() {
            self.clients[slot].signal(Signal::STOP);
            let pause = Duration::from_micros(300 + self.random.below(12_000));
            self.stopped[slot] = Some(Instant::now() + pause);
            self.stops += 1;
        }
    }

    /// Lets those go on whose pause is over, or all.
    fn resume(&mut self, all: bool) {
        for (client, stopped) in self.clients.iter().zip(&mut self.stopped) {
            if stopped.is_some_and(|until| all || Instant::now() >= until) {
                client.signal(Signal::CONT);
                *stopped = None;
            }
        }
    }

    /// Lets all clients end their operations and themselves: one that hangs is found here.
    fn end(&mut self) {
        self.resume(true);
        self.logs.quit();
        let started = Instant::now();
        for (slot, client) in self.clients.iter_mut().enumerate() {
            let status = loop {
                if let Some(status) = client.try_wait() {
                    break Some(status);
                }
                if started.elapsed() > PATIENCE {
                    break None;
                }
                std::thread::sleep(Duration::from_micros(200));
            };
            if status.and_then(|status| status.exit_status()) != Some(0) {
                eprintln!("client {slot} did not end well: {status:?} (none: it hangs)");
                self.logs.count_fault();
            }
        }
        self.clients.clear();
    }

    fn pick(&mut self) -> usize {
        usize::try_from(self.random.below(SLOTS as u64)).unwrap()
    }
}
