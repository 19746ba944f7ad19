//! `elect`: one leader of several.

use super::lock::under;
use crate::failure::Failure;
use crate::input;
use crate::json::Object;
use crate::output::{printable, Output};
use crate::session::Session;
use clap::Args;
use ganger_client::{Client, Holder, LeaseOptions};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  broker-cli elect scheduler -- ./scheduler          # runs when we lead
  broker-cli elect scheduler --value 10.0.0.7:4000   # leads until Ctrl-C
  broker-cli elect scheduler --observe               # who leads, as it changes
  broker-cli --json elect scheduler --observe -n 1";

/// Become the leader, and run a command as long as we are.
///
/// Of all who ask for the same name, one leads; when it ends, however that happens, the next does.
/// As with `lock`, signals and the exit code are passed on, the command is ended if the leadership
/// is lost, and it finds $GANGER_LOCK and $GANGER_LOCK_TOKEN. Without a command, it prints a line
/// when it leads, and leads until Ctrl-C or until it is lost.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Elect {
    /// What is led.
    name: String,
    /// What those who observe see of the leader: an address, say.
    #[arg(long, value_name = "VALUE")]
    value: Option<OsString>,
    /// Lose the leadership if this process stands still for so long.
    #[arg(long, value_name = "TIME", value_parser = input::positive)]
    ttl: Option<Duration>,
    /// Only show who leads, whenever that changes.
    #[arg(long, conflicts_with_all = ["value", "ttl", "command"])]
    observe: bool,
    /// With --observe: end after so many lines.
    #[arg(short = 'n', long, value_name = "N", requires = "observe")]
    count: Option<u64>,
    /// The command, and its arguments.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Elect {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client()?;
        let mut out = session.take_out();
        let done = match self.observe {
            true => session.wait(self.look(&client, &mut out)),
            false => self.lead(&client, session, &mut out),
        };
        session.out = out;
        done
    }

    fn lead(
        &self,
        client: &Client,
        session: &mut Session,
        out: &mut Output,
    ) -> Result<(), Failure> {
        let value = self.value.as_deref().unwrap_or_default().as_bytes();
        let mut options = LeaseOptions::new(&self.name).value(value);
        if let Some(ttl) = self.ttl {
            options = options.ttl(ttl);
        }
        let lease = session.wait(async { Ok(client.acquire(options).await?) })?;
        if !self.command.is_empty() {
            session.remark(|| format!("leading {}, token {}", self.name, lease.token()));
            let environment = [
                ("GANGER_LOCK", self.name.clone()),
                ("GANGER_LOCK_TOKEN", lease.token().to_string()),
            ];
            let runtime = session.runtime()?;
            return runtime.block_on(under(lease, &self.command, &environment));
        }
        match out.json {
            true => out.object(Object::new().field("token", lease.token()))?,
            false => out.line(&format!("leading {}, token {}", self.name, lease.token()))?,
        }
        out.flush()?;
        session.wait(async {
            lease.lost().await;
            Err(Failure::Failed(format!("{} was lost", self.name)))
        })
    }

    async fn look(&self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        let mut holders = client.observe_leader(&self.name).await?;
        for _ in 0..self.count.unwrap_or(u64::MAX) {
            let Some(now) = holders.next().await else {
                let error = holders.error().map(Failure::from);
                return Err(error.unwrap_or(Failure::NoBroker("the broker went".into())));
            };
            match out.json {
                true => {
                    let leaders = now.iter().map(|holder| fields(holder).build());
                    let leaders: Vec<_> = leaders.collect();
                    out.object(Object::new().field("leaders", leaders))?;
                }
                false if now.is_empty() => out.line("nobody")?,
                false => {
                    for holder in &now {
                        out.line(&line(holder))?;
                    }
                }
            }
            out.flush()?;
        }
        Ok(())
    }
}

fn line(holder: &Holder) -> String {
    let client = printable(holder.client.as_bytes());
    let value = printable(&holder.value);
    let behind = if value.is_empty() { "" } else { "  " };
    format!(
        "{client} (process {}), token {}{behind}{value}",
        holder.pid, holder.token
    )
}

/// A holder as JSON.
pub(crate) fn fields(holder: &Holder) -> Object {
    Object::new()
        .field("client", holder.client.as_str())
        .field("pid", holder.pid)
        .field("connection", holder.connection)
        .field("token", holder.token)
        .bytes("value", &holder.value)
}
