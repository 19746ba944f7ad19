//! What can be said on the command line.

use crate::failure::Failure;
use crate::input;
use crate::session::Session;
use crate::{admin, bench, command, completions, keys, leases, messages, repl};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const AFTER_HELP: &str = "\
Start with:  broker-cli set greeting hello && broker-cli get greeting
Each verb has examples: broker-cli help VERB";

const AFTER_LONG_HELP: &str = "\
Exit codes:
  0  done
  1  the key is not there, the condition is not met, or others hold the lock
  2  wrong use: an unknown option, a key that is too long, a subject that is none
  3  no broker, or no region
  4  it was asked and did not work: no answer in time, the region is full, ...
  `lock`, `elect` and `update` pass the exit code of their command on; who is ended by a
  signal leaves with 128 and its number.

Values:
  Bytes of any kind. VALUE is taken as it is, `-` reads standard input to its end, --file a file.
  `get` writes exactly the bytes of the value to a pipe or file; to a terminal, it shows what can't
  be printed as \\xNN, and ends the line. --raw writes the bytes to a terminal too.

Environment:
  GANGER_HOME        the directory of the broker's socket, unless --home says it; otherwise it is
                     $XDG_RUNTIME_DIR/ganger, or /run/ganger for root, or ganger-UID in the
                     temporary directory
  GANGER_REGION_FD   the region to use, as a worker is told by its supervisor; --home and --region
  GANGER_REGION      come before both
  NO_COLOR           no colours, on terminals neither";

/// Keys, messages and locks of the processes of this machine, and a look at what their broker does.
#[derive(Parser)]
#[command(
    name = "broker-cli",
    version,
    after_help = AFTER_HELP,
    after_long_help = AFTER_LONG_HELP,
    arg_required_else_help = true,
    args_override_self = true,
    max_term_width = 100,
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of every verb")]
pub(crate) struct Options {
    /// Directory of the broker's socket [default: $GANGER_HOME, or the usual place].
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// Use the named region directly, with or without a broker. For verbs on keys.
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "socket")]
    pub(crate) region: Option<String>,
    /// Go through the broker's socket, even where the region can be mapped.
    #[arg(long, global = true)]
    pub(crate) socket: bool,
    /// How long the broker may take to answer: 500ms, 5s, 2m; a bare number is seconds.
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        default_value = "5s",
        value_parser = input::positive
    )]
    pub(crate) timeout: Duration,
    /// Write JSON: one object a line. Bytes that are no UTF-8 are in fields that end in _base64.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Write the bytes of values as they are, to a terminal too, and of counters the 8 bytes.
    #[arg(long, global = true, conflicts_with_all = ["json", "msgpack"])]
    pub(crate) raw: bool,
    /// Values are MessagePack: show them as JSON; `set`, `update` and `publish` take JSON.
    #[arg(long, global = true)]
    pub(crate) msgpack: bool,
    /// Keys and values of the command line have escapes: \n, \t, \\, \xNN.
    #[arg(short = 'e', long, global = true)]
    pub(crate) escapes: bool,
    /// Colours.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
    /// Say on standard error how it was done: directly or through the broker, which revision.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

impl Options {
    /// The arguments that say the same, for a line of the repl to begin with.
    pub(crate) fn to_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let flags = [
            ("--socket", self.socket),
            ("--json", self.json),
            ("--raw", self.raw),
            ("--msgpack", self.msgpack),
            ("--escapes", self.escapes),
            ("--verbose", self.verbose),
        ];
        let set = flags.iter().filter(|(_, is_set)| *is_set);
        arguments.extend(set.map(|(name, _)| OsString::from(name)));
        if let Some(home) = &self.home {
            arguments.extend(["--home".into(), home.clone().into_os_string()]);
        }
        if let Some(region) = &self.region {
            arguments.extend(["--region".into(), region.into()]);
        }
        let color = match self.color {
            Color::Auto => "auto",
            Color::Always => "always",
            Color::Never => "never",
        };
        let timeout = format!("{}ms", self.timeout.as_millis().max(1));
        arguments.extend(["--color", color, "--timeout", &timeout].map(OsString::from));
        arguments
    }
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    Always,
    Never,
}

/// Makes [`Verb`] and its dispatch from one table.
macro_rules! verbs {
    ($($(#[$meta:meta])* $name:ident($arguments:ty),)*) => {
        #[derive(Subcommand)]
        pub(crate) enum Verb {
            $($(#[$meta])* $name($arguments),)*
        }

        impl Verb {
            pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
                match self {
                    $(Self::$name(arguments) => arguments.run(session)?,)*
                }
                Ok(session.out.flush()?)
            }
        }
    };
}

verbs! {
    Get(keys::get::Get),
    Set(keys::set::Set),
    #[command(visible_alias = "delete")]
    Del(keys::delete::Delete),
    Incr(keys::incr::Incr),
    Append(keys::append::Append),
    Ttl(keys::ttl::Ttl),
    Expire(keys::ttl::Expire),
    Scan(keys::scan::Scan),
    Watch(keys::watch::Watch),
    Update(keys::update::Update),
    #[command(visible_alias = "pub")]
    Publish(messages::publish::Publish),
    #[command(visible_alias = "sub")]
    Subscribe(messages::subscribe::Subscribe),
    Request(messages::request::Request),
    Reply(messages::reply::Reply),
    Lock(leases::lock::Lock),
    Elect(leases::elect::Elect),
    Topics(admin::topics::Topics),
    Clients(admin::clients::Clients),
    Leases(admin::leases::Leases),
    Stats(admin::stats::Stats),
    Metrics(admin::stats::Metrics),
    Tap(messages::subscribe::Tap),
    Top(admin::top::Top),
    Snapshot(admin::snapshot::Snapshot),
    Restore(admin::snapshot::Restore),
    Audit(admin::audit::Audit),
    Bench(bench::Bench),
    Repl(repl::Repl),
    Completions(completions::Completions),
    #[command(hide = true)]
    ExecBelow(command::ExecBelow),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_verb_has_a_sentence_and_examples() {
        let mut command = Arguments::command();
        command.build();
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let name = verb.get_name();
            if name == "help" {
                continue;
            }
            assert!(verb.get_about().is_some(), "{name}");
            let after = verb.get_after_long_help().map(ToString::to_string);
            assert!(
                after.is_some_and(|text| text.contains("broker-cli")),
                "{name}"
            );
        }
        command.debug_assert();
    }
}
