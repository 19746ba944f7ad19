//! The client for programs without tokio: the same calls, each of which blocks until it is done.
//!
//! The connection is looked after by a thread of its own. Not for use within async code: calls from
//! a thread that drives a tokio runtime panic.
//!
//! ```no_run
//! use ganger_client::blocking::Client;
//!
//! let client = Client::connect()?;
//! client.publish("orders.new", "7 pears")?;
//! for event in client.subscribe("orders.*")? {
//!     println!("{event:?}");
//! }
//! # Ok::<(), ganger_client::Error>(())
//! ```

mod kv;
mod lasting;

pub use kv::RemoteKv;
pub use lasting::{Holders, Lease, Nothing, Request, Responder, Subscription, Watch};

use crate::client::{self as nonblocking, Error, Reply};
use crate::kv::Kv;
use crate::{
    AuditReport, BrokerInfo, ClientBuilder, LeaseOptions, PublishOptions, SnapshotInfo,
    SubscribeOptions, WatchOptions,
};
use ganger_protocol::admin::{AdminProgress, BrokerStats, ClientInfo, LeaseInfo, Topic};
use std::future::Future;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The runtime in its thread; it ends when nobody needs it any more.
struct Runtime {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Runtime {
    fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("ganger-client".into());
        let thread = thread.spawn(move || {
            // The sender is dropped rather than used: either is the end.
            let _ = runtime.block_on(stopped);
            // What was dropped just now is still to be told to the broker.
            runtime.block_on(settle());
        })?;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        drop(self.stop.take());
        let here = thread::current().id();
        let thread = self.thread.take();
        // It may be the thread itself that drops the last handle: one of a callback.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != here) {
            let _ = thread.join();
        }
    }
}

/// Waits for the task of the connection to send what is left. It gives up by itself, after a second.
async fn settle() {
    while Handle::current().metrics().num_alive_tasks() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What every handle holds.
#[derive(Clone)]
struct Shared(Arc<Runtime>);

impl Shared {
    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.handle.block_on(future)
    }
}

/// As [`ganger_client::Client`](crate::Client), each call of which blocks here until it is done.
#[derive(Clone)]
pub struct Client {
    // In this order: what is dropped first is still told to the broker by what is dropped last.
    inner: nonblocking::Client,
    runtime: Shared,
}

/// # Connecting
impl Client {
    /// As [`Client::connect`](crate::Client::connect).
    ///
    /// ```no_run
    /// let client = ganger_client::blocking::Client::connect()?;
    /// # Ok::<(), ganger_client::Error>(())
    /// ```
    pub fn connect() -> Result<Self, Error> {
        Self::connect_with(&ClientBuilder::new())
    }

    /// Connects with other than the default settings.
    ///
    /// ```no_run
    /// use ganger_client::{blocking::Client, ClientBuilder};
    ///
    /// let client = Client::connect_with(&ClientBuilder::new().home("/run/shop"))?;
    /// # Ok::<(), ganger_client::Error>(())
    /// ```
    pub fn connect_with(builder: &ClientBuilder) -> Result<Self, Error> {
        let runtime = Runtime::start().map_err(|error| Error::Thread(Arc::new(error)))?;
        let runtime = Shared(Arc::new(runtime));
        let inner = runtime.wait(builder.connect())?;
        Ok(Self { inner, runtime })
    }

    /// As [`Client::kv`](crate::Client::kv).
    pub fn kv(&self) -> Result<Kv, Error> {
        self.inner.kv()
    }

    /// As [`Client::remote_kv`](crate::Client::remote_kv).
    pub fn remote_kv(&self) -> RemoteKv {
        RemoteKv {
            inner: self.inner.remote_kv(),
            runtime: self.runtime.clone(),
        }
    }

    /// As [`Client::is_connected`](crate::Client::is_connected).
    pub fn is_connected(&self) -> bool {
        self.inner.is_connected()
    }

