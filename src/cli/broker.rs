//! `ganger broker`: pub/sub, requests, keys and leases on a Unix socket.

use super::size;
use clap::Args;
use ganger_broker::server::home::{default_home, Home, HomeError};
use ganger_broker::server::{self, Broker, Config};
use ganger_client::{Config as RegionConfig, Kv, KvError, KvOptions, WhenFull};
use ganger_protocol::{Limits, Pattern};
use ganger_region::Region;
use listenfd::ListenFd;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{signal, SignalKind};

/// How long a write waits for a stopped process that holds a lock of the region: all clients of a
/// thread wait as long.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// Run the broker: messages, requests and keys for the processes of this machine.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Directory of the socket [default: $GANGER_HOME, or $XDG_RUNTIME_DIR/ganger, or /run/ganger
    /// for root, or ganger-UID in the temporary directory].
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Size of the shared memory, if it is to be made. Memory is taken as it fills.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size::parse)]
    region_size: u64,
    /// Name of the shared memory: if it is still there, it is used as it is. It outlives the
    /// broker.
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// Make the shared memory a cache: when it is full, what was not read for long goes.
    #[arg(long)]
    evict: bool,
    /// Threads that serve clients.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=256)
    )]
    threads: u16,
    /// Members of this group (a number) may connect too.
    #[arg(long, value_name = "GID")]
    allow_group: Option<u32>,
    /// Keep the messages of this pattern for replay, without subscribers too. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    keep: Vec<Pattern>,
    /// Connections at a time.
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,
    /// How long a stop may take.
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    stop_ms: u64,
}

/// Why the broker could not run.
#[derive(Debug, thiserror::Error)]
enum BrokerError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Region(#[from] KvError),
    #[error("the inherited listener: {0}")]
    Inherited(#[source] io::Error),
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
    let path = arguments.home.clone();
    let path = path.unwrap_or_else(|| default_home(|name| std::env::var_os(name)));
    let mut home = Home::take(&path)?;
    let listener = listener(&mut home, arguments)?;
    let (region, origin) = region(arguments)?;
    // What the dead of an earlier run left.
    let _ = region.reap();
    let broker = Arc::new(Broker::new(config(arguments, &home), region));
    let runtime = runtime(arguments.threads)?;
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
        ganger_supervisor::broker::begin();
        server::run(listener, Arc::clone(&broker), stop, || home.unbind()).await
    })?;
    // What runs on other threads is bounded by itself, and nobody waits for it any more.
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}

fn config(arguments: &Arguments, home: &Home) -> Config {
    let defaults = Limits::default();
    Config {
        limits: Limits {
            connections: arguments.max_connections.unwrap_or(defaults.connections),
            ..defaults
        },
        allow_group: arguments.allow_group,
        keep: arguments.keep.clone(),
        home: Some(home.path().to_owned()),
        stop_ms: arguments.stop_ms,
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
fn region(arguments: &Arguments) -> Result<(Region, String), KvError> {
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
