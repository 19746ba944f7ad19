//! Reload: new workers beside the old ones, proven ready, switched to, the old ones drained. What
//! fails before its switch leaves the old ones as they were.

use super::drain::Patience;
use super::member::{Key, Plan};
use super::{route, App, AppError, Progress, Turn};
use crate::config::{Balance, Command};
use crate::listen::Slot;
use crate::report::WorkerState;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A part of the load for the new ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Canary {
    /// Of a hundred new connections.
    pub(crate) percent: u8,
    /// For so long.
    pub(crate) time: Duration,
}

/// What a reload is to do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reload {
    /// Workers replaced at a time; as configured, if not given.
    pub(crate) width: Option<u16>,
    /// Whether the new ones get a part of the load first.
    pub(crate) canary: Option<Canary>,
    /// The new workers' environment, whole, if it is to be another one.
    pub(crate) env: Option<Vec<(String, String)>>,
}

impl App {
    /// Replaces all workers. Says what was done.
    pub(crate) async fn reload(
        &self,
        reload: Reload,
        progress: &Progress,
    ) -> Result<String, AppError> {
        let turn = self.turn("reloading")?;
        let mut command = self.state().config.command.clone();
        if let Some(env) = reload.env.clone() {
            command.env = env;
        }
        let generation = self.change(|state| {
            state.last_generation += 1;
            state.last_generation
        });
        progress.say(
            self,
            None,
            "reload-start",
            format!("generation {generation} begins"),
        );
        let mut steps = Steps {
            turn: &turn,
            progress,
            generation,
            command: Arc::new(command),
            replaced: 0,
        };
        let result = steps.run(&reload).await;
        let replaced = steps.replaced;
        match &result {
            Ok(()) => {
                let command = Arc::clone(&steps.command);
                self.change(|state| {
                    state.config.command = (*command).clone();
                    state.command = command;
                    state.generation = generation;
                });
                let text = format!("{replaced} workers are of generation {generation}");
                progress.say(self, None, "reload-done", text.clone());
                Ok(text)
            }
            Err(_) => result.map(|()| String::new()).map_err(|error| {
                let error = steps.explain(error);
                progress.say(self, None, "reload-failed", error.to_string());
                error
            }),
        }
    }

    /// Has the reload that is going on undone, as far as the old workers still live.
    pub(crate) fn rollback(&self) -> Result<String, AppError> {
        self.change(|state| {
            let doing = state.doing.as_deref().unwrap_or_default();
            if !doing.starts_with("reload") && !doing.starts_with("canary") {
                let text = format!(
                    "{}: no reload is going on, so the old generation is gone; reload the old \
                     release instead",
                    state.config.name
                );
                return Err(AppError::Failed {
                    text,
                    lines: Vec::new(),
                });
            }
            state.is_rolling_back = true;
            Ok("going back to the old generation".to_owned())
        })
    }
}

/// The steps of one reload.
struct Steps<'a> {
    turn: &'a Turn,
    progress: &'a Progress,
    generation: u64,
    command: Arc<Command>,
    replaced: usize,
}

/// A worker and the one that is to take its place.
#[derive(Debug, Clone, Copy)]
struct Pair {
    old: Option<Key>,
    new: Key,
}

