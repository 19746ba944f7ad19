//! The broker as a child process: it may die and come back while workers go on. Its socket is made
//! and held here, so that nobody is refused while it is away, and the region is handed to it.

use crate::app::World;
use crate::config::{Command, Restart, Stop};
use crate::events::Happening;
use crate::report::{BrokerStatus, WorkerState};
use crate::spawn::{self, Output, SpawnSpec, OWN_PID};
use crate::worker::{signal_name, Action, Input, Worker};
use rustix::process::Pid;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Whose events and lines these are.
pub(crate) const NAME: &str = "broker";

/// The first inherited descriptor, as the protocol of `LISTEN_FDS` has it.
const LISTENER: i32 = 3;
const REGION: i32 = 4;

/// The broker, whether it runs at the moment or not.
#[derive(Clone)]
pub(crate) struct Broker(Arc<Inner>);

struct Inner {
    world: Arc<World>,
    listener: UnixListener,
    command: Command,
    state: Mutex<State>,
    wishes: watch::Sender<Option<Wish>>,
    is_over: watch::Sender<bool>,
}

struct State {
    machine: Worker,
    process: Option<(Pid, Arc<OwnedFd>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Stop,
    Hasten,
}

/// To be called by the broker's process itself when it is about to serve: from then on `ps` shows
/// what it is, and what only its start needed is let go.
pub fn begin() {
    let _ = rustix::thread::set_name(c"ganger-broker");
    crate::memory::forget_start();
}

impl Broker {
    /// Starts it, and keeps it alive until [`Broker::stop`].
    pub(crate) fn start(world: &Arc<World>, listener: UnixListener, program: PathBuf) -> Self {
        let home = world.home.path();
        // The variables of this process, but what its own parent meant for it alone.
        let own = [
            "NOTIFY_SOCKET",
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_FDNAMES",
            "WATCHDOG_USEC",
        ];
        let env = std::env::vars_os().filter_map(|(name, value)| {
            let pair = (name.into_string().ok()?, value.into_string().ok()?);
            (!own.contains(&pair.0.as_str())).then_some(pair)
        });
        let command = Command {
            program: program.display().to_string(),
            args: vec!["broker".into(), "--home".into(), home.display().to_string()],
            cwd: PathBuf::from("/"),
            env: env.collect(),
        };
        let stop = Stop {
            grace_ms: 3_000,
            ..Stop::default()
        };
        let restart = Restart {
            delay_max_ms: 150,
            // Workers go on without it, so it is worth any number of attempts.
            crashes_max: 0,
            ..Restart::default()
        };
        let broker = Self(Arc::new(Inner {
            world: Arc::clone(world),
            listener,
            command,
            state: Mutex::new(State {
                machine: Worker::new(stop, restart, false, world.now_ms()),
                process: None,
            }),
            wishes: watch::Sender::new(None),
            is_over: watch::Sender::new(false),
        }));
        broker.handle(Input::Start);
        tokio::spawn(broker.clone().keep());
        broker
    }

    /// What is to be seen of it.
    pub(crate) fn status(&self) -> BrokerStatus {
        let state = self.state();
        BrokerStatus {
            pid: state
                .process
                .as_ref()
                .map(|(pid, _)| pid.as_raw_nonzero().get()),
            state: state.machine.state(),
            restarts: state.machine.restarts(),
        }
    }

    /// Asks it to stop and waits for its end.
    pub(crate) async fn stop(&self) {
        self.0.wishes.send_replace(Some(Wish::Stop));
        let mut is_over = self.0.is_over.subscribe();
        let _ = is_over.wait_for(|is_over| *is_over).await;
    }

    /// Kills it, if it is stopping.
    pub(crate) fn hasten(&self) {
        self.0.wishes.send_replace(Some(Wish::Hasten));
    }

