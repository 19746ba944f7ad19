//! What the system says of processes and sockets.

use crate::harness::status_number;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;

/// Processes whose environment has this text, with their command lines.
pub(crate) fn marked(mark: &str) -> BTreeMap<u32, String> {
    let mut found = BTreeMap::new();
    for pid in pids() {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let has_mark = environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == mark.as_bytes());
        if has_mark && is_alive(pid) {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            found.insert(pid, command);
        }
    }
    found
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Whether a process runs: a zombie doesn't.
pub(crate) fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| !matches!(fields[0].as_str(), "Z" | "X"))
}

/// The fields of /proc/PID/stat behind the name: state, parent ...
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Descriptors that a process has open.
pub(crate) fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Bytes of a process that are in memory, in KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    status_number(pid, "VmRSS:").unwrap_or_default()
}

/// The clients' ports of those connections to this address that a process has accepted.
pub(crate) fn accepted(pid: u32, address: Ipv4Addr) -> BTreeSet<u16> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"));
    let inodes: BTreeSet<String> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let link = fs::read_link(entry.ok()?.path()).ok()?;
            let link = link.to_str()?.strip_prefix("socket:[")?.to_owned();
            link.strip_suffix(']').map(str::to_owned)
        })
        .collect();
    tcp(address)
        .into_iter()
        .filter(|socket| inodes.contains(&socket.inode))
        .map(|socket| socket.remote_port)
        .collect()
}

/// Whether anybody listens on this address, on any port.
pub(crate) fn is_listening(address: Ipv4Addr) -> bool {
    tcp(address).iter().any(|socket| socket.state == LISTEN)
}

const LISTEN: u8 = 10;

struct Socket {
    remote_port: u16,
    state: u8,
    inode: String,
}

/// The IPv4 sockets that are bound to an address.
fn tcp(address: Ipv4Addr) -> Vec<Socket> {
    let text = fs::read_to_string("/proc/net/tcp").unwrap();
    let wanted = format!("{:08X}:", u32::from_ne_bytes(address.octets()));
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if !fields[1].starts_with(&wanted) {
                return None;
            }
            Some(Socket {
                remote_port: u16::from_str_radix(fields[2].split(':').nth(1)?, 16).ok()?,
                state: u8::from_str_radix(fields[3], 16).ok()?,
                inode: fields[9].to_owned(),
            })
        })
        .collect()
}

/// Unix sockets that are bound below a folder.
pub(crate) fn unix_sockets(folder: &str) -> Vec<String> {
    let text = fs::read_to_string("/proc/net/unix").unwrap();
    let paths = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(7));
    paths
        .filter(|path| path.starts_with(folder))
        .map(str::to_owned)
        .collect()
}
