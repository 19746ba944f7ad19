//! Who holds an address: another app of this supervisor, by a list kept here; else a process, as
//! far as `/proc` shows it.

use super::{Address, ListenError};
use crate::proc::pids;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Addresses of all apps of this process: a port is the whole machine's, so this is the process's.
static ENTRIES: Mutex<Vec<(String, Address)>> = Mutex::new(Vec::new());

/// State of a listening TCP socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";
/// State of an unconnected UDP socket in `/proc/net/udp`.
const UNCONNECTED: &str = "07";

/// That an app holds an address; until it is dropped.
#[derive(Debug)]
pub(super) struct Entry(String, Address);

pub(super) fn enter(app: &str, address: &Address) -> Entry {
    entries().push((app.to_owned(), address.clone()));
    Entry(app.to_owned(), address.clone())
}

/// Whether no app of this supervisor stands in the way.
pub(super) fn check(wanted: &Address) -> Result<(), ListenError> {
    match entries().iter().find(|(_, held)| held.overlaps(wanted)) {
        None => Ok(()),
        Some((app, held)) => Err(ListenError::App {
            address: wanted.to_string(),
            app: app.clone(),
            held: held.to_string(),
        }),
    }
}

/// The process that listens on an address, in words.
pub(super) fn of(address: &Address) -> Option<String> {
    let inodes: HashSet<u64> = match address {
        Address::Unix(path) => unix_inodes(path),
        Address::Tcp { .. } => listening("tcp", LISTEN, |ip| Address::tcp(ip).overlaps(address)),
        Address::Udp(_) => listening("udp", UNCONNECTED, |ip| Address::Udp(ip).overlaps(address)),
    };
    let pid = pids().find(|pid| sockets(*pid).iter().any(|inode| inodes.contains(inode)))?;
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("`{}` (process {pid})", command.trim_end()))
}

/// The TCP addresses that a process listens on itself.
#[must_use]
pub fn listened_by(pid: i32) -> Vec<Address> {
    let own = sockets(pid);
    let mut found = Vec::new();
    for (address, inode) in table("tcp", LISTEN) {
        if own.contains(&inode) {
            found.push(Address::tcp(address));
        }
    }
    found
}

/// Whether a port is of those that the system chooses from for who asks for any.
pub(crate) fn is_for_any(port: u16) -> bool {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = text.split_ascii_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => (first..=last).contains(&port),
        _ => (32_768..=60_999).contains(&port),
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut entries = entries();
        let own = entries
            .iter()
            .position(|(app, address)| *app == self.0 && *address == self.1);
        if let Some(at) = own {
            entries.remove(at);
        }
    }
}

fn entries() -> MutexGuard<'static, Vec<(String, Address)>> {
    ENTRIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sockets of a process, by inode.
fn sockets(pid: i32) -> HashSet<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| inode_of_link(&entry.path()))
        .collect()
}

/// The inode of the socket that an entry of `/proc/PID/fd` is, if it is one.
pub(crate) fn inode_of_link(link: &Path) -> Option<u64> {
    let target = fs::read_link(link).ok()?;
    let inode = target
        .to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?;
    inode.parse().ok()
}

fn listening(kind: &str, state: &str, is_wanted: impl Fn(SocketAddr) -> bool) -> HashSet<u64> {
    table(kind, state)
        .into_iter()
        .filter(|(address, _)| is_wanted(*address))
        .map(|(_, inode)| inode)
        .collect()
}

/// Address and inode of all sockets in a state, v4 and v6. Those of TCP that listen stand before all
/// others, of which there may be very many, so the rest is left unread.
fn table(kind: &str, state: &str) -> Vec<(SocketAddr, u64)> {
    let mut found = Vec::new();
    for suffix in ["", "6"] {
        let Ok(file) = File::open(format!("/proc/net/{kind}{suffix}")) else {
            continue;
        };
        let lines = BufReader::new(file).lines().map_while(Result::ok).skip(1);
        let rows = lines.map(|line| row(&line, state));
        found.extend(
            rows.take_while(|row| row.is_some() || state != LISTEN)
                .flatten(),
        );
    }
    found
}

fn row(line: &str, state: &str) -> Option<(SocketAddr, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let address = fields.nth(1)?;
    if fields.nth(1)? != state {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    let (ip, port) = address.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::new(ip_of(ip)?, port), inode))
}

/// An address as the kernel writes it: words of the machine, in hexadecimal.
fn ip_of(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(8 * at..8 * at + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    if text.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let mut bytes = [0; 16];
    for (at, place) in bytes.chunks_exact_mut(4).enumerate() {
        place.copy_from_slice(&word(at)?);
    }
    Some(Ipv6Addr::from(bytes).into())
}

fn unix_inodes(path: &Path) -> HashSet<u64> {
    let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let row = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let inode = fields.nth(6)?.parse().ok()?;
        (Path::new(fields.next()?) == path).then_some(inode)
    };
    text.lines().skip(1).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_kernel_are_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  \
                    1000        0 4242 1 0000000000000000 100 0 0 10 0";
        let expected = ("127.0.0.1:8080".parse().unwrap(), 4242);
        assert_eq!(row(line, LISTEN), Some(expected));
        assert_eq!(row(line, "01"), None);
        assert_eq!(row("garbage", LISTEN), None);
        let six = ip_of("00000000000000000000000001000000").unwrap();
        assert_eq!(six, "::1".parse::<IpAddr>().unwrap());
        assert_eq!(ip_of("xyz"), None);
    }
}
