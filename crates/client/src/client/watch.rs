//! Watching keys: their state, then every change.

use super::error::Error;
use super::flow::Flow;
use super::inbox::{Inbox, Size};
use super::link::{control, Session};
use super::settings::Settings;
use super::table::{refusal, Next, Route};
use super::{Client, Owner};
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use ganger_protocol::hello::Ended;
use ganger_protocol::limits::{FRAME_LEN_MAX, HEAD_LEN};
use ganger_protocol::pubsub::{GapCause, Position};
use ganger_protocol::watch::{
    ChangeKind, Select, SnapshotBegin, SnapshotEnd, Watch as Wanted, WatchValue, Watching,
};
use ganger_protocol::{Flags, Frame, Head, Op};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{ready, Context, Poll};
use tokio::sync::oneshot;

/// What a [`Watch`] yields.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum WatchEvent {
    /// Whatever was known of these keys is void; the state follows.
    Begin {
        /// Why, if this is not simply the beginning: changes were lost.
        gap: Option<GapCause>,
    },
    /// One entry of the state.
    Entry(Watched),
    /// That was the state, of so many entries; from here on come changes.
    End {
        /// How many.
        entries: u64,
    },
    /// A key changed.
    Change(ChangeKind, Watched),
}

/// A key, as a watch tells of it.
#[derive(Clone)]
pub struct Watched {
    frame: Frame,
}

impl Watched {
    /// The key.
    pub fn key(&self) -> &[u8] {
        self.value_of().key
    }

    /// Its value; empty if it is gone, or values were not asked for.
    pub fn value(&self) -> &[u8] {
        self.value_of().value
    }

    /// The revision of the entry, or of the change. A change that is told again, after a snapshot,
    /// has one that is not greater than the one that is known, and can be ignored.
    pub fn revision(&self) -> u64 {
        self.value_of().revision
    }

    /// Whether it is a counter: 8 bytes, little-endian.
    pub fn is_counter(&self) -> bool {
        self.frame.head.flags.has(Flags::COUNTER)
    }

    fn value_of(&self) -> WatchValue<'_> {
        let none = WatchValue {
            key: b"",
            revision: 0,
            value: b"",
        };
        // Frames that are none don't get so far.
        WatchValue::from_tail(&self.frame.tail).unwrap_or(none)
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("key", &self.key().escape_ascii().to_string())
            .field("revision", &self.revision())
            .field("value_len", &self.value().len())
            .finish()
    }
}

/// What is watched, and how.
///
/// ```
/// use ganger_client::WatchOptions;
///
/// let options = WatchOptions::prefix("session:").without_values();
/// ```
#[derive(Debug, Clone)]
pub struct WatchOptions {
    wanted: Wanted,
}

impl WatchOptions {
    /// One key.
    pub fn key(key: impl AsRef<[u8]>) -> Self {
        Self::of(Select::Key(Bytes::copy_from_slice(key.as_ref())))
    }

    /// All keys that begin so.
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Self {
        Self::of(Select::Prefix(Bytes::copy_from_slice(prefix.as_ref())))
    }

    fn of(select: Select) -> Self {
        let wanted = Wanted {
            select,
            resume: None,
            values: true,
            window: None,
        };
        Self { wanted }
    }

    /// Revisions only.
    #[must_use]
    pub fn without_values(mut self) -> Self {
        self.wanted.values = false;
        self
    }

    /// Goes on where another watch of the same keys was: see [`Watch::position`]. If the broker has
    /// not all changes since, it begins with the state, and says that there is a gap.
    #[must_use]
    pub fn resume(mut self, position: Position) -> Self {
        self.wanted.resume = Some(position);
        self
    }
}

/// The state of some keys and their changes: a [`Stream`] of [`WatchEvent`]s.
///
/// It outlives lost connections: it goes on where it was, or begins anew with
/// [`WatchEvent::Begin`]. What waits is bounded, by [`queue`](crate::ClientBuilder::queue): the broker
/// sends no more until some of it was taken, however great the state is. A key that changes several
/// times meanwhile is told of as it is at last; only if changes of more keys were made than the broker
/// keeps for a watcher, it begins anew. Dropping it ends it.
pub struct Watch {
    owner: Arc<Owner>,
    route: Arc<Changes>,
    id: u32,
}

/// # Watching
impl Client {
    /// Watches one key.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// use ganger_client::WatchEvent;
    ///
    /// let mut price = client.watch("price:pears").await?;
    /// while let Some(event) = price.next().await {
    ///     if let WatchEvent::Entry(now) | WatchEvent::Change(_, now) = event {
    ///         println!("pears: {}", String::from_utf8_lossy(now.value()));
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn watch(&self, key: impl AsRef<[u8]>) -> Result<Watch, Error> {
        self.watch_with(WatchOptions::key(key)).await
    }