    /// As [`Client::connected`](crate::Client::connected).
    pub fn connected(&self) -> Result<(), Error> {
        self.runtime.wait(self.inner.connected())
    }

    /// As [`Client::broker`](crate::Client::broker).
    pub fn broker(&self) -> Option<BrokerInfo> {
        self.inner.broker()
    }

    /// As [`Client::close`](crate::Client::close).
    pub fn close(&self) -> Result<(), Error> {
        self.runtime.wait(self.inner.close())
    }
}

/// # Messages
impl Client {
    /// As [`Client::publish`](crate::Client::publish).
    pub fn publish(&self, subject: &str, payload: impl AsRef<[u8]>) -> Result<(), Error> {
        self.runtime.wait(self.inner.publish(subject, payload))
    }

    /// As [`Client::publish_with`](crate::Client::publish_with).
    pub fn publish_with(
        &self,
        subject: &str,
        payload: impl AsRef<[u8]>,
        options: &PublishOptions,
    ) -> Result<Option<u64>, Error> {
        let published = self.inner.publish_with(subject, payload, options);
        self.runtime.wait(published)
    }

    /// As [`Client::flush`](crate::Client::flush).
    pub fn flush(&self) -> Result<(), Error> {
        self.runtime.wait(self.inner.flush())
    }

    /// As [`Client::subscribe`](crate::Client::subscribe): an iterator of events.
    pub fn subscribe(&self, pattern: &str) -> Result<Subscription, Error> {
        self.subscribe_with(pattern, SubscribeOptions::new())
    }

    /// As [`Client::subscribe_with`](crate::Client::subscribe_with).
    pub fn subscribe_with(
        &self,
        pattern: &str,
        options: SubscribeOptions,
    ) -> Result<Subscription, Error> {
        let inner = self
            .runtime
            .wait(self.inner.subscribe_with(pattern, options))?;
        Ok(Subscription::new(inner, &self.runtime))
    }

    /// As [`Client::queue_subscribe`](crate::Client::queue_subscribe).
    pub fn queue_subscribe(&self, pattern: &str, group: &str) -> Result<Subscription, Error> {
        self.subscribe_with(pattern, SubscribeOptions::new().group(group))
    }

    /// As [`Client::request`](crate::Client::request).
    pub fn request(&self, subject: &str, payload: impl AsRef<[u8]>) -> Result<Reply, Error> {
        self.runtime.wait(self.inner.request(subject, payload))
    }

    /// As [`Client::request_within`](crate::Client::request_within).
    pub fn request_within(
        &self,
        subject: &str,
        payload: impl AsRef<[u8]>,
        timeout: Duration,
    ) -> Result<Reply, Error> {
        let reply = self.inner.request_within(subject, payload, timeout);
        self.runtime.wait(reply)
    }

    /// As [`Client::respond`](crate::Client::respond): an iterator of requests.
    pub fn respond(&self, pattern: &str) -> Result<Responder, Error> {
        let inner = self.runtime.wait(self.inner.respond(pattern))?;
        Ok(Responder::new(inner, &self.runtime))
    }
}

/// # Watches and leases
impl Client {
    /// As [`Client::watch`](crate::Client::watch): an iterator of events.
    pub fn watch(&self, key: impl AsRef<[u8]>) -> Result<Watch, Error> {
        self.watch_with(WatchOptions::key(key))
    }

    /// As [`Client::watch_prefix`](crate::Client::watch_prefix).
    pub fn watch_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Watch, Error> {
        self.watch_with(WatchOptions::prefix(prefix))
    }

    /// As [`Client::watch_with`](crate::Client::watch_with).
    pub fn watch_with(&self, options: WatchOptions) -> Result<Watch, Error> {
        let inner = self.runtime.wait(self.inner.watch_with(options))?;
        Ok(Watch::new(inner, &self.runtime))
    }

