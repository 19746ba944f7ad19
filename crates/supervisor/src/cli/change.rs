//! The verbs that change something: `reload`, `restart`, `stop`, `scale`, `signal`, `start`. What
//! happens is shown worker by worker.

use super::app_args::AppArgs;
use super::events::{tone, who};
use super::out::{Out, Tone};
use super::place::environment;
use super::{ask, signals, units, Failure, HomeArg};
use crate::control::client::Client;
use crate::control::{Reply, Request, Scale};
use crate::report::Event;
use clap::Args;
use std::io;

#[derive(Debug, Args)]
pub struct AppArg {
    /// The app [default: the only one]
    app: Option<String>,
    #[command(flatten)]
    home: HomeArg,
}

#[derive(Debug, Args)]
#[command(after_help = "\
New workers start beside the old ones, get ready, and take over; if one fails, the old ones stay, and
the reason and its last lines are shown. Ctrl-C ends the watching, not the reload.

Examples:
  ganger reload web
  ganger reload web --canary 10 --for 30s
  ganger reload web --rollback                   While the old generation still lives")]
pub struct ReloadArgs {
    #[command(flatten)]
    which: AppArg,
    /// Workers replaced at a time [default: as the app was started with]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    width: Option<u16>,
    /// Give the new generation so much of the new connections first, in percent
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=99))]
    canary: Option<u8>,
    /// For so long; then it gets all of them [default: 30s]
    #[arg(
        long = "for",
        id = "canary_for",
        value_name = "TIME",
        requires = "canary",
        value_parser = units::duration_ms
    )]
    canary_for: Option<u64>,
    /// Go back to the old generation
    #[arg(long, conflicts_with_all = ["width", "canary", "canary_for", "update_env"])]
    rollback: bool,
    /// Give the new workers the environment of this command instead of the old workers'
    #[arg(long)]
    update_env: bool,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    #[command(flatten)]
    which: AppArg,
    /// Stop all apps, and the supervisor
    #[arg(long, conflicts_with = "app")]
    all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ganger scale 8
  ganger scale web +2
  ganger scale web -1")]
pub struct ScaleArgs {
    /// The app, if there are several, and the number of workers: 8, +2, -1
    #[arg(
        value_name = "[APP] N|+N|-N",
        num_args = 1..=2,
        required = true,
        allow_hyphen_values = true
    )]
    words: Vec<String>,
    #[command(flatten)]
    home: HomeArg,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ganger signal HUP
  ganger signal web USR2 --worker 0
  ganger signal web.0 USR2")]
pub struct SignalArgs {
    /// The app or worker, if there are several, and the signal: TERM, SIGUSR2, 15
    #[arg(value_name = "[APP] SIGNAL", num_args = 1..=2, required = true)]
    words: Vec<String>,
    /// Only this worker
    #[arg(short, long, value_name = "I")]
    worker: Option<u16>,
    #[command(flatten)]
    home: HomeArg,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Done when all workers are ready. If one can't start (no such program, a port that is taken, an exit
before it was ready), nothing of the app is kept, and the reason and its last lines are shown. `run`,
which has nobody to tell, tries again with growing waits instead.

Examples:
  ganger start -n 2 --name api -- node api.js
  ganger start --listen :9000 ./server")]
pub struct StartArgs {
    #[command(flatten)]
    home: HomeArg,
    #[command(flatten)]
    app: AppArgs,
}

pub(crate) fn reload(args: &ReloadArgs) -> Result<(), Failure> {
    let (mut client, app) = args.which.find()?;
    let request = match args.rollback {
        true => Request::Rollback { app },
        false => Request::Reload {
            app,
            width: args.width,
            canary_percent: args.canary,
            canary_ms: args.canary_for,
            env: args
                .update_env
                .then(|| environment(std::env::vars_os(), &[], &[])),
        },
    };
    carry_out(&mut client, &request)
}

