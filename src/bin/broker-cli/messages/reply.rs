//! `reply`: answering requests, with a value or through a command.

use crate::command;
use crate::failure::{complain, Failure};
use crate::input;
use crate::output::printable;
use crate::session::Session;
use clap::Args;
use ganger_client::Request;
use std::ffi::OsString;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const EXAMPLES: &str = "\
Examples:
  broker-cli reply version 1.2.3
  broker-cli reply 'math.upper' -- tr a-z A-Z
  broker-cli reply thumbnail --jobs 4 -- convert - -resize 64x64 jpg:-
  broker-cli reply ping pong -n 1           # answers one, and ends";

/// Answer requests: with a value, or with what a command makes of them.
///
/// The COMMAND gets the request's payload on standard input and its subject in $GANGER_SUBJECT;
/// what it writes is the answer. If it fails, the one who asked is told so. Of several who answer
/// the same subject, each request goes to the one that has the least to do. Ctrl-C ends it.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Reply {
    /// The subject, or a pattern of subjects.
    pattern: String,
    #[command(flatten)]
    value: input::Value,
    /// The command that answers, and its arguments.
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["value", "file"])]
    command: Vec<OsString>,
    /// Commands that run at the same time.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    jobs: u16,
    /// End after so many requests.
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
}

impl Reply {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let answer = match self.command.is_empty() {
            true => Answer::Value(self.value.read(&session.options)?),
            false => Answer::Command(self.command.clone()),
        };
        let answer = Arc::new(answer);
        let verbose = session.options.verbose;
        let client = session.client()?;
        session.wait(async {
            let mut requests = client.respond(&self.pattern).await?;
            let jobs = Arc::new(Semaphore::new(self.jobs.into()));
            let mut running = JoinSet::new();
            for _ in 0..self.count.unwrap_or(u64::MAX) {
                // Only who can be served is taken: the rest may go to others.
                let job = Arc::clone(&jobs).acquire_owned().await;
                let Some(request) = requests.next().await else {
                    let error = requests.error().map(Failure::from);
                    return Err(error.unwrap_or(Failure::NoBroker("the broker went".into())));
                };
                if verbose {
                    let subject = printable(request.subject().as_bytes());
                    complain(&format!("{subject}: {}", printable(request.payload())));
                }
                let answer = Arc::clone(&answer);
                running.spawn(async move {
                    answer.give(request).await;
                    drop(job);
                });
                while running.try_join_next().is_some() {}
            }
            while running.join_next().await.is_some() {}
            Ok(client.flush().await?)
        })
    }
}

enum Answer {
    Value(Vec<u8>),
    Command(Vec<OsString>),
}

impl Answer {
    /// Answers one request; what goes wrong is that one's own.
    async fn give(&self, request: Request) {
        let answered = match self {
            Self::Value(value) => request.reply(value).await,
            Self::Command(command) => {
                let environment = [("GANGER_SUBJECT", request.subject().to_owned())];
                let input = request.payload().to_vec();
                match command::through(command, input, &environment).await {
                    Ok((output, status)) if status.success() => request.reply(output).await,
                    Ok((_, status)) => request.fail(format!("{status}")).await,
                    Err(failure) => {
                        failure.say();
                        request.fail(failure.to_string()).await
                    }
                }
            }
        };
        if let Err(error) = answered {
            complain(&format!("an answer was not sent: {error}"));
        }
    }
}
