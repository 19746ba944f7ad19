//! `publish`: a message to whoever listens.

use crate::failure::Failure;
use crate::input;
use crate::json::Object;
use crate::session::Session;
use clap::Args;
use ganger_client::{Client, PublishOptions};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use tokio::sync::mpsc;

/// Lines that were read and not sent yet.
const LINES_AHEAD: usize = 1024;

const EXAMPLES: &str = "\
Examples:
  broker-cli publish orders.new '7 pears'
  broker-cli publish config.changed --retain --file config.json
  tail -f app.log | broker-cli publish logs.app --lines
  broker-cli publish orders.new 'bread' -H zone=eu --ack    # how many listen";

/// Publish a message on a subject.
///
/// Returns when the broker has it. Without VALUE the message is empty.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Publish {
    /// The subject: words with dots between them.
    subject: String,
    #[command(flatten)]
    value: input::Value,
    /// Each line of standard input is a message, sent as it comes.
    #[arg(long, conflicts_with_all = ["value", "file"])]
    lines: bool,
    /// Those who subscribe later get it too, until there is a newer one.
    #[arg(long)]
    retain: bool,
    /// A header. May be repeated.
    #[arg(short = 'H', long, value_name = "NAME=VALUE")]
    header: Vec<OsString>,
    /// Among messages of the same key, slow subscribers may get the newest only.
    #[arg(long, value_name = "KEY")]
    key: Option<OsString>,
    /// Wait for the broker's answer, and print how many subscriptions it reached.
    #[arg(long)]
    ack: bool,
}

impl Publish {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let options = self.options()?;
        let payload = match self.lines {
            true => None,
            false => Some(self.value.read_or_empty(&session.options)?),
        };
        let client = session.client()?;
        let mut out = session.take_out();
        let done = session.wait(async {
            match payload {
                Some(payload) => {
                    let reached = self.publish(&client, &payload, &options).await?;
                    if let Some(reached) = reached {
                        out.number("reached", reached)?;
                    }
                }
                None => {
                    let mut lines = lines();
                    while let Some(line) = lines.recv().await {
                        let line = line
                            .map_err(|error| Failure::Failed(format!("standard input: {error}")))?;
                        let reached = self.publish(&client, &line, &options).await?;
                        if let Some(reached) = reached {
                            out.number("reached", reached)?;
                            out.flush()?;
                        }
                    }
                }
            }
            Ok(client.flush().await?)
        });
        session.out = out;
        done
    }

    async fn publish(
        &self,
        client: &Client,
        payload: &[u8],
        options: &PublishOptions,
    ) -> Result<Option<u64>, Failure> {
        let published = client.publish_with(&self.subject, payload, options);
        Ok(published.await?.filter(|_| self.ack))
    }

    fn options(&self) -> Result<PublishOptions, Failure> {
        let mut options = headers(&self.header)?;
        if self.retain {
            options = options.retain();
        }
        if let Some(key) = &self.key {
            options = options.key(key.as_bytes());
        }
        if self.ack {
            options = options.ack();
        }
        Ok(options)
    }
}

/// The headers of a command line.
pub(crate) fn headers(given: &[OsString]) -> Result<PublishOptions, Failure> {
    let mut options = PublishOptions::new();
    for header in given {
        let bytes = header.as_bytes();
        let middle = bytes.iter().position(|&byte| byte == b'=');
        let name = middle.and_then(|middle| std::str::from_utf8(&bytes[..middle]).ok());
        let (Some(middle), Some(name)) = (middle, name) else {
            let why = "a header is NAME=VALUE, its name UTF-8";
            return Err(Failure::Usage(format!("{}: {why}", header.display())));
        };
        options = options.header(name, &bytes[middle + 1..]);
    }
    Ok(options)
}

/// Headers as JSON.
pub(crate) fn header_fields<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Object {
    headers.fold(Object::new(), |object, (name, value)| {
        object.bytes(name, value)
    })
}

/// The lines of standard input, as they come.
fn lines() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (found, lines) = mpsc::channel(LINES_AHEAD);
    // A thread that waits for a terminal can't be called off; it ends with us.
    std::thread::spawn(move || {
        for line in BufReader::new(io::stdin()).split(b'\n') {
            if found.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}
