//! `ganger events`: what happened.

use super::out::{Out, Tone};
use super::{ask, Failure, HomeArg};
use crate::control::{Reply, Request};
use crate::logs::time_of_day;
use crate::report::Event;
use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ganger events -f
  ganger events --json -n 1000 | jq 'select(.kind == \"worker-exit\")'")]
pub struct EventsArgs {
    /// Go on with what happens from now on
    #[arg(short, long)]
    follow: bool,
    /// So many of the last events
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    last: u32,
    /// As JSON, an object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    home: HomeArg,
}

pub(crate) fn run(args: &EventsArgs) -> Result<(), Failure> {
    let request = Request::Events {
        last: args.last,
        follow: args.follow,
    };
    let mut out = Out::new();
    let (mut last_number, mut width) = (None, "broker".len());
    let mut written = Ok(());
    ask::connect(&args.home)?.ask_while(&request, |reply| {
        if let Reply::Event(event) = reply {
            let missing = missing(&mut last_number, event.number);
            let mut lines = Vec::new();
            if missing > 0 && !args.json {
                lines.push(out.paint(Tone::Dim, format!("[... {missing} events missing]")));
            }
            if !args.json {
                width = width.max(who(&event).len());
                lines.push(line(&event, width, &out));
            }
            written = lines
                .iter()
                .try_for_each(|line| out.line(line))
                .and_then(|()| {
                    if args.json {
                        out.json_line(&event)
                    } else {
                        Ok(())
                    }
                })
                .and_then(|()| if args.follow { out.flush() } else { Ok(()) });
        }
        written.is_ok()
    })?;
    written?;
    Ok(out.flush()?)
}

/// Events between the last one and this.
fn missing(last: &mut Option<u64>, number: u64) -> u64 {
    let before = last.replace(number);
    before.map_or(0, |before| number.saturating_sub(before + 1))
}

/// `13:05:59.123  web.0     worker-ready  ready after 41 ms`.
fn line(event: &Event, width: usize, out: &Out) -> String {
    let time = out.paint(Tone::Dim, time_of_day(event.at_ms));
    let kind = format!("{:<15}", event.kind);
    let kind = out.paint(tone(&event.kind), kind);
    let pid = event
        .pid
        .map_or(String::new(), |pid| format!(" (pid {pid})"));
    let pid = out.paint(Tone::Dim, pid);
    format!("{time}  {:width$}  {kind}  {}{pid}", who(event), event.text)
}

/// `web.0`, `web`, `broker`, `ganger`.
pub(crate) fn who(event: &Event) -> String {
    match (event.app.as_str(), event.worker) {
        ("", _) => "ganger".into(),
        (app, Some(worker)) => format!("{app}.{worker}"),
        (app, None) => app.into(),
    }
}

/// The colour of what happened.
pub(crate) fn tone(kind: &str) -> Tone {
    let has = |words: &[&str]| words.iter().any(|word| kind.contains(word));
    match kind {
        _ if has(&["fail", "crash", "hang", "kill", "abort", "error"]) => Tone::Bad,
        _ if has(&["ready", "done", "online"]) => Tone::Good,
        _ => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_in_the_numbers_are_counted() {
        let mut last = None;
        assert_eq!(missing(&mut last, 7), 0);
        assert_eq!(missing(&mut last, 8), 0);
        assert_eq!(missing(&mut last, 12), 3);
    }
}
