//! Why operations fail.

use crate::services::region_error;
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
        Self(region_error::read(&error))
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Self(region_error::write(&error))
    }
}
