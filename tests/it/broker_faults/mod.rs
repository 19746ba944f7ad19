//! The broker, and those who use it, killed, stopped and lied to.
//!
//! Every test drives the real `ganger broker` and, where processes other than it die, real child
//! processes. What subscribers saw is judged by [`history`]. By default the tests take some seconds;
//! `GANGER_BROKER_KILLS` says how often each of them kills.

mod bystanders;
mod crew;
mod history;
mod hostile;
mod keeper;
mod kills;
mod leases;
mod snapshots;
mod strangers;
mod watches;

use std::future::Future;
use std::time::Duration;

/// Plays the role, if it is one of this module's.
pub(crate) fn play(role: &str, arguments: &[&str]) -> bool {
    match (role, arguments) {
        ("fault-publisher", [home, subject]) => crew::play_publisher(home, subject),
        ("fault-subscriber", [home]) => crew::play_subscriber(home),
        ("fault-holder", [home, name]) => leases::play_holder(home, name),
        ("fault-waiter", [home]) => leases::play_waiter(home),
        ("fault-stranger", [socket]) => strangers::play(socket),
        _ => return false,
    }
    true
}

/// How many kills a test has, if it has `usual` of them by default.
fn kills(usual: u64) -> u64 {
    let wanted = std::env::var("GANGER_BROKER_KILLS");
    wanted.map_or(usual, |wanted| wanted.parse().unwrap())
}

/// Runs the async part of a test or role.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test)
}

/// Waits for something async, with a deadline that fails the test.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(crate::harness::PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A moment for others, in a loop that waits for a condition.
async fn moment() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
