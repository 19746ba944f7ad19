//! The crate from outside: one binary, one module per subject.

#![allow(clippy::unwrap_used)]

/// The facade for programs without tokio.
mod blocking;
/// Each call of the client once.
mod calls;
/// Futures that are dropped after each of their polls.
mod cancel;
/// The region that the environment names, seen from child processes.
mod env;
/// A broker in threads of the test's own process.
mod fake;
/// Lost connections, stopped brokers, slow consumers.
mod faults;
/// Every operation once, and every write refused where it must be.
mod operations;
/// A worker as a child process.
mod worker;

use std::future::Future;
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

/// Runs a test in a runtime of its own, which it may hold up no longer than the watchdog allows.
fn run(name: &'static str, test: impl Future<Output = ()>) {
    let _watchdog = Watchdog::new(name);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// Waits until something holds, for 20 s at most.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it never came about that {what}");
}
