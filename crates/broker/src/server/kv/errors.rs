//! The region's errors, one to one.

use ganger_protocol::{ErrorBody, ErrorCode, FrameError};
use ganger_region::{ReadError, WriteError};

/// Why an operation failed, as its client is told.
#[derive(Debug)]
pub(in crate::server) struct Failure(pub(in crate::server) ErrorBody);

impl From<ErrorBody> for Failure {
    fn from(error: ErrorBody) -> Self {
        Self(error)
    }
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self(code.into())
    }
}

/// Only values can be too long for a frame here.
impl From<FrameError> for Failure {
    fn from(_: FrameError) -> Self {
        ErrorCode::AnswerTooLong.into()
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let text = error.to_string();
        let new = |code| ErrorBody::new(code, text);
        Self(match error {
            ReadError::KeyLen { len } => new(ErrorCode::KeyLen).actual(len),
            ReadError::Contended => new(ErrorCode::Contended),
            ReadError::Damaged(_) => new(ErrorCode::Damaged),
            _ => new(ErrorCode::Internal),
        })
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let text = error.to_string();
        let new = |code| ErrorBody::new(code, text);
        Self(match error {
            WriteError::KeyLen { len } => new(ErrorCode::KeyLen).actual(len),
            WriteError::ValueLen { len, limit } => {
                new(ErrorCode::ValueLen).actual(len).limit(limit)
            }
            WriteError::Full => new(ErrorCode::Full),
            WriteError::NoMemory(_) => new(ErrorCode::NoMemory),
            WriteError::ReadOnly => new(ErrorCode::ReadOnly),
            WriteError::Stalled { pid, .. } => new(ErrorCode::Stalled).actual(pid),
            WriteError::NotACounter => new(ErrorCode::NotACounter),
            WriteError::Overflow { value } => new(ErrorCode::Overflow).value(value),
            WriteError::Ttl { ttl_ms } => new(ErrorCode::Ttl).actual(ttl_ms),
            WriteError::Contended { .. } => new(ErrorCode::Contended),
            WriteError::Session(_) => new(ErrorCode::Session),
            WriteError::Damaged(_) => new(ErrorCode::Damaged),
            _ => new(ErrorCode::Internal),
        })
    }
}
