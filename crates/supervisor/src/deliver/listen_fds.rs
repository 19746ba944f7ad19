//! Inherited listeners: `LISTEN_FDS`, the protocol of systemd's socket activation.

use super::{Context, DeliverError, DeliverEvent, Prepared, FIRST_FD};
use crate::spawn::OWN_PID;
use rustix::io::ioctl_fionbio;
use tokio::sync::mpsc;

/// Waiting connections that a program can't ask more for, since it never calls `listen`.
const BACKLOG: u32 = 4096;

pub(super) fn prepare(prepared: &mut Prepared) -> Result<(), DeliverError> {
    if prepared.context.managed.is_empty() {
        return Err(DeliverError::NothingToInherit);
    }
    let mut names = Vec::new();
    for (address, number) in prepared.context.managed.iter().zip(FIRST_FD..) {
        let slot = prepared.context.slot;
        let (fd, address) = prepared
            .context
            .listeners()
            .socket(address, 0, BACKLOG, slot)?;
        // As systemd hands them over: programs that want it otherwise say so themselves.
        ioctl_fionbio(&fd, false).map_err(DeliverError::system)?;
        // Colons part the names.
        names.push(address.to_string().replace(':', "_"));
        prepared.fds.push((fd, number));
    }
    for (name, value) in [
        ("LISTEN_FDS", prepared.fds.len().to_string()),
        ("LISTEN_PID", OWN_PID.to_owned()),
        ("LISTEN_FDNAMES", names.join(":")),
    ] {
        prepared.env.push((name.into(), value.into()));
    }
    Ok(())
}

/// Nobody can see when an inherited listener is first used, so it counts from the start; a program
/// that wants it otherwise says `READY=1`.
pub(super) fn attach(context: &Context, events: &mpsc::UnboundedSender<DeliverEvent>) {
    for address in &context.managed {
        let _ = events.send(DeliverEvent::Listening(address.clone()));
    }
}
