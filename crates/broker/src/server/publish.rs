//! Publishing: one message to all who subscribe to its subject.

use super::received::Received;
use super::reference;
use super::session::Session;
use crate::message::Message;
use crate::topics::retained::RetainError;
use crate::topics::{Pending, Published};
use ganger_protocol::{
    check_subject, headers, ErrorBody, ErrorCode, Flags, FrameView, Head, Op, Tail,
};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Sleep;

/// A message that a slow subscriber holds up, and its publisher with it.
pub(super) struct HeldUp {
    pending: Pending,
    /// Answered when it is through.
    ack: Option<u32>,
    /// When it goes through in any case.
    pub(super) until: Pin<Box<Sleep>>,
}

/// Publishes what was received.
#[inline]
pub(super) fn handle(session: &mut Session, frame: &FrameView<'_>, received: &Received) {
    let published = check_id(session, frame.head).and_then(|()| {
        let message = match frame.head.flags.has(Flags::BY_REFERENCE) {
            true => message(session, frame.to_tail(), frame.head.flags)?,
            false => {
                check(frame.subject(), frame.headers())?;
                let memory = &session.broker.read_memory;
                received.message(frame, session.connection.id, memory)
            }
        };
        publish(session, message)
    });
    outcome(session, frame.head, published);
}

/// Whom an answer under this id would be for, is clear.
#[inline]
fn check_id(session: &Session, head: Head) -> Result<(), ErrorBody> {
    match head.flags.has(Flags::WANT_ACK) && session.is_in_use(head.id) {
        true => Err(ErrorCode::IdInUse.into()),
        false => Ok(()),
    }
}

fn publish(session: &mut Session, message: Message) -> Result<Published, ErrorBody> {
    let message = Arc::new(message);
    let broker = &session.broker;
    broker.taps.offer(&message);
    Ok(broker.topics.publish(&message, &mut session.effects)?)
}

fn outcome(session: &mut Session, head: Head, published: Result<Published, ErrorBody>) {
    let ack = head.flags.has(Flags::WANT_ACK).then_some(head.id);
    match published {
        Ok(Published::Done(reached)) => through(session, ack, reached),
        Ok(Published::Blocked(pending)) => {
            session.broker.counters.publishes_blocked.count();
            let until = tokio::time::sleep(Duration::from_millis(pending.wait_ms));
            session.hold_up(HeldUp {
                pending,
                ack,
                until: Box::pin(until),
            });
        }
        Err(error) => {
            session.broker.counters.publishes_failed.count();
            if let Some(id) = ack {
                session.fail(id, &error);
            }
        }
    }
}

/// Whether a message has a sound subject and sound headers.
#[inline]
fn check(subject: &[u8], headers: &[u8]) -> Result<(), ErrorBody> {
    check_subject(subject)?;
    if !headers.is_empty() && headers::iter(headers).any(|header| header.is_err()) {
        return Err(ErrorCode::BadHeaders.into());
    }
    Ok(())
}

/// A sound message of this client, or why it is none.
pub(super) fn message(session: &Session, tail: Tail, flags: Flags) -> Result<Message, ErrorBody> {
    check(tail.subject(), tail.headers())?;
    let (tail, flags) = match flags.has(Flags::BY_REFERENCE) {
        true => reference::check(&session.broker, tail, flags)?,
        false => (tail, flags),
    };
    Ok(Message::new(tail, flags, session.connection.id))
}

fn through(session: &mut Session, ack: Option<u32>, reached: usize) {
    if let Some(id) = ack {
        let head = Head::new(Op::Ok, id).seq(reached as u64);
        session.out.push(head, &Tail::default());
    }
}

impl HeldUp {
    /// Tries again. When its time has come, those who hold it up lose messages instead.
    pub(super) fn go_on(self, session: &mut Session, is_forced: bool) {
        let Self {
            pending,
            ack,
            until,
        } = self;
        let broker = &session.broker;
        let topics = &broker.topics;
        match topics.publish_rest(pending, is_forced, &mut session.effects) {
            Published::Done(reached) => through(session, ack, reached),
            Published::Blocked(pending) => session.hold_up(Self {
                pending,
                ack,
                until,
            }),
        }
    }
}

impl From<RetainError> for ErrorBody {
    fn from(error: RetainError) -> Self {
        let (RetainError::Messages { limit } | RetainError::Bytes { limit }) = error;
        Self::new(ErrorCode::TooManyRetained, error.to_string()).limit(limit)
    }
}
