//! What happened, counted. Every counter is shown by `stats` and `metrics`.

use super::held::Kind;
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes [`Counters`] from one table: field, meaning.
macro_rules! counters {
    ($($name:ident: $meaning:literal;)*) => {
        /// Counters of the server. They start at 0 with the broker.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(#[doc = $meaning] pub $name: Counter,)*
        }

        impl Counters {
            /// Name, meaning and value of each.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
                [$((stringify!($name), $meaning, self.$name.get()),)*].into_iter()
            }
        }
    };
}

counters! {
    connections_accepted: "Connections that were accepted.";
    connections_ended: "Connections that have ended.";
    connections_not_allowed: "Connections refused because of their user.";
    connections_too_many: "Connections refused because there were too many.";
    accept_failures: "Times accepting failed, for want of descriptors mostly.";
    hello_timeouts: "Connections that did not say hello in time.";
    hello_refused: "Connections refused at their hello.";
    bad_frames: "Connections ended because their bytes were no frames.";
    too_slow_connections: "Connections ended because their clients did not read.";
    too_slow_subscriptions: "Subscriptions ended because they were too slow and asked for it.";
    requests_failed: "Requests answered with an error.";
    publishes_failed: "Messages refused, those without an answer included.";
    publishes_blocked: "Times a connection was not read because a message of it was held up.";
    gaps: "Gaps that subscribers were told.";
    messages_lost: "Messages in these gaps.";
    messages_delivered: "Messages put on the way to subscribers.";
    references_inlined: "Payloads read from the region for those who can't.";
    references_lost: "Payloads by reference that were gone when they were to be read.";
    kv_operations: "Key-value operations.";
    kv_failed: "Key-value operations that failed.";
    ephemeral_released: "Ephemeral keys removed because their connection ended.";
    reaped_sessions: "Sessions of dead processes that were freed in the region.";
    reaped_keys: "Ephemeral keys of dead processes that were removed from the region.";
    swept_keys: "Expired keys whose room was taken back.";
}

/// One counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    #[inline]
    pub fn count(&self) {
        self.add(1);
    }

    /// Counts several.
    #[inline]
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Sets it, for what is counted elsewhere.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// What it stands at.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What went through one connection.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes received.
    pub bytes_in: Counter,
    /// Frames received.
    pub frames_in: Counter,
    /// Bytes written.
    pub bytes_out: Counter,
    /// Frames put on their way.
    pub frames_out: Counter,
    /// Bytes that wait to be written.
    pub outbox_bytes: Counter,
    held: [Counter; 5],
    /// Messages that it lost.
    pub lost: Counter,
}

impl Traffic {
    /// Things of a kind that are held under ids.
    pub fn held(&self, kind: Kind) -> u64 {
        self.held[kind as usize].get()
    }

    pub(super) fn begun(&self, kind: Kind) {
        self.held[kind as usize].count();
    }

    pub(super) fn ended(&self, kind: Kind) {
        self.held[kind as usize].0.fetch_sub(1, Ordering::Relaxed);
    }
}
