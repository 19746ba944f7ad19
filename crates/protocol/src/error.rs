//! What can go wrong with a request, in words that stay the same over versions.

use crate::body::{bodies, DecodeError};
use crate::subject::SubjectError;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Makes [`ErrorCode`] from one table: variant, word on the wire, meaning.
macro_rules! codes {
    ($($name:ident = $word:literal, $meaning:literal;)*) => {
        /// Why a request failed, as one word on the wire.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $(#[doc = $meaning] $name,)*
            /// A word this build does not know.
            Other(String),
        }

        impl ErrorCode {
            /// Every code this build knows.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its word.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $word,)*
                    Self::Other(word) => word,
                }
            }

            /// What it means, in a sentence.
            pub fn meaning(&self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)*
                    Self::Other(_) => "Not known to this build.",
                }
            }
        }

        impl From<&str> for ErrorCode {
            fn from(word: &str) -> Self {
                match word {
                    $($word => Self::$name,)*
                    _ => Self::Other(word.to_owned()),
                }
            }
        }
    };
}

codes! {
    // The connection. Those marked as fatal are followed by its end.
    UnsupportedVersion = "unsupported_version", "The two sides share no protocol version. Fatal.";
    NotGreeted = "not_greeted", "The first frame was no hello, or a second hello came. Fatal.";
    BadFrame = "bad_frame", "The bytes are no frame, or one longer than the limit. Fatal.";
    NotAllowed = "not_allowed", "The peer is not of an allowed user or group, or may not do this.";
    TooManyConnections = "too_many_connections", "The broker has all connections it takes. Fatal.";
    TooSlow = "too_slow", "The client does not read what it asked for. Fatal, or ends a subscription.";
    Draining = "draining", "The broker is about to stop and begins nothing new.";

    // Any request.
    UnknownOperation = "unknown_operation", "The broker does not know the op, or a variant in it.";
    Malformed = "malformed", "The request's body could not be read.";
    Invalid = "invalid", "The request contradicts itself, or a field is out of range.";
    IdInUse = "id_in_use", "The id belongs to a request or subscription that goes on.";
    UnknownId = "unknown_id", "There is nothing of this id.";
    Cancelled = "cancelled", "The client cancelled the request.";
    Timeout = "timeout", "The deadline passed.";
    Unavailable = "unavailable", "The broker can't do this now, or was started without it.";
    Internal = "internal", "The broker failed; its log says why.";

    // Messages.
    BadSubject = "bad_subject", "The subject, pattern or name is not a sound one.";
    BadHeaders = "bad_headers", "The headers are no map of texts to bytes.";
    TooManySubscriptions = "too_many_subscriptions", "The connection has all subscriptions it may.";
    TooManyChannels = "too_many_channels", "The broker has all channels it may.";
    TooManyRetained = "too_many_retained", "The broker keeps all retained messages it may.";
    BadReference = "bad_reference", "The payload that the message refers to is not there.";
    NoResponders = "no_responders", "Nobody answers requests of this subject.";
    WorkerDied = "worker_died", "The responder's connection ended before it answered.";
    TooManyRequests = "too_many_requests", "The connection has all requests waiting that it may.";

    // Keys.
    KeyLen = "key_len", "Keys are 1 to 1024 bytes. `actual`: its length.";
    ReservedKey = "reserved_key", "Keys that begin with the byte 0 are Ganger's own.";
    ValueLen = "value_len", "The value is too long. `actual`: its length, `limit`: the longest.";
    AnswerTooLong = "answer_too_long", "The answer does not fit a frame.";
    Full = "full", "The region is full.";
    NoMemory = "no_memory", "The system gave the region no more memory.";
    ReadOnly = "read_only", "The broker has the region for reading only.";
    Stalled = "stalled", "A stopped process holds a lock of the region. `actual`: its process id.";
    NotACounter = "not_a_counter", "The value is no counter.";
    Overflow = "overflow", "The counter would overflow. `value`: what it stays at.";
    Ttl = "ttl", "The time to live is beyond the clock. `actual`: its milliseconds.";
    Contended = "contended", "The key changed faster than it could be read or updated.";
    Session = "session", "The broker has no session in the region.";
    Damaged = "damaged", "The region's bytes contradict themselves there.";
    BatchTooLong = "batch_too_long", "The batch has too many parts. `limit`: the most.";
    TooManyEphemeral = "too_many_ephemeral", "The connection has all ephemeral keys it may.";

    // Watches and leases.
    TooManyWatches = "too_many_watches", "The connection has all watches it may.";
    NotHeld = "not_held", "The lease is not held under this token, or not any more.";
    Taken = "taken", "Others hold the lease, and the request would not wait.";
    TooManyLeases = "too_many_leases", "The connection or the broker has all leases it may.";
    TooManyWaiters = "too_many_waiters", "The lease has all waiters it may.";

    // Administration.
    SnapshotFailed = "snapshot_failed", "The snapshot could not be written or read.";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|word| Self::from(word.as_str()))
    }
}

/// Body of [`Op::Error`](crate::Op::Error), and of a failed part of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct ErrorBody {
    /// Which kind.
    pub code: ErrorCode,
    /// A sentence for people.
    #[serde(default)]
    pub message: String,
    /// The limit that was met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// What met it, or whatever the code says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<u64>,
    /// The counter that would have overflowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<i64>,
}

bodies! {
    ErrorBody => Error,
}

impl ErrorBody {
    /// An error with a sentence for people.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            limit: None,
            actual: None,
            value: None,
        }
    }

    /// With the limit that was met.
    #[must_use]
    pub fn limit(mut self, limit: impl TryInto<u64>) -> Self {
        self.limit = limit.try_into().ok();
        self
    }

    /// With what met the limit.
    #[must_use]
    pub fn actual(mut self, actual: impl TryInto<u64>) -> Self {
        self.actual = actual.try_into().ok();
        self
    }

    /// With the counter's value.
    #[must_use]
    pub fn value(mut self, value: i64) -> Self {
        self.value = Some(value);
        self
    }
}

/// The code's own sentence.
impl From<ErrorCode> for ErrorBody {
    fn from(code: ErrorCode) -> Self {
        let message = code.meaning();
        Self::new(code, message)
    }
}

impl From<DecodeError> for ErrorBody {
    fn from(error: DecodeError) -> Self {
        let code = match error {
            DecodeError::Unknown(_) => ErrorCode::UnknownOperation,
            DecodeError::Malformed(_) => ErrorCode::Malformed,
        };
        Self::new(code, error.to_string())
    }
}

impl From<SubjectError> for ErrorBody {
    fn from(error: SubjectError) -> Self {
        Self::new(ErrorCode::BadSubject, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Body;

    #[test]
    fn every_code_is_a_short_word_of_its_own() {
        let mut words: Vec<&str> = ErrorCode::ALL.iter().map(ErrorCode::as_str).collect();
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from(code.as_str()), *code);
            let sound = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(code.as_str().len() <= 24 && code.as_str().chars().all(sound));
            let error = ErrorBody::from(code.clone()).limit(3_u64).value(-1);
            assert_eq!(
                ErrorBody::from_bytes(&error.to_bytes().unwrap()).unwrap(),
                error
            );
        }
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), ErrorCode::ALL.len());
    }

    #[test]
    fn a_code_of_a_later_version_is_kept_as_it_is() {
        let error = ErrorBody::from_bytes(b"\x81\xa4code\xa7no_luck").unwrap();
        assert_eq!(
            error,
            ErrorBody::new(ErrorCode::Other("no_luck".into()), "")
        );
        assert_eq!(error.code.to_string(), "no_luck");
    }
}
