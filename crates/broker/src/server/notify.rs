//! Telling a supervisor by the protocol of systemd (`sd_notify`) how far the broker is.

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Clients can connect.
pub(super) fn ready() {
    send("READY=1");
}

/// The broker stops.
pub(super) fn stopping() {
    send("STOPPING=1");
}

/// Whoever asked to be told may be gone, which is nothing to fail for.
fn send(state: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&path),
    };
    let sent = address
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!(%error, "NOTIFY_SOCKET was not told {state}");
    }
}
