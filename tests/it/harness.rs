//! Processes, deadlines and watchdogs. A child process is this test binary again, told by its
//! environment which role to play.

pub(crate) mod fork;

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const ROLE: &str = "GANGER_TEST_ROLE";
const ARGUMENTS: &str = "GANGER_TEST_ARGUMENTS";

/// How long a condition may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A child process in a role; killed and reaped when dropped.
pub(crate) struct Child {
    inner: std::process::Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Child {
    /// Starts this binary again as `role`, a name that [`play`] knows.
    pub(crate) fn spawn(role: &str, arguments: &[String]) -> Self {
        let mut inner = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "harness::child_entry",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(ROLE, role)
            .env(ARGUMENTS, arguments.join("\u{1f}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = inner.stdin.take();
        let output = BufReader::new(inner.stdout.take().unwrap());
        Self {
            inner,
            input,
            output,
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.inner.id().cast_signed()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        // The child is not reaped yet, so the pid is still its own.
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Kills the child and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.inner.kill();
        let _ = self.inner.wait();
    }

    /// Sends a line to the child's standard input.
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The rest of the next line that the child sent with [`report`].
    pub(crate) fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            let len = self.output.read_line(&mut line).unwrap();
            assert!(
                len > 0,
                "the child ended without a word: {:?}",
                self.inner.try_wait()
            );
            // The test runner's own words may stand before it on the line.
            if let Some((_, told)) = line.trim_end().split_once('@') {
                return told.to_owned();
            }
        }
    }

    /// Waits for the child to end by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        drop(self.input.take());
        let mut status = None;
        wait_until("the child to end", || {
            status = self.inner.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The side of the child: one line to the parent's [`Child::hear`].
pub(crate) fn report(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "@{line}").unwrap();
    out.flush().unwrap();
}

/// The side of the child: the next line the parent told it, or `None` when the parent is gone.
pub(crate) fn listen() -> Option<String> {
    let mut line = String::new();
    let len = std::io::stdin().lock().read_line(&mut line).unwrap();
    (len > 0).then(|| line.trim_end().to_owned())
}

/// The side of the child: from here on it is another user's process, which takes root.
pub(crate) fn become_user(user: u32) {
    // SAFETY: setuid takes a number and changes no memory.
    assert_eq!(unsafe { libc::setuid(user) }, 0);
}

/// A path by which a child can open a descriptor of this process.
pub(crate) fn path_of(fd: impl AsFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_fd().as_raw_fd())
}

/// Opens what [`path_of`] named.
pub(crate) fn open(path: &str) -> OwnedFd {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
        .into()
}

/// Waits for a condition, with a deadline that fails the test.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A number in the status of a process (or of `PID/task/TID`, one of its threads): KiB, or a count.
/// `None` if there is none any more.
pub(crate) fn status_number(process: impl std::fmt::Display, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Ends the whole test run with a message if the test it was made in takes too long.
pub(crate) struct Watchdog(Option<mpsc::Sender<()>>);

impl Watchdog {
    pub(crate) fn new(test: &'static str, seconds: u64) -> Self {
        let (alive, dropped) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            let ended = dropped.recv_timeout(Duration::from_secs(seconds));
            if ended == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("watchdog: {test} still runs after {seconds} s");
                std::process::abort();
            }
        });
        Self(Some(alive))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

/// Not a test: where a child process begins. It does nothing when the binary runs as tests.
#[test]
fn child_entry() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let arguments = std::env::var(ARGUMENTS).unwrap();
    let arguments: Vec<&str> = arguments.split('\u{1f}').collect();
    play(&role, &arguments);
    // Not through the test runner's end: a child is done when its role is.
    std::process::exit(0);
}

fn play(role: &str, arguments: &[&str]) {
    match (role, arguments) {
        ("step", [operation, path, subject]) => crate::step::play(operation, path, subject),
        ("birth", _) => crate::step::play_birth(),
        ("liar", [lie, path]) => crate::step::play_liar(lie, path),
        ("rounds", [path, key]) => crate::step::play_rounds(path, key),
        ("chaos-zygote", [region, logs, evicts]) => {
            crate::chaos::zygote::play(region, logs, evicts);
        }
        ("chaos-accounting", [region, panics]) => crate::chaos::play_accounting(region, panics),
        ("chaos-writer", [region, key]) => crate::chaos::play_writer(region, key),
        ("chaos-maker", _) => crate::chaos::play_maker(),
        _ if crate::attach::play(role, arguments) => {}
        _ if crate::broker_faults::play(role, arguments) => {}
        _ if crate::client::play(role, arguments) => {}
        _ if crate::events::play(role, arguments) => {}
        _ if crate::leases::play(role, arguments) => {}
        _ if crate::limits::play(role, arguments) => {}
        _ if crate::quiet::play(role, arguments) => {}
        _ if crate::memory::play(role, arguments) => {}
        _ if crate::sessions::play(role, arguments) => {}
        _ if crate::forks::play(role, arguments) => {}
        _ => panic!("no child plays {role} with {arguments:?}"),
    }
}
