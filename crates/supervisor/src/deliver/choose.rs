//! Which rung of the ladder a program gets.

use super::seccomp;
use crate::config::{Command, Deliver};
use crate::listen::ListenError;
use crate::spawn::file_of;
use rustix::io::Errno;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Programs in Node that start another Node: the channel would end with them.
const LAUNCHERS: [&str; 22] = [
    "npm",
    "npm-cli",
    "npx",
    "npx-cli",
    "yarn",
    "yarnpkg",
    "pnpm",
    "pnpx",
    "corepack",
    "tsx",
    "nodemon",
    "node-dev",
    "ts-node-dev",
    "tsnd",
    "concurrently",
    "cross-env",
    "cross-env-shell",
    "dotenv",
    "env-cmd",
    "turbo",
    "nx",
    "pm2",
];
/// Options of Node with which the script runs in another process, or none runs.
const NOT_A_SCRIPT: [&str; 12] = [
    "-e",
    "--eval",
    "-p",
    "--print",
    "-pe",
    "-i",
    "--interactive",
    "--watch",
    "--test",
    "--run",
    "-c",
    "--check",
];
/// Options of Node that take the next argument, where it isn't joined by `=`.
const WITH_ARGUMENT: [&str; 14] = [
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "-C",
    "--conditions",
    "--env-file",
    "--env-file-if-exists",
    "--title",
    "--icu-data-dir",
    "--openssl-config",
    "--input-type",
    "--inspect-port",
];

/// A rung of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// The protocol of node:cluster.
    Node,
    /// Inherited listeners.
    ListenFds,
    /// `bind` is answered by the supervisor.
    Seccomp,
    /// The program listens by itself, if at all: several workers can't share a port then.
    None,
}

/// Why a rung can't be taken or prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeliverError {
    /// A rung was forced that does not work here.
    #[error("--deliver {rung} can't work: {reason}")]
    Forced {
        /// The rung.
        rung: Rung,
        /// Why.
        reason: String,
    },
    /// Inherited listeners need addresses.
    #[error(
        "inherited listeners (LISTEN_FDS) need addresses: give --listen (or, where the program \
         listens by itself, --deliver seccomp)"
    )]
    NothingToInherit,
    /// An address can't be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The preload can't be written.
    #[error(
        "can't write the preload for Node into {}: {source} (--no-preload does without)",
        folder.display()
    )]
    Preload {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system refuses something.
    #[error("can't prepare a process: {0}")]
    System(Errno),
}

/// The rung for a command on this system, and why those before it are not taken.
/// `has_addresses`: whether there are any told beforehand.
///
/// # Errors
///
/// A forced rung that can't work, with the reason; inherited listeners, forced or named in the
/// command, without addresses.
pub fn choose(
    wanted: Deliver,
    command: &Command,
    has_addresses: bool,
) -> Result<(Rung, Vec<String>), DeliverError> {
    let inherited = |notes| match has_addresses {
        true => Ok((Rung::ListenFds, notes)),
        false => Err(DeliverError::NothingToInherit),
    };
    let forced = |rung, refusal: Option<String>| match refusal {
        None => Ok((rung, Vec::new())),
        Some(reason) => Err(DeliverError::Forced { rung, reason }),
    };
    match wanted {
        Deliver::Node => return forced(Rung::Node, not_node(command)),
        Deliver::Seccomp => return forced(Rung::Seccomp, seccomp::refusal()),
        Deliver::ListenFds => return inherited(Vec::new()),
        Deliver::Auto => {}
    }
    let mut notes = Vec::new();
    match not_node(command) {
        None => return Ok((Rung::Node, notes)),
        Some(reason) => notes.push(format!("node: {reason}")),
    }
    if wants_inherited(command) {
        return inherited(notes);
    }
    match seccomp::refusal() {
        None => return Ok((Rung::Seccomp, notes)),
        Some(reason) => notes.push(format!("seccomp: {reason}")),
    }
    if has_addresses {
        notes.push("the program must take inherited listeners (LISTEN_FDS)".into());
        return Ok((Rung::ListenFds, notes));
    }
    notes.push("listen-fds: no addresses are told; give --listen".into());
    notes.push("the program listens by itself, so only one worker can have a port".into());
    Ok((Rung::None, notes))
}

impl DeliverError {
    pub(super) const fn system(errno: Errno) -> Self {
        Self::System(errno)
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::ListenFds => "listen-fds",
            Self::Seccomp => "seccomp",
            Self::None => "none",
        })
    }
}

/// Whether the command line names inherited descriptors: `uvicorn --fd 3`, `gunicorn -b fd://3`.
fn wants_inherited(command: &Command) -> bool {
    let names = |argument: &String| {
        argument == "--fd" || argument.starts_with("--fd=") || argument.contains("fd://")
    };
    command.args.iter().any(names)
}

/// Why a command does not run a script in Node itself, if it does not.
fn not_node(command: &Command) -> Option<String> {
    let Some(file) = file_of(command) else {
        return Some(format!("`{}` is not found", command.program));
    };
    let real = file.canonicalize().unwrap_or_else(|_| file.clone());
    let script = if is_node(&file) || is_node(&real) {
        match script(&command.args) {
            Ok(script) => Path::new(script).to_owned(),
            Err(reason) => return Some(reason),
        }
    } else if runs_in_node(&real) {
        file
    } else {
        return Some(format!("`{}` is not Node", command.program));
    };
    let name = script.file_stem()?.to_string_lossy().into_owned();
    LAUNCHERS
        .contains(&name.as_str())
        .then(|| format!("`{name}` starts the program in another process"))
}

fn is_node(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name == "node" || name == "nodejs"
}

/// The script among Node's arguments.
fn script(args: &[String]) -> Result<&str, String> {
    let mut args = args.iter();
    while let Some(argument) = args.next() {
        let name = argument.split('=').next().unwrap_or_default();
        if argument == "--" {
            break;
        }
        if NOT_A_SCRIPT.contains(&name) || name.starts_with("--watch") {
            return Err(format!(
                "`node {name}` does not run a script in its own process"
            ));
        }
        if WITH_ARGUMENT.contains(&argument.as_str()) {
            args.next();
        } else if !argument.starts_with('-') {
            return match argument.as_str() {
                "inspect" => Err("`node inspect` runs the script in another process".into()),
                script => Ok(script),
            };
        }
    }
    args.next()
        .map(String::as_str)
        .ok_or_else(|| "Node is given no script".into())
}

/// Whether a file's first line hands it to Node: `#!/usr/bin/env node`, `#!/usr/bin/node`.
fn runs_in_node(path: &Path) -> bool {
    let mut start = [0_u8; 256];
    let read = File::open(path).and_then(|mut file| file.read(&mut start));
    let start = String::from_utf8_lossy(&start[..read.unwrap_or(0)]).into_owned();
    let Some(line) = start
        .strip_prefix("#!")
        .and_then(|rest| rest.lines().next())
    else {
        return false;
    };
    let mut words = line.split_whitespace();
    let first = Path::new(words.next().unwrap_or_default());
    if first.file_name().is_some_and(|name| name == "env") {
        return words
            .find(|word| !word.starts_with('-'))
            .is_some_and(|word| is_node(Path::new(word)));
    }
    is_node(first)
}