pub(crate) fn restart(args: &AppArg) -> Result<(), Failure> {
    let (mut client, app) = args.find()?;
    carry_out(&mut client, &Request::Restart { app })
}

pub(crate) fn stop(args: &StopArgs) -> Result<(), Failure> {
    if args.all {
        let mut client = ask::connect(&args.which.home)?;
        return carry_out(&mut client, &Request::Shutdown);
    }
    let (mut client, app) = args.which.find()?;
    carry_out(&mut client, &Request::Stop { app })
}

pub(crate) fn scale(args: &ScaleArgs) -> Result<(), Failure> {
    let (named, to) = split(&args.words);
    let to = parse_scale(to).map_err(Failure::usage)?;
    let mut client = ask::connect(&args.home)?;
    let app = ask::app(&mut client, named)?.name;
    carry_out(&mut client, &Request::Scale { app, to })
}

pub(crate) fn signal(args: &SignalArgs) -> Result<(), Failure> {
    let (named, signal) = split(&args.words);
    let signal = signals::parse(signal).map_err(Failure::usage)?;
    let mut client = ask::connect(&args.home)?;
    let (app, worker) = ask::worker(&mut client, named, args.worker)?;
    let request = Request::Signal {
        app: app.name,
        worker,
        signal,
    };
    carry_out(&mut client, &request)
}

pub(crate) fn start(args: &StartArgs) -> Result<(), Failure> {
    let config = args.app.to_config()?;
    let mut client = ask::connect(&args.home)?;
    carry_out(&mut client, &Request::Start(Box::new(config)))
}

impl AppArg {
    fn find(&self) -> Result<(Client, String), Failure> {
        let mut client = ask::connect(&self.home)?;
        let app = ask::app(&mut client, self.app.as_deref())?.name;
        Ok((client, app))
    }
}

/// Asks for it and shows how it goes. It is carried through even if nobody reads that.
fn carry_out(client: &mut Client, request: &Request) -> Result<(), Failure> {
    let mut out = Out::new();
    // As wide as a worker's name is likely to be, so that the lines stay aligned.
    let (mut last, mut width) = (String::new(), request.app().map_or(0, str::len) + 2);
    let text = client.ask(request, |reply| {
        if let Reply::Progress(event) = reply {
            width = width.max(who(&event).len());
            let _ = show(&event, width, &mut out);
            last = event.text;
        }
    })?;
    // Often the last step says it already.
    if !text.is_empty() && text != last {
        out.line(text)?;
    }
    Ok(out.flush()?)
}

fn show(event: &Event, width: usize, out: &mut Out) -> io::Result<()> {
    let text = out.paint(tone(&event.kind), &event.text);
    let who = out.paint(Tone::Dim, format!("{:width$}", who(event)));
    let pid = event
        .pid
        .map_or(String::new(), |pid| format!(" (pid {pid})"));
    out.line(format!("{who}  {text}{}", out.paint(Tone::Dim, pid)))?;
    out.flush()
}

/// `[APP] WORD`.
fn split(words: &[String]) -> (Option<&str>, &str) {
    match words {
        [app, word, ..] => (Some(app), word),
        [word] => (None, word),
        [] => (None, ""),
    }
}

fn parse_scale(text: &str) -> Result<Scale, String> {
    let wrong = || format!("`{text}` is no number of workers: 8, +2 or -1 are");
    if text.starts_with(['+', '-']) {
        return text.parse().map(Scale::By).map_err(|_| wrong());
    }
    text.parse().map(Scale::To).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_a_number_or_a_change() {
        assert_eq!(parse_scale("8"), Ok(Scale::To(8)));
        assert_eq!(parse_scale("+2"), Ok(Scale::By(2)));
        assert_eq!(parse_scale("-1"), Ok(Scale::By(-1)));
        for wrong in ["", "+", "-", "many", "1.5", "70000", "99999999999"] {
            assert!(parse_scale(wrong).is_err(), "{wrong}");
        }
    }
}
