//! The receiving end of a subscription, a tap or a responder: a bounded queue that loses its oldest
//! messages, and says so, when its consumer is slow. Others of the same connection don't notice.

use super::error::Error;
use super::inbox::{Inbox, Size};
use super::link::{control, Session};
use super::respond::refuse;
use super::run::Run;
use super::settings::Settings;
use super::table::{refusal, Next, Route};
use bytes::BytesMut;
use ganger_protocol::admin::AdminRequest;
use ganger_protocol::hello::Ended;
use ganger_protocol::limits::HEAD_LEN;
use ganger_protocol::pubsub::{Gap, GapCause, Position, Start, Subscribe, Subscribed};
use ganger_protocol::{Flags, Frame, Head, Op};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// What was asked of the broker.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    Messages(Subscribe),
    Tap(String),
}

pub(crate) enum Item {
    /// With the connection it came by.
    Frame(Frame, u64),
    /// Messages, with the connection they came by.
    Run(Run, u64),
    Gap(Gap),
}

impl Size for Item {
    #[inline]
    fn bytes(&self) -> usize {
        match self {
            Self::Frame(frame, _) => HEAD_LEN + frame.tail.len(),
            Self::Run(run, _) => run.bytes(),
            Self::Gap(_) => 0,
        }
    }

    #[inline]
    fn count(&self) -> usize {
        match self {
            Self::Run(run, _) => run.count(),
            Self::Frame(..) | Self::Gap(_) => 1,
        }
    }

    fn split_first(&mut self) -> Option<Self> {
        match self {
            Self::Run(run, generation) => Some(Self::Run(run.split_first()?, *generation)),
            Self::Frame(..) | Self::Gap(_) => None,
        }
    }
}

pub(crate) struct Messages {
    wanted: Wanted,
    items_max: usize,
    bytes_max: usize,
    inner: Mutex<Inner>,
}

pub(crate) struct Inner {
    pub(crate) inbox: Inbox<Item>,
    /// What was lost here, before all that is in the inbox.
    pub(crate) lost: Option<Gap>,
    /// The next message that is to come.
    position: Option<Position>,
    begun: Option<oneshot::Sender<Result<(), Error>>>,
    generation: u64,
}

impl Messages {
    pub(crate) fn new(
        wanted: Wanted,
        settings: &Settings,
    ) -> (Self, oneshot::Receiver<Result<(), Error>>) {
        let (begun, begins) = oneshot::channel();
        let route = Self {
            wanted,
            items_max: settings.queue_messages,
            bytes_max: settings.queue_bytes,
            inner: Mutex::new(Inner {
                inbox: Inbox::new(),
                lost: None,
                position: None,
                begun: Some(begun),
                generation: 0,
            }),
        };
        (route, begins)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where to go on after what has come so far.
    pub(crate) fn position(&self) -> Option<Position> {
        self.lock().position
    }

    /// Whether messages that were not asked for yet may have to be taken back.
    pub(crate) fn may_take_back(&self) -> bool {
        self.group().is_some()
    }

    fn group(&self) -> Option<&Subscribe> {
        match &self.wanted {
            Wanted::Messages(wanted) => Some(wanted).filter(|wanted| wanted.group.is_some()),
            Wanted::Tap(_) => None,
        }
    }

    fn messages(&self, inner: &mut Inner, id: u32, run: Run, out: &mut BytesMut) {
        if let Some(position) = &mut inner.position {
            // A retained message, or one that comes again, has an old number.
            position.seq = position.seq.max(run.seq_max.saturating_add(1));
        }
        let generation = inner.generation;
        inner.inbox.push(Item::Run(run, generation));
        while inner.inbox.is_beyond(self.items_max, self.bytes_max) {
            match inner.inbox.pop_first() {
                Some(Item::Run(mut run, generation)) => {
                    while let Some(frame) = run.pop() {
                        let is_of_now = generation == inner.generation;
                        self.overflow(&mut inner.lost, id, frame.head.seq, is_of_now, out);
                    }
                }
                Some(Item::Gap(gap)) => lose(&mut inner.lost, gap),
                Some(Item::Frame(..)) => {}
                None => return,
            }
        }
    }

    /// A message is lost because nobody takes it.
    fn overflow(
        &self,
        lost: &mut Option<Gap>,
        id: u32,
        seq: u64,
        is_of_now: bool,
        out: &mut BytesMut,
    ) {
        let gap = Gap {
            from: seq,
            to: seq,
            count: Some(1),
            cause: GapCause::Slow,
        };
        lose(lost, gap);
        if self.group().is_some() && is_of_now {
            Frame::bare(Head::new(Op::Ack, id).seq(seq)).write_to(out);
        }
    }

    fn request(&self, inner: &mut Inner, frame: Frame, out: &mut BytesMut) {
        if inner.inbox.is_beyond(self.items_max - 1, self.bytes_max) {
            refuse(frame.head.id, frame.head.seq, out);
            return;
        }
        let generation = inner.generation;
        inner.inbox.push(Item::Frame(frame, generation));
    }

    fn begins(&self, inner: &mut Inner, frame: &Frame) -> Result<(), Error> {
        let subscribed: Subscribed = frame.body()?;
        let again = inner.begun.is_none();
        let old = inner.position.replace(subscribed.next);
        match inner.begun.take() {
            Some(begun) => {
                let _ = begun.send(Ok(()));
            }
            // Of what they missed the broker tells only those who ask to go on somewhere.
            None if again && !self.resumes() => {
                let restarted = old.is_some_and(|old| old.epoch != subscribed.next.epoch);
                if restarted || self.group().is_none() {
                    inner.inbox.push(Item::Gap(Gap {
                        from: 0,
                        to: 0,
                        count: None,
                        cause: match restarted {
                            true => GapCause::Restart,
                            false => GapCause::Expired,
                        },
                    }));
                }
            }
            None => {}
        }
        Ok(())
    }

    /// Whether it goes on where it was, after a lost connection.
    fn resumes(&self) -> bool {
        match &self.wanted {
            Wanted::Messages(wanted) => wanted.group.is_none(),
            Wanted::Tap(_) => false,
        }
    }

    fn over(&self, inner: &mut Inner, error: Option<Error>) -> Next {
        if let Some(begun) = inner.begun.take() {
            let _ = begun.send(Err(error.clone().unwrap_or(Error::Closed)));
        }
        inner.inbox.finish(error);
        Next::Over
    }
}

impl Route for Messages {
    #[inline]
    fn take_run(&self, id: u32, run: Run, out: &mut BytesMut) {
        self.messages(&mut self.lock(), id, run, out);
    }

