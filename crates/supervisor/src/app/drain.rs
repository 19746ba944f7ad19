//! How a worker ends without losing a connection: it gets nothing new, its queue becomes empty, it
//! is asked to finish, it ends.
//!
//! A program that can be asked in its own language (Node) is. One that handles the stop signal is
//! trusted to finish what it has. One that does not would be cut by it in the middle of its
//! answers, so it gets the signal only when it has no connection of ours left, or at the deadline.

use super::member::Key;
use super::process::Process;
use super::{App, Turn};
use crate::listen::Address;
use crate::proc::catches;
use crate::report::WorkerState;
use crate::worker::Input;
use std::collections::HashSet;
use std::fs;
use std::time::Duration;

/// How often the queue is looked at.
const QUEUE_LOOK: Duration = Duration::from_millis(5);
/// So many looks in a row must find it empty.
const EMPTY_LOOKS: u32 = 3;
/// How often the connections of a process are looked at: that costs more.
const CONNECTIONS_LOOK: Duration = Duration::from_millis(50);

/// How patient a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Others take what is new: it may take its time with what it has.
    Full,
    /// Everything ends: what keeps coming must not hold it up.
    Brief,
}

/// How long a program without a handler for the stop signal is waited for when everything ends.
const BRIEF: Duration = Duration::from_millis(500);

impl Turn {
    /// Drains workers side by side, waits for their end and forgets them. They must not have a
    /// share any more, if others are to take their part.
    pub(super) async fn retire(&self, keys: &[Key], patience: Patience) {
        let mut drains = tokio::task::JoinSet::new();
        for key in keys {
            drains.spawn(drain(self.app.clone(), *key, patience));
        }
        while drains.join_next().await.is_some() {}
        self.app.change(|state| {
            for key in keys {
                state.remove(*key);
            }
        });
    }
}

/// Drains a worker and waits for its end.
pub(super) async fn drain(app: App, key: Key, patience: Patience) {
    app.change(|state| state.handle(key, Input::Drain));
    if patience == Patience::Full {
        let mut empty = 0;
        while empty < EMPTY_LOOKS && is_draining(&app, key) {
            // As long as the switch waits, more may come.
            let is_empty = app.state().settle() && queue_len(&app, key) == 0;
            empty = if is_empty { empty + 1 } else { 0 };
            tokio::time::sleep(QUEUE_LOOK).await;
        }
    }
    let is_asked = app.with_process(key, Process::drain).unwrap_or_default();
    if !is_asked {
        let waiting = wait_for_connections(&app, key);
        match patience {
            Patience::Full => waiting.await,
            Patience::Brief => drop(tokio::time::timeout(BRIEF, waiting).await),
        }
    }
    app.change(|state| state.handle(key, Input::Settled { is_asked }));
    app.until_over(key).await;
}

/// Waits until a process that would be cut by the stop signal has no connection left.
async fn wait_for_connections(app: &App, key: Key) {
    while is_draining(app, key) {
        let (signal, addresses) = {
            let state = app.state();
            let addresses = state.listeners().addresses();
            (state.config.stop.signal, addresses)
        };
        let Some(pid) = app.with_process(key, Process::number) else {
            return;
        };
        if catches(pid, signal) || !has_connections(pid, &addresses) {
            return;
        }
        tokio::time::sleep(CONNECTIONS_LOOK).await;
    }
}

fn is_draining(app: &App, key: Key) -> bool {
    let state = app.state();
    let member = state.members.get(&key);
    member.is_some_and(|one| one.machine.state() == WorkerState::Draining)
}

fn queue_len(app: &App, key: Key) -> u32 {
    let state = app.state();
    let slot = state.members.get(&key).map(|one| one.slot);
    slot.map_or(0, |slot| state.listeners().queue_len(slot))
}

impl App {
    /// Waits until a worker is over (or gone).
    pub(super) async fn until_over(&self, key: Key) {
        self.until(|state| {
            let member = state.members.get(&key);
            member
                .is_none_or(|one| one.machine.is_over() && one.process.is_none())
                .then_some(())
        })
        .await;
    }

