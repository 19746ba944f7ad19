//! `scan`: all keys.

use crate::failure::Failure;
use crate::input;
use crate::json::Object;
use crate::output::{printable, Output};
use crate::session::Session;
use clap::Args;
use ganger_client::protocol::kv::Entry;
use ganger_client::protocol::limits::RESERVED_KEY_BYTE;
use std::ffi::OsString;

/// Entries of one step.
const PAGE: u32 = 512;

const EXAMPLES: &str = "\
Examples:
  broker-cli scan
  broker-cli scan user: --values
  broker-cli scan session: --count
  broker-cli --json scan | jq -r .key
  broker-cli scan tmp: --null | xargs -0 broker-cli del";

/// List keys, those that begin with PREFIX or all, one a line.
///
/// In no particular order. Keys that are there all the time come exactly once; those that come or
/// go meanwhile, once or not at all. Nobody is stopped from writing. What can't be printed is shown
/// as \xNN; -e reads such keys again.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Scan {
    /// Only keys that begin so.
    #[arg(default_value = "")]
    prefix: OsString,
    /// With their values, behind a tab.
    #[arg(long)]
    values: bool,
    /// So many at most.
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<u64>,
    /// Only how many there are.
    #[arg(long, conflicts_with_all = ["values", "null"])]
    count: bool,
    /// Keys as they are, each followed by a zero byte, for xargs -0.
    #[arg(short = '0', long, conflicts_with_all = ["values", "json"])]
    null: bool,
}

impl Scan {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let prefix = input::argument(&self.prefix, &session.options)?;
        let mut left = self.limit.unwrap_or(u64::MAX);
        let (mut next, mut count) = (Some(0), 0_u64);
        let keys_only = !self.values && !session.options.json;
        while let Some(cursor) = next.filter(|_| left > 0) {
            let page = session.store()?.scan(&prefix, cursor, PAGE, keys_only)?;
            next = page.1;
            for (key, entry) in page.0 {
                if key.first() == Some(&RESERVED_KEY_BYTE) {
                    continue;
                }
                if left == 0 {
                    break;
                }
                left -= 1;
                count += 1;
                if !self.count {
                    self.show(&key, &entry, &mut session.out)?;
                }
            }
        }
        match self.count {
            true => session.out.number("count", count),
            false => Ok(()),
        }
    }

    fn show(&self, key: &[u8], entry: &Entry, out: &mut Output) -> Result<(), Failure> {
        if out.json {
            let object = Object::new().bytes("key", key);
            let object = match self.values {
                true => out.value_field(object, "value", &entry.value, entry.counter)?,
                false => object,
            };
            let object = object
                .field("revision", entry.revision)
                .field("ttl_ms", entry.ttl_ms);
            return out.object(object);
        }
        if self.null {
            out.bytes(key)?;
            return out.bytes(b"\0");
        }
        out.bytes(printable(key).as_bytes())?;
        if self.values {
            let value = out.shown_bytes(&entry.value, entry.counter)?;
            out.bytes(b"\t")?;
            out.bytes(&value)?;
        }
        out.bytes(b"\n")
    }
}
