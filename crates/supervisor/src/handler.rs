//! What the control socket can have done: the apps of a running supervisor.

use crate::app::{App, AppError, Canary, Progress, Reload, Target, World};
use crate::broker::Broker;
use crate::config::AppConfig;
use crate::control::{server, streams, Reply, Request, Scale};
use crate::events::Happening;
use crate::logs::Filter;
use crate::report::{Event, Status};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Names that mean something else.
const RESERVED: [&str; 1] = ["broker"];
/// Longest name of an app.
const NAME_MAX: usize = 64;
/// How long a canary has if nobody says.
const CANARY_MS: u64 = 30_000;
/// Steps of an operation that its client may lag behind.
const STEPS: usize = 256;

/// The apps, and what is beside them.
pub(crate) struct Core {
    pub(crate) world: Arc<World>,
    pub(crate) broker: Option<Broker>,
    apps: Mutex<BTreeMap<String, App>>,
    /// Counts apps that came and went.
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) wants_shutdown: watch::Sender<bool>,
}

impl Core {
    pub(crate) fn new(world: Arc<World>, broker: Option<Broker>) -> Self {
        Self {
            world,
            broker,
            apps: Mutex::default(),
            changes: watch::Sender::new(0),
            wants_shutdown: watch::Sender::new(false),
        }
    }

    /// Starts one more app; on trial if somebody waits for it: see [`App::start`].
    pub(crate) fn add(&self, config: AppConfig, is_on_trial: bool) -> Result<App, AppError> {
        check_name(&config.name).map_err(AppError::Config)?;
        let known = self.apps().get(&config.name).cloned();
        if let Some(known) = known {
            if !known.has_ended() {
                let text = format!(
                    "there is an app {} already: reload or stop it",
                    known.name()
                );
                return Err(AppError::Config(text));
            }
            self.remove(&known);
        }
        let app = App::start(&self.world, config, is_on_trial)?;
        self.apps().insert(app.name().to_owned(), app.clone());
        self.changes.send_modify(|count| *count += 1);
        Ok(app)
    }

    /// All apps, by name.
    pub(crate) fn all(&self) -> Vec<App> {
        self.apps().values().cloned().collect()
    }

    /// Forgets an app, unless its name is another's by now.
    fn remove(&self, app: &App) {
        let name = app.name();
        {
            let mut apps = self.apps();
            if !apps.get(name).is_some_and(|known| known.is(app)) {
                return;
            }
            apps.remove(name);
        }
        self.world.logs.forget(name);
        self.changes.send_modify(|count| *count += 1);
    }

    fn app(&self, name: &str) -> Result<App, AppError> {
        let apps = self.apps();
        apps.get(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = apps.keys().map(String::as_str).collect();
            let known = match names.is_empty() {
                true => "there are no apps".to_owned(),
                false => format!("there is {}", names.join(", ")),
            };
            AppError::Config(format!("there is no app {name}: {known}"))
        })
    }

    fn apps(&self) -> MutexGuard<'_, BTreeMap<String, App>> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> Status {
        Status {
            pid: std::process::id().cast_signed(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            home: self.world.home.path().display().to_string(),
            started_ms: self.world.epoch_ms(0),
            broker: self.broker.as_ref().map(Broker::status),
            apps: self.all().iter().map(App::status).collect(),
        }
    }

    async fn start(&self, config: AppConfig) -> Result<String, AppError> {
        let app = self.add(config, true)?;
        if let Err(error) = app.prove().await {
            app.stop(&Progress::silent()).await;
            self.remove(&app);
            return Err(error);
        }
        Ok(match app.has_ended() {
            true => format!("{} is done", app.name()),
            false => format!("{} runs", app.name()),
        })
    }

    async fn change(&self, request: Request, progress: Progress) -> Result<String, AppError> {
        match request {
            Request::Start(config) => self.start(*config).await,
            Request::Reload {
                app,
                width,
                canary_percent,
                canary_ms,
                env,
            } => {
                let canary = canary_percent.map(|percent| Canary {
                    percent,
                    time: Duration::from_millis(canary_ms.unwrap_or(CANARY_MS)),
                });
                let reload = Reload { width, canary, env };
                self.app(&app)?.reload(reload, &progress).await
            }
            Request::Rollback { app } => self.app(&app)?.rollback(),
            Request::Restart { app } => self.app(&app)?.restart(&progress).await,
            Request::Stop { app } => {
                let app = self.app(&app)?;
                let text = app.stop(&progress).await;
                self.remove(&app);
                Ok(text)
            }
            Request::Scale { app, to } => {
                let target = match to {
                    Scale::To(wanted) => Target::To(wanted),
                    Scale::By(more) => Target::By(more),
                };
                self.app(&app)?.scale(target, &progress).await
            }
            Request::Signal {
                app,
                worker,
                signal,
            } => self.app(&app)?.signal(worker, signal),
            Request::Shutdown => {
                self.wants_shutdown.send_replace(true);
                Ok("the supervisor stops".to_owned())
            }
            Request::Status
            | Request::Describe { .. }
            | Request::Logs { .. }
            | Request::Events { .. } => Ok(String::new()),
        }
    }
}

