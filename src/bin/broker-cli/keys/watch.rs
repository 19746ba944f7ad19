//! `watch`: what happens to keys.

use crate::failure::{complain, Failure};
use crate::input;
use crate::json::Object;
use crate::output::{printable, Output};
use crate::session::Session;
use clap::Args;
use ganger_client::{ChangeKind, WatchEvent, WatchOptions, Watched};
use std::ffi::OsString;

const EXAMPLES: &str = "\
Examples:
  broker-cli watch config
  broker-cli watch session: --prefix --changes
  broker-cli watch ready --changes -n 1    # waits for the next change
  broker-cli --json watch config | jq -r 'select(.event == \"set\").value'";

/// Show the state of a key, then every change as it happens.
///
/// The lines are: entry (the state at the beginning), set, delete, expire, evict, with key, value
/// and revision. After a lost connection it goes on where it was; if changes were lost, it says so
/// and begins anew with the state. Ctrl-C ends it.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Watch {
    /// The key.
    key: OsString,
    /// All keys that begin so.
    #[arg(long)]
    prefix: bool,
    /// Without the values.
    #[arg(long)]
    no_values: bool,
    /// Only changes, not the state at the beginning.
    #[arg(long)]
    changes: bool,
    /// End after so many lines.
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
}

impl Watch {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let key = match self.prefix {
            true => input::argument(&self.key, &session.options)?,
            false => input::key(&self.key, &session.options)?,
        };
        let mut options = match self.prefix {
            true => WatchOptions::prefix(&key),
            false => WatchOptions::key(&key),
        };
        if self.no_values {
            options = options.without_values();
        }
        let client = session.client()?;
        let mut out = session.take_out();
        let done = session.wait(async {
            let mut watch = client.watch_with(options).await?;
            let mut left = self.count.unwrap_or(u64::MAX);
            while left > 0 {
                let Some(event) = watch.next().await else {
                    let error = watch.error().map(Failure::from);
                    return Err(error.unwrap_or(Failure::NoBroker("the broker went".into())));
                };
                if self.show(&event, &mut out)? {
                    left -= 1;
                    out.flush()?;
                }
            }
            Ok(())
        });
        session.out = out;
        done
    }

    /// Whether there was a line to show.
    fn show(&self, event: &WatchEvent, out: &mut Output) -> Result<bool, Failure> {
        match event {
            WatchEvent::Begin { gap: Some(cause) } => {
                complain(&format!("changes were lost ({cause:?}): here is the state"));
                Ok(false)
            }
            WatchEvent::Entry(watched) if !self.changes => self.line("entry", watched, out),
            WatchEvent::Change(kind, watched) => self.line(&word(*kind), watched, out),
            _ => Ok(false),
        }
    }

    fn line(&self, event: &str, watched: &Watched, out: &mut Output) -> Result<bool, Failure> {
        let (key, value) = (watched.key(), watched.value());
        let has_value = !self.no_values && matches!(event, "entry" | "set");
        let revision = watched.revision();
        if out.json {
            let object = Object::new().field("event", event).bytes("key", key);
            let object = match has_value {
                true => out.value_field(object, "value", value, watched.is_counter())?,
                false => object,
            };
            out.object(object.field("revision", revision))?;
            return Ok(true);
        }
        out.bytes(format!("{event} {}", printable(key)).as_bytes())?;
        if has_value {
            let value = out.shown_bytes(value, watched.is_counter())?;
            out.bytes(b" = ")?;
            out.bytes(&value)?;
        }
        let revision = out.dim(&format!("  (revision {revision})"));
        out.line(&revision)?;
        Ok(true)
    }
}

/// The kind in a word: `set`, `delete`.
fn word(kind: ChangeKind) -> String {
    format!("{kind:?}").to_ascii_lowercase()
}
