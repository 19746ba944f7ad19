//! The broker on its socket: tokio, one task for each connection.
//!
//! What was received is carried out by `dispatch`, in order; what is for others goes through
//! [`connection::Connection`], what is for all is in [`broker::Broker`]. Nothing here waits for a
//! client, and a client waits for another only where a subscription says so.

pub mod admin;
pub mod broker;
pub mod connection;
pub mod counters;
mod dispatch;
mod greet;
pub mod held;
pub mod home;
mod janitor;
mod kv;
pub mod lease;
mod listen;
mod notify;
pub mod outbox;
mod publish;
mod received;
mod reference;
mod request;
mod seat;
pub mod session;
mod socket;
mod subscribe;
mod tap;
pub mod timer;
pub mod watch;

pub use broker::{Broker, Config};
pub use listen::use_all_descriptors;

use std::future::Future;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

/// Program and version, as clients are told.
const SOFTWARE: &str = concat!("ganger/", env!("CARGO_PKG_VERSION"));

/// Serves on a listener until `stop` is done, then stops in good order: clients are told, what they
/// asked for is finished and written, up to [`Config::stop_ms`]. `closing` is called once no more
/// clients are accepted.
pub async fn run(
    listener: UnixListener,
    broker: Arc<Broker>,
    stop: impl Future<Output = ()>,
    closing: impl FnOnce(),
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let timer = tokio::spawn(timer::run(Arc::clone(&broker)));
    notify::ready();
    tokio::select! {
        () = listen::accept(&listener, &broker) => {}
        () = stop => {}
    }
    notify::stopping();
    closing();
    drop(listener);
    broker.drain();
    let patience = Duration::from_millis(broker.config.stop_ms);
    let _ = tokio::time::timeout(patience, emptied(&broker)).await;
    timer.abort();
    Ok(())
}

/// Waits until the last connection has ended.
async fn emptied(broker: &Broker) {
    while broker.connections_len() > 0 {
        // Only while the broker stops, and that is soon over.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