impl server::Handler for Core {
    async fn handle(&self, request: Request, replies: mpsc::Sender<Reply>) {
        match request {
            Request::Status => {
                let _ = replies.send(Reply::Status(self.status())).await;
                let _ = replies.send(Reply::done("")).await;
            }
            Request::Describe { app } => match self.app(&app) {
                Ok(app) => {
                    let _ = replies.send(Reply::App(app.status())).await;
                    let _ = replies.send(Reply::done("")).await;
                }
                Err(error) => drop(replies.send(failed(error)).await),
            },
            Request::Logs {
                app,
                worker,
                lines,
                follow,
            } => {
                if let Some(Err(error)) = app
                    .as_deref()
                    .filter(|app| !RESERVED.contains(app))
                    .map(|app| self.app(app))
                {
                    let _ = replies.send(failed(error)).await;
                    return;
                }
                let filter = Filter { app, worker };
                streams::logs(&self.world.logs, filter, lines, follow, replies).await;
            }
            Request::Events { last, follow } => {
                streams::events(&self.world.events, last, follow, replies).await;
            }
            request => {
                let (sender, mut steps) = mpsc::channel::<Event>(STEPS);
                let progress = Progress {
                    sender: Some(sender),
                };
                let told = async {
                    while let Some(event) = steps.recv().await {
                        // Who asked may be gone; what was asked for is carried through.
                        let _ = replies.send(Reply::Progress(event)).await;
                    }
                };
                let (outcome, ()) = tokio::join!(self.change(request, progress), told);
                let last = outcome.map_or_else(failed, Reply::done);
                let _ = replies.send(last).await;
            }
        }
    }
}

/// Runs what a signal asks for: all apps are reloaded.
pub(crate) async fn reload_all(core: Rc<Core>) {
    for app in core.all() {
        let outcome = app.reload(Reload::default(), &Progress::silent()).await;
        if let Err(error @ AppError::Busy { .. }) = outcome {
            let what = Happening::new(app.name(), "reload-refused", error.to_string());
            core.world.tell(what);
        }
    }
}

fn failed(error: AppError) -> Reply {
    let text = error.to_string();
    match error {
        AppError::Failed { lines, .. } => Reply::Failed { text, lines },
        _ => Reply::failed(text),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(is_plain) {
        return Err(format!(
            "`{name}` is no name for an app: 1 to {NAME_MAX} of a-z A-Z 0-9 . _ - are"
        ));
    }
    match RESERVED.contains(&name) {
        true => Err(format!(
            "an app can't be called {name}: choose another name"
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn names_of_exactly_the_limit_are_taken_and_longer_or_odd_ones_are_not() {
        check_name(&"a".repeat(64)).unwrap();
        check_name("Web-2.api_x").unwrap();
        for wrong in ["", "a/b", "a b", "\u{e4}", "broker", &"a".repeat(65)] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }
}
