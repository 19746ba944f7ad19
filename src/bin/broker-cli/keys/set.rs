//! `set`: a value under a key.

use crate::failure::Failure;
use crate::input;
use crate::output::printable;
use crate::session::Session;
use clap::Args;
use ganger_client::SetOptions;
use std::ffi::OsString;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  broker-cli set greeting hello
  broker-cli set photo --file photo.jpg
  date | broker-cli set now -
  broker-cli set session:7 Ada --ttl 30m
  broker-cli set leader $HOSTNAME --if-absent || echo 'somebody else was first'
  broker-cli --msgpack set cart:7 '{\"items\":[1,2]}'";

/// Store a value under a key.
///
/// Without --ttl the key lives for ever, whatever it had before (see --keep-ttl). Exit code 1, and
/// nothing changes, if a condition is not met. Prints nothing; --json and --verbose tell the
/// revision.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Set {
    /// The key.
    key: OsString,
    #[command(flatten)]
    value: input::Value,
    /// The key goes by itself after this time.
    #[arg(long, value_name = "TIME", value_parser = input::time)]
    ttl: Option<Duration>,
    /// The key keeps the time to live that it has.
    #[arg(long, conflicts_with = "ttl")]
    keep_ttl: bool,
    /// Only if the key is not there.
    #[arg(long, group = "condition")]
    if_absent: bool,
    /// Only if the key is there.
    #[arg(long, group = "condition")]
    if_present: bool,
    /// Only if nobody wrote the key since it had this revision.
    #[arg(long, value_name = "REVISION", group = "condition")]
    if_revision: Option<u64>,
}

impl Set {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let key = input::key(&self.key, &session.options)?;
        let value = self.value.read(&session.options)?;
        let revision = session.store()?.set(&key, &value, self.options())?;
        let revision = revision.ok_or_else(|| self.unmet(&key))?;
        session.remark(|| format!("revision {revision}"));
        match session.out.json {
            true => session.out.number("revision", revision),
            false => Ok(()),
        }
    }

    fn options(&self) -> SetOptions {
        let mut options = SetOptions::new();
        if let Some(ttl) = self.ttl {
            options = options.ttl(ttl);
        }
        if self.keep_ttl {
            options = options.keep_expiry();
        }
        if self.if_absent {
            options = options.if_absent();
        }
        if self.if_present {
            options = options.if_present();
        }
        match self.if_revision {
            Some(revision) => options.if_revision(revision),
            None => options,
        }
    }

    fn unmet(&self, key: &[u8]) -> Failure {
        let key = printable(key);
        Failure::Absent(match self.if_revision {
            _ if self.if_absent => format!("{key} is there already"),
            Some(revision) => format!("{key} has not revision {revision} any more"),
            None => format!("{key} is not there"),
        })
    }
}
