//! The region's errors in the words of the protocol.

use ganger_protocol::{ErrorBody, ErrorCode};
use ganger_region::{ReadError, WriteError};

/// Of a read.
pub fn read(error: &ReadError) -> ErrorBody {
    let body = |code| ErrorBody::new(code, error.to_string());
    match error {
        ReadError::KeyLen { len } => body(ErrorCode::KeyLen).actual(*len),
        ReadError::Contended => body(ErrorCode::Contended),
        ReadError::Damaged(_) => body(ErrorCode::Damaged),
        _ => body(ErrorCode::Internal),
    }
}

/// Of a write.
pub fn write(error: &WriteError) -> ErrorBody {
    let body = |code| ErrorBody::new(code, error.to_string());
    match error {
        WriteError::KeyLen { len } => body(ErrorCode::KeyLen).actual(*len),
        WriteError::ValueLen { len, limit } => body(ErrorCode::ValueLen).actual(*len).limit(*limit),
        WriteError::Full => body(ErrorCode::Full),
        WriteError::NoMemory(_) => body(ErrorCode::NoMemory),
        WriteError::ReadOnly => body(ErrorCode::ReadOnly),
        WriteError::Stalled { pid, .. } => body(ErrorCode::Stalled).actual(*pid),
        WriteError::NotACounter | WriteError::IsCounter => body(ErrorCode::NotACounter),
        WriteError::Overflow { value } => body(ErrorCode::Overflow).value(*value),
        WriteError::Ttl { ttl_ms } => body(ErrorCode::Ttl).actual(*ttl_ms),
        WriteError::Contended { .. } => body(ErrorCode::Contended),
        WriteError::Session(_) => body(ErrorCode::Session),
        WriteError::Damaged(_) => body(ErrorCode::Damaged),
        _ => body(ErrorCode::Internal),
    }
}
