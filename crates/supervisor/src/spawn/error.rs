//! Why a process could not be started, in words that say what to do.

use super::child::Step;
use crate::config::Command;
use rustix::io::Errno;

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// No such program.
    #[error("there is no program `{program}` in PATH ({path})")]
    NotFound {
        /// The program.
        program: String,
        /// Where it was looked for.
        path: String,
    },
    /// No such file.
    #[error("there is no file `{program}` (or its `#!` interpreter or loader is missing)")]
    NoFile {
        /// The program.
        program: String,
    },
    /// It may not be executed.
    #[error("`{program}` may not be executed: is it a directory, or does it lack `chmod +x`?")]
    NotExecutable {
        /// The program.
        program: String,
    },
    /// It is no program.
    #[error("`{program}` is not a program for this machine: a script needs a first line `#!...`")]
    NotAProgram {
        /// The program.
        program: String,
    },
    /// The working directory can't be entered.
    #[error("can't enter the working directory `{directory}`: {source}")]
    Directory {
        /// The directory.
        directory: String,
        /// Why.
        source: Errno,
    },
    /// The system has no more processes for this user now. Worth another try later.
    #[error("the system gives no more processes now (limit of processes or memory): {source}")]
    Again {
        /// Why.
        source: Errno,
    },
    /// The system has no more descriptors for this process or at all. Worth another try later.
    #[error("no file descriptors left to start a process with: {source}")]
    Descriptors {
        /// Why.
        source: Errno,
    },
    /// The filter of system calls was refused.
    #[error("this system refuses a seccomp filter: {source}")]
    Seccomp {
        /// Why.
        source: Errno,
    },
    /// A text for the system holds a zero byte.
    #[error("{what} holds a zero byte")]
    NulByte {
        /// Which text.
        what: &'static str,
    },
    /// Anything else.
    #[error("can't start `{program}`: {doing}: {source}")]
    Other {
        /// The program.
        program: String,
        /// What failed.
        doing: &'static str,
        /// Why.
        source: Errno,
    },
}

impl SpawnError {
    /// Whether the same may succeed a little later.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Again { .. } | Self::Descriptors { .. })
    }

    pub(super) fn descriptors(source: Errno) -> Self {
        Self::Descriptors { source }
    }

    pub(super) fn fork(command: &Command, source: Errno) -> Self {
        match source {
            Errno::AGAIN | Errno::NOMEM => Self::Again { source },
            _ => Self::Other {
                program: command.program.clone(),
                doing: "fork",
                source,
            },
        }
    }

    pub(super) fn step(step: Step, source: Errno, command: &Command) -> Self {
        let program = command.program.clone();
        match (step, source) {
            (_, Errno::AGAIN | Errno::NOMEM) => Self::Again { source },
            (Step::Exec, Errno::NOENT) => Self::NoFile { program },
            (Step::Exec, Errno::ACCESS | Errno::ISDIR) => Self::NotExecutable { program },
            (Step::Exec, Errno::NOEXEC) => Self::NotAProgram { program },
            (Step::Directory, _) => Self::Directory {
                directory: command.cwd.display().to_string(),
                source,
            },
            (Step::Seccomp, _) => Self::Seccomp { source },
            (Step::Descriptors, _) => Self::Descriptors { source },
            (Step::Group, _) => Self::Other {
                program,
                doing: "process group",
                source,
            },
            (Step::Cgroup, _) => Self::Other {
                program,
                doing: "control group",
                source,
            },
            (Step::Exec, _) => Self::Other {
                program,
                doing: "execution",
                source,
            },
        }
    }
}
