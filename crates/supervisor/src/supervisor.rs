//! The supervisor: takes its home, makes the region, starts broker and app, serves the control
//! socket, and ends all of it in good order.
//!
//! # Theory of operation
//!
//! [`main`] takes the home's lock and forks the guard while there is one thread, then everything
//! happens on that thread, in one runtime: workers must be forked from the main thread (their
//! parent-death signal fires when the thread ends that forked them), and nothing that is done here
//! blocks. A panic anywhere ends the process, so that there is no half of a supervisor; the guard
//! ends what it leaves.

use crate::app::{children, AppError, Progress, World, CGROUP_PREFIX};
use crate::broker::Broker;
use crate::config::AppConfig;
use crate::control::server::Control;
use crate::events::{Events, Happening};
use crate::guard::Guard;
use crate::handler::{reload_all, Core};
use crate::home::{TakeError, TakenHome, CONTROL_NAME};
use crate::logs::{Foreground, Logs, Options as LogOptions};
use crate::memory;
use crate::notify;
use crate::proc::is_alive;
use crate::report::LogLine;
use crate::signals::{Asked, Signals};
use crate::spawn::sweep_cgroups;
use ganger_client::{Config as RegionConfig, Home, Kv, KvError, WhenFull, SOCKET_NAME};
use rustix::process::{waitid, Pid, WaitId, WaitIdOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::LocalSet;

/// How long what is still to be shown or said has for it at the end.
const LAST_LINES: Duration = Duration::from_millis(500);
/// How often, at most, and how fast it is tried to remove control groups whose processes just died.
const SWEEPS_MAX: usize = 100;
const SWEEP_PAUSE: Duration = Duration::from_millis(2);
/// How often, and how far apart, a home is tried to be taken.
const TAKE_TRIES: u32 = 10;
const TAKE_PAUSE: Duration = Duration::from_millis(20);
/// The exit code of a panic, as Rust has it.
const PANIC_CODE: i32 = 101;

/// What a supervisor is started with.
#[derive(Debug)]
pub struct Options {
    /// Where its sockets are.
    pub home: Home,
    /// The first app.
    pub app: AppConfig,
    /// The shared memory, if it is to be made: bytes at most.
    pub region_size: u64,
    /// The name of the shared memory; it outlives the supervisor then.
    pub region_name: Option<String>,
    /// Whether the shared memory is a cache: when it is full, what was not read for long goes.
    pub is_cache: bool,
    /// Whether there is a broker beside the app.
    pub has_broker: bool,
    /// Whether only what the workers write is shown.
    pub is_quiet: bool,
}

/// Why a supervisor could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// Its home can't be taken.
    #[error(transparent)]
    Home(#[from] TakeError),
    /// The shared memory can't be made.
    #[error("the shared memory: {0}")]
    Region(#[from] KvError),
    /// The app can't be run.
    #[error("{0}")]
    App(#[from] AppError),
    /// The system.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Runs a supervisor until its apps have ended or it is told to stop. To be called from the main
/// thread of a process that has no other.
pub fn main(options: Options) -> ExitCode {
    match start(options) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("ganger: {error}"));
            if let SupervisorError::App(AppError::Failed { lines, .. }) = &error {
                show(lines);
            }
            ExitCode::FAILURE
        }
    }
}

fn start(mut options: Options) -> Result<ExitCode, SupervisorError> {
    let path = std::path::absolute(options.home.path())?;
    options.home = Home::at(path);
    let mut taken = take(&options.home)?;
    taken.say(&[&options.app.name]);
    notify::remove_stale(options.home.path());
    let mark = mark();
    let (home, prefix) = (options.home.clone(), format!("{CGROUP_PREFIX}{mark}."));
    let guard = Guard::start(&mark, move || clear_after_kill(&home, &prefix))?;
    let pid_of_dead = |name: &str| {
        let pid = name
            .strip_prefix(CGROUP_PREFIX)?
            .split('-')
            .next()?
            .parse()
            .ok()?;
        Pid::from_raw(pid).filter(|pid| !is_alive(*pid))
    };
    sweep_cgroups(|name| pid_of_dead(name).is_some());
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).map_err(io::Error::from)?;
    std::panic::set_hook(Box::new(|panic| {
        // What is half alive would hold the home and serve nobody; the guard ends the workers.
        say(&format!(
            "ganger: a bug in the supervisor, it ends: {panic}"
        ));
        std::process::exit(PANIC_CODE);
    }));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let code = LocalSet::new().block_on(&runtime, run(options, &mut taken, mark, guard));
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

/// Takes the home. The guard of one that was killed has it for a moment, to clear up.
fn take(home: &Home) -> Result<TakenHome, TakeError> {
    let mut tries = 1;
    loop {
        match TakenHome::take(home.clone()) {
            Err(TakeError::Running { .. }) if tries < TAKE_TRIES => {
                tries += 1;
                std::thread::sleep(TAKE_PAUSE);
            }
            result => return result,
        }
    }
}

async fn run(
    options: Options,
    taken: &mut TakenHome,
    mark: String,
    guard: Guard,
) -> Result<ExitCode, SupervisorError> {
    // Before anything is started, so that no signal is missed.
    let mut signals = Signals::new()?;
    let foreground = Foreground::stdio()?;
    let logs = Logs::new(LogOptions {
        foreground: Some(foreground.clone()),
        ..LogOptions::default()
    });
    let events = Events::new();
    if !options.is_quiet {
        tokio::spawn(show_events(events.clone(), foreground.clone()));
    }
    tokio::spawn(notify::feed_watchdog());
    let region = region(&options)?;
    let home = options.home.clone();
    let world = World::new(home, events, logs, region, mark, Some(guard));
    let world = Arc::new(world);
    let broker = match options.has_broker {
        true => {
            let listener = taken.bind(SOCKET_NAME)?;
            let program = PathBuf::from("/proc/self/exe");
            Some(Broker::start(&world, listener, program))
        }
        false => None,
    };
    let control = Control::new(taken.bind(CONTROL_NAME)?)?;
    let core = Rc::new(Core::new(Arc::clone(&world), broker));
    let closing = tokio::sync::watch::Sender::new(false);
    let mut closed = closing.subscribe();
    let until_closed = async move { drop(closed.wait_for(|closed| *closed).await) };
    let serving = tokio::task::spawn_local(control.run(Rc::clone(&core), until_closed));
    let name = options.app.name.clone();
    let outcome = match core.add(options.app, false) {
        Ok(_) => {
            tell_when_ready(&core);
            supervise(&core, &mut signals).await;
            Ok(verdict(&core))
        }
        Err(error) => Err(error),
    };
    end(&core, &mut signals).await;
    closing.send_replace(true);
    let _ = serving.await;
    world.dismiss_guard();
    foreground.finish(LAST_LINES);
    match outcome? {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => {
            world.tell(Happening::new(&name, "failed", error.to_string()));
            Err(error.into())
        }
    }
}

/// What a killed supervisor left in its home and among the control groups goes too, unless the home
/// is another's by now.
fn clear_after_kill(home: &Home, prefix: &str) {
    if let Ok(mut taken) = TakenHome::take(home.clone()) {
        notify::remove_stale(home.path());
        for name in [SOCKET_NAME, CONTROL_NAME] {
            // Binding clears the dead one away, dropping the home the new one.
            drop(taken.bind(name));
        }
    }
    for _ in 0..SWEEPS_MAX {
        if sweep_cgroups(|name| name.starts_with(prefix)) == 0 {
            break;
        }
        std::thread::sleep(SWEEP_PAUSE);
    }
}

/// Until all apps have ended, or somebody wants an end.
async fn supervise(core: &Rc<Core>, signals: &mut Signals) {
    let mut wants_shutdown = core.wants_shutdown.subscribe();
    let mut changes = core.changes.subscribe();
    loop {
        changes.borrow_and_update();
        let apps = core.all();
        let all_over = async {
            for app in &apps {
                app.over().await;
            }
        };
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop | Asked::HungUp => return,
                Asked::Reload => drop(tokio::task::spawn_local(reload_all(Rc::clone(core)))),
                Asked::Child => reap(core),
            },
            _ = wants_shutdown.wait_for(|wants| *wants) => return,
            _ = changes.changed() => {}
            () = all_over => return,
        }
    }
}

