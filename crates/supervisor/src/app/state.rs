//! The workers of an app and all that is decided about them on the spot: what happened goes in,
//! processes are started and signalled, connections are routed. Nothing here waits.

use super::member::{Key, Member, Plan};
use super::process::{Launch, LaunchError, Process, What, Word};
use super::route::{self, Candidate, Watch};
use super::world::World;
use crate::config::{AppConfig, Balance, Command};
use crate::deliver::{DeliverEvent, Rung};
use crate::events::Happening;
use crate::listen::{Listeners, Side, Slot};
use crate::notify;
use crate::ready::{Asked, Gate, Sign, Verdict};
use crate::report::{Exit, WorkerState};
use crate::worker::{signal_name, Action, Input};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Everything about an app.
pub(crate) struct State {
    pub(crate) world: Arc<World>,
    pub(crate) listeners: Arc<Mutex<Listeners>>,
    pub(crate) config: AppConfig,
    pub(crate) command: Arc<Command>,
    pub(crate) rung: Rung,
    pub(crate) notes: Vec<String>,
    /// Workers wanted.
    pub(crate) wanted: u16,
    /// The generation that serves.
    pub(crate) generation: u64,
    /// The last that was begun.
    pub(crate) last_generation: u64,
    pub(crate) members: BTreeMap<Key, Member>,
    /// Slots whose workers are gone: what still waits there is taken care of.
    pub(crate) retired: BTreeSet<Slot>,
    /// What is going on with the whole app.
    pub(crate) doing: Option<String>,
    /// Whether whatever is going on is to be undone.
    pub(crate) is_rolling_back: bool,
    /// Whether it is being stopped: nothing new is started.
    pub(crate) is_ending: bool,
    /// Whether the app has come to its end.
    pub(crate) is_over: bool,
    /// Whether it was seen to listen nowhere.
    pub(crate) is_silent: bool,
    pub(crate) stuck: Watch<Slot>,
    routed: BTreeMap<Slot, u32>,
    words: mpsc::UnboundedSender<Word>,
}

impl State {
    pub(crate) fn new(
        world: Arc<World>,
        listeners: Listeners,
        config: AppConfig,
        rung: (Rung, Vec<String>),
        wanted: u16,
        words: mpsc::UnboundedSender<Word>,
    ) -> Self {
        Self {
            world,
            listeners: Arc::new(Mutex::new(listeners)),
            command: Arc::new(config.command.clone()),
            config,
            rung: rung.0,
            notes: rung.1,
            wanted,
            generation: 1,
            last_generation: 1,
            members: BTreeMap::new(),
            retired: BTreeSet::new(),
            doing: None,
            is_rolling_back: false,
            is_ending: false,
            is_over: false,
            is_silent: false,
            stuck: Watch::default(),
            routed: BTreeMap::new(),
            words,
        }
    }

    /// The listeners, for a moment.
    pub(crate) fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a worker and starts it.
    pub(crate) fn add(&mut self, key: Key, plan: Plan) {
        if self.is_ending {
            return;
        }
        let now = self.world.now_ms();
        self.retired.remove(&plan.slot);
        let member = Member::new(&self.config, plan, now);
        self.members.insert(key, member);
        self.handle(key, Input::Start);
    }

    /// Forgets a worker that is over.
    pub(crate) fn remove(&mut self, key: Key) {
        if let Some(member) = self.members.remove(&key) {
            self.retired.insert(member.slot);
        }
        self.route();
    }

    /// The side of an index that nobody is on, if there is one.
    pub(crate) fn free_side(&self, index: u16) -> Option<Side> {
        let taken = |side| {
            let mut members = self.members.iter();
            members.any(|(key, one)| key.index == index && one.slot.side == side)
        };
        [Side::A, Side::B].into_iter().find(|side| !taken(*side))
    }

    /// Gives workers their part of new connections.
    pub(crate) fn share(&mut self, shares: impl IntoIterator<Item = (Key, u32)>) {
        for (key, share) in shares {
            if let Some(member) = self.members.get_mut(&key) {
                member.share = share;
            }
        }
        self.route();
    }

