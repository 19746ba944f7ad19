//! What can go wrong, one error type per group of operations.

use crate::layout::{KEY_LEN_MAX, LAYOUT_VERSION};
use std::io;
use std::time::Duration;

/// The region's bytes contradict themselves. Nothing was changed; other keys may be fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the region is damaged: {what} at byte {offset}")]
pub struct Damaged {
    /// What was found.
    pub what: &'static str,
    /// Byte offset in the region.
    pub offset: u64,
}

/// Why a region could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The size holds no usable region, or more than the layout can name.
    #[error("a region of {len} bytes is not possible: {why}")]
    Size {
        /// Bytes asked for.
        len: u64,
        /// Which limit was met.
        why: &'static str,
    },
    /// A name must be 1..=250 bytes without `/` and NUL.
    #[error("`{0}` is no name for a region: use 1 to 250 bytes without `/`")]
    Name(String),
    /// There is a region of this name.
    #[error("a region named `{0}` exists already: open it, or remove it first")]
    Exists(String),
    /// The system gave no memory for the fixed part of the region.
    #[error("no memory for the region: {0}")]
    NoMemory(#[source] io::Error),
    /// The system refused something else.
    #[error("the region could not be made: {0}")]
    Io(#[from] io::Error),
    /// The region was made, but its maker got no session in it.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Why a process could not attach to a region.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// A name must be 1..=250 bytes without `/` and NUL.
    #[error("`{0}` is no name for a region: use 1 to 250 bytes without `/`")]
    Name(String),
    /// There is no region of this name.
    #[error("there is no region named `{0}`")]
    NotFound(String),
    /// The file is too short for a region, or holds something else.
    #[error("this is not a region: {0}")]
    NotARegion(&'static str),
    /// The region was never finished: its maker died, or is still at it.
    #[error(
        "the region is unfinished: its maker died before it was done; remove it and make a new one"
    )]
    Unfinished,
    /// Made by a build with another layout.
    #[error(
        "the region has layout version {found}, this build reads version \
         {LAYOUT_VERSION}: use the same release on both sides"
    )]
    Version {
        /// Version in the region.
        found: u32,
    },
    /// The region uses features this build does not know.
    #[error("the region has unknown feature bits {unknown:#x}: use a newer release")]
    Features {
        /// The unknown bits.
        unknown: u32,
    },
    /// Sizes in the header contradict each other or the file's length.
    #[error("the region's header is damaged: {0}")]
    Header(&'static str),
    /// A memory file that its sender could truncate under us.
    #[error(
        "the memory file is not sealed against shrinking, so its owner could crash this process"
    )]
    NotSealed,
    /// A file of this name that somebody else may cut.
    #[error(
        "user {owner} owns the region, and could truncate its file, which crashes this process: \
         attach as that user"
    )]
    Foreign {
        /// User id of the file's owner.
        owner: u32,
    },
    /// The system refused.
    #[error("the region could not be attached: {0}")]
    Io(#[from] io::Error),
    /// No session.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Why a process got no session, which every writer needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// All sessions are held by living processes.
    #[error(
        "all {limit} sessions of the region are taken: detach a process, or make the \
         region with more"
    )]
    Exhausted {
        /// Sessions the region was made for.
        limit: u64,
    },
    /// This process holds as many handles that may write as one process can.
    #[error(
        "this process has {limit} handles with a session, as many as a process can: drop one, \
         clone one, or attach read-only"
    )]
    Handles {
        /// Handles a process can hold, of all regions together.
        limit: usize,
    },
    /// The system refused the liveness lock.
    #[error("no liveness lock for the session: {0}")]
    Io(#[from] io::Error),
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Keys are 1..=1024 bytes.
    #[error("a key of {len} bytes: keys are 1 to {KEY_LEN_MAX} bytes")]
    KeyLen {
        /// Its length.
        len: usize,
    },
    /// The entry changed a million times while it was read.
    #[error("the entry changed faster than it could be read")]
    Contended,
    /// The bytes make no sense.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

/// Why a write failed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Keys are 1..=1024 bytes.
    #[error("a key of {len} bytes: keys are 1 to {KEY_LEN_MAX} bytes")]
    KeyLen {
        /// Its length.
        len: usize,
    },
    /// Values are up to a quarter of the region.
    #[error("a value of {len} bytes: values in this region are up to {limit} bytes")]
    ValueLen {
        /// Its length.
        len: u64,
        /// The region's limit.
        limit: u64,
    },
    /// No room, and the region does not evict.
    #[error("the region is full: delete something, use expiries, or make a larger region")]
    Full,
    /// The region is not full, but the system gave it no more memory.
    #[error("the system gave the region no more memory: {0}")]
    NoMemory(#[source] io::Error),
    /// This handle attached for reading only.
    #[error("this handle is read-only")]
    ReadOnly,
    /// A living process holds the lock of the key's shard and does not move on.
    #[error(
        "process {pid} holds the shard's lock for more than {waited:?}: it is stopped or \
         starved; end or continue it"
    )]
    Stalled {
        /// Process id in the holder's own pid namespace.
        pid: u64,
        /// How long this call waited.
        waited: Duration,
    },
    /// `append` to a counter.
    #[error("the value is a counter, to which nothing can be appended")]
    IsCounter,
    /// `incr` on a value that is no counter.
    #[error("the value is not a counter")]
    NotACounter,
    /// The counter would leave the range of an `i64`; it keeps its value.
    #[error("the counter would overflow; it stays at {value}")]
    Overflow {
        /// Its value.
        value: i64,
    },
    /// A time to live beyond what the clock can express.
    #[error("a time to live of {ttl_ms} ms is beyond the clock's range")]
    Ttl {
        /// Milliseconds asked for.
        ttl_ms: u64,
    },
    /// Others changed the key between each of the attempts.
    #[error("the key kept changing: gave up after {attempts} attempts")]
    Contended {
        /// Attempts made.
        attempts: u32,
    },
    /// The process forked and got no session of its own.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The bytes make no sense.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

/// Whether a write failed for want of room, which evicting or sweeping may make.
pub(crate) fn lacks_room<T>(result: &Result<T, WriteError>) -> bool {
    matches!(result, Err(WriteError::Full | WriteError::NoMemory(_)))
}

impl From<ReadError> for WriteError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::KeyLen { len } => Self::KeyLen { len },
            ReadError::Contended => Self::Contended {
                attempts: crate::limits::READ_ATTEMPTS,
            },
            ReadError::Damaged(damaged) => Self::Damaged(damaged),
        }
    }
}

/// Why a typed read or write failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypedError {
    /// The read failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The write failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The value is not of this type.
    #[error("the value is not of the asked type: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// The type can't be written as MessagePack.
    #[error("the value can't be written as MessagePack: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}
