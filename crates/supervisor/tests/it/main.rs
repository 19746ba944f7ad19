//! The supervisor's parts against real processes and sockets.

#![allow(clippy::unwrap_used)]

mod control;
mod logs;
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