impl Steps<'_> {
    async fn run(&mut self, reload: &Reload) -> Result<(), AppError> {
        let app = self.turn.app.clone();
        let (indexes, width) = {
            let state = app.state();
            let indexes: Vec<u16> = (0..state.wanted).collect();
            // One queue for all can't be emptied while some of its workers go on: all at once.
            let width = match state.config.balance {
                Balance::Shared => state.wanted,
                Balance::Reuseport => reload.width.unwrap_or(state.config.width),
            };
            (indexes, usize::from(width.max(1)))
        };
        let mut pairs: Vec<Pair> = Vec::new();
        if let Some(canary) = reload.canary {
            pairs = self.canary(canary, &indexes).await?;
        }
        let canaries = pairs.len();
        if canaries > 0 {
            self.switch(&pairs).await;
        }
        for indexes in indexes[canaries..].chunks(width) {
            let pairs = self.begin(indexes).await;
            if let Err(error) = self.prove(&pairs).await {
                self.undo(&pairs).await;
                return Err(error);
            }
            self.switch(&pairs).await;
        }
        Ok(())
    }

    /// Starts new workers, which get nothing yet.
    async fn begin(&self, indexes: &[u16]) -> Vec<Pair> {
        let app = &self.turn.app;
        for index in indexes {
            // An older one may still be draining there.
            app.until(|state| state.free_side(*index)).await;
        }
        app.change(|state| {
            let shared = state.listeners().addresses();
            let pairs = indexes.iter().map(|index| {
                let old = state.serving(*index);
                let side = state.free_side(*index)?;
                let required = old
                    .and_then(|old| state.members.get(&old))
                    .map_or_else(BTreeSet::new, |old| old.lasting_addresses(&shared));
                let new = Key {
                    index: *index,
                    generation: self.generation,
                };
                let plan = Plan {
                    slot: Slot {
                        worker: *index,
                        side,
                    },
                    command: Arc::clone(&self.command),
                    required,
                    is_on_trial: true,
                    share: 0,
                };
                state.add(new, plan);
                Some(Pair { old, new })
            });
            pairs.flatten().collect()
        })
    }

    /// Waits until all new ones are ready, or one can't become so.
    async fn prove(&self, pairs: &[Pair]) -> Result<(), AppError> {
        let app = &self.turn.app;
        let judged = app.until(|state| {
            if let Some(trouble) = state.trouble() {
                return Some(Err(trouble));
            }
            let mut are_ready = true;
            for pair in pairs {
                if let Some(failure) = state.failure(pair.new) {
                    return Some(Err(failure));
                }
                let member = state.members.get(&pair.new)?;
                are_ready &= member.machine.state() == WorkerState::Ready;
            }
            are_ready.then_some(Ok(()))
        });
        judged.await?;
        for pair in pairs {
            let text = format!("worker {} is ready", pair.new.index);
            self.progress.say(app, Some(pair.new), "reload-ready", text);
        }
        Ok(())
    }

    /// Gives the new ones what the old ones had, at once, and drains the old ones.
    async fn switch(&mut self, pairs: &[Pair]) {
        let app = &self.turn.app;
        app.change(|state| {
            let old = pairs.iter().filter_map(|pair| Some((pair.old?, 0)));
            let new = pairs.iter().map(|pair| (pair.new, 1));
            state.share(old.chain(new).collect::<Vec<_>>());
            for pair in pairs {
                if let Some(member) = state.members.get_mut(&pair.new) {
                    member.machine.prove();
                }
            }
        });
        for pair in pairs {
            let text = format!("worker {} takes over", pair.new.index);
            self.progress
                .say(app, Some(pair.new), "reload-switched", text);
        }
        let old: Vec<Key> = pairs.iter().filter_map(|pair| pair.old).collect();
        self.turn.retire(&old, Patience::Full).await;
        for key in old {
            let text = format!("the old worker {} has ended", key.index);
            self.progress.say(app, Some(key), "reload-worker", text);
        }
        self.replaced += pairs.len();
    }

    /// Takes new ones away again.
    async fn undo(&self, pairs: &[Pair]) {
        let app = &self.turn.app;
        let new: Vec<Key> = pairs.iter().map(|pair| pair.new).collect();
        app.change(|state| {
            let old = pairs.iter().filter_map(|pair| Some((pair.old?, 1)));
            let none = new.iter().map(|key| (*key, 0));
            state.share(old.chain(none).collect::<Vec<_>>());
        });
        let brought: Vec<String> = {
            let state = app.state();
            let members = new.iter().filter_map(|key| state.members.get(key));
            members.flat_map(|one| one.addresses.clone()).collect()
        };
        self.turn.retire(&new, Patience::Full).await;
        app.change(|state| state.give_back(&brought));
    }

    /// Lets the new ones have a part of the load for a while. The pairs that are to be switched
    /// then.
    async fn canary(&self, canary: Canary, indexes: &[u16]) -> Result<Vec<Pair>, AppError> {
        let app = &self.turn.app;
        let workers = u16::try_from(indexes.len()).unwrap_or(u16::MAX);
        let count = route::canary_workers(canary.percent, workers);
        let pairs = self.begin(&indexes[..usize::from(count)]).await;
        if let Err(error) = self.prove(&pairs).await {
            self.undo(&pairs).await;
            return Err(error);
        }
        let (of_new, of_old) = route::canary_shares(canary.percent, count, workers);
        app.change(|state| {
            state.doing = Some(format!("canary {}%", canary.percent));
            let old: Vec<(Key, u32)> = state
                .members
                .keys()
                .filter(|key| key.generation != self.generation)
                .map(|key| (*key, of_old))
                .collect();
            let new = pairs.iter().map(|pair| (pair.new, of_new));
            state.share(old.into_iter().chain(new).collect::<Vec<_>>());
        });
        let (percent, seconds) = (canary.percent, canary.time.as_secs_f64());
        let text = format!(
            "generation {} gets {percent}% for {seconds} s",
            self.generation
        );
        self.progress.say(app, None, "canary-start", text);
        let trouble = app.until(|state| {
            let failure = pairs.iter().find_map(|pair| state.failure(pair.new));
            failure.or_else(|| state.trouble())
        });
        let trouble = tokio::time::timeout(canary.time, trouble).await;
        app.change(|state| {
            state.doing = Some("reloading".to_owned());
            let old: Vec<(Key, u32)> = state
                .members
                .keys()
                .filter(|key| key.generation != self.generation)
                .map(|key| (*key, 1))
                .collect();
            state.share(old);
        });
        match trouble {
            Ok(error) => {
                self.undo(&pairs).await;
                Err(error)
            }
            Err(_elapsed) => Ok(pairs),
        }
    }

    /// Adds to an error how far the reload had come.
    fn explain(&self, error: AppError) -> AppError {
        let (AppError::Failed { text, lines }, 1..) = (&error, self.replaced) else {
            return error;
        };
        let wanted = self.turn.app.state().wanted;
        AppError::Failed {
            text: format!(
                "{text} ({} of {wanted} workers are of the new generation already)",
                self.replaced
            ),
            lines: lines.clone(),
        }
    }
}

