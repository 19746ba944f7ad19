//! How a client is made, and what it keeps to.

use super::backoff::Reconnect;
use super::error::Error;
use super::Client;
use crate::home::Home;
use ganger_protocol::limits::NAME_LEN_MAX;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) home: Home,
    pub(crate) name: String,
    pub(crate) wants_region: bool,
    pub(crate) reconnect: Reconnect,
    /// How long `connect` tries when there is nobody.
    pub(crate) patience: Duration,
    /// How long a broker may take to greet.
    pub(crate) greeting: Duration,
    /// How long calls wait for their answers.
    pub(crate) timeout: Duration,
    pub(crate) outbox_bytes: usize,
    pub(crate) offline_messages: usize,
    pub(crate) offline_bytes: usize,
    pub(crate) offline_time: Duration,
    pub(crate) queue_messages: usize,
    pub(crate) queue_bytes: usize,
}

/// Makes a [`Client`] with other than the default settings.
///
/// ```no_run
/// # async fn run() -> Result<(), ganger_client::Error> {
/// use ganger_client::ClientBuilder;
/// use std::time::Duration;
///
/// let client = ClientBuilder::new()
///     .home("/run/shop")
///     .name("cashier")
///     .timeout(Duration::from_secs(2))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    settings: Settings,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        let name = std::env::args_os().next().map(PathBuf::from);
        let name = name.as_deref().and_then(|path| path.file_name());
        Self {
            settings: Settings {
                home: Home::find(),
                name: name.unwrap_or_default().to_string_lossy().into_owned(),
                wants_region: true,
                reconnect: Reconnect::default(),
                patience: Duration::from_secs(2),
                greeting: Duration::from_secs(5),
                timeout: Duration::from_secs(10),
                outbox_bytes: 1 << 20,
                offline_messages: 4096,
                offline_bytes: 8 << 20,
                offline_time: Duration::from_secs(10),
                queue_messages: 65_536,
                queue_bytes: 64 << 20,
            },
        }
    }
}

impl ClientBuilder {
    /// The home directory that the environment names (see [`Home::find`]), the program's name.
    pub fn new() -> Self {
        Self::default()
    }

    /// The home directory, in which the broker's socket is.
    #[must_use]
    pub fn home(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.home = Home::at(path);
        self
    }

    /// What the broker's listings show; 256 bytes at most, the rest is cut off.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// Without the region: [`Client::kv`] is not to be had, large payloads go through the socket.
    #[must_use]
    pub fn without_region(mut self) -> Self {
        self.settings.wants_region = false;
        self
    }

    /// What happens when the connection is lost.
    #[must_use]
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.settings.reconnect = reconnect;
        self
    }

    /// How long [`connect`](Self::connect) goes on trying while there is no broker: 2 s, unless said
    /// otherwise. With 0, it tries once.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.settings.patience = patience;
        self
    }

    /// How long calls wait for their answers before they fail with [`Error::Timeout`]: 10 s, unless
    /// said otherwise. Those that wait by their nature have limits of their own.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// How many bytes may wait to be written to the socket: 1 MiB, unless said otherwise. Beyond,
    /// calls wait until there is room.
    #[must_use]
    pub fn outbox_bytes(mut self, bytes: usize) -> Self {
        self.settings.outbox_bytes = bytes.max(1);
        self
    }

    /// What may wait to be published while there is no connection, and for how long: 4096 messages,
    /// 8 MiB and 10 s, unless said otherwise.
    #[must_use]
    pub fn offline(mut self, messages: usize, bytes: usize, time: Duration) -> Self {
        self.settings.offline_messages = messages;
        self.settings.offline_bytes = bytes;
        self.settings.offline_time = time;
        self
    }

    /// What may wait in each subscription or watch to be taken by this program: 65,536 messages and
    /// 64 MiB, unless said otherwise. Beyond, the oldest messages are lost, and a gap tells of them; a
    /// watch loses nothing there, for its broker waits.
    #[must_use]
    pub fn queue(mut self, messages: usize, bytes: usize) -> Self {
        self.settings.queue_messages = messages.max(1);
        self.settings.queue_bytes = bytes.max(1);
        self
    }

    /// Connects. A task on the current tokio runtime owns the connection from then on; it ends when
    /// the client and all that came from it (subscriptions, leases) are dropped.
    pub async fn connect(&self) -> Result<Client, Error> {
        let mut settings = self.settings.clone();
        let mut end = settings.name.len().min(NAME_LEN_MAX);
        while !settings.name.is_char_boundary(end) {
            end -= 1;
        }
        settings.name.truncate(end);
        Client::start(settings).await
    }
}
