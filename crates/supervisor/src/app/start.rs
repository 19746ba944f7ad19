//! Start: the listeners are opened and all workers started. Where somebody waits for it (`ganger
//! start`), the first worker that can't get ready ends it; in the foreground it is started again
//! and again, since what it needs may come up later.

use super::member::{Key, Plan};
use super::process::Task;
use super::state::State;
use super::{engine, look, App, AppError, Inner, World};
use crate::config::{AppConfig, WorkerCount, WORKERS_MAX};
use crate::cpus;
use crate::deliver;
use crate::listen::{Listeners, Side, Slot};
use crate::report::WorkerState;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};

impl App {
    /// Opens its listeners and starts its workers. On trial, the first crash of one is its last,
    /// until [`App::prove`].
    pub(crate) fn start(
        world: &Arc<World>,
        config: AppConfig,
        is_on_trial: bool,
    ) -> Result<Self, AppError> {
        let wanted = match config.workers {
            WorkerCount::Auto => cpus::available(),
            WorkerCount::Exactly(wanted @ 1..=WORKERS_MAX) => wanted,
            WorkerCount::Exactly(wanted) => {
                let text = format!("{wanted} workers: there can be 1 to {WORKERS_MAX}");
                return Err(AppError::Config(text));
            }
        };
        let has_addresses = !config.listen.is_empty();
        let rung = deliver::choose(config.deliver, &config.command, has_addresses)?;
        let mut listeners = Listeners::new(&config.name, config.balance, wanted);
        for text in &config.listen {
            let address = text
                .parse()
                .map_err(|error| AppError::Config(format!("--listen {text}: {error}")))?;
            listeners.declare(&address)?;
        }
        let (words, heard) = mpsc::unbounded_channel();
        let name = config.name.clone();
        let state = State::new(Arc::clone(world), listeners, config, rung, wanted, words);
        let app = Self(Arc::new(Inner {
            name,
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
            turn: Arc::default(),
            tasks: Mutex::default(),
        }));
        app.change(|state| {
            for index in 0..wanted {
                let plan = Plan {
                    slot: Slot {
                        worker: index,
                        side: Side::A,
                    },
                    command: Arc::clone(&state.command),
                    required: BTreeSet::new(),
                    is_on_trial,
                    share: 1,
                };
                let generation = state.generation;
                state.add(Key { index, generation }, plan);
            }
        });
        let tasks = vec![
            Task::spawn(engine(Arc::downgrade(&app.0), heard)),
            Task::spawn(look(Arc::downgrade(&app.0))),
        ];
        *app.0.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
        Ok(app)
    }

    /// Waits until all workers of an app that was started on trial serve, or are done with what
    /// they were for. From then on they are started again when they crash. The first that fails is
    /// the error; the others are left as they are.
    pub(crate) async fn prove(&self) -> Result<(), AppError> {
        let _turn = self.turn("starting")?;
        self.until(|state| {
            if let Some(trouble) = state.trouble().or_else(|| state.first_failure()) {
                return Some(Err(trouble));
            }
            let mut members = state.members.values();
            let is_through = |state| matches!(state, WorkerState::Ready | WorkerState::Stopped);
            members
                .all(|one| is_through(one.machine.state()))
                .then_some(Ok(()))
        })
        .await?;
        self.change(|state| {
            for member in state.members.values_mut() {
                member.machine.prove();
            }
        });
        Ok(())
    }
}
