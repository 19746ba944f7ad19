//! Snapshots: the state of the region in a file, so that it outlives a reboot.
//!
//! A snapshot is not one moment: it is taken key by key while writers go on. Each key that was
//! there all the time is in it once, with a value it had meanwhile.
//!
//! ```text
//! header   "GANGSNAP" | version u32 | flags u32 | region u64 | written_at_ms u64 | expected u64 | crc u32
//! block    "BLCK" | body_crc u32 | number u64 | entries u64 | body_len u64 | crc u32 | body
//! ...
//! end      "END." | 0 u32        | blocks u64 | entries u64 | 0 u64        | crc u32
//! entry    flags u8 | key_len u16 | value_len u64 | expires_at_ms u64 | key | value
//! ```
//!
//! Integers are little-endian; each `crc` (CRC-32) is of what stands before it in its part. Times
//! are of the wall clock, in milliseconds since 1970, because no other clock goes on over a reboot;
//! 0 is never. The file ends with the end. It is written beside the last one, forced to disk, and
//! then takes its name, so that there is a whole one at any time; the one before is kept as `.1`.

mod file;
mod format;
mod read;
mod write;

pub use file::{previous_path, restore, Onto, Restored, SnapshotFile};
pub use format::{Header, SnapshotEntry};
pub use read::SnapshotReader;
pub use write::SnapshotWriter;

use ganger_region::{ReadError, WriteError};
use std::io;
use std::path::PathBuf;

/// Why a snapshot could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The file could not be written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// The region could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why bytes are not a whole snapshot, and where.
#[derive(Debug, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Fault {
    /// The byte at which the part begins that is wrong.
    pub at: u64,
    /// What is wrong.
    pub what: What,
}

/// What is wrong with a snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum What {
    /// It begins as no snapshot does.
    #[error("no snapshot of ganger")]
    Magic,
    /// Written by a later version.
    #[error("snapshot version {found}, of which this build knows nothing,")]
    Version {
        /// The version.
        found: u32,
    },
    /// It ends early.
    #[error("the file ends within {part}")]
    Ends {
        /// Within what.
        part: &'static str,
    },
    /// The bytes are not those that were written.
    #[error("the checksum of {part} is wrong")]
    Checksum {
        /// Of what.
        part: &'static str,
    },
    /// The bytes make no sense.
    #[error("{reason}")]
    Nonsense {
        /// Why.
        reason: &'static str,
    },
    /// They can't be read.
    #[error("{0}")]
    Io(#[source] io::Error),
}

/// A snapshot file that was not used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct Refused {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

/// Why nothing could be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// There are files, and none of them is whole.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Refused>),
    /// The region did not take an entry.
    #[error("key `{}` of {} can't be restored: {error}", key.escape_ascii(), path.display())]
    Write {
        /// From which file.
        path: PathBuf,
        /// Which key.
        key: Vec<u8>,
        /// Why not.
        #[source]
        error: WriteError,
    },
}

#[cfg(test)]
mod tests;
