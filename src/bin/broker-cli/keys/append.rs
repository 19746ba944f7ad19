//! `append`: more behind a value.

use crate::failure::Failure;
use crate::input;
use crate::session::Session;
use clap::Args;
use std::ffi::OsString;

const EXAMPLES: &str = "\
Examples:
  broker-cli -e append log 'started\\n'
  uptime | broker-cli append log -";

/// Add bytes to the end of a value, and print its new length.
///
/// A key that is not there begins empty.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Append {
    /// The key.
    key: OsString,
    #[command(flatten)]
    value: input::Value,
}

impl Append {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let key = input::key(&self.key, &session.options)?;
        let more = self.value.read(&session.options)?;
        let len = session.store()?.append(&key, &more)?;
        session.out.number("length", len)
    }
}
