//! Why an address can't be listened on.

use rustix::io::Errno;

/// Why an address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another app of this supervisor has it.
    #[error("{address} is taken by app `{app}` of this supervisor (at {held})")]
    App {
        /// The address.
        address: String,
        /// The app.
        app: String,
        /// What it listens on.
        held: String,
    },
    /// The same app has it already under another form.
    #[error("{address} is taken by this app itself, which listens on {held}")]
    Own {
        /// The address.
        address: String,
        /// What it listens on.
        held: String,
    },
    /// Another process has it.
    #[error("{address} is taken by {holder}")]
    Busy {
        /// The address.
        address: String,
        /// Command and process number, where they can be found.
        holder: String,
    },
    /// Not permitted.
    #[error(
        "{address}: not permitted; ports below 1024 need root or CAP_NET_BIND_SERVICE, Unix \
         sockets a directory that may be written"
    )]
    Denied {
        /// The address.
        address: String,
    },
    /// No such address here.
    #[error("{address}: this machine has no such address")]
    Unavailable {
        /// The address.
        address: String,
        /// The system's reason.
        source: Errno,
    },
    /// Something other than a socket is at the path of a Unix socket.
    #[error("{address}: there is a file that is no socket")]
    NoSocket {
        /// The address.
        address: String,
    },
    /// The system refuses the program that spreads connections.
    #[error("{address}: the system refuses to spread connections: {source}")]
    Program {
        /// The address.
        address: String,
        /// Why.
        source: Errno,
    },
    /// Anything else.
    #[error("{address}: can't listen: {source}")]
    Other {
        /// The address.
        address: String,
        /// Why.
        source: Errno,
    },
}

impl ListenError {
    /// The error number that a program gets for it.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::App { .. } | Self::Own { .. } | Self::Busy { .. } | Self::NoSocket { .. } => {
                Errno::ADDRINUSE
            }
            Self::Denied { .. } => Errno::ACCESS,
            Self::Unavailable { source, .. }
            | Self::Program { source, .. }
            | Self::Other { source, .. } => *source,
        }
        .raw_os_error()
    }

    /// Of a system call on a socket for `address`.
    pub(super) fn of(address: &impl ToString, source: Errno) -> Self {
        let address = address.to_string();
        match source {
            Errno::ACCESS | Errno::PERM => Self::Denied { address },
            Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT | Errno::NODEV => {
                Self::Unavailable { address, source }
            }
            _ => Self::Other { address, source },
        }
    }
}
