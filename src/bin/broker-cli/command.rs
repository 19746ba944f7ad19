//! Commands that run on our behalf.
//!
//! `lock` and `elect` run one while they hold something. When we are killed, what we hold is free
//! at once, so the command must not go on: the kernel kills it when its parent is gone. That has to
//! be asked for in the new process itself; so we start ourselves again, as [`ExecBelow`], which
//! asks and then becomes the command.

use crate::failure::{complain, Failure};
use crate::session::Session;
use clap::Args;
use rustix::process::{kill_process, Pid, Signal};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::signal::unix::{signal, Signal as Signals, SignalKind};

/// How long a command may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(10);

/// The exit code that stands for a command's end.
pub(crate) fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
}

/// Runs a command on some bytes, and gives what it writes.
pub(crate) async fn through(
    command: &[OsString],
    input: Vec<u8>,
    environment: &[(&str, String)],
) -> Result<(Vec<u8>, ExitStatus), Failure> {
    let [program, arguments @ ..] = command else {
        return Err(Failure::Usage("there is no command".into()));
    };
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| cannot_run(program, &error))?;
    let stdin = child.stdin.take();
    let writing = async {
        if let Some(mut stdin) = stdin {
            // A command need not read what it does not need.
            let _ = stdin.write_all(&input).await;
        }
    };
    let stdout = child.stdout.take();
    let reading = async {
        let mut output = Vec::new();
        match stdout {
            Some(mut stdout) => stdout.read_to_end(&mut output).await.map(|_| output),
            None => Ok(output),
        }
    };
    let ((), output) = tokio::join!(writing, reading);
    let failed = |error| cannot_run(program, &error);
    let output = output.map_err(failed)?;
    Ok((output, child.wait().await.map_err(failed)?))
}

/// A command that ends with us.
pub(crate) struct Held {
    child: Child,
    signals: Forwarded,
}

impl Held {
    /// Starts it. Signals that come from here on are passed on to it.
    pub(crate) fn start(
        command: &[OsString],
        environment: &[(&str, String)],
    ) -> Result<Self, Failure> {
        let failed = |error| cannot_run("the command".as_ref(), &error);
        let signals = Forwarded::listen().map_err(failed)?;
        let us = std::env::current_exe().map_err(failed)?;
        let child = Command::new(us)
            .args(["exec-below", &std::process::id().to_string(), "--"])
            .args(command)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .spawn()
            .map_err(failed)?;
        Ok(Self { child, signals })
    }

    /// Waits for its end, passing signals on.
    pub(crate) async fn wait(&mut self) -> Result<ExitStatus, Failure> {
        loop {
            tokio::select! {
                status = self.child.wait() => {
                    return status.map_err(|error| cannot_run("the command".as_ref(), &error));
                }
                signal = self.signals.next() => self.signal(signal),
            }
        }
    }

    /// Ends it, by force if it does not go by itself.
    pub(crate) async fn end(&mut self) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(GRACE, self.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    fn signal(&self, signal: Signal) {
        // As long as nobody has waited for it, the number is its own.
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// The signals that are passed on.
struct Forwarded(Vec<(Signal, Signals)>);

impl Forwarded {
    fn listen() -> io::Result<Self> {
        let all = [
            Signal::INT,
            Signal::TERM,
            Signal::HUP,
            Signal::QUIT,
            Signal::USR1,
            Signal::USR2,
        ];
        let listen = |number: Signal| Ok((number, signal(SignalKind::from_raw(number.as_raw()))?));
        all.into_iter()
            .map(listen)
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// The next signal that the command has not got already: those of the keyboard go to the whole
    /// group of the terminal.
    async fn next(&mut self) -> Signal {
        loop {
            let came = std::future::poll_fn(|cx| {
                let found = self.0.iter_mut().find_map(|(number, signals)| {
                    let came = signals.poll_recv(cx).is_ready();
                    came.then_some(*number)
                });
                found.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
            });
            let signal = came.await;
            let is_of_keyboard = matches!(signal, Signal::INT | Signal::QUIT);
            if !(is_of_keyboard && is_in_foreground()) {
                return signal;
            }
        }
    }
}

/// Whether our group, the command with it, is the one that a terminal sends its signals to.
fn is_in_foreground() -> bool {
    let group = rustix::process::getpgrp();
    let terminals = [rustix::stdio::stdin(), rustix::stdio::stderr()];
    let is_ours = |terminal| rustix::termios::tcgetpgrp(terminal).is_ok_and(|its| its == group);
    terminals.into_iter().any(is_ours)
}

/// Not for people: becomes a command that is killed when its parent ends.
#[derive(Args)]
pub(crate) struct ExecBelow {
    parent: u32,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl ExecBelow {
    pub(crate) fn run(&self, _session: &mut Session) -> Result<(), Failure> {
        let asked = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        asked.map_err(|error| Failure::Failed(format!("no death signal: {error}")))?;
        // It may have died before the question.
        let parent =
            rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        if parent != Some(self.parent) {
            return Err(Failure::Status(128 + 9));
        }
        let [program, arguments @ ..] = &self.command[..] else {
            return Err(Failure::Usage("there is no command".into()));
        };
        let error = std::process::Command::new(program).args(arguments).exec();
        let failure = cannot_run(program, &error);
        complain(&failure.to_string());
        Err(Failure::Status(match error.kind() {
            io::ErrorKind::NotFound => 127,
            _ => 126,
        }))
    }
}

fn cannot_run(program: &std::ffi::OsStr, error: &io::Error) -> Failure {
    Failure::Failed(format!("{} can't run: {error}", program.display()))
}
