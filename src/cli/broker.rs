//! `ganger broker`: pub/sub, requests, keys and leases on a Unix socket.

use super::size;
use clap::builder::RangedU64ValueParser;
use clap::Args;
use ganger_broker::server::home::{Home, HomeError};
use ganger_broker::server::{self, Broker, Config};
use ganger_broker::services::chores::{restore_at_start, SnapshotPlan};
use ganger_client::{Config as RegionConfig, Kv, KvError, KvOptions, WhenFull};
use ganger_protocol::{ErrorBody, Limits, Pattern};
use ganger_region::Region;
use listenfd::ListenFd;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{signal, SignalKind};

/// How long a write waits for a stopped process that holds a lock of the region: all clients of a
/// thread wait as long.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);
/// The snapshot's name in the home directory.
const SNAPSHOT: &str = "region.snapshot";
/// How often the log says how far a restore is.
const TELL_EVERY: Duration = Duration::from_secs(1);

fn threads() -> RangedU64ValueParser<u16> {
    RangedU64ValueParser::new().range(1..=256)
}

/// Run the broker: messages, requests, locks and keys for the processes of this machine.
///
/// Clients find it by its home directory. It keeps running until SIGTERM or SIGINT; then it tells
/// its clients, finishes what they asked for, and stops. State is in the shared memory, not in this
/// process: if it is killed and started again on the same memory, nothing of it is lost.
///
/// A supervisor may hand over a listening socket (LISTEN_FDS) and the shared memory
/// (GANGER_REGION_FD, or GANGER_REGION with a name), and is told READY=1 over NOTIFY_SOCKET.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Directory of the socket [default: $GANGER_HOME, else ganger in $XDG_RUNTIME_DIR, else
    /// /run/ganger for root, else ganger-UID in the temporary directory].
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Members of this group (a number) may connect too; only this user and root may else. They
    /// get messages and keys over the socket, but not the shared memory itself.
    #[arg(long, value_name = "GID")]
    allow_group: Option<u32>,
    #[command(flatten)]
    memory: Memory,
    #[command(flatten)]
    snapshots: Snapshots,
    #[command(flatten)]
    tuning: Tuning,
}

#[derive(Args)]
#[command(next_help_heading = "Shared memory")]
struct Memory {
    /// Size of the shared memory, if it is to be made: 512MiB, 1GiB. Pages are taken from the
    /// system as it fills, not before.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size::parse)]
    region_size: u64,
    /// Name of the shared memory. It outlives the broker: if it is there, it is used as it is.
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// Make it a cache: when it is full, what was not read for long goes. Without this, writes to
    /// full memory fail.
    #[arg(long)]
    evict: bool,
}

#[derive(Args)]
#[command(next_help_heading = "Snapshots")]
struct Snapshots {
    /// File of the snapshot [default: region.snapshot in the home directory, which seldom outlives
    /// a reboot]. The one before is kept beside it as FILE.1.
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
    /// Write one so often (30s, 5m, 1h), and one at the stop. Without this, only when asked to.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    snapshot_every: Option<Duration>,
    /// Begin empty: don't fill new memory from the snapshot.
    #[arg(long)]
    no_restore: bool,
}

#[derive(Args)]
#[command(next_help_heading = "Tuning")]
struct Tuning {
    /// Threads that serve clients. One does for hundreds of thousands of messages a second.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads())]
    threads: u16,
    /// Keep the messages of this pattern for replay, without subscribers too. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    keep: Vec<Pattern>,
    /// Connections at a time.
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections)]
    max_connections: usize,
    /// How long a stop may take at most (500ms, 10s).
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    stop: Duration,
}

