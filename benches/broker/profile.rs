//! What the servers ask the kernel for: system calls per message, as `strace -c` counts them.

use crate::link::{Server, System};
use crate::report::Report;
use crate::roles::{stream_through, Pace};
use crate::Effort;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const PACE: Pace = Pace::PerSecond(5000);

/// At a steady pace: messages that come as fast as strace lets them would be counted in other batches
/// than those that come as fast as the server lets them.
pub(crate) fn run(report: &mut Report, effort: &Effort, systems: &[System]) {
    if !effort.wants("profile") {
        return;
    }
    if Command::new("strace").arg("-V").output().is_err() {
        report.note("system calls are not counted: apt-get install strace");
        return;
    }
    for subscribers in [1, 4] {
        let what = format!("system calls of the server, 64 B, 1 to {subscribers} at 5,000/s");
        let servers = systems.iter().filter(|system| **system != System::ZeroMq);
        for system in servers {
            let server = Server::start(*system).unwrap();
            let strace = Strace::attach(&server);
            let seen = stream_through(&server, *system, subscribers, 64, PACE, effort.slice);
            let calls = strace.calls(&server);
            let received: u64 = seen.iter().map(|seen| seen.messages).sum();
            let per_message = calls as f64 / received as f64;
            report.figure(&what, system.name(), "per message received", &[per_message]);
        }
    }
}

/// strace, attached to a server and all its threads.
struct Strace(Child);

impl Strace {
    fn attach(server: &Server) -> Self {
        let pid = server.pid().to_string();
        let mut command = Command::new("strace");
        command
            .args(["-f", "-c", "-p", &pid, "-o"])
            .arg(summary(server));
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert!(line.contains("attached"), "strace: {line}");
        // It has more to say, and must not wait until somebody reads it.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Self(child)
    }

    /// Detaches it, and tells all system calls so far.
    fn calls(mut self, server: &Server) -> u64 {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.0.wait().unwrap();
        let text = fs::read_to_string(summary(server)).unwrap();
        // % time, seconds, usecs/call, calls, [errors,] total
        let total = text.lines().find(|line| line.ends_with("total")).unwrap();
        total.split_whitespace().nth(3).unwrap().parse().unwrap()
    }
}

fn summary(server: &Server) -> std::path::PathBuf {
    server.home().join("strace")
}
