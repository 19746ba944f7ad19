//! From a frame to the operation it asks for.

use super::received::Received;
use super::session::{pong, Session};
use super::{admin, kv, lease, publish, request, subscribe, watch};
use ganger_protocol::{ErrorBody, ErrorCode, Flags, Frame, FrameView, Head, Op};

/// Carries a frame out, which is the first of what was received. Whatever is wrong with it is this
/// client's affair alone.
#[inline]
pub(super) fn carry_out(session: &mut Session, frame: &FrameView<'_>, received: &Received) {
    let Head { op, flags, id, seq } = frame.head;
    match op {
        // What is frequent is read where it was received.
        Op::Publish => publish::handle(session, frame, received),
        Op::Ack => session.ack(id, seq, flags.has(Flags::UP_TO)),
        Op::Get | Op::Set | Op::Delete | Op::Incr if !session.is_in_use(id) => {
            kv::fast(session, frame);
        }
        _ => carry_out_whole(session, &received.frame(frame)),
    }
}

fn carry_out_whole(session: &mut Session, frame: &Frame) {
    let id = frame.head.id;
    match frame.head.op {
        Op::Reply => request::reply(session, frame),
        Op::Cancel => session.cancel(id),
        Op::Ping => pong(session, frame),
        Op::Pong => {}
        Op::Goodbye => session.goodbye(),
        Op::Hello => {
            let why = "a second hello";
            session.fatal(&ErrorBody::new(ErrorCode::NotGreeted, why));
        }
        _ if session.is_in_use(id) => session.fail(id, &ErrorCode::IdInUse.into()),
        Op::Kv => kv::handle(session, frame),
        Op::Subscribe => begin(session, frame, subscribe::handle),
        Op::Request => begin(session, frame, request::handle),
        Op::Watch => begin(session, frame, watch::handle),
        Op::Lease => begin(session, frame, lease::handle),
        Op::Admin => begin(session, frame, admin::handle),
        op => {
            let why = format!("no operation of clients: {:#04x}", op.to_u8());
            session.fail(id, &ErrorBody::new(ErrorCode::UnknownOperation, why));
        }
    }
}

/// An operation that may go on under its id, which a stopping broker does not begin.
fn begin(
    session: &mut Session,
    frame: &Frame,
    handle: impl Fn(&mut Session, &Frame) -> Result<(), ErrorBody>,
) {
    let id = frame.head.id;
    let outcome = if session.broker.is_draining() {
        Err(ErrorCode::Draining.into())
    } else if id == 0 {
        Err(ErrorBody::new(
            ErrorCode::Invalid,
            "what goes on needs an id other than 0",
        ))
    } else {
        handle(session, frame)
    };
    if let Err(error) = outcome {
        session.fail(id, &error);
    }
}
