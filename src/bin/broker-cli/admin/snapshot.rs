//! `snapshot` and `restore`: the region in a file.

use crate::failure::{complain, Failure};
use crate::json::Object;
use crate::output::Output;
use crate::session::Session;
use crate::table::{bytes, counted};
use clap::Args;
use ganger_client::protocol::admin::AdminProgress;
use ganger_client::SnapshotInfo;
use std::io::{self, IsTerminal, Write};

const SNAPSHOT_EXAMPLES: &str = "\
Examples:
  broker-cli snapshot
  broker-cli --json snapshot | jq -r .name";

/// Have the broker write all keys to a file of its home, and print the file's name.
///
/// Nobody is stopped meanwhile. The file is whole or not there.
#[derive(Args)]
#[command(after_long_help = SNAPSHOT_EXAMPLES)]
pub(crate) struct Snapshot {}

impl Snapshot {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client()?;
        let written = session.wait(async { Ok(client.snapshot(progress()).await?) });
        wipe();
        show(&written?, &mut session.out)
    }
}

const RESTORE_EXAMPLES: &str = "\
Examples:
  broker-cli restore                       # the newest that is sound
  broker-cli restore region.snapshot.1";

/// Have the broker read a snapshot into the region, and print its name.
///
/// Keys of the snapshot get its values; keys that are not in it stay. A broken snapshot is refused
/// by name, and the one before it is used.
#[derive(Args)]
#[command(after_long_help = RESTORE_EXAMPLES)]
pub(crate) struct Restore {
    /// The name of the snapshot in the broker's home; without it, the newest sound one.
    name: Option<String>,
}

impl Restore {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client()?;
        let name = self.name.as_deref();
        let read = session.wait(async { Ok(client.restore(name, progress()).await?) });
        wipe();
        show(&read?, &mut session.out)
    }
}

fn show(info: &SnapshotInfo, out: &mut Output) -> Result<(), Failure> {
    for refused in &info.refused {
        complain(&format!("refused: {refused}"));
    }
    if out.json {
        let object = Object::new()
            .field("name", info.name.as_str())
            .field("entries", info.entries)
            .field("bytes", info.bytes)
            .field("refused", info.refused.clone());
        return out.object(object);
    }
    let what = format!(
        "{}, {}",
        counted(info.entries, "entry", "entries"),
        bytes(info.bytes)
    );
    let what = out.dim(&format!("  ({what})"));
    match out.is_terminal() {
        true => out.line(&format!("{}{what}", info.name)),
        false => out.line(&info.name),
    }
}

/// Shows how far it is, to those who look.
fn progress() -> impl FnMut(AdminProgress) + Send {
    let is_seen = io::stderr().is_terminal();
    move |progress| {
        if is_seen {
            let AdminProgress { done, total } = progress;
            let percent = (done * 100).checked_div(total).unwrap_or(100).min(100);
            let _ = write!(
                io::stderr(),
                "\r{done} of {total} entries, {percent} %\x1b[K"
            );
        }
    }
}

/// Takes the last of it away.
fn wipe() {
    if io::stderr().is_terminal() {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
}
