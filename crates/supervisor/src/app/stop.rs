//! Stop: all workers finish what they have and end. And signals as somebody wished.

use super::drain::{drain, Patience};
use super::member::Key;
use super::{App, AppError, Progress};
use crate::worker::{signal_name, Input};

impl App {
    /// Ends all workers, whatever else is going on with the app, and waits for it.
    pub(crate) async fn stop(&self, progress: &Progress) -> String {
        let is_first = self.change(|state| {
            state.doing = Some("stopping".to_owned());
            // What else is going on gives up as soon as it sees that.
            !std::mem::replace(&mut state.is_ending, true)
        });
        if is_first {
            progress.say(self, None, "stop-start", "stops");
        }
        loop {
            let keys: Vec<Key> = {
                let state = self.state();
                let alive = state
                    .members
                    .iter()
                    .filter(|(_, one)| !one.machine.is_over() || one.process.is_some());
                alive.map(|(key, _)| *key).collect()
            };
            if keys.is_empty() {
                break;
            }
            let mut drains = tokio::task::JoinSet::new();
            for key in keys {
                drains.spawn(drain(self.clone(), key, Patience::Brief));
            }
            while drains.join_next().await.is_some() {}
        }
        self.change(|state| state.is_over = true);
        progress.say(self, None, "stop-done", "stopped");
        format!("{} is stopped", self.name())
    }

    /// Kills whatever is left at once.
    pub(crate) fn hasten(&self) {
        self.change(|state| {
            let keys: Vec<Key> = state.members.keys().copied().collect();
            for key in keys {
                state.handle(key, Input::Hasten);
            }
        });
    }

    /// Sends a signal to all workers, or to one. Says to how many.
    pub(crate) fn signal(&self, worker: Option<u16>, signal: i32) -> Result<String, AppError> {
        let state = self.state();
        let mut count = 0;
        for (key, member) in &state.members {
            let Some(process) = &member.process else {
                continue;
            };
            if worker.is_none_or(|worker| worker == key.index) {
                process.signal(signal).map_err(|error| AppError::Failed {
                    text: format!("{}: {}: {error}", self.name(), signal_name(signal)),
                    lines: Vec::new(),
                })?;
                count += 1;
            }
        }
        if count == 0 {
            let whom = worker.map_or_else(String::new, |worker| format!(" {worker}"));
            let text = format!("{}: there is no running worker{whom}", self.name());
            return Err(AppError::Failed {
                text,
                lines: Vec::new(),
            });
        }
        let name = signal_name(signal);
        Ok(format!(
            "{name} was sent to {count} workers of {}",
            self.name()
        ))
    }
}
