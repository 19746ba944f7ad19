//! Restart: each worker is stopped and started again in its own place. With more than one, one at
//! a time; connections that come meanwhile go to the others, or wait in the queue of the only one.

use super::drain::{drain, Patience};
use super::member::{Key, Member, Plan};
use super::{App, AppError, Progress};
use crate::report::WorkerState;
use crate::worker::Input;
use std::collections::BTreeSet;
use std::sync::Arc;

impl App {
    /// Stops and starts all workers. Says what was done.
    pub(crate) async fn restart(&self, progress: &Progress) -> Result<String, AppError> {
        let turn = self.turn("restarting")?;
        let keys: Vec<Key> = {
            let state = self.state();
            (0..state.wanted)
                .filter_map(|index| state.serving(index))
                .collect()
        };
        progress.say(self, None, "restart-start", "restart begins");
        for key in &keys {
            self.restart_one(*key, keys.len() > 1).await?;
            let text = format!("worker {} was restarted", key.index);
            progress.say(self, Some(*key), "restart-worker", text);
        }
        drop(turn);
        let text = format!("{} workers were restarted", keys.len());
        progress.say(self, None, "restart-done", text.clone());
        Ok(text)
    }

    async fn restart_one(&self, key: Key, has_others: bool) -> Result<(), AppError> {
        if has_others {
            self.change(|state| state.share([(key, 0)]));
        }
        drain(self.clone(), key, Patience::Full).await;
        self.change(|state| {
            let member = state.members.get(&key).filter(|_| !state.is_ending);
            let Some(member) = member else {
                return;
            };
            let plan = Plan {
                slot: member.slot,
                command: Arc::clone(&state.command),
                // What it listens on may be another thing from now on.
                required: BTreeSet::new(),
                is_on_trial: false,
                share: 1,
            };
            let mut fresh = Member::new(&state.config, plan, state.world.now_ms());
            fresh.last_exit.clone_from(&member.last_exit);
            fresh.last_pid = member.last_pid;
            state.members.insert(key, fresh);
            state.handle(key, Input::Start);
        });
        self.until(|state| {
            if let Some(trouble) = state.trouble() {
                return Some(Err(trouble));
            }
            let Some(member) = state.members.get(&key) else {
                return Some(Ok(()));
            };
            match member.machine.state() {
                WorkerState::Ready => Some(Ok(())),
                WorkerState::Failed | WorkerState::Backoff => {
                    let why = member.machine.reason().unwrap_or_default();
                    let text = format!(
                        "{}: worker {} did not come back, the rest was left alone: {why}",
                        state.config.name, key.index
                    );
                    let lines = state.last_lines(key);
                    Some(Err(AppError::Failed { text, lines }))
                }
                WorkerState::Stopped => Some(Ok(())),
                _ => None,
            }
        })
        .await
    }
}
