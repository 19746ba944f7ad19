//! Payloads by reference: checked when they come, and read for those who can't read them.

use super::broker::Broker;
use super::held::Place;
use super::janitor;
use ganger_protocol::limits::PAYLOAD_KEY_PREFIX;
use ganger_protocol::pubsub::{Gap, GapCause};
use ganger_protocol::{ErrorBody, ErrorCode, Flags, Head, Op, Reference, Tail};

/// The tail and flags under which a message by reference is passed on. One that is to be kept gets
/// its payload: what it refers to does not stay for long.
pub(super) fn check(broker: &Broker, tail: Tail, flags: Flags) -> Result<(Tail, Flags), ErrorBody> {
    let reference = Reference::from_payload(tail.payload())
        .filter(|reference| reference.key.starts_with(PAYLOAD_KEY_PREFIX))
        .ok_or_else(|| ErrorBody::new(ErrorCode::BadReference, "not a reference to a payload"))?;
    if flags.has(Flags::RETAIN) {
        let inline = inline(broker, &tail).ok_or(ErrorCode::BadReference)?;
        return Ok((inline, flags.without(Flags::BY_REFERENCE)));
    }
    match broker.region.exists(reference.key) {
        Ok(true) => {
            // Its publisher may not be there any more when its time is over.
            janitor::expires_in(broker, broker.limits().reference_ttl_ms);
            Ok((tail, flags))
        }
        _ => Err(ErrorCode::BadReference.into()),
    }
}

/// The same message with the payload itself. `None` if it is gone, or fits no frame.
pub(super) fn inline(broker: &Broker, tail: &Tail) -> Option<Tail> {
    let reference = Reference::from_payload(tail.payload())?;
    let payload = broker.region.get(reference.key).ok().flatten()?;
    if payload.len() as u64 != reference.len {
        return None;
    }
    let inline = Tail::new(tail.subject(), tail.headers(), &payload).ok();
    broker
        .counters
        .references_inlined
        .add(u64::from(inline.is_some()));
    inline
}

/// Puts a frame into the outbox, with its payload where the client can't get at it by itself. If
/// that is gone, the client is told so.
#[inline]
pub(super) fn push(place: &mut Place<'_>, head: Head, tail: &Tail) {
    if !head.flags.has(Flags::BY_REFERENCE) || !has_reference(head.op) {
        return place.out.push(head, tail);
    }
    if place.connection.client.by_reference {
        return place.out.push(head, tail);
    }
    if let Some(inline) = inline(place.broker, tail) {
        let flags = head.flags.without(Flags::BY_REFERENCE);
        return place.out.push(head.flags(flags), &inline);
    }
    place.broker.counters.references_lost.count();
    match head.op {
        Op::Message => {
            let gap = Gap {
                from: head.seq,
                to: head.seq,
                count: Some(1),
                cause: GapCause::Expired,
            };
            place.out.control(head.id, &gap);
        }
        Op::Request => super::request::refuse(place, head.seq, &ErrorCode::BadReference.into()),
        _ => {
            let error = ErrorBody::from(ErrorCode::BadReference);
            place.out.control(head.id, &error);
        }
    }
}

/// The bit means something else in other ops.
fn has_reference(op: Op) -> bool {
    matches!(op, Op::Message | Op::Request | Op::Reply)
}
