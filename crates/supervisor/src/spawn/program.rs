//! Program, arguments and environment as the system calls want them.

use super::{SpawnError, OWN_PID};
use crate::config::Command;
use rustix::fs::Access;
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where programs are looked for when the environment has no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";
/// Digits that a process number may have.
const PID_DIGITS: usize = 10;

/// The environment of a child, and where in it the child writes its own number.
pub(super) struct Environment {
    pub(super) strings: Vec<CString>,
    own_pid: Vec<OwnPid>,
}

/// A string of the environment that ends with room for a number.
struct OwnPid {
    /// Which string.
    index: usize,
    /// Bytes before the number.
    prefix_len: usize,
}

/// The file that a command's program is.
pub(super) fn resolve(command: &Command) -> Result<CString, SpawnError> {
    let program = OsStr::new(&command.program);
    if command.program.contains('/') {
        return text(program, "the program");
    }
    let path = search_path(command);
    let mut is_denied = false;
    for folder in std::env::split_paths(&path) {
        let candidate = command.cwd.join(folder).join(program);
        if !candidate.is_file() {
            continue;
        }
        if rustix::fs::access(&candidate, Access::EXEC_OK).is_ok() {
            return text(candidate.as_os_str(), "the program");
        }
        is_denied = true;
    }
    let program = command.program.clone();
    Err(if is_denied {
        SpawnError::NotExecutable { program }
    } else {
        SpawnError::NotFound {
            program,
            path: path.to_string_lossy().into_owned(),
        }
    })
}

/// The file a command's program is, as [`resolve`] finds it, if it does; symlinks not followed.
pub(crate) fn file_of(command: &Command) -> Option<PathBuf> {
    let found = resolve(command).ok()?;
    let path = Path::new(OsStr::from_bytes(found.as_bytes()));
    Some(command.cwd.join(path))
}

fn search_path(command: &Command) -> OsString {
    let own = command.env.iter().rev().find(|(name, _)| name == "PATH");
    own.map_or_else(|| PATH_DEFAULT.into(), |(_, path)| path.into())
}

pub(super) fn arguments(command: &Command) -> Result<Vec<CString>, SpawnError> {
    std::iter::once(&command.program)
        .chain(&command.args)
        .map(|argument| text(OsStr::new(argument), "an argument"))
        .collect()
}

pub(super) fn environment(
    command: &Command,
    more: &[(OsString, OsString)],
) -> Result<Environment, SpawnError> {
    let own = command
        .env
        .iter()
        .map(|(name, value)| (OsStr::new(name), OsStr::new(value)));
    let more = more
        .iter()
        .map(|(name, value)| (name.as_os_str(), value.as_os_str()));
    let all: BTreeMap<_, _> = own.chain(more).collect();
    let mut strings = Vec::with_capacity(all.len());
    let mut own_pid = Vec::new();
    for (name, value) in all {
        let mut line = name.to_owned();
        line.push("=");
        if value == OWN_PID {
            own_pid.push(OwnPid {
                index: strings.len(),
                prefix_len: line.len(),
            });
            line.push("0".repeat(PID_DIGITS));
        } else {
            line.push(value);
        }
        strings.push(text(&line, "the environment")?);
    }
    Ok(Environment { strings, own_pid })
}

impl Environment {
    /// Writes the caller's process number where it is wanted. Between fork and exec: the memory is
    /// the child's own copy, and nothing is allocated.
    pub(super) fn set_own_pid(&self) {
        // SAFETY: no obligations.
        let pid = unsafe { libc::getpid() };
        for place in &self.own_pid {
            let Some(line) = self.strings.get(place.index) else {
                continue;
            };
            let mut digits = [0_u8; PID_DIGITS];
            let mut count = 0;
            let mut rest = pid.unsigned_abs();
            while rest > 0 && count < PID_DIGITS {
                digits[count] = b'0' + (rest % 10).to_le_bytes()[0];
                rest /= 10;
                count += 1;
            }
            let start = line.as_ptr().cast_mut();
            for (offset, digit) in digits[..count].iter().rev().chain(&[0]).enumerate() {
                // SAFETY: within the string: ten digits follow the prefix, then its end.
                let byte = unsafe { start.add(place.prefix_len + offset) };
                // SAFETY: heap memory of this process, which has one thread; the only other use
                // is exec, by pointer.
                unsafe { byte.write(digit.cast_signed()) };
            }
        }
    }
}

pub(super) fn text(text: &OsStr, what: &'static str) -> Result<CString, SpawnError> {
    CString::new(text.as_bytes()).map_err(|_| SpawnError::NulByte { what })
}