    async fn keep(self) {
        let mut wishes = self.0.wishes.subscribe();
        loop {
            let (deadline, pidfd) = {
                let state = self.state();
                if wishes.borrow().is_some() && state.machine.is_over() {
                    break;
                }
                let pidfd = state.process.as_ref().map(|(_, pidfd)| Arc::clone(pidfd));
                (state.machine.deadline_ms(), pidfd)
            };
            let deadline = deadline.map(|at| self.0.world.instant(at));
            let sleep = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let end = async {
                match pidfd {
                    Some(pidfd) => drop(spawn::ended(&pidfd).await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => self.handle(Input::Tick),
                () = end => self.ended(),
                _ = wishes.changed() => {
                    let wish = *wishes.borrow_and_update();
                    match wish {
                        Some(Wish::Stop) => self.handle(Input::Stop),
                        Some(Wish::Hasten) => self.handle(Input::Hasten),
                        None => {}
                    }
                }
            }
        }
        self.0.is_over.send_replace(true);
    }

    fn ended(&self) {
        let taken = self.state().process.take();
        let Some((pid, pidfd)) = taken else { return };
        let ended = spawn::try_reap(&pidfd).ok().flatten();
        let number = pid.as_raw_nonzero().get();
        let world = &self.0.world;
        world.disown(pid);
        world.logs.ended(number);
        let (code, signal) = ended.map_or((None, None), |ended| (ended.code, ended.signal));
        let how = match (code, signal) {
            (Some(code), _) => format!("exited with code {code}"),
            (None, Some(signal)) => format!("ended by {}", signal_name(signal)),
            (None, None) => "ended".to_owned(),
        };
        self.tell("broker-exit", how, Some(number));
        self.handle(Input::Exited { code, signal });
    }

    fn handle(&self, input: Input) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let mut state = self.state();
            let (now, random) = (self.0.world.now_ms(), self.0.world.random());
            let action = state.machine.handle(now, random, input);
            match action {
                Some(Action::Spawn) => next = Some(self.spawn(&mut state)),
                Some(Action::Signal(signal)) => {
                    if let Some((_, pidfd)) = &state.process {
                        let _ = spawn::signal(pidfd, signal);
                    }
                }
                Some(Action::Kill) => {
                    if let Some((_, pidfd)) = &state.process {
                        let _ = spawn::signal(pidfd, 9);
                    }
                }
                None => {}
            }
            // It listens from its first moment: its socket does.
            if state.machine.state() == WorkerState::Starting && next == Some(Input::Spawned) {
                state.machine.handle(now, random, Input::Spawned);
                next = Some(Input::Ready);
            }
        }
    }

    fn spawn(&self, state: &mut State) -> Input {
        let world = &self.0.world;
        match self.launch() {
            Ok((pid, pidfd)) => {
                world.own(pid);
                let number = pid.as_raw_nonzero().get();
                state.process = Some((pid, Arc::new(pidfd)));
                self.tell("broker-start", "started", Some(number));
                Input::Spawned
            }
            Err(why) => {
                self.tell("broker-failed", why.clone(), None);
                Input::SpawnRefused(why)
            }
        }
    }

    fn launch(&self) -> Result<(Pid, OwnedFd), String> {
        let world = &self.0.world;
        let instance = world.next_instance();
        let text = |text: &str| OsString::from(text);
        let mut env = vec![
            (text("LISTEN_FDS"), text("1")),
            (text("LISTEN_PID"), text(OWN_PID)),
            (text("LISTEN_FDNAMES"), text("broker.sock")),
            (
                text("GANGER_INSTANCE"),
                format!("{}.{instance}", world.mark).into(),
            ),
        ];
        let listener = self.0.listener.as_fd().try_clone_to_owned();
        let mut fds = vec![(listener.map_err(|error| error.to_string())?, LISTENER)];
        if let Some(region) = &world.region {
            let region = region.try_clone().map_err(|error| error.to_string())?;
            fds.push((region, REGION));
            env.push((text("GANGER_REGION_FD"), REGION.to_string().into()));
        }
        let spawned = spawn::spawn(SpawnSpec {
            command: &self.0.command,
            env,
            fds,
            output: Output::Pipes,
            has_seccomp: false,
            cgroup: None,
        });
        let spawned = spawned.map_err(|error| error.to_string())?;
        if let (Some(stdout), Some(stderr)) = (spawned.stdout, spawned.stderr) {
            let number = spawned.pid.as_raw_nonzero().get();
            let _ = world.logs.attach(NAME, 0, number, stdout, stderr);
        }
        Ok((spawned.pid, spawned.pidfd))
    }

    fn tell(&self, kind: &str, text: impl Into<String>, pid: Option<i32>) {
        let mut what = Happening::new(NAME, kind, text);
        what.pid = pid;
        self.0.world.tell(what);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
