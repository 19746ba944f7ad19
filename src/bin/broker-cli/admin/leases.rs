//! `leases`: who holds what.

use super::{name, print_json};
use crate::failure::Failure;
use crate::output::printable;
use crate::session::Session;
use crate::table::Table;
use clap::Args;

const EXAMPLES: &str = "\
Examples:
  broker-cli leases
  broker-cli --json leases nightly- | jq '.holders[].pid'";

/// List locks, semaphores and elections, with their holders and how many wait.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Leases {
    /// Only names that begin so.
    #[arg(default_value = "")]
    prefix: String,
}

impl Leases {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client()?;
        let leases = session.wait(async { Ok(client.leases(&self.prefix).await?) })?;
        let out = &mut session.out;
        if out.json {
            return print_json(&leases, out);
        }
        let mut table = Table::new(&[
            "NAME", "PERMITS", "WAITING", "HOLDER", "PID", "TOKEN", "VALUE",
        ]);
        for lease in &leases {
            let first = [
                name(&lease.name),
                lease.permits.to_string(),
                lease.waiting.to_string(),
            ];
            if lease.holders.is_empty() {
                let nobody = ["-", "-", "-", ""].map(str::to_owned);
                table.row(first.iter().cloned().chain(nobody));
            }
            for holder in &lease.holders {
                let holder = [
                    name(&holder.client),
                    holder.pid.to_string(),
                    holder.token.to_string(),
                    printable(&holder.value),
                ];
                table.row(first.iter().cloned().chain(holder));
            }
        }
        table.print(out)
    }
}
