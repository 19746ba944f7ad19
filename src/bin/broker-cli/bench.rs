//! `bench`: how fast keys, messages and requests are here.

use crate::failure::Failure;
use crate::input;
use crate::json::Object;
use crate::output::Output;
use crate::session::Session;
use crate::table::{per_second, Table};
use clap::{Args, ValueEnum};
use ganger_client::{Client, SetOptions};
use std::time::{Duration, Instant};

/// Times that are kept of one measurement, for the percentiles.
const TIMES_MAX: usize = 1 << 20;
/// Messages on their way at the same time, when throughput is measured.
const WINDOW: u64 = 512;
/// Keys and messages of a measurement go by themselves, should it be killed.
const TTL: Duration = Duration::from_secs(60);

const EXAMPLES: &str = "\
Examples:
  broker-cli bench
  broker-cli bench get set --size 4096 --keys 100000
  broker-cli bench get --socket            # through the broker
  broker-cli --json bench request --time 10s";

/// Measure operations on this machine, one client, one after the other.
///
/// Keys are measured the way `get` and `set` go: directly in the region, or with --socket through
/// the broker. `publish` counts messages that arrive at a subscriber in this process, many on their
/// way at a time; `request` is question and answer, both ends in this process. The keys used begin
/// with broker-cli-bench: and are deleted at the end.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Bench {
    /// What to measure [default: all].
    #[arg(value_name = "WHAT")]
    what: Vec<What>,
    /// Bytes of a value or payload.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    size: usize,
    /// Different keys.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    keys: u32,
    /// How long each measurement takes.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = input::positive)]
    time: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Set,
    Get,
    Incr,
    Publish,
    Request,
}

impl Bench {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let all = [
            What::Set,
            What::Get,
            What::Incr,
            What::Publish,
            What::Request,
        ];
        let chosen = if self.what.is_empty() {
            &all[..]
        } else {
            &self.what
        };
        let mut table = Table::new(&["WHAT", "PER SECOND", "P50", "P99", "P99.9"]);
        for &what in chosen {
            let measured = match what {
                What::Set | What::Get | What::Incr => {
                    let measured = self.keys(what, session);
                    self.clean(session)?;
                    measured?
                }
                What::Publish | What::Request => {
                    let client = session.client()?;
                    session.wait(async {
                        match what {
                            What::Request => self.requests(&client).await,
                            _ => self.messages(&client).await,
                        }
                    })?
                }
            };
            measured.tell(what, &mut table, &mut session.out)?;
        }
        match session.out.json {
            true => Ok(()),
            false => table.print(&mut session.out),
        }
    }

    fn keys(&self, what: What, session: &mut Session) -> Result<Measured, Failure> {
        let value = vec![b'x'; self.size];
        let options = SetOptions::new().ttl(TTL);
        let store = session.store()?;
        let key = |number: u32| match what {
            What::Incr => format!("broker-cli-bench:c{number}"),
            _ => format!("broker-cli-bench:{number}"),
        };
        let keys: Vec<String> = (0..self.keys).map(key).collect();
        let set = |key: &String| store.set(key.as_bytes(), &value, options).map(drop);
        if what == What::Get {
            keys.iter().try_for_each(set)?;
        }
        let mut measured = Measured::begin();
        for key in keys.iter().cycle() {
            let begun = Instant::now();
            match what {
                What::Set => set(key)?,
                What::Get => drop(store.entry(key.as_bytes())?),
                _ => drop(store.incr(key.as_bytes(), 1, Some(TTL))?),
            }
            measured.took(begun.elapsed());
            if measured.is_over(self.time) {
                break;
            }
        }
        Ok(measured)
    }

    fn clean(&self, session: &mut Session) -> Result<(), Failure> {
        let store = session.store()?;
        let mut next = Some(0);
        while let Some(cursor) = next {
            let (entries, behind) = store.scan(b"broker-cli-bench:", cursor, 512, true)?;
            for (key, _) in entries {
                store.delete(&key, None)?;
            }
            next = behind;
        }
        Ok(())
    }

    async fn messages(&self, client: &Client) -> Result<Measured, Failure> {
        let subject = format!("broker-cli-bench.{}", std::process::id());
        let mut messages = client.subscribe(&subject).await?;
        let payload = vec![b'x'; self.size];
        let mut sent = std::collections::VecDeque::new();
        let mut measured = Measured::begin();
        loop {
            while (sent.len() as u64) < WINDOW && !measured.is_over(self.time) {
                client.publish(&subject, &payload).await?;
                sent.push_back(Instant::now());
            }
            let Some(at) = sent.pop_front() else {
                return Ok(measured);
            };
            let message = messages.next_message().await;
            message.ok_or_else(|| Failure::NoBroker("the broker went".into()))?;
            measured.took(at.elapsed());
        }
    }

    async fn requests(&self, client: &Client) -> Result<Measured, Failure> {
        let subject = format!("broker-cli-bench.{}", std::process::id());
        let mut requests = client.respond(&subject).await?;
        let answering = async {
            while let Some(request) = requests.next().await {
                let payload = request.payload().to_vec();
                request.reply(payload).await?;
            }
            Err(Failure::NoBroker("the broker went".into()))
        };
        let asking = async {
            let payload = vec![b'x'; self.size];
            let mut measured = Measured::begin();
            while !measured.is_over(self.time) {
                let begun = Instant::now();
                client.request(&subject, &payload).await?;
                measured.took(begun.elapsed());
            }
            Ok(measured)
        };
        tokio::select! {
            measured = asking => measured,
            ended = answering => ended,
        }
    }
}

/// How long each took, and all together.
struct Measured {
    begun: Instant,
    ended: Instant,
    count: u64,
    times: Vec<Duration>,
}

impl Measured {
    fn begin() -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            ended: now,
            count: 0,
            times: Vec::new(),
        }
    }

    fn took(&mut self, time: Duration) {
        self.count += 1;
        self.ended = Instant::now();
        if self.times.len() < TIMES_MAX {
            self.times.push(time);
        }
    }

    fn is_over(&self, time: Duration) -> bool {
        self.begun.elapsed() >= time
    }

    fn tell(mut self, what: What, table: &mut Table, out: &mut Output) -> Result<(), Failure> {
        self.times.sort_unstable();
        let rate = per_second(self.count, self.ended - self.begun);
        let [p50, p99, p999] = [500, 990, 999].map(|permille| self.percentile(permille));
        let what = format!("{what:?}").to_ascii_lowercase();
        if out.json {
            let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            let object = Object::new()
                .field("what", what)
                .field("per_second", rate)
                .field("p50_ns", nanoseconds(p50))
                .field("p99_ns", nanoseconds(p99))
                .field("p999_ns", nanoseconds(p999));
            return out.object(object);
        }
        let times = [p50, p99, p999].map(|time| format!("{time:.1?}").replace('\u{b5}', "u"));
        table.row([what, rate.to_string()].into_iter().chain(times));
        Ok(())
    }

    fn percentile(&self, permille: usize) -> Duration {
        let at = (self.times.len() * permille / 1000).min(self.times.len().saturating_sub(1));
        self.times.get(at).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let mut measured = Measured::begin();
        assert_eq!(measured.percentile(500), Duration::ZERO);
        for ms in 1..=1000 {
            measured.took(Duration::from_millis(ms));
        }
        assert_eq!(measured.percentile(500), Duration::from_millis(501));
        assert_eq!(measured.percentile(999), Duration::from_millis(1000));
    }
}