    #[inline]
    fn take(&self, _id: u32, frame: Frame, out: &mut BytesMut) -> Next {
        let inner = &mut *self.lock();
        match frame.head.op {
            Op::Request => self.request(inner, frame, out),
            Op::Gap => {
                if let Ok(gap) = frame.body::<Gap>() {
                    if let Some(position) = &mut inner.position {
                        position.seq = position.seq.max(gap.to.saturating_add(1));
                    }
                    inner.inbox.push(Item::Gap(gap));
                }
            }
            Op::Subscribed => {
                if let Err(error) = self.begins(inner, &frame) {
                    self.over(inner, Some(error));
                    return Next::Cancel;
                }
            }
            Op::Ended => {
                let error = frame.body::<Ended>().ok().and_then(|ended| ended.error);
                return self.over(inner, error.map(Error::from));
            }
            Op::Error => return self.over(inner, Some(refusal(&frame))),
            _ => {}
        }
        Next::Goes
    }

    fn lost(&self) {
        let inner = &mut *self.lock();
        match &self.wanted {
            // Their requesters were told that nobody will answer.
            Wanted::Messages(wanted) if wanted.responds => inner.inbox.clear(),
            // Others get them.
            Wanted::Messages(wanted) if wanted.group.is_some() && wanted.redeliver => {
                inner.inbox.retain(|item| matches!(item, Item::Gap(_)));
            }
            _ => {}
        }
    }

    fn resume(&self, id: u32, session: &Session, out: &mut BytesMut) -> Result<(), Error> {
        let inner = &mut *self.lock();
        inner.generation = session.generation;
        match &self.wanted {
            Wanted::Messages(wanted) => {
                let start = match inner.position {
                    Some(position) if self.resumes() => Start::From(position),
                    Some(_) => Start::New,
                    None => wanted.start.clone(),
                };
                let wanted = Subscribe {
                    start,
                    ..wanted.clone()
                };
                control(id, &wanted, out)
            }
            Wanted::Tap(pattern) => {
                let pattern = pattern.clone();
                control(id, &AdminRequest::Tap { pattern }, out)
            }
        }
    }

    fn fail(&self, error: &Error) {
        self.over(&mut self.lock(), Some(error.clone()));
    }
}

/// Adds what was lost now to what was lost before.
fn lose(lost: &mut Option<Gap>, gap: Gap) {
    *lost = Some(match lost.take() {
        None => gap,
        Some(before) => Gap {
            from: before.from,
            to: gap.to,
            count: before
                .count
                .zip(gap.count)
                .map(|(before, now)| before + now),
            cause: match gap.count {
                Some(_) => before.cause,
                None => gap.cause,
            },
        },
    });
}

/// Whether the payload of a frame is a reference.
pub(crate) fn is_reference(frame: &Frame) -> bool {
    frame.head.flags.has(Flags::BY_REFERENCE)
}