/// Stops everything: apps first, then the broker. A signal that comes meanwhile hastens.
async fn end(core: &Rc<Core>, signals: &mut Signals) {
    let told = tokio::spawn(notify::tell_parent("STOPPING=1"));
    let stop = async {
        let mut stops = tokio::task::JoinSet::new();
        for app in core.all() {
            stops.spawn(async move { drop(app.stop(&Progress::silent()).await) });
        }
        while stops.join_next().await.is_some() {}
        if let Some(broker) = &core.broker {
            broker.stop().await;
        }
    };
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            asked = signals.next() => match asked {
                Asked::Stop => {
                    for app in core.all() {
                        app.hasten();
                    }
                    if let Some(broker) = &core.broker {
                        broker.hasten();
                    }
                }
                // The shell and the kernel may both say so: that is no haste.
                Asked::HungUp | Asked::Reload => {}
                Asked::Child => reap(core),
            },
        }
    }
    reap(core);
    let prefix = format!("{CGROUP_PREFIX}{}.", core.world.mark);
    for _ in 0..SWEEPS_MAX {
        if sweep_cgroups(|name| name.starts_with(&prefix)) == 0 {
            break;
        }
        tokio::time::sleep(SWEEP_PAUSE).await;
    }
    let _ = tokio::time::timeout(LAST_LINES, told).await;
}

