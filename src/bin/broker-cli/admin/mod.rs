//! Verbs that look into the broker, and look after the region.

pub(crate) mod audit;
pub(crate) mod clients;
pub(crate) mod leases;
pub(crate) mod snapshot;
pub(crate) mod stats;
pub(crate) mod top;
pub(crate) mod topics;

use crate::failure::Failure;
use crate::output::Output;
use serde::Serialize;

/// One object a line.
fn print_json<T: Serialize>(all: &[T], out: &mut Output) -> Result<(), Failure> {
    for one in all {
        let line = serde_json::to_string(one);
        out.line(&line.map_err(|error| Failure::Failed(error.to_string()))?)?;
    }
    Ok(())
}

/// A name that a client chose, or a dash.
fn name(text: &str) -> String {
    match text {
        "" => "-".into(),
        text => crate::output::printable(text.as_bytes()),
    }
}