    /// Watches all keys that begin so.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// use ganger_client::{ChangeKind, WatchEvent};
    /// use std::collections::HashMap;
    ///
    /// let mut config = HashMap::new();
    /// let mut watch = client.watch_prefix("config:").await?;
    /// while let Some(event) = watch.next().await {
    ///     match event {
    ///         WatchEvent::Begin { .. } => config.clear(),
    ///         WatchEvent::Entry(set) | WatchEvent::Change(ChangeKind::Set, set) => {
    ///             config.insert(set.key().to_vec(), set.value().to_vec());
    ///         }
    ///         WatchEvent::Change(_, gone) => {
    ///             config.remove(gone.key());
    ///         }
    ///         WatchEvent::End { .. } | _ => println!("{} settings", config.len()),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn watch_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Watch, Error> {
        self.watch_with(WatchOptions::prefix(prefix)).await
    }

    /// Watches with other than the default options.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// use ganger_client::WatchOptions;
    ///
    /// let sessions = WatchOptions::prefix("session:").without_values();
    /// let mut watch = client.watch_with(sessions).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn watch_with(&self, options: WatchOptions) -> Result<Watch, Error> {
        let (route, begins) = Changes::new(options.wanted, &self.link().settings);
        let route = Arc::new(route);
        let id = self.link().open(Arc::clone(&route) as _).await?;
        let watch = Watch {
            owner: Arc::clone(&self.owner),
            route,
            id,
        };
        self.begun(begins).await?;
        Ok(watch)
    }
}

impl Watch {
    /// The next event; `None` when it is over. The future can be dropped at any time: nothing is
    /// lost.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        poll_fn(|context| self.poll_event(context)).await
    }

    /// Why it is over, if that is an error.
    pub fn error(&self) -> Option<Error> {
        self.route.lock().inbox.error()
    }

    /// Behind all that was received so far, once the state is complete: where another watch of the
    /// same keys could go on with [`WatchOptions::resume`].
    pub fn position(&self) -> Option<Position> {
        let inner = self.route.lock();
        inner.position.filter(|_| inner.complete)
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<WatchEvent>> {
        if self.route.begins_anew() {
            let route: Arc<dyn Route> = Arc::clone(&self.route) as _;
            if let Some(id) = self.owner.link.reopen(&route) {
                self.id = id;
            }
        }
        loop {
            let Some(frame) = ready!(self.poll_frame(context)) else {
                return Poll::Ready(None);
            };
            if let Some(event) = self.route.event(frame) {
                return Poll::Ready(Some(event));
            }
        }
    }

    /// The next frame, of which the broker is told in time.
    fn poll_frame(&self, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        let mut inner = self.route.lock();
        let Some(frame) = ready!(inner.inbox.poll(context)) else {
            return Poll::Ready(None);
        };
        inner.flow.take(frame.bytes());
        let (due, generation) = (inner.flow.due(), inner.generation);
        // The link's lock comes before this one.
        drop(inner);
        if let Some(frames) = due {
            self.owner
                .link
                .send_bare(generation, taken(self.id, frames));
        }
        Poll::Ready(Some(frame))
    }
}

impl Stream for Watch {
    type Item = WatchEvent;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<WatchEvent>> {
        self.get_mut().poll_event(context)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.owner.link.cancel(self.id);
    }
}

impl Size for Frame {
    fn bytes(&self) -> usize {
        HEAD_LEN + self.tail.len()
    }
}

/// The receiving end of a watch.
struct Changes {
    wanted: Wanted,
    items_max: usize,
    bytes_max: usize,
    inner: Mutex<Inner>,
}

