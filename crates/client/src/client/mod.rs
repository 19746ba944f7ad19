//! The connection to the broker: messages, requests, watches, leases, and keys over the socket.
//!
//! One task owns the socket (`task`). It and the handles share a `link`: handles write frames into
//! its outbox and register who waits for the answers; the task writes them out and hands what comes
//! to those who wait. What lasts (subscriptions, watches, leases) knows how to go on over a new
//! connection: that is what a `table::Route` is.

// The connection.
mod backoff;
mod error;
mod establish;
mod link;
mod offline;
mod outlet;
mod settings;
mod table;
mod task;
// What lasts.
mod flow;
mod inbox;
mod lease;
mod observe;
mod route;
mod run;
mod subscribe;
mod watch;
// What is said.
mod admin;
mod message;
mod payload;
mod publish;
mod remote_kv;
mod respond;

pub use admin::{AuditReport, SnapshotInfo};
pub use backoff::Reconnect;
pub use error::Error;
pub use lease::{Lease, LeaseOptions};
pub use message::{Event, Message};
pub use observe::Holders;
pub use publish::{Fate, PublishOptions};
pub use remote_kv::{RemoteKv, RemotePage};
pub use respond::{Reply, Request, Responder};
pub use settings::ClientBuilder;
pub use subscribe::{Acker, SubscribeOptions, Subscription};
pub use watch::{Watch, WatchEvent, WatchOptions, Watched};

use crate::kv::Kv;
use backoff::{random, Backoff};
pub(crate) use establish::unreadable;
pub(crate) use table::refusal;

use establish::establish;
use ganger_protocol::hello::Welcome;
use link::{Link, Phase};
use settings::Settings;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout, Instant};

/// A connection to the broker.
///
/// It is cheap to clone and usable from any task or thread; all clones share one connection, which a
/// task of its own looks after. When it is lost, the client connects anew: subscriptions and watches
/// go on where they were and tell what they missed, leases are kept if the broker was only
/// restarted, calls that wait for an answer fail with [`Error::ConnectionLost`].
///
/// All its futures can be dropped at any time: what was asked is then done or not, nothing else
/// breaks.
///
/// ```no_run
/// use ganger_client::{Client, Event};
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), ganger_client::Error> {
///     let client = Client::connect().await?;
///     let mut orders = client.subscribe("orders.*").await?;
///     client.publish("orders.new", "7 pears").await?;
///     while let Some(Event::Message(order)) = orders.next().await {
///         println!("{}: {:?}", order.subject(), order.payload());
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Client {
    owner: Arc<Owner>,
}

/// Keeps the connection: held by everything that needs it.
pub(crate) struct Owner {
    link: Arc<Link>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.link.close();
    }
}

/// What a broker says of itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BrokerInfo {
    /// Its first answer: versions, limits, the connection's number.
    pub welcome: Welcome,
}

/// # Connecting
impl Client {
    /// Connects to the broker whose home the environment names: see [`Home::find`](crate::Home::find)
    /// and, for everything that can be chosen, [`ClientBuilder`].
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), ganger_client::Error> {
    /// let client = ganger_client::Client::connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect() -> Result<Self, Error> {
        ClientBuilder::new().connect().await
    }

    /// The key-value store, directly in shared memory: every read and write from here on goes
    /// without the broker, and goes on when the broker is gone.
    ///
    /// If a broker was restarted with a new region (one that is neither named nor a supervisor's),
    /// this gives a handle on that one, and handles given earlier stay with the old.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// let kv = client.kv()?;
    /// kv.incr("visits", 1).expect("there is room");
    /// # Ok(())
    /// # }
    /// ```
    pub fn kv(&self) -> Result<Kv, Error> {
        let mapped = self.link().mapped().ok_or(Error::NoRegion)?;
        mapped.kv().cloned()
    }

    /// Whether there is a connection, now.
    pub fn is_connected(&self) -> bool {
        self.link().lock().is_up()
    }

    /// Waits until there is a connection.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// client.connected().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connected(&self) -> Result<(), Error> {
        loop {
            let changed = self.link().changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.link().lock().session()?.is_some() {
                return Ok(());
            }
            changed.await;
        }
    }

    /// What the broker said of itself, if there is a connection.
    pub fn broker(&self) -> Option<BrokerInfo> {
        match &self.link().lock().phase {
            Phase::Up(session) => Some(BrokerInfo {
                welcome: session.welcome.clone(),
            }),
            _ => None,
        }
    }

    /// Waits until the broker has got everything that was sent, then ends the connection, for all
    /// clones. Merely dropping the client sends what it can within a second, if the runtime lives on.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// client.publish("orders.new", "7 pears").await?;
    /// client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close(&self) -> Result<(), Error> {
        let flushed = self.flush().await;
        self.link().close();
        while self.connected().await.is_ok() {
            let changed = self.link().changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !self.is_connected() {
                break;
            }
            changed.await;
        }
        flushed
    }

    /// Connects, and leaves the connection to a task.
    async fn start(settings: Settings) -> Result<Self, Error> {
        let begun = Instant::now();
        let mut backoff = Backoff::default();
        let first = loop {
            let error = match establish(&settings).await {
                Ok(first) => break first,
                Err(error) => error,
            };
            let wait = backoff.next(random());
            if error.is_final() || begun.elapsed() + wait > settings.patience {
                return Err(error);
            }
            sleep(wait).await;
        };
        let link = Arc::new(Link::new(settings));
        let client = Self {
            owner: Arc::new(Owner {
                link: Arc::clone(&link),
            }),
        };
        link.up(first.welcome, first.mapped, &first.stream);
        tokio::spawn(task::drive(link, first.stream, first.received));
        Ok(client)
    }

    pub(crate) fn link(&self) -> &Link {
        &self.owner.link
    }

    /// Waits for the first answer of something that lasts.
    pub(crate) async fn begun(
        &self,
        begins: oneshot::Receiver<Result<(), Error>>,
    ) -> Result<(), Error> {
        let limit: Duration = self.link().settings.timeout;
        match timeout(limit, begins).await {
            Ok(begun) => begun.unwrap_or(Err(Error::Closed)),
            Err(_) => Err(Error::Timeout),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("home", &self.link().settings.home.path())
            .field("is_connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}
