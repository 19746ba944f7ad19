//! Locks, semaphores, elections: leases.

use super::error::Error;
use super::link::{control, later, Ask, Link, Session};
use super::table::{refusal, Next, Route};
use super::{Client, Owner};
use crate::set::milliseconds;
use bytes::{Bytes, BytesMut};
use ganger_protocol::lease::{Acquire, LeaseEvent, LeaseRequest};
use ganger_protocol::{Frame, Group, Op};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{oneshot, Notify};
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until, timeout_at, Instant};

/// A lease is renewed when this part of its time to live is over.
const RENEWALS: u32 = 3;

/// Which lease, and how.
///
/// ```
/// use ganger_client::LeaseOptions;
/// use std::time::Duration;
///
/// // One of three; if this process is stopped for more than 10 s, somebody else gets it.
/// let options = LeaseOptions::new("printers").permits(3).ttl(Duration::from_secs(10));
/// ```
#[derive(Debug, Clone)]
pub struct LeaseOptions {
    name: String,
    permits: u32,
    ttl: Option<Duration>,
    wait: Option<Duration>,
    value: Bytes,
}

impl LeaseOptions {
    /// The lease of this name: one holder, who keeps it as long as its connection lasts.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            permits: 1,
            ttl: None,
            wait: None,
            value: Bytes::new(),
        }
    }

    /// So many may hold it at a time. All who ask for the same name must agree.
    #[must_use]
    pub fn permits(mut self, permits: u32) -> Self {
        self.permits = permits;
        self
    }

    /// It is lost if it is not renewed for so long. The client renews it by itself: so this is for
    /// the case that the whole process is stopped, or its runtime stuck.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Waits for it so long at most; 0: not at all. Without it, for ever.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// What those who observe it see of its holder.
    #[must_use]
    pub fn value(mut self, value: impl AsRef<[u8]>) -> Self {
        self.value = Bytes::copy_from_slice(value.as_ref());
        self
    }
}

/// A lease that is held, until it is dropped.
///
/// It goes to the next in the queue as soon as this process dies, however that happens. It outlives
/// a restart of the broker. Whoever acts on something for the holder can be given the
/// [`token`](Self::token), and refuse all smaller ones than it has seen: so not even a holder that
/// was stopped in its tracks can do harm when it wakes up.
pub struct Lease {
    owner: Arc<Owner>,
    route: Arc<Holding>,
    id: u32,
    token: u64,
    renewal: Option<JoinHandle<()>>,
}

/// # Locks, semaphores, elections
impl Client {
    /// Takes a lock; waits until it is free. Those who wait get it in the order they came.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// let lock = client.lock("report").await?;
    /// println!("writing the report, token {}", lock.token());
    /// lock.release().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn lock(&self, name: &str) -> Result<Lease, Error> {
        self.acquire(LeaseOptions::new(name)).await
    }

    /// Takes a lock if it is free.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// match client.try_lock("report").await? {
    ///     Some(_lock) => println!("we write it"),
    ///     None => println!("somebody else does"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn try_lock(&self, name: &str) -> Result<Option<Lease>, Error> {
        let options = LeaseOptions::new(name).wait(Duration::ZERO);
        match self.acquire(options).await {
            Ok(lease) => Ok(Some(lease)),
            Err(Error::Taken) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes one of several permits; waits until one is free.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// let _permit = client.semaphore("printers", 3).await?;
    /// println!("one of three prints");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn semaphore(&self, name: &str, permits: u32) -> Result<Lease, Error> {
        self.acquire(LeaseOptions::new(name).permits(permits)).await
    }

    /// Becomes the leader; waits until there is no other. `value` is what the others see, with
    /// [`observe_leader`](Self::observe_leader): an address, say.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// let leadership = client.elect("scheduler", "10.0.0.7:4000").await?;
    /// tokio::select! {
    ///     () = leadership.lost() => println!("somebody else leads now"),
    ///     () = async { /* lead */ } => println!("done"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn elect(&self, name: &str, value: impl AsRef<[u8]>) -> Result<Lease, Error> {
        self.acquire(LeaseOptions::new(name).value(value)).await
    }

    /// Takes a lease with other than the default options. Fails with [`Error::Taken`] or
    /// [`Error::Timeout`] if it may not wait any longer. If the future is dropped, it leaves the
    /// queue.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// use ganger_client::LeaseOptions;
    /// use std::time::Duration;
    ///
    /// let options = LeaseOptions::new("report").wait(Duration::from_secs(1));
    /// let lock = client.acquire(options).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn acquire(&self, options: LeaseOptions) -> Result<Lease, Error> {
        options.name.parse::<Group>()?;
        let link = self.link();
        let (granted, grant) = oneshot::channel();
        let route = Arc::new(Holding::new(options, granted));
        let limit = route
            .wait_until
            .map(|until| later(until, link.settings.timeout));
        let id = link.open(Arc::clone(&route) as _).await?;
        // From here on, dropping the future leaves the queue.
        let mut lease = Lease {
            owner: Arc::clone(&self.owner),
            route,
            id,
            token: 0,
            renewal: None,
        };
        let answer = match limit {
            // The broker looks after the time; this is for the case that it is stuck.
            Some(limit) => timeout_at(limit, grant).await.map_err(|_| Error::Timeout)?,
            None => grant.await,
        };
        lease.token = answer.unwrap_or(Err(Error::Closed))?;
        lease.renewal = lease.route.options.ttl.map(|ttl| {
            let route = Arc::downgrade(&lease.route);
            tokio::spawn(renew_for_ever(Arc::downgrade(&self.owner), route, ttl))
        });
        Ok(lease)
    }
}

