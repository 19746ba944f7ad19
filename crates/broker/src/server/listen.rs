//! Accepting connections.

use super::broker::Broker;
use super::greet;
use ganger_protocol::{ErrorBody, ErrorCode};
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use std::fs;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// How long accepting rests when there are no descriptors left, at first and at most. Meanwhile
/// clients wait in the kernel's queue.
const REST: Duration = Duration::from_millis(5);
const REST_MAX: Duration = Duration::from_millis(500);
/// Clients that are being told why they can't come in, at a time.
const REFUSING: usize = 64;

/// Lets this process open as many files as the system allows it: each client needs one, and the
/// usual limit is far below what a broker serves.
pub fn use_all_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    if current != limit.current {
        // Without it there are fewer clients, and accepting rests when they are too many.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, ..limit });
    }
}

/// Accepts until it is dropped.
pub(super) async fn accept(listener: &UnixListener, broker: &Arc<Broker>) {
    let open = Arc::new(AtomicUsize::new(0));
    let refusing = Arc::new(Semaphore::new(REFUSING));
    let mut rest = REST;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                rest = REST;
                admit(stream, broker, &open, &refusing);
            }
            Err(error) if is_of_one_client(&error) => {}
            Err(error) => {
                broker.counters.accept_failures.count();
                if rest == REST {
                    tracing::warn!(%error, "accepting rests");
                }
                tokio::time::sleep(rest).await;
                rest = (rest * 2).min(REST_MAX);
            }
        }
    }
}

/// Serves a client, or tells it why not.
fn admit(
    stream: UnixStream,
    broker: &Arc<Broker>,
    open: &Arc<AtomicUsize>,
    refusing: &Arc<Semaphore>,
) {
    let counters = &broker.counters;
    let limit = broker.limits().connections;
    let peer = stream
        .peer_cred()
        .ok()
        .filter(|peer| is_allowed(peer, broker));
    let refused = match peer {
        None => {
            counters.connections_not_allowed.count();
            ErrorBody::new(
                ErrorCode::NotAllowed,
                "only the broker's own user, root and its allowed group may connect",
            )
        }
        Some(_) if open.load(Ordering::Relaxed) >= limit => {
            counters.connections_too_many.count();
            ErrorBody::from(ErrorCode::TooManyConnections).limit(limit)
        }
        Some(peer) => {
            counters.connections_accepted.count();
            let place = Place::take(open);
            let broker = Arc::clone(broker);
            tokio::spawn(async move {
                let _place = place;
                greet::serve(stream, peer, broker).await;
            });
            return;
        }
    };
    // Where too many are being told, the rest sees its connection closed.
    if let Ok(permit) = Arc::clone(refusing).try_acquire_owned() {
        tokio::spawn(async move {
            greet::refuse(stream, 0, &refused).await;
            drop(permit);
        });
    }
}

/// A connection that counts.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether this user may connect. The permissions of directory and socket come before that.
fn is_allowed(peer: &UCred, broker: &Broker) -> bool {
    let is_member = |group| {
        let pid = peer.pid().unwrap_or(0);
        peer.gid() == group || groups_of(pid).contains(&group)
    };
    peer.uid() == rustix::process::geteuid().as_raw()
        || peer.uid() == 0
        || broker.config.allow_group.is_some_and(is_member)
}

/// The supplementary groups of a process. The credentials of a socket name the primary one only.
fn groups_of(pid: i32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    let numbers = groups.unwrap_or_default().split_whitespace();
    numbers.filter_map(|number| number.parse().ok()).collect()
}

/// Errors of the one connection that was to be accepted.
fn is_of_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
