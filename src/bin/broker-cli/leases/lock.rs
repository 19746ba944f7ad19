//! `lock`: a command that runs while a lock is held.

use crate::command::{self, Held};
use crate::failure::{complain, Failure};
use crate::input;
use crate::session::Session;
use clap::Args;
use ganger_client::{Lease, LeaseOptions};
use std::ffi::OsString;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  broker-cli lock nightly-report -- ./report.sh
  broker-cli lock deploy --no-wait -- ./deploy.sh || echo 'somebody else deploys'
  broker-cli lock printers --permits 3 -- lpr page.pdf
  broker-cli lock db --ttl 30s -- sh -c 'migrate --token $GANGER_LOCK_TOKEN'";

/// Run a command while holding a lock.
///
/// Those who wait get the lock in the order they came. It is free as soon as the command ends, or
/// this process, however that happens: if this process is killed, so is the command. Signals are
/// passed on, and the exit code of the command is ours. If the lock is lost (its --ttl passed while
/// everything stood still, or the broker was away too long), the command is told to end, and the
/// exit code is 4. Exit code 1 if the lock was not free in time.
///
/// The command finds the name in $GANGER_LOCK, and in $GANGER_LOCK_TOKEN a number greater than that
/// of every holder before: what it writes to can refuse smaller ones than it has seen.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Lock {
    /// The name of the lock.
    #[arg(value_name = "KEY")]
    name: String,
    /// Wait so long at most.
    #[arg(long, value_name = "TIME", value_parser = input::time)]
    wait: Option<Duration>,
    /// Do not wait.
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// So many may hold it at a time; all who ask for it have to agree.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    permits: u32,
    /// Lose the lock if this process stands still (is stopped, say) for so long.
    #[arg(long, value_name = "TIME", value_parser = input::positive)]
    ttl: Option<Duration>,
    /// The command, and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Lock {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let mut options = LeaseOptions::new(&self.name).permits(self.permits);
        if let Some(ttl) = self.ttl {
            options = options.ttl(ttl);
        }
        let wait = if self.no_wait {
            Some(Duration::ZERO)
        } else {
            self.wait
        };
        if let Some(wait) = wait {
            options = options.wait(wait);
        }
        let client = session.client()?;
        let lease = session.wait(async {
            use ganger_client::Error;
            client.acquire(options).await.map_err(|error| match error {
                Error::Taken | Error::Timeout if wait.is_some() => {
                    Failure::Absent(format!("others hold {}", self.name))
                }
                error => error.into(),
            })
        })?;
        session.remark(|| format!("holding {}, token {}", self.name, lease.token()));
        let environment = [
            ("GANGER_LOCK", self.name.clone()),
            ("GANGER_LOCK_TOKEN", lease.token().to_string()),
        ];
        let runtime = session.runtime()?;
        runtime.block_on(under(lease, &self.command, &environment))
    }
}

/// Runs a command while a lease is held, and gives it back.
pub(super) async fn under(
    lease: Lease,
    command: &[OsString],
    environment: &[(&str, String)],
) -> Result<(), Failure> {
    let mut held = Held::start(command, environment)?;
    let status = tokio::select! {
        status = held.wait() => Some(status?),
        () = lease.lost() => None,
    };
    let Some(status) = status else {
        let name = lease.name();
        complain(&format!("{name} is lost: the command is told to end"));
        held.end().await;
        return Err(Failure::Failed(format!("{name} was lost")));
    };
    // The broker may be away; then it frees the lease by itself.
    let _ = lease.release().await;
    match command::code(status) {
        0 => Ok(()),
        code => Err(Failure::Status(code)),
    }
}
