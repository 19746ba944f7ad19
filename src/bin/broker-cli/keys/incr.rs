//! `incr`: counting.

use crate::failure::Failure;
use crate::input;
use crate::session::Session;
use clap::Args;
use std::ffi::OsString;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  broker-cli incr visits
  broker-cli incr stock:pears -- -3
  broker-cli incr failed:ada --ttl 10m     # counts in windows of ten minutes";

/// Add to a counter, and print the sum.
///
/// A key that is not there counts from 0. A value that `set` wrote is no counter.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Incr {
    /// The key.
    key: OsString,
    /// How much; less than 0 counts down.
    #[arg(default_value_t = 1, allow_negative_numbers = true)]
    by: i64,
    /// If the counter begins here: it goes by itself after this time.
    #[arg(long, value_name = "TIME", value_parser = input::time)]
    ttl: Option<Duration>,
}

impl Incr {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let key = input::key(&self.key, &session.options)?;
        let sum = session.store()?.incr(&key, self.by, self.ttl)?;
        session.out.number("value", sum)
    }
}
