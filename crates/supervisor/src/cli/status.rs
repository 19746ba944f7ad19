//! `ganger status`: what runs, and how it is.

use super::out::{Out, Tone};
use super::units::show_duration;
use super::{ask, show, Failure, HomeArg};
use crate::events::now_ms;
use crate::report::{AppStatus, Status};
use clap::Args;
use std::io;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ganger status
  ganger status --json | jq '.apps[].workers[].pid'")]
pub struct StatusArgs {
    #[command(flatten)]
    home: HomeArg,
    /// As JSON, for scripts
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &StatusArgs) -> Result<(), Failure> {
    let status = ask::status(&mut ask::connect(&args.home)?)?;
    let mut out = Out::new();
    if args.json {
        out.json(&status)?;
    } else {
        show(&status, &mut out, now_ms())?;
    }
    Ok(out.flush()?)
}

fn show(status: &Status, out: &mut Out, now_ms: u64) -> io::Result<()> {
    let up = show_duration(now_ms.saturating_sub(status.started_ms));
    out.line(format!(
        "{} {}, pid {}, up {up}, home {}",
        out.paint(Tone::Bold, "ganger"),
        status.version,
        status.pid,
        status.home
    ))?;
    if let Some(broker) = &status.broker {
        let (word, tone) = show::state(broker.state);
        let pid = broker
            .pid
            .map_or(String::new(), |pid| format!(", pid {pid}"));
        let restarts = match broker.restarts {
            0 => String::new(),
            1 => ", restarted once".into(),
            count => format!(", restarted {count} times"),
        };
        let word = out.paint(tone, word);
        out.line(format!(
            "{} {word}{pid}{restarts}",
            out.paint(Tone::Bold, "broker")
        ))?;
    }
    if status.apps.is_empty() {
        out.line("no app is running")?;
    }
    for app in &status.apps {
        out.line("")?;
        out.line(headline(app, out))?;
        let table = show::workers(app, now_ms);
        for line in table.lines(2, out.width(), out.has_colour()) {
            out.line(line)?;
        }
    }
    Ok(())
}

/// `web: 2 of 2 ready at 127.0.0.1:3000 (node, reuseport)`.
pub(crate) fn headline(app: &AppStatus, out: &Out) -> String {
    let (ready, tone) = show::readiness(app);
    let mut line = format!(
        "{}  {}",
        out.paint(Tone::Bold, &app.name),
        out.paint(tone, ready)
    );
    if let Some(doing) = &app.doing {
        line.push_str(&format!(", {}", out.paint(Tone::Busy, doing)));
    }
    if !app.addresses.is_empty() {
        line.push_str(&format!("  {}", app.addresses.join(" ")));
    }
    if app.listens_nowhere {
        line.push_str("  listens nowhere");
    }
    let how = format!("  ({}, {})", app.deliver, app.balance);
    line.push_str(&out.paint(Tone::Dim, how));
    line
}
