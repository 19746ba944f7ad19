//! What is asked and answered on the control socket.

use crate::config::AppConfig;
use crate::report::{AppStatus, Event, LogLine, Status};
use serde::{Deserialize, Serialize};

/// Version of the messages. Another one is refused, by name.
pub const PROTOCOL: u16 = 1;

/// The first frame of each side. Its fields keep their names and types in all versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The program's version, to be shown.
    pub ganger: String,
    /// The messages' version: [`PROTOCOL`].
    pub protocol: u16,
    /// The sender's process.
    pub pid: i32,
    /// Why the sender will not talk, if so.
    #[serde(default)]
    pub refused: Option<String>,
}

/// What is asked of a supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Everything: [`Reply::Status`].
    Status,
    /// All about an app: [`Reply::App`].
    Describe {
        /// The app.
        app: String,
    },
    /// Runs one more app, and waits until its workers are ready.
    Start(Box<AppConfig>),
    /// Replaces the workers by new ones, without a lost request.
    Reload {
        /// The app.
        app: String,
        /// Workers at a time, if not as the app says.
        width: Option<u16>,
        /// Give the new generation so much of the new connections for a while first: 1 to 99.
        canary_percent: Option<u8>,
        /// How long, in milliseconds.
        canary_ms: Option<u64>,
        /// The new workers' environment, if not the old one's: whole.
        env: Option<Vec<(String, String)>>,
    },
    /// Goes back to the old generation, while that lives.
    Rollback {
        /// The app.
        app: String,
    },
    /// Stops all workers and starts them again.
    Restart {
        /// The app.
        app: String,
    },
    /// Stops an app.
    Stop {
        /// The app.
        app: String,
    },
    /// Stops everything, the supervisor included.
    Shutdown,
    /// Changes the number of workers.
    Scale {
        /// The app.
        app: String,
        /// To what.
        to: Scale,
    },
    /// Sends a signal to workers.
    Signal {
        /// The app.
        app: String,
        /// The worker; `None` for all.
        worker: Option<u16>,
        /// The signal's number.
        signal: i32,
    },
    /// What workers wrote: [`Reply::Log`], each line.
    Logs {
        /// The app; `None` for all.
        app: Option<String>,
        /// The worker; `None` for all.
        worker: Option<u16>,
        /// So many of the last lines.
        lines: u32,
        /// Whether to go on with what is written from now on.
        follow: bool,
    },
    /// What happened: [`Reply::Event`], each.
    Events {
        /// So many of the last events.
        last: u32,
        /// Whether to go on with what happens from now on.
        follow: bool,
    },
}

/// A number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scale {
    /// So many.
    To(u16),
    /// So many more or fewer.
    By(i32),
}

/// What a supervisor answers: any number of these, of which `Done` or `Failed` is the last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// Everything.
    Status(Status),
    /// All about an app.
    App(AppStatus),
    /// What was asked for goes on: this happened.
    Progress(Event),
    /// A line that a worker wrote.
    Log(LogLine),
    /// Something that happened.
    Event(Event),
    /// It is done.
    Done {
        /// What was done, in words; may be empty.
        text: String,
    },
    /// It could not be done.
    Failed {
        /// Why, in words.
        text: String,
        /// The last lines of the worker that is to blame, if one is.
        lines: Vec<LogLine>,
    },
}

impl Request {
    /// Whether it only looks: it ends with its client, whereas the others are carried through.
    pub fn is_read(&self) -> bool {
        use Request::{Describe, Events, Logs, Status};
        matches!(self, Status | Describe { .. } | Logs { .. } | Events { .. })
    }

    /// The app that it is about, if it is about one.
    pub fn app(&self) -> Option<&str> {
        match self {
            Self::Describe { app }
            | Self::Reload { app, .. }
            | Self::Rollback { app }
            | Self::Restart { app }
            | Self::Stop { app }
            | Self::Scale { app, .. }
            | Self::Signal { app, .. } => Some(app),
            Self::Start(config) => Some(&config.name),
            Self::Logs { app, .. } => app.as_deref(),
            Self::Status | Self::Shutdown | Self::Events { .. } => None,
        }
    }

    /// Whether it never ends by itself.
    pub fn is_follow(&self) -> bool {
        matches!(
            self,
            Self::Logs { follow: true, .. } | Self::Events { follow: true, .. }
        )
    }
}

impl Reply {
    /// Done, in these words.
    pub fn done(text: impl Into<String>) -> Self {
        Self::Done { text: text.into() }
    }

    /// Failed, for this reason.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::Failed {
            text: text.into(),
            lines: Vec::new(),
        }
    }

    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed { .. })
    }
}
