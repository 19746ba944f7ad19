//! `audit`: every invariant of the region.

use crate::failure::Failure;
use crate::json::Object;
use crate::session::Session;
use crate::table::counted;
use clap::Args;

const EXAMPLES: &str = "\
Examples:
  broker-cli audit
  broker-cli audit --region shop           # without a broker
  broker-cli --json audit | jq .problems";

/// Check every invariant of the region.
///
/// Directly where the region can be mapped, else by the broker. Ganger's own entries count, too.
/// Writers of a part of the region wait while it is checked, milliseconds per million keys; readers
/// don't. Exit code 4 if there is a problem, one line for each.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Audit {}

impl Audit {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let region = match session.options.socket {
            true => None,
            false => session.region()?,
        };
        let (entries, problems) = match region {
            Some(kv) => {
                let audit = kv.check()?;
                (audit.entries, audit.problems)
            }
            None => {
                let client = session.client()?;
                let audit = session.wait(async { Ok(client.audit().await?) })?;
                (audit.entries, audit.problems)
            }
        };
        let out = &mut session.out;
        if out.json {
            let object = Object::new()
                .field("entries", entries)
                .field("problems", problems.clone());
            out.object(object)?;
        } else {
            for problem in &problems {
                out.line(problem)?;
            }
        }
        match problems.len() {
            0 if !out.json => out.line(&format!("sound: {}", entries_of(entries))),
            0 => Ok(()),
            count => {
                out.flush()?;
                let problems = counted(count as u64, "problem", "problems");
                let entries = entries_of(entries);
                Err(Failure::Failed(format!(
                    "{problems} in the region, of {entries}"
                )))
            }
        }
    }
}

fn entries_of(count: u64) -> String {
    counted(count, "entry", "entries")
}
