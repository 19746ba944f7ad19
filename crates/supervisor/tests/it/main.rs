//! The supervisor's parts against the real system: processes, sockets, programs.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

/// Ports that no other test has and no connection takes.
#[path = "../../../../tests/it/ports.rs"]
mod ports;
/// Commands, deadlines and connections, as the other modules want them.
mod support;

/// Which rung of the ladder a program gets.
mod choose;
/// The control socket: requests, limits, hostile clients.
mod control;
/// A worker with its delivery.
mod delivery;
/// Inherited listeners.
mod inherited;
/// Slot listeners: who gets a connection, and what never gets lost.
mod listen;
/// The output of workers.
mod logs;
/// Node as a worker of a cluster whose primary is the supervisor.
mod node;
/// Kept connections end politely.
mod preload;
/// Programs whose `bind` the supervisor answers.
mod seccomp;
/// Starting and ending processes.
mod spawn;
/// Followers of events and lines.
mod streams;

use std::time::Duration;

/// Longest a test may take before the whole run is ended.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ends the run if the test that holds it hangs.
struct Watchdog {
    _alive: std::sync::mpsc::Sender<()>,
}

fn watchdog() -> Watchdog {
    let (alive, watched) = std::sync::mpsc::channel::<()>();
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    std::thread::spawn(move || {
        if watched.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs");
            std::process::exit(101);
        }
    });
    Watchdog { _alive: alive }
}
