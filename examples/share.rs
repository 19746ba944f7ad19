//! Two processes share a counter, a typed session and a rate limiter; one of them is killed, and
//! nothing is lost.
//!
//! Run it: `cargo run --release --example share`
//!
//! The parent makes a region without a name and starts this program twice more. The workers inherit
//! the region's descriptor and find it by `GANGER_REGION_FD`, as workers of the supervisor do.

use ganger_client::{Config, Kv, KvError, SetOptions, REGION_FD_VARIABLE};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// What a web shop would keep about a visitor: any serde type will do.
#[derive(Debug, Serialize, Deserialize)]
struct Session {
    user: String,
    cart: Vec<String>,
}

const LIMIT: Limit = Limit {
    burst: 10,
    interval: Duration::from_secs(2),
};

fn main() -> Outcome {
    match std::env::args().nth(1) {
        None => parent(),
        Some(_) => worker(),
    }
}

fn parent() -> Outcome {
    let kv = Kv::create(Config::new(16 << 20))?;
    say(
        "parent",
        "made a region without a name, and starts two workers",
    );
    let mut a = Worker::start("A", &kv)?;
    let mut b = Worker::start("B", &kv)?;

    chapter("A typed session that both change");
    let cart = Vec::new();
    let user = "Ada".to_owned();
    kv.set_typed("session:7", &Session { user, cart })?;
    a.ask("buy pears")?;
    b.ask("buy bread")?;
    a.ask("buy cheese")?;

    chapter("A rate limiter: 10 at once, then one every 2 seconds, whoever asks");
    let started = Instant::now();
    let passed = a.ask("knock 7")? + b.ask("knock 7")?;
    // By now this many more may have become due.
    let refilled = started.elapsed().as_micros() / LIMIT.interval.as_micros();
    say("parent", &format!("{passed} of 14 requests passed"));
    assert!((10..=10 + refilled + 1).contains(&u128::from(passed)));

    chapter("A counter that both increment, until one of them is killed");
    a.tell("count")?;
    b.tell("count")?;
    wait_until(|| Ok(kv.incr("visits", 0)? >= 50_000))?;
    let by_a = a.kill()?;
    let at_death = kv.incr("visits", 0)?;
    say(
        "parent",
        &format!("kill -9 A in the middle of it; the counter is at {at_death}"),
    );
    wait_until(|| Ok(kv.incr("visits", 0)? >= at_death + 50_000))?;
    say("parent", "B went on by another 50000, and is told to stop");
    kv.set("stop", "")?;
    let by_b = b.finish()?;

    chapter("What is left");
    let visits = u64::try_from(kv.incr("visits", 0)?)?;
    say(
        "parent",
        &format!("A had {by_a} increments confirmed before it died, B {by_b}"),
    );
    say("parent", &format!("the counter says {visits}"));
    // A may have been killed after an increment and before it could say so.
    let in_flight = visits.checked_sub(by_a + by_b);
    match in_flight {
        Some(0) => say("parent", "that is the sum"),
        Some(1) => say(
            "parent",
            "that is the sum, and the one that A did as it died",
        ),
        _ => return Err(format!("lost or invented: {visits} is not {by_a} + {by_b}").into()),
    }
    let session: Option<Session> = kv.get_typed("session:7")?;
    let cart = session.ok_or("the session is gone")?.cart;
    say(
        "parent",
        &format!("the cart that A and B filled: {}", cart.join(", ")),
    );
    assert_eq!(cart, ["pears", "bread", "cheese"]);
    let reaped = kv.reap()?;
    let audit = kv.check()?;
    assert!(audit.is_clean(), "{:?}", audit.problems);
    assert_eq!(reaped.sessions, 1);
    say(
        "parent",
        "A's session was freed; every invariant of the region holds",
    );
    Ok(())
}

fn chapter(title: &str) {
    println!("\n{title}");
}

fn say(who: &str, what: &str) {
    println!("  {who:<7} {what}");
}

