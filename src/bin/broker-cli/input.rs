//! What comes in: keys, values, times.

use crate::arguments::Options;
use crate::failure::Failure;
use clap::Args;
use ganger_client::protocol::limits::RESERVED_KEY_BYTE;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// A value of the command line.
#[derive(Args)]
pub(crate) struct Value {
    /// The value; `-` reads standard input to its end.
    #[arg(value_name = "VALUE", allow_negative_numbers = true)]
    value: Option<OsString>,
    /// Read the value from this file.
    #[arg(long, value_name = "PATH", conflicts_with = "value")]
    file: Option<PathBuf>,
}

impl Value {
    pub(crate) fn is_given(&self) -> bool {
        self.value.is_some() || self.file.is_some()
    }

    /// Its bytes; if it is not given, that is wrong use.
    pub(crate) fn read(&self, options: &Options) -> Result<Vec<u8>, Failure> {
        let bytes = self.bytes(options)?.ok_or_else(|| {
            Failure::Usage("no value: give one, or `-` for standard input, or --file".into())
        })?;
        match options.msgpack {
            true => crate::json::to_msgpack(&bytes),
            false => Ok(bytes),
        }
    }

    /// Its bytes; none, if it is not given.
    pub(crate) fn read_or_empty(&self, options: &Options) -> Result<Vec<u8>, Failure> {
        match self.is_given() {
            true => self.read(options),
            false => Ok(Vec::new()),
        }
    }

    fn bytes(&self, options: &Options) -> Result<Option<Vec<u8>>, Failure> {
        match (&self.value, &self.file) {
            (Some(value), _) if value == "-" => {
                let mut bytes = Vec::new();
                let read = io::stdin().lock().read_to_end(&mut bytes);
                read.map_err(|error| Failure::Usage(format!("standard input: {error}")))?;
                Ok(Some(bytes))
            }
            (Some(value), _) => Ok(Some(argument(value, options)?)),
            (None, Some(path)) => {
                let failed = |error| Failure::Usage(format!("{}: {error}", path.display()));
                Ok(Some(std::fs::read(path).map_err(failed)?))
            }
            (None, None) => Ok(None),
        }
    }
}

/// A key of the command line.
pub(crate) fn key(text: &OsStr, options: &Options) -> Result<Vec<u8>, Failure> {
    let key = argument(text, options)?;
    if key.is_empty() {
        return Err(Failure::Usage("a key has at least one byte".into()));
    }
    if key[0] == RESERVED_KEY_BYTE {
        let why = "keys that begin with the byte 0 are Ganger's own";
        return Err(Failure::Usage(why.into()));
    }
    Ok(key)
}

/// The bytes of an argument.
pub(crate) fn argument(text: &OsStr, options: &Options) -> Result<Vec<u8>, Failure> {
    match options.escapes {
        true => unescape(text.as_bytes()),
        false => Ok(text.as_bytes().to_vec()),
    }
}

/// A time to live: a time, or `never`.
pub(crate) fn lifetime(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "never" => Ok(None),
        text => time(text).map(Some),
    }
}

/// A time that is not 0.
pub(crate) fn positive(text: &str) -> Result<Duration, String> {
    match time(text)? {
        Duration::ZERO => Err("it has to be longer than nothing".into()),
        time => Ok(time),
    }
}

/// `250ms`, `1.5s`, `10m`, `2h`, `7d`; a bare number is seconds.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err("times are like 500ms, 5s, 2m, 1h or 7d".into()),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "times are like 500ms, 5s, 2m, 1h or 7d".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| "too long".into())
}

fn unescape(text: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (made, len) = match rest {
            [b'n', ..] => (b'\n', 1),
            [b't', ..] => (b'\t', 1),
            [b'r', ..] => (b'\r', 1),
            [b'0', ..] => (0, 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', high, low, ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 3),
                _ => return Err(no_escape(rest)),
            },
            _ => return Err(no_escape(rest)),
        };
        bytes.push(made);
        rest = &rest[len..];
    }
    Ok(bytes)
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

fn no_escape(rest: &[u8]) -> Failure {
    let shown = String::from_utf8_lossy(&rest[..rest.len().min(3)]);
    Failure::Usage(format!(
        "\\{shown} is no escape: there are \\n, \\t, \\r, \\0, \\\\ and \\xNN"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_or_are_seconds() {
        for (text, ms) in [
            ("5", 5000),
            ("250ms", 250),
            ("1.5s", 1500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("0", 0),
        ] {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for wrong in [
            "",
            "s",
            "-1",
            "1w",
            "1.2.3s",
            "9e9s",
            "99999999999999999999999d",
        ] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert!(positive("0ms").is_err());
        assert_eq!(lifetime("never"), Ok(None));
    }

    #[test]
    fn what_is_printed_with_escapes_can_be_read_again() {
        let all: Vec<u8> = (0..=255).collect();
        let printed = crate::output::printable(&all);
        assert_eq!(unescape(printed.as_bytes()).unwrap(), all);
        for wrong in ["\\", "\\x4", "\\xgg", "\\q"] {
            assert!(unescape(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
