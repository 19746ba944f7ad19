//! Leases over the socket: not there yet; they are refused.

use super::broker::Broker;
use super::session::Session;
use ganger_protocol::{ErrorBody, ErrorCode, Frame, Limits};

/// What all leases share.
#[derive(Debug, Default)]
pub struct Leasing {}

impl Leasing {
    pub(super) fn new(_limits: &Limits) -> Self {
        Self {}
    }
}

pub(super) fn handle(_session: &mut Session, _frame: &Frame) -> Result<(), ErrorBody> {
    Err(ErrorCode::Unavailable.into())
}

/// Ends what is due, and returns when something is due next.
pub(super) fn expire(_broker: &Broker, _now_ms: u64) -> Option<u64> {
    None
}
