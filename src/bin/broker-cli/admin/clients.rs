//! `clients`: who is connected.

use super::{name, print_json};
use crate::failure::Failure;
use crate::session::Session;
use crate::table::{age, bytes, Table};
use clap::Args;

const EXAMPLES: &str = "\
Examples:
  broker-cli clients
  broker-cli --json clients | jq 'select(.dropped > 0)'
  broker-cli clients --disconnect 17";

/// List connections to the broker, this one too.
///
/// CONN is the connection's number, QUEUED what waits to be written to it, DROPPED the messages its
/// subscriptions have lost.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Clients {
    /// End a connection instead. The client may come back. Exit code 1 if there is none.
    #[arg(long, value_name = "CONN")]
    disconnect: Option<u64>,
}

impl Clients {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client()?;
        if let Some(connection) = self.disconnect {
            let done = session.wait(async { Ok(client.disconnect(connection).await?) })?;
            return match done {
                true => Ok(()),
                false => Err(Failure::Absent(format!(
                    "there is no connection {connection}"
                ))),
            };
        }
        let clients = session.wait(async { Ok(client.clients().await?) })?;
        let out = &mut session.out;
        if out.json {
            return print_json(&clients, out);
        }
        let mut table = Table::new(&[
            "CONN", "NAME", "PID", "UID", "AGE", "SUBS", "WATCHES", "LEASES", "REQUESTS", "IN",
            "OUT", "QUEUED", "DROPPED",
        ]);
        for client in &clients {
            table.row([
                client.connection.to_string(),
                name(&client.name),
                client.pid.to_string(),
                client.uid.to_string(),
                age(client.age_ms),
                client.subscriptions.to_string(),
                client.watches.to_string(),
                client.leases.to_string(),
                client.pending_requests.to_string(),
                bytes(client.bytes_in),
                bytes(client.bytes_out),
                bytes(client.outbox_bytes),
                client.dropped.to_string(),
            ]);
        }
        table.print(out)
    }
}
