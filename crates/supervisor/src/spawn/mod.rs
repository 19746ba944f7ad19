//! Starting processes, and ending them.
//!
//! # Theory of operation
//!
//! A worker is forked and executed from the supervisor's main thread, because the parent-death
//! signal fires when the *thread* that forked ends, not only when the process does. Everything the
//! child needs is allocated and opened before the fork; between fork and exec (`child`) it makes
//! system calls only. A pair of sockets joins the two until the exec closes the child's end: the
//! child sends the descriptor of its seccomp filter through it, and the error when a step fails.
//! Nothing there waits for the parent, so the parent may wait for the end of it.
//!
//! A process is named by its pidfd from then on. A group may only be signalled while its leader is
//! not reaped yet, since the number could be another's afterwards: see [`signal_group`].

use crate::config::Command;
use rustix::fs::{Mode, OFlags};
use rustix::io::{fcntl_dupfd_cloexec, Errno};
use rustix::net::{
    recvmsg, socketpair, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags,
    SocketFlags, SocketType,
};
use rustix::pipe::{pipe_with, PipeFlags};
use rustix::process::{pidfd_open, Pid, PidfdFlags};
use std::ffi::OsString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

mod cgroup;
mod child;
mod error;
mod process;
mod program;

pub(crate) use cgroup::sweep as sweep_cgroups;
pub use cgroup::Cgroup;
pub(crate) use child::fork_binder;
pub use error::SpawnError;
pub(crate) use process::watch;
pub use process::{ended, signal, signal_group, try_reap, Ended};
pub(crate) use program::file_of;

/// The value of an environment variable that stands for the child's own process number, as
/// `LISTEN_PID` wants it. No environment can hold it, so it is nobody's real value.
pub const OWN_PID: &str = "\0own pid";

/// A process to be.
#[derive(Debug)]
pub struct SpawnSpec<'a> {
    /// What it runs. Its environment is the process's whole one, but for `env`.
    pub command: &'a Command,
    /// Variables on top, by name; later ones win.
    pub env: Vec<(OsString, OsString)>,
    /// Descriptors it gets, each under the number beside it (3 or more). It gets no other ones
    /// than these and its standard streams.
    pub fds: Vec<(OwnedFd, RawFd)>,
    /// Where its standard output and error go. Its input is empty.
    pub output: Output,
    /// Whether its `bind` and `listen` are asked of the supervisor.
    pub has_seccomp: bool,
    /// The control group it is put into, if any.
    pub cgroup: Option<&'a Cgroup>,
}

/// Where standard output and error go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Into pipes that [`Spawned`] has the ends of.
    Pipes,
    /// Where those of this process go.
    Inherit,
}

/// A process that runs.
#[derive(Debug)]
pub struct Spawned {
    /// Its number, that of its process group too.
    pub pid: Pid,
    /// Its name for signals and waiting.
    pub pidfd: OwnedFd,
    /// What it writes, with [`Output::Pipes`].
    pub stdout: Option<OwnedFd>,
    /// What it complains of, with [`Output::Pipes`].
    pub stderr: Option<OwnedFd>,
    /// Where its `bind` and `listen` are asked, if it was spawned so.
    pub seccomp: Option<OwnedFd>,
}

/// Starts a process: in its own group, killed when this process ends, with default signals. To be
/// called from the thread that lives as long as the process.
///
/// # Errors
///
/// What could not be done, by name: see [`SpawnError`]. Nothing is left of the child then.
pub fn spawn(spec: SpawnSpec<'_>) -> Result<Spawned, SpawnError> {
    let program = program::resolve(spec.command)?;
    let environment = program::environment(spec.command, &spec.env)?;
    let (stdout, child_stdout) = output(spec.output)?;
    let (stderr, child_stderr) = output(spec.output)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(SpawnError::descriptors)?;
    let (report, child_report) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(SpawnError::descriptors)?;
    let above = 1 + spec
        .fds
        .iter()
        .map(|(_, number)| *number)
        .max()
        .unwrap_or(2);
    let plan = child::Plan {
        argv: program::arguments(spec.command)?,
        cwd: program::text(spec.command.cwd.as_os_str(), "the working directory")?,
        program,
        environment,
        stdin: lift(&null, above)?,
        stdout: child_stdout.map(|fd| lift(&fd, above)).transpose()?,
        stderr: child_stderr.map(|fd| lift(&fd, above)).transpose()?,
        report: lift(&child_report, above)?,
        group: spec
            .cgroup
            .map(|group| {
                let directory = lift(group.directory(), above)?;
                let procs = lift(group.procs(), above)?;
                Ok(child::Group { directory, procs })
            })
            .transpose()?,
        fds: spec
            .fds
            .iter()
            .map(|(fd, number)| Ok((lift(fd, above)?, *number)))
            .collect::<Result<_, SpawnError>>()?,
        filter: spec.has_seccomp.then(crate::deliver::filter),
        parent: rustix::process::getpid(),
    };
    drop(child_report);
    let pid = plan
        .fork()
        .map_err(|errno| SpawnError::fork(spec.command, errno))?;
    drop(plan);
    let pidfd = pidfd_open(pid, PidfdFlags::empty());
    let told = hear(&report);
    let failed = match (pidfd, told) {
        (Ok(pidfd), Ok(seccomp)) => {
            return Ok(Spawned {
                pid,
                pidfd,
                stdout,
                stderr,
                seccomp,
            });
        }
        (_, Err(failed)) => failed.named(spec.command),
        (Err(errno), _) => SpawnError::descriptors(errno),
    };
    process::end_now(pid);
    Err(failed)
}

/// A pipe, the reader's end and the child's, if one is wanted.
fn output(output: Output) -> Result<(Option<OwnedFd>, Option<OwnedFd>), SpawnError> {
    if output == Output::Inherit {
        return Ok((None, None));
    }
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(SpawnError::descriptors)?;
    Ok((Some(reader), Some(writer)))
}

/// A duplicate whose number is out of the way of those the child is to have.
fn lift(fd: &OwnedFd, above: RawFd) -> Result<OwnedFd, SpawnError> {
    fcntl_dupfd_cloexec(fd, above).map_err(SpawnError::descriptors)
}

/// Waits until the child runs its program: what it sent by then, or how it failed.
fn hear(report: &OwnedFd) -> Result<Option<OwnedFd>, child::Failed> {
    let mut seccomp = None;
    loop {
        let mut bytes = [0_u8; child::REPORT_LEN];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            report,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                seccomp = fds.last();
            }
        }
        match received {
            Err(Errno::INTR) => {}
            Ok(message) if message.bytes == child::REPORT_LEN => {
                return Err(child::Failed::from(bytes))
            }
            Ok(message) if message.bytes > 0 => {}
            Ok(_) | Err(_) => return Ok(seccomp),
        }
    }
}

/// The number of a descriptor that the child is to have, for the system calls.
fn raw(fd: Option<&OwnedFd>) -> RawFd {
    fd.map_or(-1, AsRawFd::as_raw_fd)
}
