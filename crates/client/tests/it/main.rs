//! The crate from outside: one binary, one module per subject.

#![allow(clippy::unwrap_used)]

/// The region that the environment names, seen from child processes.
mod env;
/// Every operation once, and every write refused where it must be.
mod operations;

use std::sync::mpsc;
use std::time::Duration;

/// Ends the whole test run with a message if the test it was made in hangs.
struct Watchdog(Option<mpsc::Sender<()>>);

impl Watchdog {
    fn new(test: &'static str) -> Self {
        let (alive, dropped) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            let ended = dropped.recv_timeout(Duration::from_secs(120));
            if ended == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("watchdog: {test} hangs");
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
