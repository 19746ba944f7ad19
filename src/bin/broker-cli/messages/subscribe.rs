//! `subscribe` and `tap`: messages as they come.

use super::publish::header_fields;
use crate::failure::{complain, Failure};
use crate::json::Object;
use crate::output::{printable, Output};
use crate::session::Session;
use clap::{Args, ValueEnum};
use ganger_client::{Event, Gap, Message, Policy, Start, SubscribeOptions, Subscription};
use std::time::Duration;

const SUBSCRIBE_EXAMPLES: &str = "\
Examples:
  broker-cli subscribe 'orders.*'
  broker-cli subscribe '>' --headers        # everything
  broker-cli subscribe jobs --group printers --redeliver
  broker-cli subscribe config.changed --last 1 -n 1 --payload > config.json
  broker-cli --json subscribe 'orders.>' | jq .payload";

/// Show messages as they come.
///
/// In a pattern, * is one word of the subject and > is all that follow. A line is the subject, its
/// number in the topic, and the payload; --payload writes the payload alone. Messages that were
/// lost on the way are counted on standard error, never passed over in silence. Ctrl-C ends it.
#[derive(Args)]
#[command(after_long_help = SUBSCRIBE_EXAMPLES)]
pub(crate) struct Subscribe {
    /// The subject, or a pattern of subjects.
    pattern: String,
    #[command(flatten)]
    shown: Shown,
    /// Share the messages with all others of this group: each goes to one.
    #[arg(short, long, value_name = "NAME")]
    group: Option<String>,
    /// In a group: what a member had not done when it died goes to another.
    #[arg(long, requires = "group")]
    redeliver: bool,
    /// Begin with so many of the messages that the broker still has; 0: the retained one only.
    #[arg(long, value_name = "N", conflicts_with = "group")]
    last: Option<u64>,
    /// What happens if this is too slow.
    #[arg(long, value_name = "POLICY", default_value = "drop-oldest")]
    when_slow: WhenSlow,
}

/// What happens to a subscriber that is too slow.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum WhenSlow {
    /// The oldest messages are dropped, and told to be lost.
    DropOldest,
    /// Of messages with the same key, the newest is kept.
    Conflate,
    /// Publishers wait, for a second at most.
    Block,
    /// It ends.
    Disconnect,
}

impl Subscribe {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client()?;
        let mut out = session.take_out();
        let done = session.wait(async {
            let messages = client.subscribe_with(&self.pattern, self.options());
            self.shown.all(messages.await?, &mut out).await
        });
        session.out = out;
        done
    }

    fn options(&self) -> SubscribeOptions {
        let mut options = SubscribeOptions::new().policy(match self.when_slow {
            WhenSlow::DropOldest => Policy::DropOldest,
            WhenSlow::Conflate => Policy::Conflate,
            WhenSlow::Block => Policy::Block { ms: 1000 },
            WhenSlow::Disconnect => Policy::Disconnect,
        });
        if let Some(group) = &self.group {
            options = options.group(group);
        }
        if self.redeliver {
            options = options.redeliver();
        }
        match self.last {
            Some(0) => options.start(Start::Last),
            Some(messages) => options.start(Start::LastN(messages)),
            None => options,
        }
    }
}

const TAP_EXAMPLES: &str = "\
Examples:
  broker-cli tap 'orders.>'
  broker-cli --json tap '>' -n 100 | jq -r .subject | sort | uniq -c";

/// Show the messages that go through the broker, without being one of their subscribers.
///
/// As `subscribe`, but it does not count as a subscriber, takes nothing from groups, and sees
/// requests too.
#[derive(Args)]
#[command(after_long_help = TAP_EXAMPLES)]
pub(crate) struct Tap {
    /// The subject, or a pattern of subjects.
    #[arg(default_value = ">")]
    pattern: String,
    #[command(flatten)]
    shown: Shown,
}

impl Tap {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client()?;
        let mut out = session.take_out();
        let done = session.wait(async {
            let messages = client.tap(&self.pattern).await?;
            self.shown.all(messages, &mut out).await
        });
        session.out = out;
        done
    }
}

/// What is shown of messages, and how many.
#[derive(Args)]
struct Shown {
    /// End after so many messages.
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// End when none came for so long: exit code 4, if there were to be --count.
    #[arg(long, value_name = "TIME", value_parser = crate::input::positive)]
    idle: Option<Duration>,
    /// The payload alone, each as a line; with --raw exactly its bytes and nothing between them.
    #[arg(long, conflicts_with = "headers")]
    payload: bool,
    /// With their headers.
    #[arg(long)]
    headers: bool,
}

impl Shown {
    async fn all(&self, mut messages: Subscription, out: &mut Output) -> Result<(), Failure> {
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            let next = match self.idle {
                None => messages.next().await,
                Some(idle) => match tokio::time::timeout(idle, messages.next()).await {
                    Ok(next) => next,
                    Err(_) if self.count.is_none() => return Ok(()),
                    Err(_) => return Err(Failure::Failed(format!("no message for {idle:?}"))),
                },
            };
            match next {
                Some(Event::Message(message)) => {
                    self.show(&message, out)?;
                    messages.ack(&message);
                    left -= 1;
                }
                Some(Event::Gap(gap)) => self.tell(&gap, out)?,
                Some(_) => {}
                None => {
                    let error = messages.error().map(Failure::from);
                    return Err(error.unwrap_or(Failure::NoBroker("the broker went".into())));
                }
            }
            out.flush()?;
        }
        Ok(())
    }

    fn show(&self, message: &Message, out: &mut Output) -> Result<(), Failure> {
        let payload = message.payload();
        if out.json {
            let object = Object::new()
                .field("subject", message.subject())
                .field("seq", message.seq());
            let object = out.value_field(object, "payload", payload, false)?;
            let headers = header_fields(message.headers()).build();
            let object = object
                .field("headers", headers)
                .field("retained", message.is_retained())
                .field("replayed", message.is_replayed())
                .field("redeliveries", message.redeliveries());
            return out.object(object);
        }
        if self.payload {
            return out.payload(payload);
        }
        let subject = out.bold(&printable(message.subject().as_bytes()));
        let number = out.dim(&format!("#{}", message.seq()));
        let value = out.shown_bytes(payload, false)?;
        out.bytes(format!("{subject} {number} ").as_bytes())?;
        out.bytes(&value)?;
        if self.headers {
            for (name, value) in message.headers() {
                let header = format!("  {}={}", printable(name.as_bytes()), printable(value));
                let header = out.dim(&header);
                out.bytes(header.as_bytes())?;
            }
        }
        out.line("")
    }

    fn tell(&self, gap: &Gap, out: &mut Output) -> Result<(), Failure> {
        if out.json {
            let cause = format!("{:?}", gap.cause).to_ascii_lowercase();
            let object = Object::new().field("gap", cause).maybe("lost", gap.count);
            return out.object(object.field("from", gap.from).field("to", gap.to));
        }
        out.flush()?;
        let lost = match gap.count {
            Some(1) => "1 message was lost".into(),
            Some(count) => format!("{count} messages were lost"),
            None => "messages were lost, nobody knows how many".into(),
        };
        complain(&out.warning(&format!("{lost} ({:?})", gap.cause)));
        Ok(())
    }
}
