//! What the supervisor costs with the number of its workers, which only sleep.

use crate::report::Report;
use crate::system::{self, Folder};
use crate::Effort;
use rustix::process::Signal;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const WORKERS: [u32; 7] = [1, 5, 20, 50, 100, 200, 500];
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(report: &mut Report, effort: &Effort) {
    if !effort.wants("scaling") {
        return;
    }
    for workers in WORKERS {
        let supervisor = Supervisor::start(workers);
        let many = if workers == 1 {
            "1 worker".to_owned()
        } else {
            format!("{workers} workers")
        };
        let resident = system::resident_mib(supervisor.child.id());
        report.figure(
            &format!("supervisor's resident memory, {many}"),
            "ganger",
            "MiB",
            &[resident],
        );
        report.on_curve(
            "supervisor's memory by number of workers",
            f64::from(workers),
        );
        let times: Vec<f64> = (0..effort.starts)
            .map(|_| {
                let started = Instant::now();
                supervisor.status();
                started.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        let what = format!("ganger status, {many}");
        report.figure(&what, "ganger", "ms", &times);
        report.on_curve("ganger status by number of workers", f64::from(workers));
    }
}

/// A supervisor without a broker. Its workers inherit one Unix socket that all of them share: that needs
/// neither a balancing program nor a filter for each, of which the kernel bears few in a moment.
struct Supervisor {
    child: Child,
    home: Folder,
}

impl Supervisor {
    /// Starts it, and waits until all workers are there.
    fn start(workers: u32) -> Self {
        let home = Folder::new();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ganger"));
        command
            .args(["run", "--no-broker", "--name", "sleepers"])
            .args(["--deliver", "listen-fds", "--balance", "shared"])
            .arg("--listen")
            .arg(format!("unix:{}/app.sock", home.path().display()))
            .args(["-n", &workers.to_string()])
            .args(["--", "sleep", "1000000"])
            .env("GANGER_HOME", home.path().join("home"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let supervisor = Self { child, home };
        let deadline = Instant::now() + PATIENCE;
        while supervisor.sleepers() < workers as usize {
            assert!(Instant::now() < deadline, "{workers} workers do not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        // What the starts leave to be done, and memory that only they took.
        std::thread::sleep(Duration::from_secs(2));
        supervisor
    }

    fn sleepers(&self) -> usize {
        let children = system::children(self.child.id()).into_iter();
        children
            .filter(|pid| system::command(*pid).starts_with("sleep "))
            .count()
    }

    fn status(&self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ganger"));
        command
            .arg("status")
            .env("GANGER_HOME", self.home.path().join("home"))
            .stdout(Stdio::null());
        assert!(command.status().unwrap().success(), "ganger status works");
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        system::kill(self.child.id(), Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
