//! `topics`: who listens to what, and how far behind.

use super::{name, print_json};
use crate::failure::Failure;
use crate::output::Output;
use crate::session::Session;
use crate::table::{bytes, Table};
use clap::Args;
use ganger_client::protocol::admin::Topic;

const EXAMPLES: &str = "\
Examples:
  broker-cli topics
  broker-cli topics orders. --subscribers
  broker-cli --json topics | jq 'select(.subscribers | any(.dropped > 0)).pattern'";

/// List topics: the patterns that somebody subscribes to, or did until lately.
///
/// LAG is how far the slowest subscriber is behind, DROPPED what all of them have lost.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Topics {
    /// Only patterns that begin so.
    #[arg(default_value = "")]
    prefix: String,
    /// A line for each subscriber.
    #[arg(short, long)]
    subscribers: bool,
}

impl Topics {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client()?;
        let topics = session.wait(async { Ok(client.topics(&self.prefix).await?) })?;
        let out = &mut session.out;
        if out.json {
            return print_json(&topics, out);
        }
        match self.subscribers {
            true => by_subscriber(&topics, out),
            false => by_topic(&topics, out),
        }
    }
}

fn by_topic(topics: &[Topic], out: &mut Output) -> Result<(), Failure> {
    let mut table = Table::new(&[
        "TOPIC",
        "PUBLISHED",
        "BYTES",
        "KEPT",
        "SUBSCRIBERS",
        "LAG",
        "DROPPED",
    ]);
    for topic in topics {
        let subscribers = &topic.subscribers;
        table.row([
            name(&topic.pattern),
            topic.published.to_string(),
            bytes(topic.published_bytes),
            topic.ring_messages.to_string(),
            subscribers.len().to_string(),
            lag(topic).to_string(),
            dropped(topic).to_string(),
        ]);
    }
    table.print(out)
}

fn by_subscriber(topics: &[Topic], out: &mut Output) -> Result<(), Failure> {
    let mut table = Table::new(&[
        "TOPIC",
        "CLIENT",
        "PID",
        "CONNECTION",
        "KIND",
        "DELIVERED",
        "LAG",
        "DROPPED",
        "OPEN",
    ]);
    for topic in topics {
        for one in &topic.subscribers {
            let kind = match &one.group {
                _ if one.responds => "responder".into(),
                Some(group) => format!("group {}", name(group)),
                None => "subscriber".into(),
            };
            table.row([
                name(&topic.pattern),
                name(&one.client),
                one.pid.to_string(),
                one.connection.to_string(),
                kind,
                one.delivered.to_string(),
                one.lag.to_string(),
                one.dropped.to_string(),
                one.outstanding.to_string(),
            ]);
        }
    }
    table.print(out)
}

/// How far the slowest is behind.
pub(super) fn lag(topic: &Topic) -> u64 {
    let lags = topic.subscribers.iter().map(|one| one.lag);
    lags.max().unwrap_or(0)
}

/// What all subscribers have lost.
pub(super) fn dropped(topic: &Topic) -> u64 {
    topic.subscribers.iter().map(|one| one.dropped).sum()
}
