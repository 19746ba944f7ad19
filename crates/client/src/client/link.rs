//! What the handles of a client and the task that owns its connection share.
//!
//! Handles write frames into `out` and register in `table` who waits for what; the task writes
//! `out` to the socket and hands what comes to those in the table. One lock guards both; nothing
//! waits and nobody's code runs while it is held.

use super::error::Error;
use super::offline::Offline;
use super::outlet::Outlet;
use super::payload::Mapped;
use super::settings::Settings;
use super::table::{Call, Entry, Progress, Route, Table};
use bytes::BytesMut;
use ganger_protocol::hello::Welcome;
use ganger_protocol::{Frame, FrameError, Head, Op};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, Notify};
use tokio::time::{timeout_at, Instant};

/// Calls and streams that may be open at a time.
const OPEN_MAX: usize = 1 << 18;

/// One connection, from its welcome on.
pub(crate) struct Session {
    pub(crate) welcome: Welcome,
    /// How many there were before it.
    pub(crate) generation: u64,
}

pub(crate) enum Phase {
    Down,
    Up(Arc<Session>),
    /// For good.
    Closed(Error),
}

pub(crate) struct State {
    pub(crate) phase: Phase,
    pub(crate) out: BytesMut,
    pub(crate) outlet: Outlet,
    pub(crate) table: Table,
    pub(crate) offline: Offline,
    pub(crate) mapped: Option<Arc<Mapped>>,
    pub(crate) generations: u64,
    /// Nobody needs the connection any more.
    pub(crate) closing: bool,
    /// The task sleeps and must be woken when there is something to write.
    pub(crate) idle: bool,
    /// The last call that was written by itself: until it is answered, others are gathered.
    ahead: u32,
}

impl State {
    /// The connection, if there is one.
    pub(crate) fn session(&self) -> Result<Option<&Arc<Session>>, Error> {
        match &self.phase {
            Phase::Down => Ok(None),
            Phase::Up(session) => Ok(Some(session)),
            Phase::Closed(error) => Err(error.clone()),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up(_))
    }
}

pub(crate) struct Link {
    pub(crate) settings: Settings,
    state: Mutex<State>,
    /// For the task: something is to be done.
    pub(crate) wake: Notify,
    /// For the handles: there is room, or another phase.
    pub(crate) changed: Notify,
}

