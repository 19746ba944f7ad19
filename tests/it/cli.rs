//! `broker-cli` as a process: what it writes, and how it ends.

mod faults;
mod keys;
mod leases;
mod messages;
mod shell;

use crate::brokers::Broker;
use crate::harness::wait_until;
use ganger_client::{Home, Kv, KvOptions};
use rustix::process::{kill_process, Pid, Signal};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A broker that takes connections.
fn broker() -> Broker {
    broker_with(&[])
}

/// One with more options.
fn broker_with(options: &[&str]) -> Broker {
    let broker = Broker::with(options);
    wait_until("the broker to listen", || {
        UnixStream::connect(broker.socket()).is_ok()
    });
    broker
}

/// The region of a broker.
fn region(broker: &Broker) -> Kv {
    let home = Home::at(&broker.home);
    let options = KvOptions::new();
    Kv::of_home(&home, &options, Duration::from_secs(20))
        .unwrap()
        .0
}

/// `broker-cli`, with nothing of the environment that matters but the home.
fn command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker-cli"));
    for variable in ["GANGER_REGION", "GANGER_REGION_FD", "XDG_RUNTIME_DIR"] {
        command.env_remove(variable);
    }
    command.env("GANGER_HOME", home);
    command.env("XDG_STATE_HOME", home.join("state"));
    command.stdin(Stdio::null());
    command
}

/// How a run ended.
struct Run {
    code: i32,
    out: Vec<u8>,
    err: String,
}

impl Run {
    fn of(command: &mut Command, input: &[u8]) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            // Those that read nothing have closed it.
            scope.spawn(move || drop(stdin.write_all(input)));
            child.wait_with_output().unwrap()
        });
        Self {
            code: output.status.code().unwrap(),
            out: output.stdout,
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn text(&self) -> &str {
        assert_eq!((self.code, &*self.err), (0, ""));
        std::str::from_utf8(&self.out).unwrap()
    }

    /// It failed so, and said why in one line.
    #[track_caller]
    fn fails(&self, code: i32, why: &str) {
        assert_eq!(self.code, code, "{}", self.err);
        assert!(self.err.starts_with("broker-cli: "), "{}", self.err);
        assert_eq!(self.err.lines().count(), 1, "{}", self.err);
        assert!(self.err.contains(why), "{} lacks {why}", self.err);
        assert!(self.out.is_empty());
    }
}

fn run<S: AsRef<OsStr>>(broker: &Broker, arguments: &[S]) -> Run {
    fed(broker, b"", arguments)
}

fn fed<S: AsRef<OsStr>>(broker: &Broker, input: &[u8], arguments: &[S]) -> Run {
    Run::of(command(&broker.home).args(arguments), input)
}

/// One that runs on beside the test; killed at the end.
struct Running {
    child: Child,
    lines: Option<BufReader<ChildStdout>>,
}

impl Running {
    fn start(broker: &Broker, arguments: &[&str]) -> Self {
        let mut child = command(&broker.home)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = child.stdout.take().map(BufReader::new);
        Self { child, lines }
    }

    /// Its next line, without the end of it.
    fn line(&mut self) -> String {
        let mut line = String::new();
        let lines = self.lines.as_mut().unwrap();
        lines.read_line(&mut line).unwrap();
        line.trim_end_matches('\n').to_owned()
    }

    /// Reads no more of what it writes.
    fn close(&mut self) {
        self.lines = None;
    }

    fn signal(&self, signal: Signal) {
        // It is not reaped yet, so the pid is still its own.
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its exit code, when it has ended; and what it said.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut status = None;
        wait_until("broker-cli to end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let mut said = String::new();
        let stderr = self.child.stderr.take();
        std::io::Read::read_to_string(&mut stderr.unwrap(), &mut said).unwrap();
        (status.unwrap().code(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
