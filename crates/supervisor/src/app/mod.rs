//! The workers of one app: they are kept alive, replaced, added and taken away without a connection
//! being refused.
//!
//! # Theory of operation
//!
//! `state::State` holds everything and decides on the spot: what happened to a worker goes into
//! its machine ([`crate::worker`]), what comes out is done, and connections are routed anew. One
//! task (`engine`) feeds it with what the processes' watchers report and with the passing of
//! time. What takes steps (reload, scale, restart, stop) is a future that changes the state and
//! waits until it has become what it needs; one at a time (`App::turn`). Nothing waits with the
//! lock held, and everything that is waited for has a deadline in a worker's machine or gate.

mod alive;
mod drain;
mod left;
mod member;
mod process;
mod reload;
mod restart;
mod route;
mod scale;
mod start;
mod state;
mod status;
mod stop;
mod strays;
mod world;

pub(crate) use left::children;
pub(crate) use process::CGROUP_PREFIX;
pub(crate) use reload::{Canary, Reload};
pub(crate) use scale::Target;
pub(crate) use world::World;

use crate::deliver::DeliverError;
use crate::events::Happening;
use crate::listen::ListenError;
use crate::report::{Event, LogLine};
use member::Key;
use process::{Task, Word};
use state::State;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How often queues are looked at while nothing is in them, and while something is.
const LOOK_IDLE: Duration = Duration::from_millis(500);
const LOOK_BUSY: Duration = Duration::from_millis(80);

/// Why something could not be done with an app.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// Its address could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its program can't get its listeners in the way that was asked for.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    /// Something in the configuration is no address, too much or too little.
    #[error("{0}")]
    Config(String),
    /// Something else is going on with it.
    #[error("{app} is {doing} at the moment: try again when that is done")]
    Busy {
        /// The app.
        app: String,
        /// What.
        doing: String,
    },
    /// New workers did not become what they should; the old ones go on.
    #[error("{text}")]
    Failed {
        /// What and why.
        text: String,
        /// The last lines that the worker wrote.
        lines: Vec<LogLine>,
    },
}

/// An app. Clones are handles on the same.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

struct Inner {
    name: String,
    state: Mutex<State>,
    /// Counts changes, so that they can be waited for.
    changes: watch::Sender<u64>,
    turn: Arc<tokio::sync::Mutex<()>>,
    tasks: Mutex<Vec<Task>>,
}

/// Tells whoever asked for something how it goes, and everybody else.
pub(crate) struct Progress {
    pub(crate) sender: Option<mpsc::Sender<Event>>,
}

/// The right to change an app in steps.
pub(crate) struct Turn {
    app: App,
    _guard: tokio::sync::OwnedMutexGuard<()>,
}

impl App {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether both are handles on the same app: a name may be another's later.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Begins something that takes steps; refused while something else is going on.
    fn turn(&self, doing: &str) -> Result<Turn, AppError> {
        let trouble = {
            let state = self.state();
            state.trouble().filter(|_| state.is_ending)
        };
        if let Some(trouble) = trouble {
            return Err(trouble);
        }
        let busy = || AppError::Busy {
            app: self.name().to_owned(),
            doing: self.state().doing.clone().unwrap_or_default(),
        };
        let guard = Arc::clone(&self.0.turn).try_lock_owned();
        let guard = guard.map_err(|_| busy())?;
        Ok(self.take_turn(guard, doing))
    }

    fn take_turn(&self, guard: tokio::sync::OwnedMutexGuard<()>, doing: &str) -> Turn {
        self.change(|state| {
            state.doing = Some(doing.to_owned());
            state.is_rolling_back = false;
        });
        Turn {
            app: self.clone(),
            _guard: guard,
        }
    }

    /// The state, to be looked at.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes who waits for a change.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.0.changes.send_modify(|count| *count += 1);
        result
    }

    /// Waits until the state has become something.
    async fn until<T>(&self, mut look: impl FnMut(&State) -> Option<T>) -> T {
        let mut changes = self.0.changes.subscribe();
        loop {
            if let Some(found) = look(&self.state()) {
                return found;
            }
            if changes.changed().await.is_err() {
                // Not possible while this handle lives.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the app has come to its end: all workers stopped or failed by themselves, or it
    /// was stopped.
    pub(crate) async fn over(&self) {
        self.until(|state| {
            let is_idle = state.doing.is_none() && state.is_at_end();
            (state.is_over || is_idle).then_some(())
        })
        .await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.app.change(|state| {
            state.doing = state.is_ending.then(|| "stopping".to_owned());
            state.is_rolling_back = false;
        });
    }
}

impl Progress {
    /// Nobody in particular wants to know.
    pub(crate) const fn silent() -> Self {
        Self { sender: None }
    }

    fn say(&self, app: &App, key: Option<Key>, kind: &str, text: impl Into<String>) {
        let state = app.state();
        let mut what = Happening::new(app.name(), kind, text);
        if let Some(key) = key {
            let member = state.members.get(&key);
            let process = member.and_then(|one| one.process.as_ref());
            let pid = process.map(process::Process::number);
            what = what.of_worker(key.index, key.generation, pid);
        }
        let event = state.world.tell(what);
        if let Some(sender) = &self.sender {
            // A client that does not read misses some of it.
            let _ = sender.try_send(event);
        }
    }
}

/// Feeds the state with what happens, until the app is gone.
async fn engine(app: std::sync::Weak<Inner>, mut words: mpsc::UnboundedReceiver<Word>) {
    let Some(mut changes) = app.upgrade().map(|inner| inner.changes.subscribe()) else {
        return;
    };
    loop {
        let deadline = {
            let Some(inner) = app.upgrade() else { return };
            changes.borrow_and_update();
            let state = App(inner);
            let state = state.state();
            state.deadline_ms().map(|at| state.world.instant(at))
        };
        let sleep = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let word = tokio::select! {
            word = words.recv() => match word {
                Some(word) => Some(word),
                None => return,
            },
            () = sleep => None,
            changed = changes.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Some(inner) = app.upgrade() else { return };
        App(inner).change(|state| match word {
            Some(word) => state.word(word),
            None => state.tick(),
        });
    }
}

/// Looks at the queues: seldom while they are empty.
async fn look(app: std::sync::Weak<Inner>) {
    let mut pause = LOOK_IDLE;
    loop {
        tokio::time::sleep(pause).await;
        let Some(inner) = app.upgrade() else { return };
        let app = App(inner);
        // Not a change that anybody waits for.
        let is_busy = {
            let mut state = app.state();
            let is_settled = state.settle();
            state.look_at_queues() || !is_settled
        };
        app.rescue_strays();
        pause = if is_busy { LOOK_BUSY } else { LOOK_IDLE };
    }
}