    /// Takes what happened to a worker, and does what follows.
    pub(crate) fn handle(&mut self, key: Key, input: Input) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let (now, random) = (self.world.now_ms(), self.world.random());
            let Some(member) = self.members.get_mut(&key) else {
                return;
            };
            let before = member.machine.state();
            let action = member.machine.handle(now, random, input);
            if member.machine.state() != before {
                self.tell_state(key);
            }
            match action {
                Some(Action::Spawn) => next = Some(self.spawn(key)),
                Some(Action::Signal(signal)) => {
                    self.with_process(key, |process| drop(process.ask(signal)));
                }
                Some(Action::Kill) => self.with_process(key, Process::kill),
                None => {}
            }
        }
        self.route();
    }

    /// Takes the word of a process in.
    pub(crate) fn word(&mut self, word: Word) {
        let Word {
            key,
            instance,
            what,
        } = word;
        let now = self.world.now_ms();
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        let process = member.process.as_mut();
        let Some(process) = process.filter(|process| process.instance == instance) else {
            return;
        };
        process.heard_ms = now;
        let sign = match what {
            What::Ended { code, signal } => return self.ended(key, code, signal),
            What::Hung(why) => return self.handle(key, Input::Hung(why)),
            What::Notify(notify::Word::Hung) => {
                let why = "it said that it hangs".to_owned();
                return self.handle(key, Input::Hung(why));
            }
            What::Deliver(DeliverEvent::Disconnected) => {
                return self.handle(key, Input::Finished);
            }
            What::Deliver(DeliverEvent::BindFailed { address, error }) => {
                let text = match error.contains(&address) {
                    true => error,
                    false => format!("{address}: {error}"),
                };
                member.bind_error = Some(text.clone());
                self.tell(Some(key), "worker-bind-failed", text);
                Sign::Refused
            }
            What::Deliver(DeliverEvent::Listening(address)) => {
                let address = address.to_string();
                member.addresses.insert(address.clone());
                self.is_silent = false;
                Sign::Listening(address)
            }
            What::Deliver(DeliverEvent::Ready) | What::Notify(notify::Word::Ready) => Sign::Told,
            What::Probed => Sign::Probed,
            What::Deliver(_) | What::Notify(_) => return,
        };
        if let Some(member) = self.members.get_mut(&key) {
            member.gate.sign(now, sign);
        }
        self.look_at_gate(key);
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self) {
        let now = self.world.now_ms();
        let keys: Vec<Key> = self.members.keys().copied().collect();
        for key in keys {
            let Some(member) = self.members.get(&key) else {
                continue;
            };
            if member.machine.deadline_ms().is_some_and(|at| at <= now) {
                self.handle(key, Input::Tick);
            }
            self.look_at_gate(key);
            if self.silence_ms(key).is_some_and(|at| at <= now) {
                let why = "it has not said for too long that it lives".to_owned();
                self.handle(key, Input::Hung(why));
            }
        }
    }

    /// When the next [`State::tick`] is due.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        let deadlines = self.members.values().flat_map(|member| {
            let is_starting = member.machine.state() == WorkerState::Starting;
            let gate = (is_starting && member.process.is_some()).then(|| member.gate.deadline_ms());
            [member.machine.deadline_ms(), gate]
        });
        let silences = self.members.keys().map(|key| self.silence_ms(*key));
        deadlines.chain(silences).flatten().min()
    }

    /// Catches up on switches of connections that had to wait. Whether none waits any more.
    pub(crate) fn settle(&self) -> bool {
        self.listeners().settle()
    }

    /// Takes one look at the queues: whether any holds something.
    pub(crate) fn look_at_queues(&mut self) -> bool {
        let queues: BTreeMap<Slot, u32> = {
            let listeners = self.listeners();
            let ready = self
                .members
                .values()
                .filter(|one| one.share > 0 && one.machine.state() == WorkerState::Ready);
            ready
                .map(|one| (one.slot, listeners.queue_len(one.slot)))
                .collect()
        };
        if self.config.balance == Balance::Reuseport {
            self.stuck.look(&queues);
            self.route();
        }
        let is_any_busy = queues.values().any(|len| *len > 0);
        if !is_any_busy {
            self.listeners().heal();
        }
        is_any_busy
    }

    /// Gives new connections to whom they belong by now.
    pub(crate) fn route(&mut self) {
        let candidates: Vec<Candidate<Slot>> = self
            .members
            .values()
            .map(|member| {
                let state = member.machine.state();
                Candidate {
                    slot: member.slot,
                    share: member.share,
                    is_ready: state == WorkerState::Ready,
                    may_serve: matches!(
                        state,
                        WorkerState::Ready | WorkerState::Starting | WorkerState::Backoff
                    ),
                    is_stuck: self.stuck.is_stuck(member.slot),
                }
            })
            .collect();
        let weights = route::weights(&candidates);
        // With nobody left, connections wait where they did.
        if weights.is_empty() || weights == self.routed {
            return;
        }
        let done = self.listeners().route(&weights);
        match done {
            Ok(()) => self.routed = weights,
            Err(error) => self.tell(None, "route-failed", error.to_string()),
        }
    }

    /// The weight of a slot by which connections are routed now.
    pub(crate) fn weight(&self, slot: Slot) -> u32 {
        self.routed.get(&slot).copied().unwrap_or(0)
    }

    /// Says what happened, to all who listen.
    pub(crate) fn tell(&self, key: Option<Key>, kind: &str, text: impl Into<String>) {
        let mut what = Happening::new(&self.config.name, kind, text);
        if let Some(key) = key {
            let process = self.members.get(&key).and_then(|one| one.process.as_ref());
            what = what.of_worker(key.index, key.generation, process.map(Process::number));
        }
        self.world.tell(what);
    }

    fn with_process(&self, key: Key, what: impl FnOnce(&Process)) {
        let process = self.members.get(&key).and_then(|one| one.process.as_ref());
        if let Some(process) = process {
            what(process);
        }
    }

    fn spawn(&mut self, key: Key) -> Input {
        let now = self.world.now_ms();
        let Some(member) = self.members.get_mut(&key) else {
            return Input::Tick;
        };
        let launched = Process::launch(&Launch {
            world: &self.world,
            config: &self.config,
            command: &member.command,
            rung: self.rung,
            listeners: &self.listeners,
            key,
            slot: member.slot,
            words: &self.words,
        });
        match launched {
            Ok(process) => {
                let asked = Asked {
                    ready: self.config.ready.clone(),
                    required: member.required.clone(),
                    must_listen: self.config.listener_option(),
                    is_silent: self.is_silent,
                    is_on_trial: member.machine.is_on_trial(),
                };
                member.gate = Gate::new(asked, now);
                member.last_pid = Some(process.number());
                member.bind_error = None;
                member.process = Some(process);
                self.tell(Some(key), "worker-start", "started");
                Input::Spawned
            }
            Err(LaunchError::Wrong(why)) => Input::SpawnFailed(why),
            Err(LaunchError::Refused(why)) => Input::SpawnRefused(why),
        }
    }

    fn ended(&mut self, key: Key, code: Option<i32>, signal: Option<i32>) {
        let at_ms = self.world.epoch_ms(self.world.now_ms());
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        let was_wanted = matches!(
            member.machine.state(),
            WorkerState::Stopping | WorkerState::Draining
        );
        member.last_exit = Some(Exit {
            code,
            signal,
            at_ms,
            was_wanted,
        });
        let how = match (code, signal) {
            (Some(code), _) => format!("exited with code {code}"),
            (None, Some(signal)) => format!("ended by {}", signal_name(signal)),
            (None, None) => "ended".to_owned(),
        };
        self.tell(Some(key), "worker-exit", how);
        if let Some(member) = self.members.get_mut(&key) {
            member.process = None;
        }
        self.listeners().heal();
        self.handle(key, Input::Exited { code, signal });
    }

    fn look_at_gate(&mut self, key: Key) {
        let now = self.world.now_ms();
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        let Some(process) = member.process.as_mut() else {
            return;
        };
        if member.machine.state() != WorkerState::Starting {
            return;
        }
        match member.gate.verdict(now) {
            Verdict::Waiting => {}
            Verdict::Ready => {
                let is_silent = member.addresses.is_empty() && member.gate.listening().is_empty();
                if !self.is_silent && is_silent && self.listeners().addresses().is_empty() {
                    self.is_silent = true;
                    let text = "it listens nowhere, and counts as ready because it lives";
                    self.tell(Some(key), "worker-silent", text);
                }
                self.handle(key, Input::Ready);
                self.watch_life(key);
            }
            Verdict::Late(why) => self.handle(key, Input::NotReady(why)),
            Verdict::WantsProbe if process.is_probing => {}
            Verdict::WantsProbe => {
                process.is_probing = true;
                self.probe_readiness(key);
            }
        }
    }

    /// Sends a word in the name of a worker's present process.
    pub(crate) fn words(&self) -> mpsc::UnboundedSender<Word> {
        self.words.clone()
    }

    fn tell_state(&self, key: Key) {
        let Some(member) = self.members.get(&key) else {
            return;
        };
        let machine = &member.machine;
        let (kind, text) = match machine.state() {
            WorkerState::Starting => return,
            WorkerState::Ready => ("worker-ready", "ready"),
            WorkerState::Draining => ("worker-draining", "finishes what it has"),
            WorkerState::Stopping => ("worker-stopping", "asked to stop"),
            WorkerState::Backoff => ("worker-backoff", "starts again soon"),
            WorkerState::Failed => ("worker-failed", "failed"),
            WorkerState::Stopped => ("worker-stopped", "stopped"),
        };
        let text = match (machine.reason(), machine.deadline_ms(), machine.state()) {
            (Some(why), Some(at), WorkerState::Backoff) => {
                let wait = at.saturating_sub(machine.since_ms());
                format!("{why}; starts again in {wait} ms")
            }
            (Some(why), _, _) => format!("{text}: {why}"),
            (None, _, _) => text.to_owned(),
        };
        self.tell(Some(key), kind, text);
    }
}