impl Lease {
    /// The fencing token: greater than that of every grant before.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// The name of the lease.
    pub fn name(&self) -> &str {
        &self.route.options.name
    }

    /// Whether it is still held, as far as can be known here. While there is no connection, it is
    /// held to be so for the time that a restarted broker keeps leases for those who come back.
    pub fn is_held(&self) -> bool {
        self.route
            .held_until()
            .is_some_and(|until| until.is_none_or(|until| Instant::now() < until))
    }

    /// Waits until it is lost: its time to live was over, or the broker could not keep it. The
    /// future can be dropped at any time.
    pub async fn lost(&self) {
        loop {
            let changed = self.route.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.route.held_until() {
                None => return,
                Some(None) => changed.await,
                Some(Some(until)) if until <= Instant::now() => return,
                Some(Some(until)) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(until) => {}
                },
            }
        }
    }

    /// Changes what observers see of its holder.
    ///
    /// ```no_run
    /// # async fn run(leadership: ganger_client::Lease) -> Result<(), ganger_client::Error> {
    /// leadership.set_value("10.0.0.7:4001").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_value(&self, value: impl AsRef<[u8]>) -> Result<(), Error> {
        let value = Bytes::copy_from_slice(value.as_ref());
        self.route.lock().value = value.clone();
        renew(&self.owner.link, &self.route, self.token, Some(value)).await
    }

    /// Gives it back, and waits until the broker has it. Dropping it gives it back too, a little
    /// later.
    pub async fn release(self) -> Result<(), Error> {
        let owner = Arc::clone(&self.owner);
        drop(self);
        // In order behind the cancellation.
        owner.link.ping().await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(renewal) = &self.renewal {
            renewal.abort();
        }
        self.owner.link.cancel(self.id);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("name", &self.name())
            .field("token", &self.token)
            .field("is_held", &self.is_held())
            .finish_non_exhaustive()
    }
}

/// The receiving end of a lease.
struct Holding {
    options: LeaseOptions,
    wait_until: Option<Instant>,
    inner: Mutex<Inner>,
    changed: Notify,
}

struct Inner {
    state: State,
    value: Bytes,
    granted: Option<oneshot::Sender<Result<u64, Error>>>,
    /// How long the broker keeps leases for those who come back.
    grace: Duration,
    /// Since when there is no connection, or none that has confirmed it.
    unsure_since: Option<Instant>,
    /// When its time to live is over, unless it is renewed.
    expires: Option<Instant>,
}

enum State {
    Queued,
    Held(u64),
    Over,
}

