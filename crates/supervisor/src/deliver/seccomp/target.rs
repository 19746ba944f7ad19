//! The thread that called, and its socket: seen through `/proc`, and through a duplicate where the
//! system allows one (containers often don't).

use crate::listen::{inode_of_link, Address};
use rustix::net::{sockopt, AddressFamily, SocketType};
use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Longest address that the kernel takes (`sockaddr_storage`).
const ADDRESS_MAX: usize = 128;
/// Protocols that connections by TCP come through: TCP, and MPTCP, which Go asks for and which
/// falls back to TCP.
const TCP: [u32; 3] = [0, 6, 262];

/// A thread and a descriptor of its process.
#[derive(Debug)]
pub(super) struct Target {
    tid: i32,
    fd: RawFd,
    /// The descriptor's `O_*` flags.
    flags: i32,
    socket: Option<OwnedFd>,
}

/// An address as a program gave it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    Ip(SocketAddr),
    Path(PathBuf),
}

impl Target {
    pub(super) fn new(tid: i32, fd: RawFd) -> Self {
        let info = fs::read_to_string(format!("/proc/{tid}/fdinfo/{fd}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
        Self {
            tid,
            fd,
            flags: flags.unwrap_or(0),
            socket: duplicate(tid, fd),
        }
    }

    pub(super) const fn fd(&self) -> RawFd {
        self.fd
    }

    pub(super) const fn is_nonblocking(&self) -> bool {
        self.flags & libc::O_NONBLOCK != 0
    }

    pub(super) const fn is_closed_on_exec(&self) -> bool {
        self.flags & libc::O_CLOEXEC != 0
    }

    /// The process of the thread.
    pub(super) fn pid(&self) -> Option<Pid> {
        process_of(self.tid)
    }

    /// The socket that the descriptor is now.
    pub(super) fn inode(&self) -> Option<u64> {
        inode_of_link(Path::new(&format!("/proc/{}/fd/{}", self.tid, self.fd)))
    }

    /// The address in the caller's memory, if it is of a kind that concerns us.
    pub(super) fn name(&self, address: u64, len: usize) -> Option<Name> {
        let mut bytes = [0; ADDRESS_MAX];
        let bytes = bytes.get_mut(..len)?;
        let memory = File::open(format!("/proc/{}/mem", self.tid)).ok()?;
        memory.read_exact_at(bytes, address).ok()?;
        parse(bytes)
    }

    /// What a listener of the name would be, given what the socket is. `None` for sockets that
    /// are none of ours: of other kinds, or in another network or file system.
    pub(super) fn address(&self, name: Name) -> Option<Address> {
        let (family, kind) = self.kind()?;
        match name {
            Name::Ip(ip) if self.is_beside_us("net") => {
                let same = matches!(
                    (family, ip),
                    (AddressFamily::INET, SocketAddr::V4(_))
                        | (AddressFamily::INET6, SocketAddr::V6(_))
                );
                match kind {
                    _ if !same => None,
                    SocketType::STREAM => Some(Address::Tcp {
                        address: ip,
                        is_v6_only: family == AddressFamily::INET6 && self.is_v6_only(),
                    }),
                    SocketType::DGRAM => Some(Address::Udp(ip)),
                    _ => None,
                }
            }
            Name::Path(path) if self.is_beside_us("mnt") => {
                let is_stream = family == AddressFamily::UNIX && kind == SocketType::STREAM;
                let root = fs::read_link(format!("/proc/{}/root", self.tid)).ok()?;
                if !is_stream || root != Path::new("/") {
                    return None;
                }
                let folder = fs::read_link(format!("/proc/{}/cwd", self.tid)).ok()?;
                Some(Address::Unix(folder.join(path)))
            }
            _ => None,
        }
    }

    /// Options that connections inherit from their listener.
    pub(super) fn copy_options(&self, to: &OwnedFd) {
        let Some(from) = &self.socket else {
            return;
        };
        // One that can't be copied is one the program did not set.
        if sockopt::socket_keepalive(from) == Ok(true) {
            let _ = sockopt::set_socket_keepalive(to, true);
        }
        if sockopt::tcp_nodelay(from) == Ok(true) {
            let _ = sockopt::set_tcp_nodelay(to, true);
        }
    }

    fn kind(&self) -> Option<(AddressFamily, SocketType)> {
        if let Some(socket) = &self.socket {
            let family = sockopt::socket_domain(socket).ok()?;
            let kind = sockopt::socket_type(socket).ok()?;
            let protocol = sockopt::socket_protocol(socket).ok()?;
            let protocol = protocol.map_or(0, |protocol| protocol.as_raw().get());
            let is_ours = kind != SocketType::STREAM || TCP.contains(&protocol);
            return is_ours.then_some((family, kind));
        }
        // The name of the protocol, as the kernel tells it without a duplicate.
        let path = format!("/proc/{}/fd/{}", self.tid, self.fd);
        let mut name = [0_u8; 32];
        let len = rustix::fs::getxattr(path, "system.sockprotoname", &mut name[..]).ok()?;
        match name.get(..len)?.split(|byte| *byte == 0).next()? {
            b"TCP" => Some((AddressFamily::INET, SocketType::STREAM)),
            b"TCPv6" => Some((AddressFamily::INET6, SocketType::STREAM)),
            b"UDP" => Some((AddressFamily::INET, SocketType::DGRAM)),
            b"UDPv6" => Some((AddressFamily::INET6, SocketType::DGRAM)),
            b"UNIX-STREAM" => Some((AddressFamily::UNIX, SocketType::STREAM)),
            _ => None,
        }
    }

    fn is_v6_only(&self) -> bool {
        self.socket
            .as_ref()
            .is_some_and(|socket| sockopt::ipv6_v6only(socket) == Ok(true))
    }

    /// Whether the caller lives in the same namespace as we do.
    fn is_beside_us(&self, namespace: &str) -> bool {
        let of = |who: &str| fs::read_link(format!("/proc/{who}/ns/{namespace}")).ok();
        of(&self.tid.to_string()) == of("self")
    }
}

/// A duplicate of another process's descriptor.
fn duplicate(tid: i32, fd: RawFd) -> Option<OwnedFd> {
    let pidfd = pidfd_open(process_of(tid)?, PidfdFlags::empty()).ok()?;
    pidfd_getfd(&pidfd, fd, PidfdGetfdFlags::empty()).ok()
}

fn process_of(tid: i32) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    Pid::from_raw(line.trim().parse().ok()?)
}

/// An address as it lies in memory.
fn parse(bytes: &[u8]) -> Option<Name> {
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    match libc::c_int::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => {
            let (port, rest) = rest.split_first_chunk::<2>()?;
            let (ip, _) = rest.split_first_chunk::<4>()?;
            Some(Name::Ip(
                (Ipv4Addr::from(*ip), u16::from_be_bytes(*port)).into(),
            ))
        }
        libc::AF_INET6 => {
            let (port, rest) = rest.split_first_chunk::<2>()?;
            let (ip, _) = rest.get(4..)?.split_first_chunk::<16>()?;
            Some(Name::Ip(
                (Ipv6Addr::from(*ip), u16::from_be_bytes(*port)).into(),
            ))
        }
        libc::AF_UNIX => {
            // An empty path has the system choose, a zero byte starts a name outside the files.
            let path = rest.split(|byte| *byte == 0).next()?;
            (!path.is_empty()).then(|| Name::Path(OsStr::from_bytes(path).into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_read_as_they_lie_in_memory() {
        let four = [2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            parse(&four),
            Some(Name::Ip("127.0.0.1:8080".parse().unwrap()))
        );
        let mut six = vec![10, 0, 0, 80, 0, 0, 0, 0];
        six.extend(Ipv6Addr::LOCALHOST.octets());
        assert_eq!(parse(&six), Some(Name::Ip("[::1]:80".parse().unwrap())));
        assert_eq!(
            parse(b"\x01\0/run/a\0junk"),
            Some(Name::Path("/run/a".into()))
        );
        assert_eq!(parse(b"\x01\0\0abstract"), None);
        assert_eq!(parse(b"\x01\0"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..130)) {
            parse(&bytes);
        }
    }
}
