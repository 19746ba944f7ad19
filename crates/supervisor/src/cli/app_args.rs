//! What `run` and `start` take alike: an app, as people write it.

use super::place::{current_dir, environment};
use super::{signals, units, Failure};
use crate::config::{
    AppConfig, Balance, Command, Deliver, Liveness, Probe, Ready, Restart, Stop, WorkerCount,
    NAME_MAX, WORKERS_MAX,
};
use crate::interpreter;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Addresses an app may declare.
const LISTEN_MAX: usize = 64;

#[derive(Debug, Args)]
pub(crate) struct AppArgs {
    /// The program and its arguments; or a script (server.js, app.py), or a directory whose
    /// package.json has a "start" [default: the current directory]
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<String>,
    /// How many workers: a number, or `auto` for as many as CPUs may be used (by affinity and control
    /// group)
    #[arg(
        short = 'n',
        long = "workers",
        value_name = "N|auto",
        default_value = "auto",
        value_parser = workers
    )]
    workers: WorkerCount,
    /// Name of the app [default: from the command]
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<String>,
    /// Open this address before the first worker starts: 127.0.0.1:3000, :80, unix:/run/app.sock. May
    /// be repeated. Needed only for programs that take listeners by LISTEN_FDS
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    listen: Vec<String>,
    /// Who gets a new connection: `reuseport`, a queue for each worker, evenly filled; or `shared`, one
    /// queue, of which the first idle worker takes
    #[arg(
        long,
        value_enum,
        default_value_t = BalanceArg::Reuseport,
        hide_possible_values = true,
        value_name = "POLICY"
    )]
    balance: BalanceArg,
    /// How a worker gets its listeners: `node` (as under node:cluster), `listen-fds` (as under
    /// systemd), `seccomp` (its bind is answered), or `auto`, the first that fits
    #[arg(
        long,
        value_enum,
        default_value_t = DeliverArg::Auto,
        hide_possible_values = true,
        value_name = "HOW"
    )]
    deliver: DeliverArg,
    /// Workers that a reload replaces at a time
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=512)
    )]
    width: u16,
    /// Set a variable for the workers. May be repeated
    #[arg(short = 'e', long = "env", value_name = "KEY=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Run the workers in this directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Node workers as they are, without the small preload that ends kept connections politely
    #[arg(long)]
    no_preload: bool,

    #[command(flatten, next_help_heading = "Readiness")]
    ready: ReadyArgs,
    #[command(flatten, next_help_heading = "Stopping")]
    stop: StopArgs,
    #[command(flatten, next_help_heading = "Restarts")]
    restart: RestartArgs,
    #[command(flatten, next_help_heading = "Liveness")]
    liveness: LivenessArgs,
}

#[derive(Debug, Args)]
struct ReadyArgs {
    /// A worker is ready when it says so, by READY=1 or process.send('ready'), not when it listens
    #[arg(long, visible_alias = "wait-ready")]
    ready_explicit: bool,
    /// A worker is ready only when this path of its own answers 2xx or 3xx
    #[arg(long, value_name = "PATH", value_parser = http_path)]
    ready_http: Option<String>,
    /// A start that takes longer has failed; but for a program that listens nowhere and was asked for
    /// no listener (--listen, a probe): it counts as ready then
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::duration_ms)]
    start_timeout: u64,
    /// A worker must live so long after it is ready before it counts
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = units::duration_ms)]
    healthy: u64,
}

#[derive(Debug, Args)]
struct StopArgs {
    /// The signal that asks a worker to stop
    #[arg(long, value_name = "SIGNAL", default_value = "TERM", value_parser = signals::parse)]
    stop_signal: i32,
    /// What lives so long after it is killed
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration_ms)]
    grace: u64,
}

#[derive(Debug, Args)]
struct RestartArgs {
    /// Wait before a crashed worker starts again; doubled with each crash in a row that came before
    /// it had served for a second, with jitter. 0: always at once [default: at once the first time,
    /// then waits that grow from 100ms]
    #[arg(long, value_name = "TIME", value_parser = units::duration_ms)]
    restart_delay: Option<u64>,
    /// Longest wait
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = units::duration_ms)]
    restart_delay_max: u64,
    /// So many crashes within the window, and a worker is left alone as failed. Counts once the app
    /// runs: a `start` fails at the first crash, whatever this says
    #[arg(
        long,
        value_name = "N",
        default_value_t = 15,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    max_crashes: u32,
    /// The window in which crashes are counted
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = units::duration_ms)]
    crash_window: u64,
    /// Exit codes that mean that a worker is done and is not to be started again: 0,3
    #[arg(
        long,
        value_name = "CODES",
        value_delimiter = ',',
        value_parser = clap::value_parser!(i32).range(0..=255)
    )]
    done_codes: Vec<i32>,
}

