//! One error for all calls, so that `?` works on each of them.

use crate::env::{REGION_FD_VARIABLE, REGION_VARIABLE};
use ganger_region::{AttachError, CreateError, ReadError, TypedError, WriteError};

/// What the calls of this crate return.
pub type Result<T, E = KvError> = std::result::Result<T, E>;

/// Why a call failed. The region's own errors are inside, to be told apart where that matters:
///
/// ```
/// use ganger_client::{Config, Kv, KvError, WriteError};
///
/// let kv = Kv::create(Config::new(1 << 20))?;
/// kv.set("name", "Ada")?;
/// match kv.incr("name", 1) {
///     Err(KvError::Write(WriteError::NotACounter)) => {}
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), KvError>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// The region could not be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The region could not be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A read failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A write failed, and nothing was changed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The value is not of the asked type, or the type can't be written.
    #[error(transparent)]
    Typed(TypedError),
    /// The environment names no region.
    #[error(
        "no region in the environment: start this program under `ganger`, or set {REGION_VARIABLE} \
         to a region's name or {REGION_FD_VARIABLE} to the number of an inherited descriptor"
    )]
    NoRegion,
    /// The environment's descriptor is no number.
    #[error("{REGION_FD_VARIABLE} is `{value}`, which is not the number of a descriptor")]
    FdNumber {
        /// What it is.
        value: String,
    },
    /// The environment's descriptor is not open in this process.
    #[error(
        "{REGION_FD_VARIABLE} is {fd}, but descriptor {fd} is not open in this process: whoever \
         starts it must let it inherit the descriptor (without close-on-exec)"
    )]
    FdClosed {
        /// Its number.
        fd: u32,
    },
    /// What the environment names could not be attached.
    #[error("{setting}: {error}")]
    Environment {
        /// The variable and its value.
        setting: String,
        /// Why not.
        #[source]
        error: AttachError,
    },
}

impl From<TypedError> for KvError {
    fn from(error: TypedError) -> Self {
        match error {
            TypedError::Read(error) => Self::Read(error),
            TypedError::Write(error) => Self::Write(error),
            other => Self::Typed(other),
        }
    }
}