impl Holding {
    fn new(options: LeaseOptions, granted: oneshot::Sender<Result<u64, Error>>) -> Self {
        Self {
            wait_until: options.wait.map(|wait| later(Instant::now(), wait)),
            changed: Notify::new(),
            inner: Mutex::new(Inner {
                state: State::Queued,
                value: options.value.clone(),
                granted: Some(granted),
                grace: Duration::ZERO,
                unsure_since: None,
                expires: None,
            }),
            options,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: it is not held. Otherwise until when it is, if nothing else happens.
    fn held_until(&self) -> Option<Option<Instant>> {
        let inner = self.lock();
        let State::Held(_) = inner.state else {
            return None;
        };
        let unsure = inner.unsure_since.map(|since| later(since, inner.grace));
        Some(inner.expires.into_iter().chain(unsure).min())
    }

    fn renewed(&self, at: Instant) {
        self.lock().expires = self.options.ttl.map(|ttl| later(at, ttl));
        self.changed.notify_waiters();
    }

    fn over(&self, inner: &mut Inner, error: Error) {
        inner.state = State::Over;
        if let Some(granted) = inner.granted.take() {
            let _ = granted.send(Err(error));
        }
        self.changed.notify_waiters();
    }

    fn granted(&self, inner: &mut Inner, token: u64) -> Next {
        match inner.state {
            State::Queued => {
                inner.state = State::Held(token);
                // The broker's clock for it began a little earlier.
                let sure = self
                    .options
                    .ttl
                    .map(|ttl| later(Instant::now(), ttl / 8 * 7));
                inner.expires = sure;
                inner.unsure_since = None;
                if let Some(granted) = inner.granted.take() {
                    let _ = granted.send(Ok(token));
                }
                Next::Goes
            }
            State::Held(old) if old == token => {
                inner.unsure_since = None;
                self.changed.notify_waiters();
                Next::Goes
            }
            // Between the two grants, somebody else may have held it.
            State::Held(_) | State::Over => {
                self.over(inner, Error::NotHeld);
                Next::Cancel
            }
        }
    }
}

impl Route for Holding {
    fn take(&self, _id: u32, frame: Frame, _out: &mut BytesMut) -> Next {
        let inner = &mut *self.lock();
        match frame.head.op {
            Op::LeaseEvent => match frame.body::<LeaseEvent>() {
                Ok(LeaseEvent::Granted { token, .. }) => return self.granted(inner, token),
                Ok(LeaseEvent::Lost { .. } | LeaseEvent::Released {}) => {
                    self.over(inner, Error::NotHeld);
                    return Next::Over;
                }
                _ => return Next::Goes,
            },
            Op::Error => self.over(inner, refusal(&frame)),
            Op::Ended => self.over(inner, Error::NotHeld),
            _ => return Next::Goes,
        }
        Next::Over
    }

    fn lost(&self) {
        let inner = &mut *self.lock();
        inner.unsure_since.get_or_insert_with(Instant::now);
        self.changed.notify_waiters();
    }

    fn resume(&self, id: u32, session: &Session, out: &mut BytesMut) -> Result<(), Error> {
        let inner = &mut *self.lock();
        let now = Instant::now();
        let mut acquire = Acquire {
            name: self.options.name.clone(),
            permits: self.options.permits,
            ttl_ms: self.options.ttl.map(milliseconds),
            value: inner.value.clone(),
            ..Acquire::default()
        };
        match inner.state {
            State::Queued => {
                let left = self
                    .wait_until
                    .map(|until| until.saturating_duration_since(now));
                acquire.wait_ms = left.map(milliseconds);
            }
            State::Held(token) => {
                if inner
                    .unsure_since
                    .is_some_and(|since| now >= later(since, inner.grace))
                {
                    return Err(Error::NotHeld);
                }
                acquire.wait_ms = Some(0);
                acquire.reclaim = Some(token);
            }
            State::Over => return Err(Error::NotHeld),
        }
        inner.grace = Duration::from_millis(session.welcome.limits.lease_grace_ms);
        control(id, &LeaseRequest::Acquire(acquire), out)
    }

    fn fail(&self, error: &Error) {
        self.over(&mut self.lock(), error.clone());
    }
}

/// Renews a lease again and again, until it is gone or lost.
async fn renew_for_ever(owner: Weak<Owner>, route: Weak<Holding>, ttl: Duration) {
    loop {
        sleep(ttl / RENEWALS).await;
        let (Some(owner), Some(route)) = (owner.upgrade(), route.upgrade()) else {
            return;
        };
        let State::Held(token) = route.lock().state else {
            return;
        };
        // What fails for another reason is tried again in time, or the lease is over.
        if let Err(Error::NotHeld) = renew(&owner.link, &route, token, None).await {
            route.over(&mut route.lock(), Error::NotHeld);
            return;
        }
    }
}

async fn renew(
    link: &Link,
    route: &Holding,
    token: u64,
    value: Option<Bytes>,
) -> Result<(), Error> {
    let begun = Instant::now();
    let renew = LeaseRequest::Renew {
        name: route.options.name.clone(),
        token,
        ttl_ms: None,
        value,
    };
    let ask = Ask {
        limit: Some(route.options.ttl.unwrap_or(link.settings.timeout)),
        cancel: false,
    };
    let answer = link.call(ask, |id, out| control(id, &renew, out)).await?;
    match answer.body()? {
        LeaseEvent::Renewed {} => {
            route.renewed(begun);
            Ok(())
        }
        other => Err(Error::protocol(format!("{other:?} to a renewal"))),
    }
}