#[derive(Debug, Args)]
struct LivenessArgs {
    /// Find out whether a worker hangs: `http:/PATH` must answer below 500, `tcp` must be accepted,
    /// `heartbeat` must be sent by the worker (WATCHDOG=1 or process.send('heartbeat')). One that hangs
    /// gets SIGABRT, then SIGKILL
    #[arg(long, value_name = "PROBE", value_parser = probe)]
    liveness: Option<Probe>,
    /// How often
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration_ms)]
    liveness_every: u64,
    /// Longest wait for an answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = units::duration_ms)]
    liveness_timeout: u64,
    /// So many failures in a row mean that it hangs
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    liveness_failures: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum BalanceArg {
    Reuseport,
    Shared,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DeliverArg {
    Auto,
    Node,
    ListenFds,
    Seccomp,
}

impl AppArgs {
    /// The app, with its interpreter found and its environment whole.
    pub(crate) fn to_config(&self) -> Result<AppConfig, Failure> {
        if self.listen.len() > LISTEN_MAX {
            return Err(Failure::usage(format!(
                "{LISTEN_MAX} --listen are the most"
            )));
        }
        let here = current_dir()?;
        let cwd = match &self.cwd {
            Some(cwd) => std::path::absolute(here.join(cwd))
                .map_err(|error| Failure::new(format!("{}: {error}", cwd.display())))?,
            None => here,
        };
        if !cwd.is_dir() {
            return Err(Failure::new(format!(
                "{} is not a directory",
                cwd.display()
            )));
        }
        let variable = |name: &str| std::env::var_os(name);
        let found = interpreter::resolve(&self.command, &cwd, variable)
            .map_err(|error| Failure::new(error.to_string()))?;
        let name = self.name.clone();
        Ok(AppConfig {
            name: name.unwrap_or_else(|| found.name.clone()),
            command: Command {
                program: found.program,
                args: found.args,
                cwd: found.cwd,
                env: environment(std::env::vars_os(), &found.env, &self.env),
            },
            workers: self.workers,
            listen: self.listen.clone(),
            balance: match self.balance {
                BalanceArg::Reuseport => Balance::Reuseport,
                BalanceArg::Shared => Balance::Shared,
            },
            deliver: match self.deliver {
                DeliverArg::Auto => Deliver::Auto,
                DeliverArg::Node => Deliver::Node,
                DeliverArg::ListenFds => Deliver::ListenFds,
                DeliverArg::Seccomp => Deliver::Seccomp,
            },
            ready: self.ready.to_config(),
            stop: Stop {
                signal: self.stop.stop_signal,
                grace_ms: self.stop.grace,
            },
            restart: self.restart.to_config(),
            liveness: self.liveness.to_config(),
            width: self.width,
            preload: !self.no_preload,
        })
    }
}

impl ReadyArgs {
    fn to_config(&self) -> Ready {
        Ready {
            is_explicit: self.ready_explicit,
            http_path: self.ready_http.clone(),
            timeout_ms: self.start_timeout,
            healthy_ms: self.healthy,
        }
    }
}

impl RestartArgs {
    fn to_config(&self) -> Restart {
        Restart {
            delay_ms: self.restart_delay,
            delay_max_ms: self.restart_delay_max,
            crashes_max: self.max_crashes,
            window_ms: self.crash_window,
            expected_codes: self.done_codes.clone(),
        }
    }
}

impl LivenessArgs {
    fn to_config(&self) -> Option<Liveness> {
        let probe = self.liveness.clone()?;
        Some(Liveness {
            probe,
            every_ms: self.liveness_every,
            timeout_ms: self.liveness_timeout,
            failures_max: self.liveness_failures,
        })
    }
}

fn workers(text: &str) -> Result<WorkerCount, String> {
    if matches!(text, "auto" | "max") {
        return Ok(WorkerCount::Auto);
    }
    match text.parse() {
        Ok(count) if (1..=WORKERS_MAX).contains(&count) => Ok(WorkerCount::Exactly(count)),
        _ => Err(format!("a number from 1 to {WORKERS_MAX}, or auto")),
    }
}

fn name(text: &str) -> Result<String, String> {
    if crate::config::is_name(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "names have 1 to {NAME_MAX} of a-z A-Z 0-9 . _ - (and `broker` is taken)"
    ))
}