fn wait_until(mut condition: impl FnMut() -> Outcome<bool>) -> Outcome {
    let started = Instant::now();
    while !condition()? {
        if started.elapsed() > Duration::from_secs(60) {
            return Err("nothing happened for a minute".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A worker as the parent sees it. It is told what to do by lines, and writes back a dot for each
/// increment it did, and lines with what it has to say.
struct Worker {
    name: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    output: Option<BufReader<ChildStdout>>,
    dots: Option<JoinHandle<io::Result<u64>>>,
}

impl Worker {
    fn start(name: &'static str, kv: &Kv) -> Outcome<Self> {
        let region = kv.fd().ok_or("a region in memory of this process alone")?;
        // The region's own descriptor closes on exec. This copy does not, so the child inherits it.
        let inherited = rustix::io::fcntl_dupfd_cloexec(region, 3)?;
        rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty())?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg(name)
            .env(REGION_FD_VARIABLE, inherited.as_raw_fd().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        say(name, &format!("is process {}", child.id()));
        Ok(Self {
            name,
            input: child.stdin.take(),
            output: child.stdout.take().map(BufReader::new),
            dots: None,
            child,
        })
    }

    /// Gives an order that is answered by a number and a sentence.
    fn ask(&mut self, order: &str) -> Outcome<u64> {
        self.send(order)?;
        let mut answer = String::new();
        let output = self.output.as_mut().ok_or("it is counting")?;
        output.read_line(&mut answer)?;
        let (number, sentence) = answer.trim_end().split_once(' ').ok_or("no answer")?;
        say(self.name, sentence);
        Ok(number.parse()?)
    }

    /// Gives an order that is answered by dots.
    fn tell(&mut self, order: &str) -> Outcome {
        self.send(order)?;
        let output = self.output.take().ok_or("it is counting")?;
        self.dots = Some(std::thread::spawn(move || {
            let mut bytes = output.bytes();
            bytes.try_fold(0, |dots, byte| byte.map(|_| dots + 1))
        }));
        Ok(())
    }

    fn send(&mut self, order: &str) -> Outcome {
        writeln!(self.input.as_mut().ok_or("it was told to end")?, "{order}")?;
        Ok(())
    }

    /// Kills it with SIGKILL and returns how many dots it got out before.
    fn kill(&mut self) -> Outcome<u64> {
        self.child.kill()?;
        self.finish()
    }

    /// Waits for its end and returns how many dots it wrote.
    fn finish(&mut self) -> Outcome<u64> {
        self.input = None;
        self.child.wait()?;
        let dots = self.dots.take().ok_or("it never counted")?;
        Ok(dots
            .join()
            .map_err(|_| "the reader of its dots panicked")??)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has ended already, unless something went wrong here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn worker() -> Outcome {
    let kv = Kv::from_env()?;
    let mut out = io::stdout();
    for order in io::stdin().lines() {
        match order?.split_once(' ') {
            Some(("buy", item)) => {
                let cart = buy(&kv, item)?;
                writeln!(
                    out,
                    "{} puts {item} into the cart: {}",
                    cart.len(),
                    cart.join(", ")
                )?;
            }
            Some(("knock", times)) => {
                let times: u32 = times.parse()?;
                let mut passed = 0;
                let mut wait = Duration::ZERO;
                for _ in 0..times {
                    match LIMIT.ask(&kv, "limit:mail")? {
                        Verdict::Passed => passed += 1,
                        Verdict::Retry(after) => wait = after,
                    }
                }
                let seconds = wait.as_secs_f32();
                let then = match times - passed {
                    0 => String::from("all pass"),
                    _ => format!("{passed} pass, the next may in {seconds:.1} s"),
                };
                writeln!(out, "{passed} asks {times} times: {then}")?;
            }
            _ => {
                while !kv.exists("stop")? {
                    kv.incr("visits", 1)?;
                    // Standard output is buffered by lines: to count what was done, each dot must
                    // be out.
                    out.write_all(b".")?;
                    out.flush()?;
                }
            }
        }
    }
    Ok(())
}

/// Read, change, write: repeated by itself if the other worker was faster.
fn buy(kv: &Kv, item: &str) -> Outcome<Vec<String>> {
    let session = kv.update_typed("session:7", |session: Option<Session>| {
        let mut session = session?;
        session.cart.push(item.to_owned());
        Some(session)
    })?;
    Ok(session.ok_or("no such session")?.cart)
}

/// A rate limiter for all processes together: the generic cell rate algorithm (GCRA) on one key.
///
/// The key holds one number, the *theoretical arrival time* (TAT): when the next request would be
/// due if all came evenly, one per interval. A request that passes moves it on by an interval. A
/// request may come early, by as much as a burst is long, but no earlier. So one number does what a
/// bucket of tokens and the time of its last filling would, and one compare-and-set keeps it right.
struct Limit {
    /// Requests that may come at once.
    burst: u32,
    /// Time in which one more becomes due.
    interval: Duration,
}

enum Verdict {
    Passed,
    /// Too early: it would pass after this time.
    Retry(Duration),
}

impl Limit {
    fn ask(&self, kv: &Kv, key: &str) -> Result<Verdict, KvError> {
        let interval = micros(self.interval);
        loop {
            let now = now_micros();
            let entry = kv.entry(key)?;
            let stored = entry
                .as_ref()
                .and_then(|entry| entry.value.as_slice().try_into().ok());
            // Who was away for long starts anew: nothing is saved up beyond a burst.
            let due = stored.map_or(now, u64::from_le_bytes).max(now);
            let next = due + interval;
            let early = next - now;
            let allowed = interval * u64::from(self.burst);
            if early > allowed {
                return Ok(Verdict::Retry(Duration::from_micros(early - allowed)));
            }
            // Once the TAT has passed, a missing key says the same: so keys of those who left don't
            // pile up.
            let options = SetOptions::new().ttl(Duration::from_micros(early));
            let unchanged = match entry {
                Some(entry) => options.if_revision(entry.revision),
                None => options.if_absent(),
            };
            if kv.set_with(key, next.to_le_bytes(), unchanged)?.is_some() {
                return Ok(Verdict::Passed);
            }
            // Another process passed in between: look again.
        }
    }
}

/// Microseconds on a clock that all processes of this machine share.
fn now_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