impl Link {
    pub(crate) fn new(settings: Settings) -> Self {
        let offline = Offline::new(&settings);
        Self {
            settings,
            state: Mutex::new(State {
                phase: Phase::Down,
                out: BytesMut::new(),
                outlet: Outlet::default(),
                table: Table::default(),
                offline,
                mapped: None,
                generations: 0,
                closing: false,
                idle: false,
                ahead: 0,
            }),
            wake: Notify::new(),
            changed: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic half way runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called after writing to `out`.
    #[inline]
    pub(crate) fn written(&self, state: &mut State) {
        if !state.outlet.pour(&mut state.out) && state.idle {
            state.idle = false;
            self.wake.notify_one();
        }
    }

    pub(crate) fn mapped(&self) -> Option<Arc<Mapped>> {
        self.lock().mapped.clone()
    }

    /// When a call that begins now gives up.
    pub(crate) fn deadline(&self) -> Instant {
        later(Instant::now(), self.settings.timeout)
    }

    /// Runs `act` with a connection that has room for more, as soon as there is one.
    pub(crate) async fn when_up<T>(
        &self,
        deadline: Instant,
        mut act: impl FnMut(&mut State) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // Nearly always there is nothing to wait for.
        if let Some(done) = self.act_now(&mut self.lock(), &mut act)? {
            return Ok(done);
        }
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            let was_up = {
                let mut state = self.lock();
                if let Some(done) = self.act_now(&mut state, &mut act)? {
                    return Ok(done);
                }
                // Under the lock, so that no change is missed.
                changed.as_mut().enable();
                state.is_up()
            };
            if timeout_at(deadline, changed).await.is_err() {
                return Err(match was_up {
                    true => Error::Timeout,
                    false => Error::NotConnected,
                });
            }
        }
    }

    /// Runs `act` if there is a connection, and it has room.
    fn act_now<T>(
        &self,
        state: &mut State,
        act: &mut impl FnMut(&mut State) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        if state.session()?.is_none() || state.out.len() >= self.settings.outbox_bytes {
            return Ok(None);
        }
        let done = act(state);
        self.written(state);
        done.map(Some)
    }

    /// Sends a request and waits for its one answer. If the future is dropped, nobody waits for the
    /// answer any more; `Cancel::Send` tells the broker so.
    pub(crate) async fn call(
        &self,
        ask: Ask,
        write: impl FnMut(u32, &mut BytesMut) -> Result<(), Error>,
    ) -> Result<Frame, Error> {
        self.call_with(ask, None, write).await
    }

    pub(crate) async fn call_with(
        &self,
        ask: Ask,
        mut progress: Option<Progress>,
        mut write: impl FnMut(u32, &mut BytesMut) -> Result<(), Error>,
    ) -> Result<Frame, Error> {
        let begun = Instant::now();
        let limit = ask.limit.map(|limit| later(begun, limit));
        let connected_by = later(begun, self.settings.timeout);
        let connected_by = limit.map_or(connected_by, |limit| limit.min(connected_by));
        let (id, answer) = self
            .when_up(connected_by, |state| {
                let id = open(state)?;
                write(id, &mut state.out)?;
                if !state.table.is_asked(state.ahead) {
                    state.ahead = id;
                    state.outlet.hurry();
                }
                let (told, answer) = oneshot::channel();
                let progress = progress.take();
                let due = state.table.due();
                let call = Call {
                    told,
                    progress,
                    deadline: limit,
                    cancel: ask.cancel,
                };
                state.table.insert(id, Entry::Call(call));
                if state.table.due() != due {
                    // The task has to look earlier than it thinks.
                    self.wake.notify_one();
                }
                Ok((id, answer))
            })
            .await?;
        let mut waiting = Waiting {
            link: self,
            id,
            cancel: ask.cancel,
            answered: false,
        };
        let answer = answer.await;
        waiting.answered = true;
        answer.unwrap_or(Err(Error::Closed))
    }

    /// Sends a request whose answers go to `route`, and returns its id.
    pub(crate) async fn open(&self, route: Arc<dyn Route>) -> Result<u32, Error> {
        self.when_up(self.deadline(), |state| {
            let id = open(state)?;
            if let Phase::Up(session) = &state.phase {
                route.resume(id, session, &mut state.out)?;
            }
            state.table.insert(id, Entry::Route(Arc::clone(&route)));
            Ok(id)
        })
        .await
    }

    /// Nobody wants what comes for this id any more.
    pub(crate) fn cancel(&self, id: u32) {
        let mut state = self.lock();
        if state.table.cancel(id) && state.is_up() {
            self.write_bare(&mut state, Head::new(Op::Cancel, id));
        }
    }

    /// As [`open`](Self::open), for a route whose id was cancelled, and without waiting: if there is
    /// no connection, it begins with the next.
    pub(crate) fn reopen(&self, route: &Arc<dyn Route>) -> Option<u32> {
        let state = &mut *self.lock();
        let opened = match &state.phase {
            Phase::Closed(error) => Err(error.clone()),
            Phase::Down => Ok(state.table.free_id()),
            Phase::Up(session) => {
                let id = state.table.free_id();
                route.resume(id, session, &mut state.out).map(|()| id)
            }
        };
        match opened {
            Ok(id) => {
                state.table.insert(id, Entry::Route(Arc::clone(route)));
                self.written(state);
                Some(id)
            }
            Err(error) => {
                route.fail(&error);
                None
            }
        }
    }

    /// Sends a frame without a body, if the connection is still that one.
    pub(crate) fn send_bare(&self, generation: u64, head: Head) {
        let mut state = self.lock();
        if matches!(&state.phase, Phase::Up(session) if session.generation == generation) {
            self.write_bare(&mut state, head);
        }
    }

    fn write_bare(&self, state: &mut State, head: Head) {
        Frame::bare(head).write_to(&mut state.out);
        self.written(state);
    }

    /// Waits until the broker has got all that was sent before.
    pub(crate) async fn ping(&self) -> Result<(), Error> {
        let ask = Ask {
            limit: Some(self.settings.timeout),
            cancel: false,
        };
        let write = |id, out: &mut BytesMut| {
            Frame::bare(Head::new(Op::Ping, id)).write_to(out);
            Ok(())
        };
        self.call(ask, write).await.map(drop)
    }

    /// Ends the connection once all that was written has gone out.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_one();
    }
}

/// How a call waits.
#[derive(Clone, Copy)]
pub(crate) struct Ask {
    /// For so long, with the wait for a connection.
    pub(crate) limit: Option<Duration>,
    /// Whether the broker is told when nobody waits any more.
    pub(crate) cancel: bool,
}

pub(crate) fn open(state: &mut State) -> Result<u32, Error> {
    match state.table.len() {
        len if len >= OPEN_MAX => Err(Error::TooManyCalls { limit: OPEN_MAX }),
        _ => Ok(state.table.free_id()),
    }
}

/// A call that waits; dropping it unregisters it.
struct Waiting<'a> {
    link: &'a Link,
    id: u32,
    cancel: bool,
    answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let mut state = self.link.lock();
        if state.table.drop_call(self.id) && self.cancel {
            self.link
                .write_bare(&mut state, Head::new(Op::Cancel, self.id));
        }
    }
}

/// Writes a control message.
pub(crate) fn control<B: ganger_protocol::Body>(
    id: u32,
    body: &B,
    out: &mut BytesMut,
) -> Result<(), Error> {
    Frame::control(id, body)?.write_to(out);
    Ok(())
}

/// A time from then; if the clock can't say it, one that nobody lives to see.
pub(crate) fn later(from: Instant, time: Duration) -> Instant {
    const AGES: Duration = Duration::from_secs(86_400 * 365 * 30);
    from + time.min(AGES)
}

/// So that closures can use `?` on what writes frames.
pub(crate) fn framed(result: Result<(), FrameError>) -> Result<(), Error> {
    result.map_err(Error::from)
}
