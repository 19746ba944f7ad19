//! `ganger describe`: everything about an app.

use super::out::{Out, Tone};
use super::{ask, show, Failure, HomeArg};
use crate::control::{Reply, Request};
use crate::events::now_ms;
use crate::report::AppStatus;
use clap::Args;
use std::io;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ganger describe web
  ganger describe --json | jq .addresses")]
pub struct DescribeArgs {
    /// The app [default: the only one]
    app: Option<String>,
    #[command(flatten)]
    home: HomeArg,
    /// As JSON, for scripts
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &DescribeArgs) -> Result<(), Failure> {
    let mut client = ask::connect(&args.home)?;
    let app = ask::app(&mut client, args.app.as_deref())?.name;
    let mut found = None;
    client.ask(&Request::Describe { app }, |reply| {
        if let Reply::App(app) = reply {
            found = Some(app);
        }
    })?;
    let app = found.ok_or_else(|| Failure::new("the supervisor gave no description"))?;
    let mut out = Out::new();
    if args.json {
        out.json(&app)?;
    } else {
        show(&app, &mut out, now_ms())?;
    }
    Ok(out.flush()?)
}

fn show(app: &AppStatus, out: &mut Out, now_ms: u64) -> io::Result<()> {
    let (ready, tone) = show::readiness(app);
    let doing = app.doing.as_ref();
    let doing = doing.map_or(String::new(), |doing| format!(", {doing}"));
    let addresses = match app.listens_nowhere {
        true => "none: it listens nowhere, and counts as ready because it lives".to_owned(),
        false => app.addresses.join("  "),
    };
    let facts = [
        ("app", out.paint(Tone::Bold, &app.name)),
        ("workers", out.paint(tone, ready) + &doing),
        ("command", quoted(&app.command)),
        ("directory", app.cwd.clone()),
        ("addresses", addresses),
        ("generation", app.generation.to_string()),
        ("balance", app.balance.clone()),
        ("delivery", app.deliver.clone()),
    ];
    let notes = app.deliver_notes.iter().map(|note| ("", note.clone()));
    for (name, fact) in facts.into_iter().chain(notes) {
        if !fact.is_empty() {
            let name = out.paint(Tone::Dim, format!("{name:<12}"));
            out.line(format!("{name}{fact}"))?;
        }
    }
    out.line("")?;
    let table = show::workers(app, now_ms);
    for line in table.lines(0, out.width(), out.has_colour()) {
        out.line(line)?;
    }
    Ok(())
}

/// As a shell would take it.
fn quoted(words: &[String]) -> String {
    let quoted = words.iter().map(|word| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@+%".contains(c);
        if !word.is_empty() && word.chars().all(is_plain) {
            return word.clone();
        }
        let shown = word.chars().filter(|c| !c.is_control());
        format!("'{}'", shown.collect::<String>().replace('\'', r"'\''"))
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_command_line_is_shown_as_a_shell_takes_it() {
        let words = ["sh", "-c", "echo 'a b'", ""].map(str::to_owned);
        assert_eq!(quoted(&words), r"sh -c 'echo '\''a b'\''' ''");
    }
}
