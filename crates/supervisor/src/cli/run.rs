//! `ganger run`: a supervisor in the foreground, with its first app.

use super::app_args::AppArgs;
use super::{units, Failure, HomeArg};
use crate::supervisor::{self, Options};
use clap::Args;
use std::process::ExitCode;

#[derive(Debug, Args)]
#[command(after_help = "\
Stops gracefully at Ctrl-C or SIGTERM, or when its terminal goes away; a second one hastens. SIGHUP
reloads (with nohup it is ignored). Fit for containers and systemd (Type=notify): it reaps what others
leave, and says when it is ready.

Workers find GANGER_APP, GANGER_WORKER (from 0), GANGER_GENERATION, GANGER_HOME, GANGER_REGION_FD and
NODE_APP_INSTANCE in their environment.

Examples:
  ganger run -- node server.js                   On all CPUs that may be used
  ganger run server.js                           The same: the interpreter is found
  ganger run                                     The package in this directory: its \"start\"
  ganger run -n 4 -- uvicorn app:app --port 8000
  ganger run -n 4 -- gunicorn -w 1 app:app
  ganger run -n 2 --ready-http /health --grace 30s -- ./target/release/shop
  ganger run --listen :8080 --deliver listen-fds ./server")]
pub struct RunArgs {
    #[command(flatten)]
    home: HomeArg,
    #[command(flatten)]
    app: AppArgs,
    #[command(flatten)]
    region: RegionArgs,
}

/// What is beside the app.
#[derive(Debug, Args)]
#[command(next_help_heading = "Shared memory and broker")]
pub(crate) struct RegionArgs {
    /// Size of the shared memory. Memory is taken as it fills
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = units::size)]
    region_size: u64,
    /// Name of the shared memory: if it is still there, it is used as it is. It outlives the
    /// supervisor
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// Make the shared memory a cache: when it is full, what was not read for long goes
    #[arg(long)]
    evict: bool,
    /// No broker: no messages between workers, only the shared memory
    #[arg(long)]
    no_broker: bool,
    /// Show only what the workers write, not what happens to them
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    Ok(supervisor::main(Options {
        home: args.home.home(),
        app: args.app.to_config()?,
        region_size: args.region.region_size,
        region_name: args.region.region.clone(),
        is_cache: args.region.evict,
        has_broker: !args.region.no_broker,
        is_quiet: args.region.quiet,
    }))
}
