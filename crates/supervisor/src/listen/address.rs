//! Addresses as people and programs name them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Longest path of a Unix socket that the system takes.
const UNIX_PATH_MAX: usize = 107;
/// What follows a v6 address that serves no v4.
const V6_ONLY: &str = ",v6only";

/// What a listener listens on. As text: `127.0.0.1:3000`, `:3000` (all addresses), `[::]:80`,
/// `[::]:80,v6only`, `unix:/run/app.sock`, `udp:0.0.0.0:53`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// TCP.
    Tcp {
        /// Address and port; port 0 stands for any free one.
        address: SocketAddr,
        /// Whether a v6 listener leaves v4 alone; of no meaning for v4.
        is_v6_only: bool,
    },
    /// A stream socket in the file system.
    Unix(PathBuf),
    /// UDP.
    Udp(SocketAddr),
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Of no known form.
    #[error("`{0}` is no address: use PORT, HOST:PORT, [V6]:PORT, unix:/PATH or udp:HOST:PORT")]
    Form(String),
    /// The host is a name.
    #[error("`{0}` is a name: give an IP address, or nothing for all (`:3000`)")]
    Name(String),
    /// The path of a Unix socket is too long or not absolute.
    #[error("`{0}` can't be a Unix socket: an absolute path of at most 107 bytes is needed")]
    Path(String),
}

impl Address {
    /// TCP, with v4 served by unspecified v6 addresses too, as most systems do.
    #[must_use]
    pub const fn tcp(address: SocketAddr) -> Self {
        Self::Tcp {
            address,
            is_v6_only: false,
        }
    }

    /// Address and port, if it has such.
    #[must_use]
    pub const fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp { address, .. } | Self::Udp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The path, if it has one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            _ => None,
        }
    }

    /// Whether the system is to choose the port.
    #[must_use]
    pub fn is_ephemeral(&self) -> bool {
        self.socket().is_some_and(|address| address.port() == 0)
    }

    /// The same with another port.
    pub(crate) fn with_port(&self, port: u16) -> Self {
        let mut other = self.clone();
        if let Self::Tcp { address, .. } | Self::Udp(address) = &mut other {
            address.set_port(port);
        }
        other
    }

    /// The same, but "all addresses" are those of the other's family.
    pub(crate) fn in_the_form_of(&self, other: &Self) -> Self {
        match (self, other) {
            (
                Self::Tcp { address, .. },
                Self::Tcp {
                    address: wanted,
                    is_v6_only,
                },
            ) if address.ip().is_unspecified() => {
                let ip: IpAddr = match wanted {
                    SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                Self::Tcp {
                    address: (ip, address.port()).into(),
                    is_v6_only: *is_v6_only,
                }
            }
            _ => self.clone(),
        }
    }

    /// Whether not both can be listened on: of the same kind, the same port, and an address in
    /// common.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(a), Self::Unix(b)) => a == b,
            (Self::Udp(a), Self::Udp(b)) => meet(a, false, b, false),
            (
                Self::Tcp {
                    address: a,
                    is_v6_only: a_only,
                },
                Self::Tcp {
                    address: b,
                    is_v6_only: b_only,
                },
            ) => meet(a, *a_only, b, *b_only),
            _ => false,
        }
    }
}

fn meet(a: &SocketAddr, a_only: bool, b: &SocketAddr, b_only: bool) -> bool {
    let covers = |whole: &SocketAddr, is_v6_only: bool, part: &SocketAddr| match whole.ip() {
        IpAddr::V4(ip) => ip.is_unspecified() && part.is_ipv4(),
        IpAddr::V6(ip) => ip.is_unspecified() && (part.is_ipv6() || !is_v6_only),
    };
    a.port() == b.port() && (a.ip() == b.ip() || covers(a, a_only, b) || covers(b, b_only, a))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp {
                address,
                is_v6_only,
            } => {
                let only = *is_v6_only && address.is_ipv6();
                write!(f, "{address}{}", if only { V6_ONLY } else { "" })
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Udp(address) => write!(f, "udp:{address}"),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') || path.len() > UNIX_PATH_MAX || path.contains('\0') {
                return Err(AddressError::Path(text.to_owned()));
            }
            return Ok(Self::Unix(path.into()));
        }
        if let Some(rest) = text.strip_prefix("udp:") {
            return Ok(Self::Udp(ip_and_port(rest, text)?));
        }
        let rest = text.strip_prefix("tcp:").unwrap_or(text);
        let only = rest.strip_suffix(V6_ONLY);
        Ok(Self::Tcp {
            address: ip_and_port(only.unwrap_or(rest), text)?,
            is_v6_only: only.is_some(),
        })
    }
}

fn ip_and_port(text: &str, whole: &str) -> Result<SocketAddr, AddressError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let form = || AddressError::Form(whole.to_owned());
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(form());
    }
    let port = port.parse().map_err(|_| form())?;
    match host {
        "" | "*" => Ok((Ipv6Addr::UNSPECIFIED, port).into()),
        "localhost" => Ok((Ipv4Addr::LOCALHOST, port).into()),
        _ if host.contains(':') => Err(form()),
        _ => Err(AddressError::Name(whole.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, written) in [
            ("127.0.0.1:3000", "127.0.0.1:3000"),
            (":3000", "[::]:3000"),
            ("3000", "[::]:3000"),
            ("*:80", "[::]:80"),
            ("localhost:80", "127.0.0.1:80"),
            ("tcp:[::1]:80", "[::1]:80"),
            ("[::]:80,v6only", "[::]:80,v6only"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("udp:0.0.0.0:53", "udp:0.0.0.0:53"),
            ("udp::53", "udp:[::]:53"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), written);
            assert_eq!(written.parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn what_is_no_address_is_told_with_the_reason() {
        for text in [
            "", ":", "x", "::1", "1.2.3.4", ":70000", "1:2:3", ":-1", ":+1",
        ] {
            assert!(
                matches!(text.parse::<Address>(), Err(AddressError::Form(_))),
                "{text}"
            );
        }
        assert!(matches!(
            "example:80".parse::<Address>(),
            Err(AddressError::Name(_))
        ));
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_MAX));
        for text in ["unix:app.sock", "unix:", &long] {
            assert!(
                matches!(text.parse::<Address>(), Err(AddressError::Path(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn addresses_overlap_where_the_system_says_busy() {
        let overlap = |a: &str, b: &str| {
            let (a, b): (Address, Address) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(a.overlaps(&b), b.overlaps(&a));
            a.overlaps(&b)
        };
        assert!(overlap("[::]:80", "127.0.0.1:80"));
        assert!(overlap("0.0.0.0:80", "127.0.0.1:80"));
        assert!(!overlap("[::]:80,v6only", "0.0.0.0:80"));
        assert!(overlap("[::]:80,v6only", "[::1]:80"));
        assert!(!overlap("0.0.0.0:80", "[::1]:80"));
        assert!(!overlap(":80", ":81"));
        assert!(!overlap(":80", "udp::80"));
        assert!(overlap("unix:/a", "unix:/a"));
    }
}
