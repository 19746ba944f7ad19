//! Administration over the socket: not there yet; it is refused.

use super::session::Session;
use ganger_protocol::{ErrorCode, Frame};

/// What administration keeps.
#[derive(Debug, Default)]
pub struct Admin {}

pub(super) fn handle(session: &mut Session, frame: &Frame) {
    session.fail(frame.head.id, &ErrorCode::Unavailable.into());
}
