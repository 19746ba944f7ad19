//! What can go wrong between a client and its broker.

use super::respond::Reply;
use crate::error::KvError;
use crate::home::HomeError;
use ganger_protocol::headers::HeadersError;
use ganger_protocol::{DecodeError, EncodeError, ErrorBody, ErrorCode, FrameError, SubjectError};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Why a call of a [`Client`](super::Client) failed.
///
/// ```no_run
/// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
/// use ganger_client::Error;
///
/// match client.request("price.of", "pears").await {
///     Ok(reply) => println!("{:?}", reply.payload()),
///     Err(Error::NoResponders) => println!("nobody sells anything today"),
///     Err(Error::WorkerDied) => println!("the one who was asked died: ask again, if that does no harm"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // Getting there.
    /// The home directory can't be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Nobody listens at the broker's socket, or the connection could not be made.
    #[error("no broker at {}: {error}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        error: Arc<io::Error>,
    },
    /// The broker took the connection and did not greet in time.
    #[error("the broker at {} took the connection and said nothing for {waited:?}", socket.display())]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// How long.
        waited: Duration,
    },
    /// The connection ended before the answer came: whether the broker did it, nobody knows.
    #[error("the connection to the broker was lost before the answer came")]
    ConnectionLost,
    /// There was no connection for as long as the call may wait; nothing was sent.
    #[error("not connected to the broker")]
    NotConnected,
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
    /// The thread or runtime of a [`blocking`](crate::blocking) client could not be made.
    #[error("no thread for the connection: {0}")]
    Thread(Arc<io::Error>),
    /// The other side does not keep to the protocol.
    #[error("the broker sent something that makes no sense: {what}")]
    Protocol {
        /// What.
        what: String,
    },

    // What was asked.
    /// Not a subject, pattern or name.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// Not headers that can be sent.
    #[error(transparent)]
    Headers(#[from] HeadersError),
    /// Too long for a frame.
    #[error("{0}")]
    Frame(Arc<FrameError>),
    /// Can't be written as a message.
    #[error("{0}")]
    Encode(String),

    // Limits of this side.
    /// What waits for the connection to come back fills its buffer.
    #[error("not connected, and the buffer for what is to be published is full")]
    BufferFull,
    /// It waited for the connection to come back as long as it may; nothing was sent.
    #[error("not connected for too long: it was not published")]
    Expired,
    /// As many calls wait for their answers as may.
    #[error("{limit} calls wait for their answers: there may be no more")]
    TooManyCalls {
        /// How many may.
        limit: usize,
    },

    // Answers.
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// Nobody answers requests of this subject.
    #[error("nobody answers requests of this subject")]
    NoResponders,
    /// The responder that was asked ended before it answered.
    #[error("the responder ended before it answered")]
    WorkerDied,
    /// The responder dropped the request.
    #[error("the responder dropped the request without an answer")]
    Unanswered,
    /// The responder could not do it, and says why in its own terms.
    #[error("the responder could not do it")]
    Failed(Reply),
    /// Others hold the lease.
    #[error("others hold the lease")]
    Taken,
    /// The lease is not held any more.
    #[error("the lease is not held any more")]
    NotHeld,
    /// The subscription was too slow, and asked to be ended rather than to lose messages.
    #[error("the subscription was too slow")]
    TooSlow,
    /// The broker refused it, for another reason.
    #[error("refused: {0}")]
    Refused(ErrorBody),

    // The region.
    /// The broker gave no region: keys can only be had over the socket.
    #[error("the broker gave this client no region: use its remote_kv()")]
    NoRegion,
    /// The region that the broker gave can't be attached or used.
    #[error(transparent)]
    Kv(Arc<KvError>),
}

impl Error {
    /// Whether there is no broker to talk to, now.
    pub fn is_no_broker(&self) -> bool {
        matches!(
            self,
            Self::Home(HomeError::Missing { .. })
                | Self::Connect { .. }
                | Self::Silent { .. }
                | Self::NotConnected
        )
    }

    /// The broker's own words, if it refused.
    pub fn refusal(&self) -> Option<&ErrorBody> {
        match self {
            Self::Refused(body) => Some(body),
            _ => None,
        }
    }

    pub(crate) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol { what: what.into() }
    }

    /// Whether to try again would have the same end.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Refused(body) => matches!(
                body.code,
                ErrorCode::UnsupportedVersion | ErrorCode::NotAllowed | ErrorCode::Malformed
            ),
            Self::Home(HomeError::Missing { .. } | HomeError::Io { .. }) => false,
            Self::Home(_) | Self::Protocol { .. } => true,
            _ => false,
        }
    }
}

impl From<ErrorBody> for Error {
    fn from(body: ErrorBody) -> Self {
        match body.code {
            ErrorCode::Timeout => Self::Timeout,
            ErrorCode::NoResponders => Self::NoResponders,
            ErrorCode::WorkerDied => Self::WorkerDied,
            ErrorCode::Taken => Self::Taken,
            ErrorCode::NotHeld => Self::NotHeld,
            ErrorCode::TooSlow => Self::TooSlow,
            _ => Self::Refused(body),
        }
    }
}

impl From<KvError> for Error {
    fn from(error: KvError) -> Self {
        Self::Kv(Arc::new(error))
    }
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Self {
        Self::Frame(Arc::new(error))
    }
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Frame(error) => error.into(),
            error => Self::Encode(error.to_string()),
        }
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::protocol(error.to_string())
    }
}
