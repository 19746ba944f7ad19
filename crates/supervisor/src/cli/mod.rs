//! The verbs of the command line.
//!
//! `run` is the supervisor itself; the others ask one that runs, over its control socket, without a
//! runtime of their own. Exit codes: 0 done, 1 failed (the reason is on standard error), 2 wrong use,
//! 3 no supervisor is running.

mod app_args;
mod ask;
mod change;
mod completions;
mod demo;
mod describe;
mod events;
mod logs;
mod out;
mod place;
mod run;
mod show;
pub mod signals;
mod status;
mod table;
pub mod units;

use crate::control::client::ClientError;
use crate::logs::{wants_colour, Style};
use crate::report::LogLine;
use clap::{Args, Subcommand};
use ganger_client::Home;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// What `ganger --help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  ganger demo                                    See it all with nothing to install
  ganger run -n auto -- node server.js           Run an app on all cores
  ganger run -n 4 -- uvicorn app:app --port 8000
  ganger status                                  In another terminal: what runs, and how it is
  ganger reload                                  Replace the workers without losing a request
  ganger logs -f                                 Follow what they write

Exit codes: 0 done, 1 failed, 2 wrong use, 3 no supervisor is running.";

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run an app: N workers behind one port, kept alive
    Run(Box<run::RunArgs>),
    /// Replace an app's workers by new ones, without losing a request
    Reload(change::ReloadArgs),
    /// Stop an app's workers, all at once, and start them again
    Restart(change::AppArg),
    /// Stop an app, gracefully
    Stop(change::StopArgs),
    /// Change how many workers an app has: 8, +2, -1
    Scale(change::ScaleArgs),
    /// Show what runs, and how it is
    #[command(visible_aliases = ["list", "ls"])]
    Status(status::StatusArgs),
    /// Show everything about an app
    Describe(describe::DescribeArgs),
    /// Show what workers wrote
    Logs(logs::LogsArgs),
    /// Show what happened
    Events(events::EventsArgs),
    /// Send a signal to an app's workers
    Signal(change::SignalArgs),
    /// Run one more app, under the supervisor that is running
    Start(Box<change::StartArgs>),
    /// See it all at work: a small web service that is built in
    Demo(demo::DemoArgs),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
    #[command(hide = true)]
    DemoWorker,
}

/// Which supervisor is meant.
#[derive(Debug, Args)]
pub(crate) struct HomeArg {
    /// Home directory of the supervisor [default: $GANGER_HOME, or $XDG_RUNTIME_DIR/ganger, or
    /// /run/ganger for root, or ganger-UID in the temporary directory]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
}

impl HomeArg {
    pub(crate) fn is_default(&self) -> bool {
        self.home.is_none()
    }

    pub(crate) fn home(&self) -> Home {
        match &self.home {
            Some(path) => Home::at(path),
            None => Home::find(),
        }
    }
}

/// Why a verb could not be done.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    text: String,
    lines: Vec<LogLine>,
}

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            code: 1,
            text: text.into(),
            lines: Vec::new(),
        }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self {
            code: 2,
            ..Self::new(text)
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NotRunning { .. } => Self {
                code: 3,
                text: format!(
                    "{error}: start one with `ganger run`, or say where it is with --home"
                ),
                lines: Vec::new(),
            },
            ClientError::Failed { text, lines } => Self {
                lines,
                ..Self::new(text)
            },
            error => Self::new(error.to_string()),
        }
    }
}

/// Nobody reads any more: that is no failure, but there is nothing more to do.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self {
                code: 0,
                ..Self::new("")
            },
            _ => Self::new(format!("standard output: {error}")),
        }
    }
}

/// Does it. `command` is the whole command line, for completions.
pub fn run(verb: Verb, command: clap::Command) -> ExitCode {
    let done = match verb {
        Verb::Run(args) => return run::run(&args).unwrap_or_else(|failure| failure.tell()),
        Verb::Demo(args) => return demo::run(&args).unwrap_or_else(|failure| failure.tell()),
        Verb::DemoWorker => demo_worker(),
        Verb::Reload(args) => change::reload(&args),
        Verb::Restart(args) => change::restart(&args),
        Verb::Stop(args) => change::stop(&args),
        Verb::Scale(args) => change::scale(&args),
        Verb::Status(args) => status::run(&args),
        Verb::Describe(args) => describe::run(&args),
        Verb::Logs(args) => logs::run(&args),
        Verb::Events(args) => events::run(&args),
        Verb::Signal(args) => change::signal(&args),
        Verb::Start(args) => change::start(&args),
        Verb::Completions(args) => completions::run(&args, command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

fn demo_worker() -> Result<(), Failure> {
    crate::demo::worker::run().map_err(|error| Failure::new(error.to_string()))
}

impl Failure {
    /// Says it on standard error; the exit code.
    fn tell(&self) -> ExitCode {
        let stderr = io::stderr();
        let has_colour = wants_colour(|name| std::env::var_os(name), stderr.is_terminal());
        let mut text = Vec::new();
        if !self.text.is_empty() {
            let head = out::paint(has_colour, out::Tone::Bad, "ganger:");
            text.extend_from_slice(format!("{head} {}\n", self.text).as_bytes());
        }
        if !self.lines.is_empty() {
            text.extend_from_slice(b"Its last lines:\n");
            let mut style = Style {
                has_colour,
                ..Style::default()
            };
            for line in &self.lines {
                style.line(line, &mut text);
            }
        }
        // If it can't be said, the exit code still can.
        let _ = stderr.lock().write_all(&text);
        ExitCode::from(self.code)
    }
}
