//! `ganger logs`: what workers wrote.

use super::out::Out;
use super::{ask, Failure, HomeArg};
use crate::control::{Reply, Request};
use crate::logs::Style;
use crate::report::LogLine;
use clap::Args;
use serde::Serialize;
use std::borrow::Cow;
use std::io;

#[derive(Debug, Args)]
#[command(after_help = "\
Where lines are missing (a worker wrote faster than anybody could read), the output says how many.

Examples:
  ganger logs -f
  ganger logs web --worker 1 -n 200
  ganger logs web.1 --raw > web.1.log")]
pub struct LogsArgs {
    /// The app, or one of its workers: web, web.1 [default: all]
    app: Option<String>,
    /// Only this worker
    #[arg(short, long, value_name = "I")]
    worker: Option<u16>,
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// So many of the last lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    lines: u32,
    /// With the time of each line (UTC)
    #[arg(short, long)]
    time: bool,
    /// Without the name of the worker before each line
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// As JSON, an object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    home: HomeArg,
}

/// A line as scripts get it.
#[derive(Serialize)]
struct JsonLine<'a> {
    at_ms: u64,
    app: &'a str,
    worker: u16,
    pid: i32,
    stream: &'static str,
    dropped: u64,
    text: Cow<'a, str>,
}

pub(crate) fn run(args: &LogsArgs) -> Result<(), Failure> {
    let mut client = ask::connect(&args.home)?;
    let (app, worker) = match &args.app {
        // Not an app, and not in the status, but it writes too.
        Some(app) if app == "broker" => (Some(app.clone()), None),
        None if args.worker.is_none() => (None, None),
        named => {
            let (app, worker) = ask::worker(&mut client, named.as_deref(), args.worker)?;
            (Some(app.name), worker)
        }
    };
    let request = Request::Logs {
        app,
        worker,
        lines: args.lines,
        follow: args.follow,
    };
    let mut out = Out::new();
    let mut style = Style {
        has_colour: out.has_colour(),
        has_time: args.time,
        width: 0,
    };
    let mut written = Ok(());
    client.ask_while(&request, |reply| {
        if let Reply::Log(line) = reply {
            written = show(args, &line, &mut style, &mut out).and_then(|()| {
                // A line is shown when it comes.
                if args.follow {
                    out.flush()
                } else {
                    Ok(())
                }
            });
        }
        written.is_ok()
    })?;
    written?;
    Ok(out.flush()?)
}

fn show(args: &LogsArgs, line: &LogLine, style: &mut Style, out: &mut Out) -> io::Result<()> {
    if args.json {
        return out.json_line(&JsonLine {
            at_ms: line.at_ms,
            app: &line.app,
            worker: line.worker,
            pid: line.pid,
            stream: if line.is_stderr { "stderr" } else { "stdout" },
            dropped: line.dropped,
            text: String::from_utf8_lossy(&line.text),
        });
    }
    if args.raw {
        out.bytes(&line.text)?;
        return out.bytes(b"\n");
    }
    let mut text = Vec::new();
    style.line(line, &mut text);
    out.bytes(&text)
}
