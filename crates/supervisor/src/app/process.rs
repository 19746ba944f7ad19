//! A worker's process: how it is started, what watches it, and how its end is made complete.

use super::member::Key;
use super::world::World;
use crate::config::{AppConfig, Command, Probe};
use crate::deliver::{self, DeliverError, DeliverEvent, Delivery, Rung};
use crate::leftovers::{self, Whose};
use crate::listen::{Address, Listeners, Slot};
use crate::notify::{self, NotifySocket, NOTIFY_VARIABLE};
use crate::proc::catches;
use crate::spawn::{self, Cgroup, Output, SpawnError, SpawnSpec};
use rustix::process::Pid;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// What the names of workers' control groups begin with; the mark follows.
pub(crate) const CGROUP_PREFIX: &str = "ganger-";
/// What Node is to load before the program.
const NODE_OPTIONS: &str = "NODE_OPTIONS";
/// Signal 9.
const SIGKILL: i32 = 9;
/// How often it is looked whether the rest of a stopped worker's group has ended too.
const GROUP_LOOK: Duration = Duration::from_millis(20);

/// So often at most for an empty control group to go.
const GROUP_LOOKS_MAX: usize = 100;
/// Longest search for what a worker left behind: nothing else happens meanwhile.
const LEFTOVERS_PATIENCE: Duration = Duration::from_millis(200);

/// Something a process did, or that was done to it.
#[derive(Debug)]
pub(crate) struct Word {
    /// Whose.
    pub(crate) key: Key,
    /// Of which of its processes.
    pub(crate) instance: u64,
    /// What.
    pub(crate) what: What,
}

/// See [`Word`].
#[derive(Debug)]
pub(crate) enum What {
    /// By its delivery.
    Deliver(DeliverEvent),
    /// By `sd_notify`.
    Notify(notify::Word),
    /// The readiness probe was answered.
    Probed,
    /// The liveness probe was not answered often enough.
    Hung(String),
    /// It has ended, with everything that belonged to it.
    Ended {
        /// Its exit code.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
    },
}

/// What a process is started from.
pub(crate) struct Launch<'a> {
    pub(crate) world: &'a Arc<World>,
    pub(crate) config: &'a AppConfig,
    pub(crate) command: &'a Command,
    pub(crate) rung: Rung,
    pub(crate) listeners: &'a Arc<Mutex<Listeners>>,
    pub(crate) key: Key,
    pub(crate) slot: Slot,
    pub(crate) words: &'a mpsc::UnboundedSender<Word>,
}

/// A process that runs.
pub(crate) struct Process {
    /// Which process of this supervisor it is.
    pub(crate) instance: u64,
    /// Its number.
    pub(crate) pid: Pid,
    /// When it last showed that it lives.
    pub(crate) heard_ms: u64,
    /// Whether the readiness probe is under way.
    pub(crate) is_probing: bool,
    /// Tasks that end with it.
    pub(crate) tasks: Vec<Task>,
    pidfd: Arc<OwnedFd>,
    delivery: Option<Delivery>,
    /// Whether its group may finish by itself when it ends.
    is_planned: watch::Sender<bool>,
}

