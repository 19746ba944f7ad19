//! `update`: compare and set, by revision, by value, or through a command.

use crate::command;
use crate::failure::Failure;
use crate::input;
use crate::output::printable;
use crate::session::Session;
use clap::Args;
use ganger_client::SetOptions;
use std::ffi::OsString;

/// Times it is tried again when others write in between.
const ATTEMPTS: u32 = 100;

const EXAMPLES: &str = "\
Examples:
  broker-cli update stock 4 --if-revision 42
  broker-cli update color blue --if-value red
  broker-cli update names -- sort -u       # the value goes in, the new one comes out
  broker-cli update doc -- jq '.n += 1'    # and again, if somebody wrote meanwhile";

/// Change a value, only if nobody else did meanwhile.
///
/// Either the new value is given, with the revision or the value that the key has to have; or a
/// COMMAND makes the new value out of the old one, from standard input to standard output. It runs
/// again if the key changed while it ran; if it fails, nothing changes, and its exit code is passed
/// on. A key that is not there is empty to it. The time to live stays. Exit code 1 if the condition
/// is not met.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Update {
    /// The key.
    key: OsString,
    #[command(flatten)]
    value: input::Value,
    /// Only if nobody wrote the key since it had this revision.
    #[arg(long, value_name = "REVISION", group = "condition")]
    if_revision: Option<u64>,
    /// Only if it has this value; --msgpack does not apply to it.
    #[arg(
        long,
        value_name = "OLD",
        group = "condition",
        allow_negative_numbers = true
    )]
    if_value: Option<OsString>,
    /// The command that makes the new value, and its arguments.
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["condition", "value", "file"])]
    command: Vec<OsString>,
}

impl Update {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let key = input::key(&self.key, &session.options)?;
        let revision = match (self.if_revision, &self.if_value) {
            (Some(wanted), _) => {
                let value = self.value.read(&session.options)?;
                let options = SetOptions::new().keep_expiry().if_revision(wanted);
                let revision = session.store()?.set(&key, &value, options)?;
                revision.ok_or_else(|| {
                    let key = printable(&key);
                    Failure::Absent(format!("{key} has not revision {wanted} any more"))
                })?
            }
            (None, Some(old)) => {
                let value = self.value.read(&session.options)?;
                let old = input::argument(old, &session.options)?;
                self.retried(session, &key, |_, found| match found {
                    Some(found) if found == old => Ok(value.clone()),
                    Some(_) => Err(Failure::Absent(format!(
                        "{} has another value",
                        printable(&key)
                    ))),
                    None => Err(Failure::absent(&key)),
                })?
            }
            (None, None) if self.command.is_empty() => {
                let why = "say what to compare: --if-revision, --if-value, or -- COMMAND";
                return Err(Failure::Usage(why.into()));
            }
            (None, None) => self.retried(session, &key, |session, found| {
                let old = found.unwrap_or_default().to_vec();
                let run = command::through(&self.command, old, &[]);
                let (value, status) = session.wait(run)?;
                match command::code(status) {
                    0 => Ok(value),
                    code => Err(Failure::Status(code)),
                }
            })?,
        };
        session.remark(|| format!("revision {revision}"));
        match session.out.json {
            true => session.out.number("revision", revision),
            false => Ok(()),
        }
    }

    /// Makes a new value of the old one until nobody wrote in between.
    fn retried(
        &self,
        session: &mut Session,
        key: &[u8],
        mut change: impl FnMut(&mut Session, Option<&[u8]>) -> Result<Vec<u8>, Failure>,
    ) -> Result<u64, Failure> {
        for _ in 0..ATTEMPTS {
            let entry = session.store()?.entry(key)?;
            let (old, options) = match &entry {
                Some(entry) => (
                    Some(&entry.value[..]),
                    SetOptions::new().keep_expiry().if_revision(entry.revision),
                ),
                None => (None, SetOptions::new().if_absent()),
            };
            let value = change(session, old)?;
            if let Some(revision) = session.store()?.set(key, &value, options)? {
                return Ok(revision);
            }
        }
        let key = printable(key);
        let why = format!("{key} changed each of {ATTEMPTS} times: nothing was written");
        Err(Failure::Failed(why))
    }
}