    /// Looks at a worker's process, if it has one.
    pub(super) fn with_process<T>(&self, key: Key, look: impl FnOnce(&Process) -> T) -> Option<T> {
        let state = self.state();
        state.members.get(&key)?.process.as_ref().map(look)
    }
}

/// Whether a process, or one that it started, has an open connection that came by one of these
/// addresses.
fn has_connections(leader: i32, addresses: &[Address]) -> bool {
    let ports: HashSet<u16> = addresses
        .iter()
        .filter_map(|address| Some(address.socket()?.port()))
        .collect();
    let paths: Vec<&str> = addresses
        .iter()
        .filter_map(|address| match address {
            Address::Unix(path) => path.to_str(),
            _ => None,
        })
        .collect();
    let mut open = HashSet::new();
    for table in ["tcp", "tcp6"] {
        let path = format!("/proc/{leader}/net/{table}");
        let text = fs::read_to_string(path).unwrap_or_default();
        open.extend(
            text.lines()
                .skip(1)
                .filter_map(|line| tcp_inode(line, &ports)),
        );
    }
    if !paths.is_empty() {
        let path = format!("/proc/{leader}/net/unix");
        let text = fs::read_to_string(path).unwrap_or_default();
        open.extend(
            text.lines()
                .skip(1)
                .filter_map(|line| unix_inode(line, &paths)),
        );
    }
    if open.is_empty() {
        return false;
    }
    let group = super::left::group_members(leader);
    group.into_iter().any(|pid| has_socket(pid, &open))
}

/// The inode of an established connection to one of these ports, from a line of `/proc/net/tcp`.
fn tcp_inode(line: &str, ports: &HashSet<u16>) -> Option<u64> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (_, port) = words.next()?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Established, or the peer has said all it had to say and waits for the answer.
    let is_open = matches!(words.nth(1)?, "01" | "08");
    let inode = words.nth(5)?.parse().ok()?;
    (is_open && ports.contains(&port)).then_some(inode)
}

/// The inode of a connected socket with one of these paths, from a line of `/proc/net/unix`.
fn unix_inode(line: &str, paths: &[&str]) -> Option<u64> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, _, _, _, _, state, inode, path] = words[..] else {
        return None;
    };
    let is_connected = state == "03";
    (is_connected && paths.contains(&path)).then(|| inode.parse().ok())?
}

fn has_socket(pid: i32, inodes: &HashSet<u64>) -> bool {
    let fds = fs::read_dir(format!("/proc/{pid}/fd"));
    fds.into_iter().flatten().flatten().any(|fd| {
        let Ok(target) = fs::read_link(fd.path()) else {
            return false;
        };
        let inode = target.to_str().and_then(|text| {
            text.strip_prefix("socket:[")?
                .strip_suffix(']')?
                .parse()
                .ok()
        });
        inode.is_some_and(|inode| inodes.contains(&inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn open_connections_of_a_process_are_seen_until_they_are_closed() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::tcp(listener.local_addr().unwrap());
        assert!(!has_connections(own, std::slice::from_ref(&address)));
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert!(has_connections(own, std::slice::from_ref(&address)));
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(
            has_connections(own, std::slice::from_ref(&address)),
            "it may still be answered"
        );
        drop(server);
        assert!(!has_connections(own, &[address]));
    }

    #[test]
    fn connections_over_a_unix_socket_are_seen_too() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let path = std::env::temp_dir().join(format!("ganger-drain-{own}.sock"));
        let listener = UnixListener::bind(&path).unwrap();
        let address = Address::Unix(path.clone());
        assert!(!has_connections(own, std::slice::from_ref(&address)));
        let _client = UnixStream::connect(&path).unwrap();
        let server = listener.accept().unwrap();
        assert!(has_connections(own, std::slice::from_ref(&address)));
        drop(server);
        assert!(!has_connections(own, &[address]));
        fs::remove_file(path).unwrap();
    }
}