struct Inner {
    inbox: Inbox<Frame>,
    flow: Flow,
    /// Of the connection.
    generation: u64,
    position: Option<Position>,
    /// The state has come whole.
    complete: bool,
    /// Too much waited, because the broker knows no windows, and was dropped: it begins anew when its
    /// consumer has time.
    dropped: bool,
    /// What the next beginning is told to be, if the broker knows of nothing.
    gap: Option<GapCause>,
    begun: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Changes {
    fn new(wanted: Wanted, settings: &Settings) -> (Self, oneshot::Receiver<Result<(), Error>>) {
        let (begun, begins) = oneshot::channel();
        let route = Self {
            wanted,
            items_max: settings.queue_messages,
            bytes_max: settings.queue_bytes,
            inner: Mutex::new(Inner {
                inbox: Inbox::new(),
                flow: Flow::new(settings.queue_messages, settings.queue_bytes),
                generation: 0,
                position: None,
                complete: false,
                dropped: false,
                gap: None,
                begun: Some(begun),
            }),
        };
        (route, begins)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is to begin anew, now that there is time.
    fn begins_anew(&self) -> bool {
        let inner = &mut *self.lock();
        let dropped = std::mem::take(&mut inner.dropped);
        if dropped {
            inner.gap = Some(GapCause::Slow);
            inner.position = None;
        }
        dropped
    }

    fn event(&self, frame: Frame) -> Option<WatchEvent> {
        match frame.head.op {
            Op::SnapshotBegin => {
                let begin: SnapshotBegin = frame.body().unwrap_or_default();
                let here = self.lock().gap.take();
                let gap = begin.gap.or(here);
                Some(WatchEvent::Begin { gap })
            }
            Op::SnapshotEnd => {
                let entries = frame.body::<SnapshotEnd>().ok()?.entries;
                Some(WatchEvent::End { entries })
            }
            Op::SnapshotEntry => Some(WatchEvent::Entry(Watched { frame })),
            _ => {
                let kind = ChangeKind::from_flags(frame.head.flags);
                Some(WatchEvent::Change(kind, Watched { frame }))
            }
        }
    }

    fn take_in(&self, inner: &mut Inner, frame: Frame) -> Result<Next, Error> {
        match frame.head.op {
            Op::SnapshotBegin => {
                // What waits is void.
                inner.drop_waiting();
                inner.complete = false;
                inner.begins();
            }
            Op::SnapshotEnd => {
                inner.position = Some(frame.body::<SnapshotEnd>()?.position);
                inner.complete = true;
            }
            Op::Watching => {
                inner.position = Some(frame.body::<Watching>()?.position);
                inner.complete = true;
                inner.begins();
                inner.flow.take(frame.bytes());
                return Ok(Next::Goes);
            }
            Op::SnapshotEntry | Op::Change => {
                if WatchValue::from_tail(&frame.tail).is_none() {
                    return Err(Error::protocol("a change without a revision"));
                }
                if let (Op::Change, Some(position)) = (frame.head.op, &mut inner.position) {
                    position.seq = position.seq.max(frame.head.seq.saturating_add(1));
                }
            }
            Op::Ended => {
                let error = frame.body::<Ended>()?.error;
                return Ok(inner.over(error.map(Error::from)));
            }
            Op::Error => return Err(refusal(&frame)),
            _ => return Ok(Next::Goes),
        }
        inner.inbox.push(frame);
        // As much may be there of an earlier connection, and the last frame is let through whole.
        let bytes_max = self
            .bytes_max
            .saturating_mul(2)
            .saturating_add(FRAME_LEN_MAX);
        if inner
            .inbox
            .is_beyond(self.items_max.saturating_mul(2), bytes_max)
        {
            inner.drop_waiting();
            inner.dropped = true;
            inner.complete = false;
            return Ok(Next::Cancel);
        }
        Ok(Next::Goes)
    }
}

impl Inner {
    fn drop_waiting(&mut self) {
        let (frames, bytes) = self.inbox.size();
        self.flow.take_all(frames, bytes);
        self.inbox.clear();
    }

    fn begins(&mut self) {
        if let Some(begun) = self.begun.take() {
            let _ = begun.send(Ok(()));
        }
    }

    fn over(&mut self, error: Option<Error>) -> Next {
        if let Some(begun) = self.begun.take() {
            let _ = begun.send(Err(error.clone().unwrap_or(Error::Closed)));
        }
        self.inbox.finish(error);
        Next::Over
    }
}

impl Route for Changes {
    fn take(&self, id: u32, frame: Frame, out: &mut BytesMut) -> Next {
        let inner = &mut *self.lock();
        let is_error = frame.head.op == Op::Error;
        match self.take_in(inner, frame) {
            Ok(next) => {
                if let Some(frames) = inner.flow.due().filter(|_| next == Next::Goes) {
                    Frame::bare(taken(id, frames)).write_to(out);
                }
                next
            }
            Err(error) => {
                inner.over(Some(error));
                match is_error {
                    true => Next::Over,
                    false => Next::Cancel,
                }
            }
        }
    }

    fn resume(&self, id: u32, session: &Session, out: &mut BytesMut) -> Result<(), Error> {
        let inner = &mut *self.lock();
        let mut wanted = self.wanted.clone();
        inner.generation = session.generation;
        wanted.window = Some(inner.flow.begin(inner.inbox.size().0));
        if inner.begun.is_none() {
            wanted.resume = inner.position.filter(|_| inner.complete);
        }
        control(id, &wanted, out)
    }

    fn fail(&self, error: &Error) {
        self.lock().over(Some(error.clone()));
    }
}

/// Says that so many more frames were taken.
fn taken(id: u32, frames: u64) -> Head {
    Head::new(Op::Ack, id).seq(frames)
}
