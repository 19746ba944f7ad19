//! Control messages: MessagePack with named fields.
//!
//! Both sides may be of different versions. Fields that the receiver doesn't know are ignored; those
//! that are missing have a default, if they were not there from the beginning; a variant that the
//! receiver doesn't know is an error of that request alone.

use crate::frame::FrameError;
use crate::limits::BODY_DEPTH_MAX;
use crate::op::Op;
use serde::de::DeserializeOwned;
use serde::Serialize;

/// A control message: the payload of the frames of one op.
pub trait Body: Serialize + DeserializeOwned {
    /// The op whose frames carry it.
    const OP: Op;

    /// Its bytes.
    fn to_bytes(&self) -> Result<Vec<u8>, EncodeError> {
        Ok(rmp_serde::to_vec_named(self)?)
    }

    /// The message of these bytes.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut left = bytes;
        let mut deserializer = rmp_serde::Deserializer::new(&mut left);
        deserializer.set_max_depth(BODY_DEPTH_MAX);
        let body = Self::deserialize(&mut deserializer).map_err(DecodeError::from)?;
        match left.len() {
            0 => Ok(body),
            more => Err(DecodeError::Malformed(format!("{more} bytes too many"))),
        }
    }
}

/// Why a control message could not be read. The request it belongs to fails, nothing else does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It is sound, but asks for something this build does not know.
    #[error("not known here: {0}")]
    Unknown(String),
    /// It is no MessagePack, or lacks something, or has something of another type.
    #[error("malformed: {0}")]
    Malformed(String),
}

/// Why a control message could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// It does not fit a frame.
    #[error(transparent)]
    Frame(FrameError),
    /// MessagePack has no room for it.
    #[error(transparent)]
    MessagePack(#[from] rmp_serde::encode::Error),
}

impl From<rmp_serde::decode::Error> for DecodeError {
    fn from(error: rmp_serde::decode::Error) -> Self {
        match error {
            // Serde's own words, and all it gives.
            rmp_serde::decode::Error::Syntax(text) if text.starts_with("unknown variant") => {
                Self::Unknown(text)
            }
            error => Self::Malformed(error.to_string()),
        }
    }
}

/// Says which op carries which message.
macro_rules! bodies {
    ($($body:ty => $op:ident,)*) => {
        $(impl $crate::Body for $body {
            const OP: $crate::Op = $crate::Op::$op;
        })*
    };
}
pub(crate) use bodies;

/// For `#[serde(default = ...)]`.
pub(crate) fn yes() -> bool {
    true
}