/// Only checked here: what it is called is what people see.
fn address(text: &str) -> Result<String, String> {
    let address = text.parse::<crate::listen::Address>();
    address
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !text.contains('\0') => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("variables are like KEY=VALUE".into()),
    }
}

fn http_path(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_path
        .then(|| text.to_owned())
        .ok_or_else(|| "paths are like /health".to_owned())
}

fn probe(text: &str) -> Result<Probe, String> {
    match text {
        "tcp" => Ok(Probe::Tcp),
        "heartbeat" => Ok(Probe::Heartbeat),
        _ => match text.strip_prefix("http:") {
            Some(path) => http_path(path).map(Probe::Http),
            None => Err("probes are http:/PATH, tcp and heartbeat".into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        app: AppArgs,
    }

    fn parse(line: &str) -> AppArgs {
        let line = std::iter::once("ganger").chain(line.split_whitespace());
        Line::try_parse_from(line).unwrap().app
    }

    #[test]
    fn options_after_the_command_are_the_commands_own() {
        for line in ["-n 2 sh -c -n 3", "-n 2 -- sh -c -n 3"] {
            let config = parse(line).to_config().unwrap();
            assert_eq!(config.workers, WorkerCount::Exactly(2));
            assert_eq!(config.command.program, "sh");
            assert_eq!(config.command.args, ["-c", "-n", "3"]);
        }
    }

    #[test]
    fn defaults_are_those_of_the_library() {
        let config = parse("sh").to_config().unwrap();
        assert_eq!(config.ready, Ready::default());
        assert_eq!(config.stop, Stop::default());
        assert_eq!(config.restart, Restart::default());
        assert_eq!((config.liveness, config.width), (None, 1));
        assert!(config.preload);
    }

    #[test]
    fn all_options_reach_the_config() {
        let config = parse(
            "-n auto --name api --listen :80 --listen unix:/x --balance shared --deliver listen-fds \
             --width 3 -e A=1 --env B=x=y --no-preload --ready-http /up --wait-ready \
             --start-timeout 2m --healthy 500ms --stop-signal SIGINT --grace 3 --restart-delay 1s \
             --restart-delay-max 10s --max-crashes 4 --crash-window 1h --done-codes 0,7 \
             --liveness http:/live --liveness-every 1s --liveness-timeout 2s --liveness-failures 5 \
             -- sh",
        )
        .to_config()
        .unwrap();
        assert_eq!(config.name, "api");
        assert_eq!(config.listen, [":80", "unix:/x"]);
        assert_eq!(config.balance, Balance::Shared);
        assert_eq!(config.deliver, Deliver::ListenFds);
        assert!(config.command.env.contains(&("B".into(), "x=y".into())));
        assert_eq!((config.width, config.preload), (3, false));
        assert!(config.ready.is_explicit);
        assert_eq!(config.ready.http_path.as_deref(), Some("/up"));
        assert_eq!(
            (config.ready.timeout_ms, config.ready.healthy_ms),
            (120_000, 500)
        );
        assert_eq!((config.stop.signal, config.stop.grace_ms), (2, 3000));
        assert_eq!(config.restart.delay_ms, Some(1000));
        assert_eq!(config.restart.expected_codes, [0, 7]);
        assert_eq!(
            (config.restart.crashes_max, config.restart.window_ms),
            (4, 3_600_000)
        );
        let liveness = config.liveness.unwrap();
        assert_eq!(liveness.probe, Probe::Http("/live".into()));
        assert_eq!(liveness.failures_max, 5);
    }

    #[test]
    fn what_is_wrong_is_refused_with_what_would_be_right() {
        for line in [
            "-n 0 sh",
            "-n 513 sh",
            "-n many sh",
            "--name a/b sh",
            "--name broker sh",
            "--env =x sh",
            "--env NAME sh",
            "--ready-http up sh",
            "--liveness udp sh",
            "--listen 127.0.0.1 sh",
            "--listen :99999 sh",
            "--width 0 sh",
            "--grace 1w sh",
            "--done-codes 256 sh",
        ] {
            let line = std::iter::once("ganger").chain(line.split_whitespace());
            assert!(Line::try_parse_from(line).is_err());
        }
    }
}
