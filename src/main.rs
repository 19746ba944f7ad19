//! `ganger`: the supervisor, the broker, and the verbs that ask them.

mod cli;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// Runs N copies of any program behind one port, with one crash-proof shared memory.
#[derive(Parser)]
#[command(name = "ganger", version, after_help = ganger_supervisor::cli::EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    #[command(flatten)]
    Supervisor(ganger_supervisor::cli::Verb),
    Broker(cli::broker::Arguments),
}

fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Supervisor(verb) => ganger_supervisor::cli::run(verb, Arguments::command()),
        Verb::Broker(arguments) => cli::broker::run(&arguments),
    }
}
