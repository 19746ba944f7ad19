//! How a verb can end without having done what it was asked: one line, one exit code.

use ganger_client::protocol::ErrorCode;
use ganger_client::{AttachError, Error, KvError, ReadError, WriteError};
use std::io::{self, Write};
use std::process::ExitCode;

/// Why a verb did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// 1: the key is not there, the condition is not met, others hold the lock.
    #[error("{0}")]
    Absent(String),
    /// 2: it can't be asked like this.
    #[error("{0}")]
    Usage(String),
    /// 3: there is no broker, or no region.
    #[error("{0}")]
    NoBroker(String),
    /// 4: it was asked, and did not work.
    #[error("{0}")]
    Failed(String),
    /// The exit code of a command that ran on our behalf; it has said itself what is wrong.
    #[error("the command ended with {0}")]
    Status(u8),
    /// Ended by a signal: 128 and its number.
    #[error("ended by signal {0}")]
    Signal(i32),
    /// Nobody reads our output any more. That is no failure: who wants ten lines gets ten lines.
    #[error("nobody reads the output")]
    Unread,
}

impl Failure {
    pub(crate) fn absent(key: &[u8]) -> Self {
        Self::Absent(format!("{} is not there", crate::output::printable(key)))
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Absent(_) => 1,
            Self::Usage(_) => 2,
            Self::NoBroker(_) => 3,
            Self::Failed(_) => 4,
            Self::Status(code) => *code,
            Self::Signal(signal) => 128_u8.saturating_add(u8::try_from(*signal).unwrap_or(127)),
            Self::Unread => 0,
        }
    }

    /// Says it on standard error, in one line.
    pub(crate) fn say(&self) {
        match self {
            Self::Status(_) | Self::Signal(_) | Self::Unread => {}
            told => complain(&told.to_string()),
        }
    }

    pub(crate) fn report(&self) -> ExitCode {
        self.say();
        ExitCode::from(self.code())
    }
}

/// One line on standard error; whoever closed it does not want to know.
pub(crate) fn complain(what: &str) {
    let line = what.replace('\n', "; ");
    let _ = writeln!(io::stderr(), "broker-cli: {line}");
}

/// What the command line's parser has to say: help and version are no failures, and all else is one
/// line.
pub(crate) fn of_arguments(error: &clap::Error) -> ExitCode {
    ExitCode::from(match told(error) {
        Some(line) => {
            complain(&line);
            2
        }
        None if error.use_stderr() => 2,
        None => 0,
    })
}

/// What is wrong with the arguments, as one line; `None` if help was shown instead.
pub(crate) fn told(error: &clap::Error) -> Option<String> {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as NoArguments;
    if !error.use_stderr() || error.kind() == NoArguments {
        let _ = error.print();
        return None;
    }
    let text = error.render().to_string();
    let is_wrong = |line: &&str| !line.starts_with("Usage:") && !line.starts_with("For more");
    let lines = text.lines().take_while(is_wrong).map(str::trim);
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let line = lines.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    Some(format!("{line} (see --help)"))
}

/// Errors of writing our output. Others are turned by [`input`](crate::input).
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Failed(format!("the output can't be written: {error}")),
        }
    }
}

impl From<KvError> for Failure {
    fn from(error: KvError) -> Self {
        of_kv(&error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match &error {
            Error::Kv(error) => of_kv(error),
            Error::Home(_) | Error::NoRegion | Error::ConnectionLost | Error::Closed => {
                Self::NoBroker(text)
            }
            error if error.is_no_broker() => Self::NoBroker(text),
            Error::Subject(error) => Self::Usage(format!("no subject, pattern or name: {error}")),
            Error::Headers(_) | Error::Frame(_) => Self::Usage(text),
            Error::Taken => Self::Absent(text),
            Error::Refused(body) => match body.code {
                ErrorCode::KeyLen
                | ErrorCode::ReservedKey
                | ErrorCode::ValueLen
                | ErrorCode::Ttl
                | ErrorCode::Invalid
                | ErrorCode::BadSubject => Self::Usage(body.message.clone()),
                _ => Self::Failed(format!("the broker refused it: {body}")),
            },
            Error::Failed(reply) => {
                let why = crate::output::printable(reply.payload());
                Self::Failed(format!("the responder could not do it: {why}"))
            }
            _ => Self::Failed(text),
        }
    }
}

fn of_kv(error: &KvError) -> Failure {
    let text = error.to_string();
    match error {
        KvError::Write(
            WriteError::KeyLen { .. } | WriteError::ValueLen { .. } | WriteError::Ttl { .. },
        )
        | KvError::Read(ReadError::KeyLen { .. })
        | KvError::Attach(AttachError::Name(_)) => Failure::Usage(text),
        KvError::Attach(_)
        | KvError::NoRegion
        | KvError::FdNumber { .. }
        | KvError::FdClosed { .. }
        | KvError::Environment { .. } => Failure::NoBroker(text),
        _ => Failure::Failed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_failure_has_its_exit_code() {
        let too_long = KvError::Write(WriteError::KeyLen { len: 2000 });
        let full = KvError::Write(WriteError::Full);
        let missing = KvError::Attach(AttachError::NotFound("shop".into()));
        for (failure, code) in [
            (Failure::absent(b"key"), 1),
            (Failure::from(Error::Taken), 1),
            (Failure::from(too_long), 2),
            (Failure::from(missing), 3),
            (Failure::from(Error::ConnectionLost), 3),
            (Failure::from(full), 4),
            (Failure::from(Error::Timeout), 4),
            (Failure::Signal(2), 130),
            (Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)), 0),
        ] {
            assert_eq!(failure.code(), code, "{failure}");
        }
    }
}
