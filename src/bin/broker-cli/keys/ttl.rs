//! `ttl` and `expire`: when a key goes by itself.

use crate::failure::Failure;
use crate::input;
use crate::json::Object;
use crate::session::Session;
use clap::Args;
use ganger_client::Expiry;
use std::ffi::OsString;
use std::time::Duration;

const TTL_EXAMPLES: &str = "\
Examples:
  broker-cli ttl session:7                 # 1799.996, or never
  broker-cli --json ttl session:7          # {\"ttl_ms\":1799996}, or null";

/// Print how many seconds a key has left, or `never`.
///
/// Exit code 1 if the key is not there.
#[derive(Args)]
#[command(after_long_help = TTL_EXAMPLES)]
pub(crate) struct Ttl {
    /// The key.
    key: OsString,
}

impl Ttl {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let key = input::key(&self.key, &session.options)?;
        let expiry = session.store()?.ttl(&key)?;
        let left = match expiry.ok_or_else(|| Failure::absent(&key))? {
            Expiry::Never => None,
            Expiry::In(left) => Some(left),
        };
        if session.out.json {
            let ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
            return session.out.object(Object::new().field("ttl_ms", ms));
        }
        match left {
            Some(left) => {
                let (seconds, ms) = (left.as_secs(), left.subsec_millis());
                session.out.line(&format!("{seconds}.{ms:03}"))
            }
            None => session.out.line("never"),
        }
    }
}

const EXPIRE_EXAMPLES: &str = "\
Examples:
  broker-cli expire session:7 30m
  broker-cli expire session:7 30m --at-least   # never shortens what it has
  broker-cli expire draft never";

/// Let a key go by itself after a time, or never.
///
/// Exit code 1 if the key is not there.
#[derive(Args)]
#[command(after_long_help = EXPIRE_EXAMPLES)]
pub(crate) struct Expire {
    /// The key.
    key: OsString,
    /// After how long: 500ms, 5s, 2m, 1h, 7d, or never.
    #[arg(value_name = "TIME")]
    time: String,
    /// Leave it alone if it has more time than that.
    #[arg(long)]
    at_least: bool,
}

impl Expire {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let key = input::key(&self.key, &session.options)?;
        let time: Option<Duration> = input::lifetime(&self.time)
            .map_err(|why| Failure::Usage(format!("{}: {why}", self.time)))?;
        let store = session.store()?;
        let is_there = match time {
            Some(time) if self.at_least => store.touch(&key, time)?,
            Some(time) => store.expire(&key, time)?,
            None => store.persist(&key)?,
        };
        match is_there {
            true => Ok(()),
            false => Err(Failure::absent(&key)),
        }
    }
}
