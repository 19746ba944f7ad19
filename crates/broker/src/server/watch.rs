//! Watches: not there yet; they are refused.

use super::session::Session;
use ganger_protocol::{ErrorBody, ErrorCode, Frame, Limits};

/// What all watches share.
#[derive(Debug, Default)]
pub struct Watches {}

impl Watches {
    pub(super) fn new(_limits: &Limits) -> Self {
        Self {}
    }
}

pub(super) fn handle(_session: &mut Session, _frame: &Frame) -> Result<(), ErrorBody> {
    Err(ErrorCode::Unavailable.into())
}
