//! `top`: what the broker does, as it does it.

use super::name;
use super::topics::{dropped, lag};
use crate::failure::Failure;
use crate::input;
use crate::json::Object;
use crate::output::Output;
use crate::session::Session;
use crate::table::{age, bytes, counted, per_second, Table};
use clap::Args;
use ganger_client::protocol::admin::{BrokerStats, ClientInfo, Topic};
use ganger_client::{Client, Error};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;
use tokio::time::Instant;

/// Lines where nobody says how many there are.
const LINES: usize = 40;
/// How often it is looked for keys.
const KEYS: Duration = Duration::from_millis(50);

const EXAMPLES: &str = "\
Examples:
  broker-cli top
  broker-cli top --every 5s
  broker-cli --json top -n 1               # one look, of one second";

/// Show the busiest topics and clients, again every second.
///
/// Rates are of the time since the last look. On a terminal, q or Ctrl-C ends it; elsewhere each
/// look is written below the one before.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Top {
    /// Time between two looks.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = input::positive)]
    every: Duration,
    /// End after so many looks.
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
}

impl Top {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client()?;
        let mut out = session.take_out();
        let is_screen = out.is_terminal() && io::stdin().is_terminal() && !out.json;
        let screen = is_screen.then(|| Screen::take(&mut out)).transpose()?;
        let done = session.wait(async {
            let mut before = Look::take(&client).await?;
            for _ in 0..self.count.unwrap_or(u64::MAX) {
                tokio::select! {
                    () = tokio::time::sleep(self.every) => {}
                    () = quit(is_screen) => return Ok(()),
                }
                let now = Look::take(&client).await?;
                match out.json {
                    true => out.object(now.json(&before))?,
                    false => show(&now.text(&before, &out), is_screen, &mut out)?,
                }
                out.flush()?;
                before = now;
            }
            Ok(())
        });
        drop(screen);
        session.out = out;
        done
    }
}

fn show(lines: &[String], is_screen: bool, out: &mut Output) -> Result<(), Failure> {
    if !is_screen {
        for line in lines {
            out.line(line)?;
        }
        return out.line("");
    }
    let size = termios::tcgetwinsize(rustix::stdio::stdout()).ok();
    let rows = size.map_or(LINES, |size| size.ws_row.max(2).into());
    let columns = size.map_or(80, |size| usize::from(size.ws_col.max(20)));
    out.bytes(b"\x1b[H")?;
    for (number, line) in lines.iter().take(rows).enumerate() {
        if number > 0 {
            out.bytes(b"\r\n")?;
        }
        out.bytes(cut(line, columns).as_bytes())?;
        out.bytes(b"\x1b[0m\x1b[K")?;
    }
    out.bytes(b"\x1b[J")
}

/// So much of a line as fits the screen; colours take no room.
fn cut(line: &str, columns: usize) -> String {
    let (mut left, mut in_code) = (columns, false);
    let fits = line.chars().take_while(|&character| {
        in_code |= character == '\x1b';
        if in_code {
            in_code = character != 'm';
            return true;
        }
        left = left.wrapping_sub(1);
        left != usize::MAX
    });
    fits.collect()
}

/// What is known at one moment.
struct Look {
    at: Instant,
    stats: BrokerStats,
    topics: Vec<Topic>,
    clients: Vec<ClientInfo>,
}

impl Look {
    async fn take(client: &Client) -> Result<Self, Error> {
        Ok(Self {
            at: Instant::now(),
            stats: client.stats().await?,
            topics: client.topics("").await?,
            clients: client.clients().await?,
        })
    }

