//! What signals ask of the supervisor.
//!
//! SIGHUP says two things. From a service manager, or from somebody who means it, it asks for a
//! reload. But it is also what the kernel and shells send when a terminal goes away; a supervisor
//! in the foreground of that terminal is to end then, as any program there does. Which of the two
//! it was is seen by whether the terminal is still there a moment later: some shells send the
//! signal just before. Where SIGHUP was ignored from the start (`nohup`), it stays so.

use crate::proc::{ignores, stat};
use std::io;
use std::time::Duration;
use tokio::signal::unix::{signal, Signal, SignalKind};
use tokio::time::Instant;

/// How long after SIGHUP the terminal is looked for.
const TERMINAL_LOOK: Duration = Duration::from_millis(300);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To stop; for the second time, to hasten.
    Stop,
    /// To stop, because the terminal is gone.
    HungUp,
    /// To reload all apps.
    Reload,
    /// To reap a child.
    Child,
}

/// The signals that this process handles.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
    child: Signal,
    had_terminal: bool,
    /// When the terminal is to be looked for.
    look: Option<Instant>,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        let own = std::process::id().cast_signed();
        let kind = SignalKind::hangup();
        // To handle it would be the end of its being ignored.
        let wants_hangup = !ignores(own, kind.as_raw_value());
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: wants_hangup.then(|| signal(kind)).transpose()?,
            child: signal(SignalKind::child())?,
            had_terminal: has_terminal(),
            look: None,
        })
    }

    /// Waits for the next. Nothing is lost when the waiting is given up.
    pub(crate) async fn next(&mut self) -> Asked {
        loop {
            let hangup = async {
                match &mut self.hangup {
                    Some(hangup) => drop(hangup.recv().await),
                    None => std::future::pending().await,
                }
            };
            let look = async {
                match self.look {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.terminate.recv() => return Asked::Stop,
                _ = self.interrupt.recv() => return Asked::Stop,
                _ = self.child.recv() => return Asked::Child,
                () = hangup => {
                    if !self.had_terminal {
                        return Asked::Reload;
                    }
                    self.look.get_or_insert(Instant::now() + TERMINAL_LOOK);
                }
                () = look => {
                    self.look = None;
                    return match has_terminal() {
                        true => Asked::Reload,
                        false => Asked::HungUp,
                    };
                }
            }
        }
    }
}

fn has_terminal() -> bool {
    stat(std::process::id().cast_signed()).is_some_and(|stat| stat.has_terminal)
}