    /// As [`Client::lock`](crate::Client::lock).
    pub fn lock(&self, name: &str) -> Result<Lease, Error> {
        self.acquire(LeaseOptions::new(name))
    }

    /// As [`Client::try_lock`](crate::Client::try_lock).
    pub fn try_lock(&self, name: &str) -> Result<Option<Lease>, Error> {
        let lease = self.runtime.wait(self.inner.try_lock(name))?;
        Ok(lease.map(|inner| Lease::new(inner, &self.runtime)))
    }

    /// As [`Client::semaphore`](crate::Client::semaphore).
    pub fn semaphore(&self, name: &str, permits: u32) -> Result<Lease, Error> {
        self.acquire(LeaseOptions::new(name).permits(permits))
    }

    /// As [`Client::elect`](crate::Client::elect).
    pub fn elect(&self, name: &str, value: impl AsRef<[u8]>) -> Result<Lease, Error> {
        self.acquire(LeaseOptions::new(name).value(value))
    }

    /// As [`Client::acquire`](crate::Client::acquire).
    pub fn acquire(&self, options: LeaseOptions) -> Result<Lease, Error> {
        let inner = self.runtime.wait(self.inner.acquire(options))?;
        Ok(Lease::new(inner, &self.runtime))
    }

    /// As [`Client::observe_leader`](crate::Client::observe_leader): an iterator.
    pub fn observe_leader(&self, name: &str) -> Result<Holders, Error> {
        let inner = self.runtime.wait(self.inner.observe_leader(name))?;
        Ok(Holders::new(inner, &self.runtime))
    }
}

/// # Administration
impl Client {
    /// As [`Client::topics`](crate::Client::topics).
    pub fn topics(&self, prefix: &str) -> Result<Vec<Topic>, Error> {
        self.runtime.wait(self.inner.topics(prefix))
    }

    /// As [`Client::clients`](crate::Client::clients).
    pub fn clients(&self) -> Result<Vec<ClientInfo>, Error> {
        self.runtime.wait(self.inner.clients())
    }

    /// As [`Client::leases`](crate::Client::leases).
    pub fn leases(&self, prefix: &str) -> Result<Vec<LeaseInfo>, Error> {
        self.runtime.wait(self.inner.leases(prefix))
    }

    /// As [`Client::stats`](crate::Client::stats).
    pub fn stats(&self) -> Result<BrokerStats, Error> {
        self.runtime.wait(self.inner.stats())
    }

    /// As [`Client::metrics`](crate::Client::metrics).
    pub fn metrics(&self) -> Result<String, Error> {
        self.runtime.wait(self.inner.metrics())
    }

    /// As [`Client::tap`](crate::Client::tap).
    pub fn tap(&self, pattern: &str) -> Result<Subscription, Error> {
        let inner = self.runtime.wait(self.inner.tap(pattern))?;
        Ok(Subscription::new(inner, &self.runtime))
    }

    /// As [`Client::snapshot`](crate::Client::snapshot).
    pub fn snapshot(
        &self,
        progress: impl FnMut(AdminProgress) + Send + 'static,
    ) -> Result<SnapshotInfo, Error> {
        self.runtime.wait(self.inner.snapshot(progress))
    }

    /// As [`Client::restore`](crate::Client::restore).
    pub fn restore(
        &self,
        name: Option<&str>,
        progress: impl FnMut(AdminProgress) + Send + 'static,
    ) -> Result<SnapshotInfo, Error> {
        self.runtime.wait(self.inner.restore(name, progress))
    }

    /// As [`Client::audit`](crate::Client::audit).
    pub fn audit(&self) -> Result<AuditReport, Error> {
        self.runtime.wait(self.inner.audit())
    }

    /// As [`Client::disconnect`](crate::Client::disconnect).
    pub fn disconnect(&self, connection: u64) -> Result<bool, Error> {
        self.runtime.wait(self.inner.disconnect(connection))
    }
}