/// A task that is ended when this is dropped.
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    pub(crate) fn spawn(future: impl std::future::Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why no process could be started.
#[derive(Debug)]
pub(crate) enum LaunchError {
    /// The command is wrong; it will not do later either.
    Wrong(String),
    /// The system could not, now.
    Refused(String),
}

impl Process {
    /// Starts one.
    pub(crate) fn launch(launch: &Launch<'_>) -> Result<Self, LaunchError> {
        let world = launch.world;
        let instance = world.next_instance();
        let mark = format!("{}.{instance}", world.mark);
        let mut prepared = prepare(launch, instance)?;
        let notify = NotifySocket::bind(&world.home, instance).map_err(refused)?;
        let mut fds = std::mem::take(&mut prepared.fds);
        let mut env = environment(launch, &mark, &notify);
        env.append(&mut prepared.env);
        let own = launch
            .command
            .env
            .iter()
            .find(|(name, _)| name == NODE_OPTIONS);
        let own = own.map(|(_, value)| value.as_str());
        if let Some(options) = prepared.node_options(own)? {
            env.push((NODE_OPTIONS.into(), options));
        }
        if let Some(region) = &world.region {
            let above = fds.iter().map(|(_, number)| *number).max().unwrap_or(2) + 1;
            let number: RawFd = above.max(3);
            fds.push((
                region.as_fd().try_clone_to_owned().map_err(refused)?,
                number,
            ));
            env.push(("GANGER_REGION_FD".into(), number.to_string().into()));
        }
        let cgroup = Cgroup::new(&format!("{CGROUP_PREFIX}{mark}")).ok();
        let mut spawned = spawn::spawn(SpawnSpec {
            command: launch.command,
            env,
            fds,
            output: Output::Pipes,
            has_seccomp: prepared.has_seccomp,
            cgroup: cgroup.as_ref(),
        })?;
        let pid = spawned.pid;
        world.own(pid);
        if let (Some(stdout), Some(stderr)) = (spawned.stdout.take(), spawned.stderr.take()) {
            let (app, index) = (&launch.config.name, launch.key.index);
            let number = pid.as_raw_nonzero().get();
            let _ = world.logs.attach(app, index, number, stdout, stderr);
        }
        let (events, heard) = mpsc::unbounded_channel();
        let delivery = prepared.attach(&mut spawned, events);
        let pidfd = Arc::new(spawned.pidfd);
        let (is_planned, planned) = watch::channel(false);
        let teller = Teller {
            words: launch.words.clone(),
            key: launch.key,
            instance,
        };
        let end = End {
            world: Arc::clone(world),
            pid,
            pidfd: Arc::clone(&pidfd),
            mark,
            cgroup,
            planned,
            teller: teller.clone(),
        };
        // Not a task of the process: it outlives whatever is dropped with it.
        tokio::spawn(end.watch());
        let tasks = vec![
            Task::spawn(forward(heard, teller.clone())),
            Task::spawn(hear(notify, teller)),
        ];
        Ok(Self {
            instance,
            pid,
            heard_ms: world.now_ms(),
            is_probing: false,
            tasks,
            pidfd,
            delivery: Some(delivery),
            is_planned,
        })
    }

    /// Its number.
    pub(crate) fn number(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends a signal to it, or to its whole group if it does not catch it itself: a shell without
    /// a handler dies of it and would leave what it runs unasked.
    pub(crate) fn ask(&self, signal: i32) -> std::io::Result<()> {
        self.is_planned.send_replace(true);
        if catches(self.number(), signal) {
            spawn::signal(&self.pidfd, signal)
        } else {
            spawn::signal_group(self.pid, signal)
        }
    }

    /// Sends a signal to it alone, as somebody wished.
    pub(crate) fn signal(&self, signal: i32) -> std::io::Result<()> {
        spawn::signal(&self.pidfd, signal)
    }

    /// Kills it and its group. The rest follows when it has ended.
    pub(crate) fn kill(&self) {
        self.is_planned.send_replace(false);
        let _ = spawn::signal_group(self.pid, SIGKILL);
        let _ = spawn::signal(&self.pidfd, SIGKILL);
    }

    /// Asks it in its own language to finish what it has; `false` if it has none.
    pub(crate) fn drain(&self) -> bool {
        self.is_planned.send_replace(true);
        self.delivery.as_ref().is_some_and(Delivery::drain)
    }
}

#[derive(Clone)]
struct Teller {
    words: mpsc::UnboundedSender<Word>,
    key: Key,
    instance: u64,
}

impl Teller {
    fn tell(&self, what: What) {
        // Nobody listens any more when the app is gone.
        let _ = self.words.send(Word {
            key: self.key,
            instance: self.instance,
            what,
        });
    }
}

async fn forward(mut heard: mpsc::UnboundedReceiver<DeliverEvent>, teller: Teller) {
    while let Some(event) = heard.recv().await {
        teller.tell(What::Deliver(event));
    }
}

async fn hear(socket: NotifySocket, teller: Teller) {
    while let Ok(words) = socket.next().await {
        for word in words {
            teller.tell(What::Notify(word));
        }
    }
}

/// What is done when a process ends.
struct End {
    world: Arc<World>,
    pid: Pid,
    pidfd: Arc<OwnedFd>,
    mark: String,
    cgroup: Option<Cgroup>,
    planned: watch::Receiver<bool>,
    teller: Teller,
}

impl End {
    async fn watch(mut self) {
        // An error here means that it is no child of ours (any more): it has ended.
        let _ = spawn::ended(&self.pidfd).await;
        // Until it is reaped, the number of its group is nobody else's.
        while *self.planned.borrow_and_update() && self.has_others() {
            tokio::time::sleep(GROUP_LOOK).await;
        }
        let _ = spawn::signal_group(self.pid, SIGKILL);
        match &self.cgroup {
            Some(cgroup) => {
                if cgroup.is_populated() {
                    let _ = cgroup.kill();
                }
            }
            None => self.kill_adopted(),
        }
        // The number is free once it is reaped.
        self.world.disown(self.pid);
        let ended = spawn::try_reap(&self.pidfd).ok().flatten();
        self.world.logs.ended(self.pid.as_raw_nonzero().get());
        self.teller.tell(What::Ended {
            code: ended.and_then(|ended| ended.code),
            signal: ended.and_then(|ended| ended.signal),
        });
        if let Some(cgroup) = self.cgroup.take() {
            for _ in 0..GROUP_LOOKS_MAX {
                if cgroup.remove() {
                    break;
                }
                tokio::time::sleep(GROUP_LOOK).await;
            }
        }
    }

    /// Whether anybody else is in the group (or control group) of the process that has ended.
    fn has_others(&self) -> bool {
        match &self.cgroup {
            Some(cgroup) => cgroup.is_populated(),
            None => super::left::group_has_others(self.pid),
        }
    }

    /// What ran from the group became a child of this process, the subreaper, or is the child of
    /// one that did. Only looked for if there is such a child.
    fn kill_adopted(&self) {
        let is_any = super::left::children()
            .iter()
            .any(|pid| !self.world.is_own(*pid));
        if is_any {
            leftovers::kill_all(Whose::Worker(&self.mark), LEFTOVERS_PATIENCE);
        }
    }
}

fn prepare(launch: &Launch<'_>, instance: u64) -> Result<deliver::Prepared, LaunchError> {
    let config = launch.config;
    let managed = config.listen.iter().filter_map(|text| text.parse().ok());
    let context = deliver::Context {
        listeners: Arc::clone(launch.listeners),
        slot: launch.slot,
        worker: launch.key.index,
        unique_id: instance,
        has_preload: config.preload,
        home: launch.world.home.path().to_owned(),
        managed: managed.collect::<Vec<Address>>(),
    };
    Ok(deliver::prepare(launch.rung, context)?)
}

/// The variables of every worker.
fn environment(
    launch: &Launch<'_>,
    mark: &str,
    notify: &NotifySocket,
) -> Vec<(OsString, OsString)> {
    let (key, config) = (launch.key, launch.config);
    let home = launch.world.home.path();
    let mut env: Vec<(OsString, OsString)> = vec![
        ("GANGER_APP".into(), config.name.clone().into()),
        ("GANGER_WORKER".into(), key.index.to_string().into()),
        (
            "GANGER_GENERATION".into(),
            key.generation.to_string().into(),
        ),
        ("GANGER_HOME".into(), home.into()),
        ("GANGER_INSTANCE".into(), mark.into()),
        ("NODE_APP_INSTANCE".into(), key.index.to_string().into()),
        (NOTIFY_VARIABLE.into(), notify.path().into()),
    ];
    if let Some(liveness) = &config.liveness {
        if liveness.probe == Probe::Heartbeat {
            let micros = liveness.patience_ms().saturating_mul(1000);
            env.push(("WATCHDOG_USEC".into(), micros.to_string().into()));
        }
    }
    env
}

fn refused(error: std::io::Error) -> LaunchError {
    LaunchError::Refused(error.to_string())
}

impl From<DeliverError> for LaunchError {
    fn from(error: DeliverError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<SpawnError> for LaunchError {
    fn from(error: SpawnError) -> Self {
        match error.is_temporary() {
            true => Self::Refused(error.to_string()),
            false => Self::Wrong(error.to_string()),
        }
    }
}
