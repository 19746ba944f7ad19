//! What a [`Kv::set_with`](crate::Kv::set_with) requires of the key and gives it.

use ganger_protocol::kv::SetOptions as Wire;
use std::time::Duration;

/// What a write requires of the key, and what it gives it. Of several conditions the last one
/// counts.
///
/// ```
/// use ganger_client::{Config, Kv, SetOptions};
/// use std::time::Duration;
///
/// let kv = Kv::create(Config::new(1 << 20))?;
/// // A lock that goes when this process dies, or after a minute.
/// let lock = SetOptions::new().if_absent().ephemeral().ttl(Duration::from_secs(60));
/// assert!(kv.set_with("lock:report", "me", lock)?.is_some());
/// assert!(kv.set_with("lock:report", "me too", lock)?.is_none());
/// # Ok::<(), ganger_client::KvError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetOptions(
    pub(crate) ganger_region::SetOptions,
    /// The same, as it goes to the broker.
    pub(crate) Wire,
);

impl SetOptions {
    /// No condition, no expiry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The key expires after this time. Without it, a `set` makes a key that never expires.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        let ttl_ms = milliseconds(ttl);
        let wire = Wire {
            ttl_ms: Some(ttl_ms),
            ..self.1
        };
        Self(self.0.ttl_ms(ttl_ms), wire)
    }

    /// Only if the key is not there.
    #[must_use]
    pub fn if_absent(self) -> Self {
        let wire = Wire {
            if_absent: true,
            ..self.unconditional()
        };
        Self(self.0.if_absent(), wire)
    }

    /// Only if the key is there.
    #[must_use]
    pub fn if_present(self) -> Self {
        let wire = Wire {
            if_present: true,
            ..self.unconditional()
        };
        Self(self.0.if_present(), wire)
    }

    /// Only if the key is there and nobody wrote it since its [`Entry`](crate::Entry) had this
    /// revision.
    #[must_use]
    pub fn if_revision(self, revision: u64) -> Self {
        let wire = Wire {
            if_revision: Some(revision),
            ..self.unconditional()
        };
        Self(self.0.if_revision(revision), wire)
    }

    /// A key that is there keeps the expiry it has.
    #[must_use]
    pub fn keep_expiry(self) -> Self {
        let wire = Wire {
            keep_expiry: true,
            ..self.1
        };
        Self(self.0.keep_expiry(), wire)
    }

    /// The key goes when this handle's session ends: when its last clone is dropped, or the process
    /// dies. After a death, reads still return it until it is written or reaped
    /// ([`Kv::reap`](crate::Kv::reap), which a broker does by itself).
    #[must_use]
    pub fn ephemeral(self) -> Self {
        let wire = Wire {
            ephemeral: true,
            ..self.1
        };
        Self(self.0.ephemeral(), wire)
    }

    /// The last condition counts.
    fn unconditional(self) -> Wire {
        Wire {
            if_absent: false,
            if_present: false,
            if_revision: None,
            ..self.1
        }
    }
}

/// Whole milliseconds, rounded up so that nothing expires early. What is too long for the clock
/// stays so, and is refused by the region.
pub(crate) fn milliseconds(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_never_cut_short() {
        assert_eq!(milliseconds(Duration::ZERO), 0);
        assert_eq!(milliseconds(Duration::from_nanos(1)), 1);
        assert_eq!(milliseconds(Duration::from_micros(1500)), 2);
        assert_eq!(milliseconds(Duration::from_secs(2)), 2000);
        assert_eq!(milliseconds(Duration::MAX), u64::MAX);
    }
}
