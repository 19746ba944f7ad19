//! Scale: workers are added, or the last ones taken away, without a connection being lost.

use super::drain::Patience;
use super::member::{Key, Plan};
use super::{App, AppError, Progress};
use crate::config::WORKERS_MAX;
use crate::listen::Slot;
use crate::report::WorkerState;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How many workers there are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// So many.
    To(u16),
    /// So many more (or less) than are wanted now.
    By(i32),
}

impl App {
    /// Changes the number of workers. Says what was done.
    pub(crate) async fn scale(
        &self,
        target: Target,
        progress: &Progress,
    ) -> Result<String, AppError> {
        let turn = self.turn("scaling")?;
        let before = self.state().wanted;
        let wanted = match target {
            Target::To(wanted) => i64::from(wanted),
            Target::By(more) => i64::from(before) + i64::from(more),
        };
        let wanted = u16::try_from(wanted)
            .ok()
            .filter(|wanted| (1..=WORKERS_MAX).contains(wanted))
            .ok_or_else(|| {
                let name = self.name();
                let text = format!("{name}: {wanted} workers: there can be 1 to {WORKERS_MAX}");
                AppError::Config(text)
            })?;
        progress.say(
            self,
            None,
            "scale-start",
            format!("from {before} to {wanted} workers"),
        );
        if wanted > before {
            let keys = self.grow(before, wanted).await;
            if let Err(error) = self.all_ready(&keys).await {
                self.change(|state| {
                    state.wanted = before;
                    state.share(keys.iter().map(|key| (*key, 0)).collect::<Vec<_>>());
                });
                turn.retire(&keys, Patience::Full).await;
                progress.say(self, None, "scale-failed", error.to_string());
                return Err(error);
            }
        } else {
            let keys: Vec<Key> = self.change(|state| {
                state.wanted = wanted;
                let keys = state.members.keys().filter(|key| key.index >= wanted);
                let keys: Vec<Key> = keys.copied().collect();
                state.share(keys.iter().map(|key| (*key, 0)).collect::<Vec<_>>());
                keys
            });
            turn.retire(&keys, Patience::Full).await;
        }
        let text = format!("{wanted} workers");
        progress.say(self, None, "scale-done", text.clone());
        Ok(text)
    }

    async fn grow(&self, before: u16, wanted: u16) -> Vec<Key> {
        for index in before..wanted {
            self.until(|state| state.free_side(index)).await;
        }
        self.change(|state| {
            state.wanted = wanted;
            let required = state.served_by_all();
            let generation = state.current_generation();
            let mut keys = Vec::new();
            for index in before..wanted {
                let Some(side) = state.free_side(index) else {
                    continue;
                };
                let key = Key { index, generation };
                let plan = Plan {
                    slot: Slot {
                        worker: index,
                        side,
                    },
                    command: Arc::clone(&state.command),
                    required: required.clone(),
                    is_on_trial: true,
                    share: 1,
                };
                state.add(key, plan);
                keys.push(key);
            }
            keys
        })
    }

    async fn all_ready(&self, keys: &[Key]) -> Result<(), AppError> {
        self.until(|state| {
            if let Some(trouble) = state.trouble() {
                return Some(Err(trouble));
            }
            let mut are_ready = true;
            for key in keys {
                if let Some(failure) = state.failure(*key) {
                    return Some(Err(failure));
                }
                let member = state.members.get(key)?;
                are_ready &= member.machine.state() == WorkerState::Ready;
            }
            are_ready.then_some(Ok(()))
        })
        .await?;
        self.change(|state| {
            for key in keys {
                if let Some(member) = state.members.get_mut(key) {
                    member.machine.prove();
                }
            }
        });
        Ok(())
    }
}

impl super::state::State {
    /// The addresses that every ready worker listens on, and another one can too.
    fn served_by_all(&self) -> BTreeSet<String> {
        let shared = self.listeners().addresses();
        let ready = self
            .members
            .values()
            .filter(|one| one.machine.state() == WorkerState::Ready && one.share > 0);
        ready
            .map(|one| one.lasting_addresses(&shared))
            .reduce(|all, own| all.intersection(&own).cloned().collect())
            .unwrap_or_default()
    }

    /// The generation of the workers that are there: not that of a reload that failed.
    fn current_generation(&self) -> u64 {
        let generations = self.members.keys().map(|key| key.generation);
        generations.max().unwrap_or(self.generation)
    }
}
