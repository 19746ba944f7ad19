//! `broker-cli`: keys, messages, locks and what the broker is doing, from the command line.
//!
//! `get` and its like go to the shared memory directly, and start no runtime; all else talks to the
//! broker. One file holds one verb: its arguments, its help, what it does.

// What all verbs share.
mod arguments;
mod command;
mod failure;
mod input;
mod json;
mod output;
mod session;
mod store;
mod table;
// The verbs.
mod admin;
mod bench;
mod completions;
mod keys;
mod leases;
mod messages;
mod repl;

use arguments::Arguments;
use clap::Parser;
use session::Session;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Arguments { options, verb } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return failure::of_arguments(&error),
    };
    let mut session = Session::new(options);
    let done = verb.run(&mut session);
    session.close();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