/// Why the broker could not run.
#[derive(Debug, thiserror::Error)]
enum BrokerError {
    #[error(transparent)]
    Directory(#[from] ganger_client::HomeError),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Region(#[from] KvError),
    #[error("the inherited listener: {0}")]
    Inherited(#[source] io::Error),
    #[error("{}\nStart with --no-restore to begin empty.", .0.message)]
    Restore(ErrorBody),
    #[error("the last snapshot: {}", .0.message)]
    LastSnapshot(ErrorBody),
    #[error(transparent)]
    Io(#[from] io::Error),
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_target(false)
        .init();
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ganger broker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> Result<(), BrokerError> {
    let directory = arguments
        .home
        .as_ref()
        .map_or_else(ganger_client::Home::find, ganger_client::Home::at);
    directory.create()?;
    let mut home = Home::take(directory.path(), directory.socket())?;
    let listener = listener(&mut home, arguments)?;
    let (region, origin) = region(&arguments.memory)?;
    // What the dead of an earlier run left.
    let _ = region.reap();
    let plan = plan(&arguments.snapshots, &home);
    if !arguments.snapshots.no_restore {
        restore(&region, &plan)?;
    }
    let broker = Arc::new(Broker::new(config(arguments, plan), region)?);
    let runtime = runtime(arguments.tuning.threads)?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let size = broker.region.declared_len() >> 20;
        println!(
            "ganger broker ready: {}, region of {size} MiB {origin}",
            home.socket().display()
        );
        server::run(listener, Arc::clone(&broker), stop, || home.unbind()).await
    })?;
    let with_snapshot = arguments.snapshots.snapshot_every.is_some();
    let stopped = broker.chores.stop(with_snapshot);
    // What runs on other threads is bounded by itself, and nobody waits for it any more.
    runtime.shutdown_timeout(Duration::from_millis(100));
    stopped.map_err(BrokerError::LastSnapshot)
}

fn plan(arguments: &Snapshots, home: &Home) -> SnapshotPlan {
    let file = arguments.snapshot.clone();
    SnapshotPlan {
        file: Some(file.unwrap_or_else(|| home.path().join(SNAPSHOT))),
        every: arguments.snapshot_every,
    }
}

/// Fills a new region from the snapshot, and says how far it is if that takes long.
fn restore(region: &Region, plan: &SnapshotPlan) -> Result<(), BrokerError> {
    let mut told = Instant::now();
    let progress = |done, total| {
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            tracing::info!("restored {done} of {total} entries");
        }
    };
    let said = restore_at_start(region, plan, progress).map_err(BrokerError::Restore)?;
    if let Some(said) = said {
        tracing::info!("{said}");
    }
    Ok(())
}

fn config(arguments: &Arguments, snapshots: SnapshotPlan) -> Config {
    let tuning = &arguments.tuning;
    Config {
        limits: Limits {
            connections: tuning.max_connections,
            ..Limits::default()
        },
        allow_group: arguments.allow_group,
        keep: tuning.keep.clone(),
        snapshots,
        stop_ms: u64::try_from(tuning.stop.as_millis()).unwrap_or(u64::MAX),
    }
}

fn runtime(threads: u16) -> io::Result<tokio::runtime::Runtime> {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads.into());
    }
    builder.enable_all().build()
}

/// The listener that a supervisor holds for us, or a new one.
fn listener(home: &mut Home, arguments: &Arguments) -> Result<UnixListener, BrokerError> {
    let mut inherited = ListenFd::from_env();
    match inherited
        .take_unix_listener(0)
        .map_err(BrokerError::Inherited)?
    {
        Some(listener) => Ok(listener),
        None => Ok(home.bind(arguments.allow_group)?),
    }
}

/// The region that the environment or the arguments name, or a new one; and where it is from.
fn region(arguments: &Memory) -> Result<(Region, String), KvError> {
    let options = KvOptions::new().lock_timeout(LOCK_TIMEOUT);
    let mut config = RegionConfig::new(arguments.region_size);
    if arguments.evict {
        config = config.when_full(WhenFull::Evict);
    }
    let (kv, origin) = match &arguments.region {
        Some(name) => (
            options.open_or_create(name, config)?,
            format!("named {name}"),
        ),
        None => match options.from_env() {
            Ok(kv) => (kv, "adopted".to_owned()),
            Err(KvError::NoRegion) => (options.create(config)?, "made".to_owned()),
            Err(error) => return Err(error),
        },
    };
    Ok((region_of(&kv), origin))
}

fn region_of(kv: &Kv) -> Region {
    kv.region().clone()
}
