//! `ganger demo`: a supervisor with a web service that is built in.

use super::out::{Out, Tone};
use super::place::environment;
use super::{Failure, HomeArg};
use crate::config::{
    AppConfig, Balance, Command, Deliver, Ready, Restart, Stop, WorkerCount, WORKERS_MAX,
};
use crate::supervisor::{self, Options};
use clap::Args;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;

/// The hidden verb that a worker is started by.
pub(super) const WORKER_VERB: &str = "demo-worker";
/// Name of the app.
const NAME: &str = "demo";
/// The port that is tried first, if none is wanted.
const PORT: u16 = 8080;
/// Ports tried.
const PORTS: u16 = 100;
/// Shared memory: more than enough for some hits and sessions.
const REGION_SIZE: u64 = 64 << 20;

#[derive(Debug, Args)]
#[command(after_help = "\
Starts a small web service on 127.0.0.1 that counts hits, keeps sessions and a rate limit in shared
memory, and tells all browsers through the broker what happens. Ctrl-C ends it.")]
pub struct DemoArgs {
    /// How many workers
    #[arg(
        short = 'n',
        long = "workers",
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(WORKERS_MAX))
    )]
    workers: u16,
    /// The port [default: 8080, or the next free one]
    #[arg(short, long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    #[command(flatten)]
    home: HomeArg,
}

pub(crate) fn run(args: &DemoArgs) -> Result<ExitCode, Failure> {
    let port = free_port(args.port)?;
    let address = format!("{}:{port}", Ipv4Addr::LOCALHOST);
    tell(&address, args)?;
    Ok(supervisor::main(Options {
        home: args.home.home(),
        app: app(args, address)?,
        region_size: REGION_SIZE,
        region_name: None,
        is_cache: false,
        has_broker: true,
        is_quiet: false,
    }))
}

fn app(args: &DemoArgs, address: String) -> Result<AppConfig, Failure> {
    let cwd = std::env::current_dir();
    Ok(AppConfig {
        name: NAME.into(),
        command: Command {
            program: own_program(),
            args: vec![WORKER_VERB.into()],
            cwd: cwd.map_err(|error| Failure::new(format!("the current directory: {error}")))?,
            env: environment(std::env::vars_os(), &[], &[]),
        },
        workers: WorkerCount::Exactly(args.workers),
        listen: vec![address],
        balance: Balance::Reuseport,
        deliver: Deliver::ListenFds,
        ready: Ready {
            is_explicit: true,
            ..Ready::default()
        },
        stop: Stop::default(),
        restart: Restart::default(),
        liveness: None,
        width: 1,
        preload: false,
    })
}

/// This program: by its path, or, where that was replaced meanwhile, as it runs.
fn own_program() -> String {
    let path = std::env::current_exe().ok().filter(|path| path.exists());
    let path = path.unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
    path.display().to_string()
}

/// The wanted port, or the first free one from [`PORT`] on.
fn free_port(wanted: Option<u16>) -> Result<u16, Failure> {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop);
    if let Some(port) = wanted {
        return match is_free(port) {
            Ok(()) => Ok(port),
            Err(error) => Err(Failure::new(format!("port {port}: {error}"))),
        };
    }
    (PORT..PORT + PORTS)
        .find(|port| is_free(*port).is_ok())
        .ok_or_else(|| Failure::new(format!("no free port from {PORT} on: name one with --port")))
}

fn tell(address: &str, args: &DemoArgs) -> io::Result<()> {
    let mut out = Out::new();
    let home = match args.home.is_default() {
        true => String::new(),
        false => format!(" --home {}", args.home.home().path().display()),
    };
    let url = format!("http://{address}/");
    let steps = [
        (
            format!("curl {url}hit"),
            "which worker answers, and the shared counters",
        ),
        (
            "kill -9 PID".into(),
            "of a worker (curl tells): no other request is lost",
        ),
        (
            format!("ganger reload demo{home}"),
            "new workers, no request lost, counters stay",
        ),
        (format!("ganger scale demo +2{home}"), "more workers"),
        (format!("ganger status{home}"), "what runs, and how it is"),
        (
            format!("broker-cli get hits{home}"),
            "the counter, from outside",
        ),
    ];
    out.line(format!(
        "{}  a web service of {} workers: {}",
        out.paint(Tone::Bold, "ganger demo"),
        args.workers,
        out.paint(Tone::Good, &url)
    ))?;
    out.line("")?;
    out.line("Open it in a browser, or try in another terminal:")?;
    let widest = steps.iter().map(|(step, _)| step.len()).max().unwrap_or(0);
    for (step, what) in steps {
        let what = out.paint(Tone::Dim, what);
        out.line(format!("  {step:widest$}   {what}"))?;
    }
    out.line("")?;
    out.line("Ctrl-C ends it.")?;
    out.line("")?;
    out.flush()
}