/// Why it was no success, if it was none.
fn verdict(core: &Core) -> Option<AppError> {
    let apps = core.all();
    let have_ended = !apps.is_empty() && apps.iter().all(|app| app.has_ended());
    match have_ended {
        true => apps.iter().find_map(|app| app.first_failure()),
        false => None,
    }
}

/// Says to this process's own parent when all workers serve.
fn tell_when_ready(core: &Rc<Core>) {
    let apps = core.all();
    tokio::task::spawn_local(async move {
        for app in &apps {
            app.settled().await;
        }
        memory::forget_start();
        if apps.iter().all(|app| app.is_ready()) {
            notify::tell_parent("READY=1").await;
        }
    });
}

/// Children that nobody waits for: what workers left to this process, which is the first of its
/// container or their subreaper.
fn reap(core: &Core) {
    for child in children()
        .into_iter()
        .filter(|pid| !core.world.is_own(*pid))
    {
        if let Some(pid) = Pid::from_raw(child) {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            let _ = waitid(WaitId::Pid(pid), options);
        }
    }
}

fn region(options: &Options) -> Result<Option<OwnedFd>, SupervisorError> {
    let mut config = RegionConfig::new(options.region_size);
    if options.is_cache {
        config = config.when_full(WhenFull::Evict);
    }
    let kv = match &options.region_name {
        Some(name) => Kv::open_or_create(name, config)?,
        None => Kv::create(config)?,
    };
    // Only the descriptor is kept: this process has no use for the mapping.
    let fd = kv.fd().map(|fd| fd.try_clone_to_owned()).transpose()?;
    Ok(fd)
}

/// What marks everything that this supervisor starts.
fn mark() -> String {
    let mut bytes = [0; 8];
    let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::NONBLOCK);
    format!("{}-{:016x}", std::process::id(), u64::from_ne_bytes(bytes))
}

async fn show_events(events: Events, foreground: Foreground) {
    let Some(mut follow) = events.follow() else {
        return;
    };
    loop {
        let event = follow.recv().await;
        let is_detail = matches!(
            event.kind.as_str(),
            "worker-start"
                | "worker-draining"
                | "worker-stopping"
                | "worker-stopped"
                | "reload-ready"
        );
        if is_detail {
            continue;
        }
        let whose = match event.worker {
            Some(worker) => format!("{}.{worker}: ", event.app),
            None if event.app.is_empty() => String::new(),
            None => format!("{}: ", event.app),
        };
        let pid = event
            .pid
            .map_or_else(String::new, |pid| format!(" (pid {pid})"));
        foreground.note(&format!("{whose}{}{pid}", event.text));
    }
}

fn show(lines: &[LogLine]) {
    for line in lines {
        say(&format!("  {}", String::from_utf8_lossy(&line.text)));
    }
}

/// Says something last. A terminal that is gone, or a pipe that nobody reads, is no reason to panic.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
