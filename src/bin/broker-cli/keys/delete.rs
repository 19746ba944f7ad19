//! `del`: keys go.

use crate::failure::{complain, Failure};
use crate::input;
use crate::output::printable;
use crate::session::Session;
use clap::Args;
use std::ffi::OsString;

const EXAMPLES: &str = "\
Examples:
  broker-cli del greeting
  broker-cli del a b c                     # prints how many were there
  broker-cli del job:7 --if-revision 42    # only if nobody wrote it since
  broker-cli scan tmp: --null | xargs -0 broker-cli del";

/// Delete keys, and print how many were there.
///
/// Exit code 1 if none of them was.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Delete {
    /// The keys.
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<OsString>,
    /// Only if nobody wrote the key since it had this revision. For one key.
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
}

impl Delete {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        if self.if_revision.is_some() && self.keys.len() > 1 {
            let why = "a revision belongs to one key: name one";
            return Err(Failure::Usage(why.into()));
        }
        let keys = self
            .keys
            .iter()
            .map(|key| input::key(key, &session.options));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        let store = session.store()?;
        let (mut deleted, mut missing) = (0_u64, Vec::new());
        for key in &keys {
            match store.delete(key, self.if_revision)? {
                true => deleted += 1,
                false => missing.push(printable(key)),
            }
        }
        if deleted == 0 {
            let why = match self.if_revision {
                Some(revision) => format!("has not revision {revision}, or is not there"),
                None if missing.len() > 1 => "are not there".into(),
                None => "is not there".into(),
            };
            return Err(Failure::Absent(format!("{} {why}", missing.join(", "))));
        }
        if session.options.verbose && !missing.is_empty() {
            complain(&format!("not there: {}", missing.join(", ")));
        }
        session.out.number("deleted", deleted)
    }
}