impl super::state::State {
    /// Why what is going on must not go on, if so.
    pub(super) fn trouble(&self) -> Option<AppError> {
        let what = match (self.is_ending, self.is_rolling_back) {
            (true, _) => "it is being stopped",
            (false, true) => "rolled back to the old generation",
            (false, false) => return None,
        };
        Some(AppError::Failed {
            text: format!("{}: {what}", self.config.name),
            lines: Vec::new(),
        })
    }

    /// Gives addresses back that no worker serves.
    fn give_back(&mut self, addresses: &[String]) {
        for text in addresses {
            let is_served = self
                .members
                .values()
                .any(|one| one.addresses.contains(text));
            if let (false, Ok(address)) = (is_served, text.parse()) {
                self.listeners().give_back(&address);
            }
        }
    }

    /// The worker of an index that is to be replaced: the newest that is not ending.
    pub(super) fn serving(&self, index: u16) -> Option<Key> {
        let of_index = self.members.iter().filter(|(key, _)| key.index == index);
        let staying = of_index.filter(|(_, one)| {
            !matches!(
                one.machine.state(),
                WorkerState::Draining | WorkerState::Stopping
            ) || one.share > 0
        });
        staying.map(|(key, _)| *key).max()
    }

    /// Why a worker on trial failed, if it has.
    pub(super) fn failure(&self, key: Key) -> Option<AppError> {
        let member = self.members.get(&key)?;
        let machine = &member.machine;
        let is_failing = machine.is_over()
            || (machine.state() == WorkerState::Stopping && machine.reason().is_some());
        if !is_failing {
            return None;
        }
        let why = member.explain(machine.reason().unwrap_or("it was stopped"));
        let text = format!(
            "{}: the new worker {} did not become ready, the old one stays: {why}",
            self.config.name, key.index
        );
        let lines = self.last_lines(key);
        Some(AppError::Failed { text, lines })
    }
}