    /// Messages and bytes a second of each topic, the busiest first.
    fn topic_rates(&self, before: &Self) -> Vec<(&Topic, u64, u64)> {
        let time = self.at - before.at;
        let old: HashMap<_, _> = before
            .topics
            .iter()
            .map(|old| (&old.pattern, old))
            .collect();
        let rates = self.topics.iter().map(|topic| {
            let old = old.get(&topic.pattern);
            let (messages, bytes) = old.map_or((0, 0), |old| (old.published, old.published_bytes));
            let messages = per_second(topic.published.saturating_sub(messages), time);
            let bytes = per_second(topic.published_bytes.saturating_sub(bytes), time);
            (topic, messages, bytes)
        });
        let mut rates: Vec<_> = rates.collect();
        rates.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.pattern.cmp(&b.0.pattern)));
        rates
    }

    /// Bytes a second in and out of each client, the busiest first.
    fn client_rates(&self, before: &Self) -> Vec<(&ClientInfo, u64, u64)> {
        let time = self.at - before.at;
        let old = before.clients.iter().map(|old| (old.connection, old));
        let old: HashMap<_, _> = old.collect();
        let rates = self.clients.iter().map(|client| {
            let old = old.get(&client.connection);
            let (came, went) = old.map_or((0, 0), |old| (old.bytes_in, old.bytes_out));
            let came = per_second(client.bytes_in.saturating_sub(came), time);
            let went = per_second(client.bytes_out.saturating_sub(went), time);
            (client, came, went)
        });
        let mut rates: Vec<_> = rates.collect();
        rates.sort_by_key(|rate| (std::cmp::Reverse(rate.1 + rate.2), rate.0.connection));
        rates
    }

    fn writes(&self, before: &Self) -> u64 {
        let writes = self.stats.region.writes;
        let writes = writes.saturating_sub(before.stats.region.writes);
        per_second(writes, self.at - before.at)
    }

    fn json(&self, before: &Self) -> Object {
        let topics = self.topic_rates(before).into_iter();
        let topics = topics.map(|(topic, messages, bytes)| {
            Object::new()
                .field("pattern", topic.pattern.as_str())
                .field("messages_per_second", messages)
                .field("bytes_per_second", bytes)
                .field("subscribers", topic.subscribers.len())
                .field("lag", lag(topic))
                .field("dropped", dropped(topic))
                .build()
        });
        let clients = self.client_rates(before).into_iter();
        let clients = clients.map(|(client, came, went)| {
            Object::new()
                .field("connection", client.connection)
                .field("name", client.name.as_str())
                .field("pid", client.pid)
                .field("bytes_in_per_second", came)
                .field("bytes_out_per_second", went)
                .build()
        });
        Object::new()
            .field("uptime_ms", self.stats.uptime_ms)
            .field("entries", self.stats.region.entries)
            .field("writes_per_second", self.writes(before))
            .field("topics", topics.collect::<Vec<_>>())
            .field("clients", clients.collect::<Vec<_>>())
    }

    fn text(&self, before: &Self, out: &Output) -> Vec<String> {
        let region = &self.stats.region;
        let head = format!(
            "{}  process {}  up {}  {}, {}",
            self.stats.software,
            self.stats.pid,
            age(self.stats.uptime_ms),
            counted(self.clients.len() as u64, "client", "clients"),
            counted(self.topics.len() as u64, "topic", "topics")
        );
        let second = format!(
            "region  {}, {} of {}, {} writes/s, {}",
            counted(region.entries, "entry", "entries"),
            bytes(region.pages_used * 65_536),
            bytes(region.declared_bytes),
            self.writes(before),
            counted(region.sessions_attached, "session", "sessions")
        );
        let mut topics =
            Table::new(&["TOPIC", "MSG/S", "BYTES/S", "SUBSCRIBERS", "LAG", "DROPPED"]);
        for (topic, messages, per_second) in self.topic_rates(before).into_iter().take(LINES / 2) {
            topics.row([
                name(&topic.pattern),
                messages.to_string(),
                bytes(per_second),
                topic.subscribers.len().to_string(),
                lag(topic).to_string(),
                dropped(topic).to_string(),
            ]);
        }
        let mut clients = Table::new(&[
            "CLIENT", "PID", "CONN", "IN/S", "OUT/S", "QUEUED", "DROPPED",
        ]);
        for (client, came, went) in self.client_rates(before).into_iter().take(LINES / 2) {
            clients.row([
                name(&client.name),
                client.pid.to_string(),
                client.connection.to_string(),
                bytes(came),
                bytes(went),
                bytes(client.outbox_bytes),
                client.dropped.to_string(),
            ]);
        }
        let mut lines = vec![out.bold(&head), second];
        for table in [topics, clients] {
            if table.is_empty() {
                continue;
            }
            lines.push(String::new());
            let rows = table.lines().into_iter().enumerate();
            lines.extend(rows.map(|(number, line)| match number {
                0 => out.bold(&line),
                _ => line,
            }));
        }
        lines
    }
}

/// The other screen of a terminal, without a cursor, and keys that come one by one; all is as it
/// was when this is dropped.
struct Screen(Termios);

impl Screen {
    fn take(out: &mut Output) -> Result<Self, Failure> {
        let failed = |error| Failure::Failed(format!("the terminal: {error}"));
        let before = termios::tcgetattr(rustix::stdio::stdin()).map_err(failed)?;
        let mut keys = before.clone();
        keys.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        keys.special_codes[SpecialCodeIndex::VMIN] = 1;
        keys.special_codes[SpecialCodeIndex::VTIME] = 0;
        termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &keys).map_err(failed)?;
        let screen = Self(before);
        out.bytes(b"\x1b[?1049h\x1b[?25l\x1b[H\x1b[J")?;
        out.flush()?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = io::stdout();
        let _ = out.write_all(b"\x1b[?25h\x1b[?1049l");
        let _ = out.flush();
        let _ = termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Waits until q is pressed; for ever, where there is no screen. No thread reads the keys: it would
/// take those that come later, too.
async fn quit(is_screen: bool) {
    loop {
        tokio::time::sleep(KEYS).await;
        if is_screen && is_q_pressed() {
            return;
        }
    }
}

/// Whether q is among the keys that wait; a terminal that is gone is as good.
fn is_q_pressed() -> bool {
    let stdin = rustix::stdio::stdin();
    let mut pressed = [0; 64];
    loop {
        let mut waiting = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut waiting, Some(&Timespec::default())) {
            Ok(0) | Err(Errno::INTR) => return false,
            Ok(_) => {}
            Err(_) => return true,
        }
        match rustix::io::read(stdin, &mut pressed) {
            Ok(0) | Err(_) => return true,
            Ok(len) if pressed[..len].iter().any(|key| matches!(key, b'q' | b'Q')) => return true,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn colours_take_no_room_on_a_line() {
        assert_eq!(cut("\x1b[1mabcdef\x1b[0m", 3), "\x1b[1mabc");
        assert_eq!(cut("ab", 3), "ab");
    }
}
