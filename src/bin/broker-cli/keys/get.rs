//! `get`: the value of a key.

use crate::failure::Failure;
use crate::input;
use crate::json::Object;
use crate::session::Session;
use clap::Args;
use std::ffi::OsString;

const EXAMPLES: &str = "\
Examples:
  broker-cli get greeting
  broker-cli get photo > photo.jpg        # exactly the bytes
  broker-cli --json get session:7         # with revision and time to live
  broker-cli --msgpack get cart:7         # a value of Kv::set_typed, as JSON
  broker-cli get maybe || echo 'not there'";

/// Write the value of a key.
///
/// To a pipe or a file go exactly the bytes of the value, with nothing behind them. To a terminal,
/// what can't be printed is shown as \xNN. Counters are numbers. Exit code 1 if the key is not
/// there.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Get {
    /// The key.
    key: OsString,
}

impl Get {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let key = input::key(&self.key, &session.options)?;
        let entry = session.store()?.entry(&key)?;
        let entry = entry.ok_or_else(|| Failure::absent(&key))?;
        session.remark(|| format!("revision {}", entry.revision));
        let out = &mut session.out;
        if !out.json {
            return out.value(&entry.value, entry.counter);
        }
        let object = Object::new().bytes("key", &key);
        let object = out.value_field(object, "value", &entry.value, entry.counter)?;
        let object = object
            .field("revision", entry.revision)
            .field("ttl_ms", entry.ttl_ms)
            .field("counter", entry.counter)
            .field("ephemeral", entry.ephemeral);
        out.object(object)
    }
}
