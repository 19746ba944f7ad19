//! `request`: a question, and its answer.

use super::publish::header_fields;
use crate::failure::Failure;
use crate::input;
use crate::json::Object;
use crate::session::Session;
use clap::Args;

const EXAMPLES: &str = "\
Examples:
  broker-cli request price pears
  broker-cli request thumbnail --file photo.jpg > small.jpg
  broker-cli request backup now --timeout 10m";

/// Ask whoever answers on a subject, and write the answer.
///
/// To a pipe or a file go exactly the bytes of the answer. If nobody answers on the subject, that
/// is told at once; if the one who was asked dies, too. --timeout is how long the answer may take.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Request {
    /// The subject.
    subject: String,
    #[command(flatten)]
    value: input::Value,
}

impl Request {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let payload = self.value.read_or_empty(&session.options)?;
        let client = session.client()?;
        let limit = session.options.timeout;
        let reply = session.wait(async {
            let asked = client.request_within(&self.subject, &payload, limit);
            Ok(asked.await?)
        })?;
        let out = &mut session.out;
        if !out.json {
            return out.value(reply.payload(), false);
        }
        let object = out.value_field(Object::new(), "payload", reply.payload(), false)?;
        let headers = header_fields(reply.headers()).build();
        out.object(object.field("headers", headers))
    }
}
