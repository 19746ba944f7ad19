//! Keys over the socket.

mod ephemeral;
mod errors;
mod operation;

pub(super) use ephemeral::Ephemeral;
use errors::Failure;
pub(super) use operation::error_frame;
use operation::Executor;

use super::session::Session;
use crate::reserved::is_reserved;
use ganger_protocol::kv::{KvReply, KvRequest, SetOptions};
use ganger_protocol::kv_fast::{Answer, Command};
use ganger_protocol::{ErrorCode, Frame, FrameView};
use ganger_region::Region;

/// One of the four frequent operations.
#[inline]
pub(super) fn fast(session: &mut Session, frame: &FrameView<'_>) {
    let id = frame.head.id;
    session.broker.counters.kv_operations.count();
    let outcome = match Command::of_view(frame) {
        Ok(Some(command)) => run_fast(session, id, command),
        Ok(None) => Ok(()),
        Err(error) => Err(Failure(error)),
    };
    if let Err(Failure(error)) = outcome {
        session.broker.counters.kv_failed.count();
        session.fail(id, &error);
    }
}

#[inline]
fn run_fast(session: &mut Session, id: u32, command: Command<'_>) -> Result<(), Failure> {
    let region = &session.broker.region;
    let number = match command {
        Command::Get { key } => {
            let entry = region.entry(open_key(key)?)?;
            let answer = entry
                .as_ref()
                .map_or(Answer::Nothing, |entry| Answer::Value {
                    value: &entry.value,
                    revision: entry.revision,
                    counter: entry.is_counter,
                });
            session.out.write_frame(|out| answer.write(id, out))?;
            return Ok(());
        }
        Command::Set {
            key,
            value,
            options,
        } if options == SetOptions::default() => {
            let revision = region.set(open_key(key)?, value)?;
            session.ephemeral.written(key);
            Some(revision)
        }
        Command::Set {
            key,
            value,
            options,
        } => session.executor().set(key, value, &options)?,
        Command::Delete { key, if_revision } => {
            let done = session.executor().delete(key, if_revision)?;
            done.then_some(0)
        }
        Command::Incr { key, by } => {
            let sum = region.incr(open_key(key)?, by)?;
            Some(sum.cast_unsigned())
        }
    };
    let answer = number.map_or(Answer::Nothing, Answer::Ok);
    session.out.write_frame(|out| answer.write(id, out))?;
    Ok(())
}

/// Any operation, or a batch of them.
pub(super) fn handle(session: &mut Session, frame: &Frame) {
    let id = frame.head.id;
    session.broker.counters.kv_operations.count();
    match frame.body::<KvRequest>() {
        Ok(request) if operation::takes_long(&request) => {
            let mut executor = session.executor();
            session.run_elsewhere(move || vec![answer(&mut executor, id, request)]);
        }
        Ok(request) => {
            let frame = answer(&mut session.executor(), id, request);
            session.out.push(frame.head, &frame.tail);
        }
        Err(error) => session.fail(id, &error.into()),
    }
}

/// The frame that answers a request.
fn answer(executor: &mut Executor, id: u32, request: KvRequest) -> Frame {
    let error = match executor.run(request) {
        Ok(reply) => match Frame::control::<KvReply>(id, &reply) {
            Ok(frame) => return frame,
            Err(_) => ErrorCode::AnswerTooLong.into(),
        },
        Err(Failure(error)) => error,
    };
    executor.count_failure();
    error_frame(id, &error)
}

/// A key that clients may use.
#[inline]
fn open_key(key: &[u8]) -> Result<&[u8], Failure> {
    match is_reserved(key) {
        false => Ok(key),
        true => Err(ErrorCode::ReservedKey.into()),
    }
}

impl Session {
    fn executor(&self) -> Executor {
        Executor::new(&self.broker, &self.ephemeral)
    }
}

/// For listings.
pub(super) fn region_stats(region: &Region) -> ganger_protocol::kv::RegionStats {
    operation::stats(region)
}
