//! Which region the environment names: how a supervisor tells its workers.

use crate::error::{KvError, Result};
use ganger_region::AttachError;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;

/// Environment variable with the number of an inherited descriptor of the region. Looked at first.
pub const REGION_FD_VARIABLE: &str = "GANGER_REGION_FD";
/// Environment variable with the name of a region.
pub const REGION_VARIABLE: &str = "GANGER_REGION";

/// Where the environment says the region is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Fd(u32),
    Name(String),
}

impl Source {
    /// `variable` looks a variable up. An empty one counts as not set.
    pub(crate) fn find(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let text = |name| {
            let value = variable(name).filter(|value| !value.is_empty())?;
            // What is no UTF-8 is neither a number nor a region's name; the error shows what it
            // looks like.
            Some(value.to_string_lossy().into_owned())
        };
        if let Some(value) = text(REGION_FD_VARIABLE) {
            // The kernel's descriptors are non-negative `int`s.
            return match value
                .parse::<i32>()
                .ok()
                .and_then(|fd| u32::try_from(fd).ok())
            {
                Some(fd) => Ok(Self::Fd(fd)),
                None => Err(KvError::FdNumber { value }),
            };
        }
        text(REGION_VARIABLE)
            .map(Self::Name)
            .ok_or(KvError::NoRegion)
    }

    /// The error for what went wrong with this source.
    pub(crate) fn error(&self, error: AttachError) -> KvError {
        let setting = match self {
            Self::Fd(fd) => format!("{REGION_FD_VARIABLE}={fd}"),
            Self::Name(name) => format!("{REGION_VARIABLE}={name}"),
        };
        KvError::Environment { setting, error }
    }
}

/// A descriptor of our own for the file behind an inherited one.
///
/// It is opened anew through /proc: to adopt a number is `unsafe`, since it may be another part's
/// property or not open at all. This way a wrong number is an error, and the inherited descriptor
/// stays as it was.
pub(crate) fn reopen(fd: u32, writable: bool) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{fd}");
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => KvError::FdClosed { fd },
        _ => Source::Fd(fd).error(AttachError::Io(error)),
    };
    // Opening a pipe could wait for its other end for ever.
    if !fs::metadata(&path).map_err(failed)?.is_file() {
        let error = AttachError::NotARegion("the descriptor is not one of a memory file");
        return Err(Source::Fd(fd).error(error));
    }
    let file = OpenOptions::new().read(true).write(writable).open(&path);
    Ok(file.map_err(failed)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(set: &[(&str, &str)]) -> Result<Source> {
        Source::find(|name| {
            let found = set.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_descriptor_comes_before_the_name() {
        let both = find(&[(REGION_VARIABLE, "shop"), (REGION_FD_VARIABLE, "7")]);
        assert_eq!(both.unwrap(), Source::Fd(7));
        let name = find(&[(REGION_VARIABLE, "shop"), (REGION_FD_VARIABLE, "")]);
        assert_eq!(name.unwrap(), Source::Name("shop".into()));
    }

    #[test]
    fn nothing_set_is_an_error_that_says_what_to_do() {
        let error = find(&[(REGION_VARIABLE, "")]).unwrap_err();
        assert!(matches!(error, KvError::NoRegion));
        let text = error.to_string();
        assert!(
            text.contains("GANGER_REGION ") && text.contains("GANGER_REGION_FD "),
            "{text}"
        );
    }

    #[test]
    fn a_descriptor_that_is_no_number_is_an_error_that_shows_it() {
        for value in ["seven", "-1", " 7", "0x7", "4294967297", "2147483648"] {
            let error = find(&[(REGION_FD_VARIABLE, value)]).unwrap_err();
            assert!(matches!(error, KvError::FdNumber { .. }));
            assert!(error.to_string().contains(&format!("`{value}`")), "{error}");
        }
    }

    #[test]
    fn a_descriptor_that_is_not_open_or_no_file_is_refused() {
        let closed = reopen(i32::MAX.unsigned_abs(), true).unwrap_err();
        assert!(matches!(closed, KvError::FdClosed { .. }), "{closed}");
        let (reader, _writer) = io::pipe().unwrap();
        let fd = u32::try_from(std::os::fd::AsRawFd::as_raw_fd(&reader)).unwrap();
        for writable in [true, false] {
            let pipe = reopen(fd, writable).unwrap_err();
            assert!(
                pipe.to_string().contains("not one of a memory file"),
                "{pipe}"
            );
        }
    }
}
