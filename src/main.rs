//! `ganger`: the supervisor (not written yet, and says so), and the broker.

mod cli;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Runs N copies of any program behind one port, with one crash-proof shared memory.
#[derive(Parser)]
#[command(name = "ganger", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Broker(cli::broker::Arguments),
}

fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Broker(arguments) => cli::broker::run(&arguments),
    }
}
