//! System calls on listening sockets.

use super::Address;
use libc::{c_int, sock_filter};
use rustix::io::Errno;
use rustix::net::{sockopt, AddressFamily, SocketFlags, SocketType};
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

/// `TCP_LISTEN`, as `TCP_INFO` tells it.
const LISTEN: u8 = 10;

/// A socket bound to an IP address, that may share it with others of its group. The first of a
/// group is bound alone, so that it finds out whether anybody else is there, and shares then.
pub(super) fn open(address: &Address, has_group: bool) -> Result<OwnedFd, Errno> {
    let (ip, kind) = match address {
        Address::Tcp { address, .. } => (address, SocketType::STREAM),
        Address::Udp(address) => (address, SocketType::DGRAM),
        Address::Unix(_) => return Err(Errno::AFNOSUPPORT),
    };
    let family = match ip {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family, kind, flags, None)?;
    if let Address::Tcp { is_v6_only, .. } = address {
        // Connections that linger after a close don't keep their port.
        sockopt::set_socket_reuseaddr(&fd, true)?;
        if ip.is_ipv6() {
            sockopt::set_ipv6_v6only(&fd, *is_v6_only)?;
        }
    } else if ip.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, false)?;
    }
    if has_group {
        sockopt::set_socket_reuseport(&fd, true)?;
    }
    rustix::net::bind(&fd, ip)?;
    if !has_group {
        sockopt::set_socket_reuseport(&fd, true)?;
    }
    Ok(fd)
}

/// Has a TCP socket queue connections; it joins its group by that. Nothing for UDP.
pub(super) fn listen(fd: &OwnedFd, address: &Address, backlog: u32) -> Result<(), Errno> {
    if matches!(address, Address::Udp(_)) {
        return Ok(());
    }
    rustix::net::listen(fd, c_int::try_from(backlog).unwrap_or(c_int::MAX))
}

/// The port a socket is bound to.
pub(super) fn port(fd: &OwnedFd) -> Result<u16, Errno> {
    let name = rustix::net::getsockname(fd)?;
    SocketAddr::try_from(name).map(|address| address.port())
}

/// Sets the program that chooses within the socket's group.
pub(super) fn attach(fd: &OwnedFd, program: &[sock_filter]) -> Result<(), Errno> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::INVAL)?,
        filter: program.as_ptr().cast_mut(),
    };
    let len = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).unwrap_or(0);
    // SAFETY: an option of this type and length; the kernel copies `len` instructions and writes
    // to none.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            len,
        )
    };
    if result < 0 {
        return Err(last_errno());
    }
    Ok(())
}

/// Connections that wait to be accepted.
pub(super) fn queue_len(fd: &OwnedFd) -> u32 {
    // The kernel puts a listener's queue into the field for unacknowledged segments.
    info(fd).map_or(0, |info| info.tcpi_unacked)
}

pub(super) fn is_listening(fd: &OwnedFd) -> bool {
    info(fd).is_none_or(|info| info.tcpi_state == LISTEN)
}

fn info(fd: &OwnedFd) -> Option<libc::tcp_info> {
    // SAFETY: all zeroes is a value of the type, which has numbers only.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap_or(0);
    // SAFETY: the kernel writes at most `len` bytes, and `len`.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    (result == 0).then_some(info)
}

fn last_errno() -> Errno {
    let error = std::io::Error::last_os_error();
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
