//! Probes of a worker: whether it is ready, and whether it still lives.

use super::member::Key;
use super::process::{Task, What, Word};
use super::state::State;
use crate::config::{Liveness, Probe};
use crate::listen::{Address, Listeners, Slot};
use crate::probe::{self, Target};
use crate::report::WorkerState;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Between two attempts of the readiness probe.
const READY_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for an answer to it.
const READY_PATIENCE: Duration = Duration::from_secs(5);
/// The last status code that means ready.
const READY_STATUS_MAX: u16 = 399;
/// The last status code that means alive.
const ALIVE_STATUS_MAX: u16 = 499;

impl State {
    /// Asks a starting worker over HTTP until it answers well.
    pub(super) fn probe_readiness(&mut self, key: Key) {
        let Some(path) = self.config.ready.http_path.clone() else {
            return;
        };
        let question = Question::Http {
            path,
            status_max: READY_STATUS_MAX,
        };
        self.with_prober(key, |prober, words, word| async move {
            while prober.ask(&question, READY_PATIENCE).await.is_err() {
                tokio::time::sleep(READY_PAUSE).await;
            }
            let _ = words.send(word(What::Probed));
        });
    }

    /// Watches whether a ready worker still answers, if that is asked for.
    pub(super) fn watch_life(&mut self, key: Key) {
        let Some(liveness) = self.config.liveness.clone() else {
            return;
        };
        let question = match &liveness.probe {
            // Its word is waited for: see `silence`.
            Probe::Heartbeat => {
                self.heard_now(key);
                return;
            }
            Probe::Tcp => Question::Tcp,
            Probe::Http(path) => Question::Http {
                path: path.clone(),
                status_max: ALIVE_STATUS_MAX,
            },
        };
        self.with_prober(key, |prober, words, word| async move {
            let why = prober.watch(&liveness, &question).await;
            let _ = words.send(word(What::Hung(why)));
        });
    }

    /// When a ready worker that must say now and then that it lives has been silent too long.
    pub(super) fn silence_ms(&self, key: Key) -> Option<u64> {
        let liveness = self.config.liveness.as_ref()?;
        let member = self.members.get(&key)?;
        let is_due =
            liveness.probe == Probe::Heartbeat && member.machine.state() == WorkerState::Ready;
        let heard = member.process.as_ref().filter(|_| is_due)?.heard_ms;
        Some(heard.saturating_add(liveness.patience_ms()))
    }

    fn heard_now(&mut self, key: Key) {
        let now = self.world.now_ms();
        let member = self.members.get_mut(&key);
        if let Some(process) = member.and_then(|one| one.process.as_mut()) {
            process.heard_ms = now;
        }
    }

    fn with_prober<F>(
        &mut self,
        key: Key,
        task: impl FnOnce(Prober, tokio::sync::mpsc::UnboundedSender<Word>, WordOf) -> F,
    ) where
        F: std::future::Future<Output = ()> + Send + 'static,
    {
        let words = self.words();
        let listeners = Arc::clone(&self.listeners);
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        let prober = Prober {
            listeners,
            slot: member.slot,
            addresses: member
                .addresses
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect(),
        };
        if let Some(process) = &mut member.process {
            let instance = process.instance;
            let word: WordOf = Box::new(move |what| Word {
                key,
                instance,
                what,
            });
            process.tasks.push(Task::spawn(task(prober, words, word)));
        }
    }
}

type WordOf = Box<dyn FnOnce(What) -> Word + Send>;

/// Asks one worker.
struct Prober {
    listeners: Arc<Mutex<Listeners>>,
    slot: Slot,
    addresses: Vec<Address>,
}

impl Prober {
    async fn ask(&self, question: &Question, patience: Duration) -> Result<(), String> {
        let target = self.target()?;
        let answer = match question {
            Question::Tcp => probe::tcp(&target, patience).await,
            Question::Http { path, status_max } => {
                probe::http(&target, path, *status_max, patience).await
            }
        };
        answer.map_err(|error| match question {
            Question::Tcp => format!("connecting: {error}"),
            Question::Http { path, .. } => format!("GET {path}: {error}"),
        })
    }

    /// The worker's first stream listener, by a way that leads to this worker if there is one. With
    /// one queue for several workers (`shared`, Unix sockets) any of them may answer.
    fn target(&self) -> Result<Target, String> {
        let first = self
            .addresses
            .iter()
            .find(|one| !matches!(one, Address::Udp(_)));
        let address = first.ok_or("it has no listener that could be asked")?;
        let listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match address {
            Address::Unix(path) => Ok(Target::Unix(path.clone())),
            Address::Udp(_) => Err("it has no listener that could be asked".to_owned()),
            Address::Tcp {
                address: at,
                is_v6_only,
            } => Ok(Target::Tcp {
                address: reachable(*at, *is_v6_only),
                source: listeners.probe_source(address, self.slot),
            }),
        }
    }

    /// Asks again and again; returns how it failed when it did too often in a row.
    async fn watch(&self, liveness: &Liveness, question: &Question) -> String {
        let pause = Duration::from_millis(liveness.every_ms.max(10));
        let patience = Duration::from_millis(liveness.timeout_ms.max(1));
        let mut failures = 0;
        loop {
            tokio::time::sleep(pause).await;
            match self.ask(question, patience).await {
                Ok(()) => failures = 0,
                Err(why) => {
                    failures += 1;
                    if failures >= liveness.failures_max.max(1) {
                        return format!("{why} ({failures} times in a row)");
                    }
                }
            }
        }
    }
}

/// What is asked.
enum Question {
    Http { path: String, status_max: u16 },
    Tcp,
}

/// An address to connect to for one to listen on. Of an unspecified v6 address, the v4 side is
/// asked where it is served: there a probe can be steered.
fn reachable(address: SocketAddr, is_v6_only: bool) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        _ if is_v6_only => Ipv6Addr::LOCALHOST.into(),
        _ => Ipv4Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}
