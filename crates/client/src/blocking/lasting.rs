//! What lasts: iterators, requests and leases.

use super::Shared;
use crate::client::{self as nonblocking, Error, Event, Message, PublishOptions, WatchEvent};
use ganger_protocol::lease::Holder;
use ganger_protocol::pubsub::Position;
use std::fmt;
use std::time::Duration;

/// Nothing came in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing came in time")]
pub struct Nothing;

/// Makes an iterator of a stream. `wrap` makes an item of what the stream yields.
macro_rules! iterator {
    ($(#[$meta:meta])* $name:ident, $inner:ty, $item:ty, $wrap:expr) => {
        $(#[$meta])*
        pub struct $name {
            inner: $inner,
            runtime: Shared,
        }

        impl $name {
            pub(super) fn new(inner: $inner, runtime: &Shared) -> Self {
                let runtime = runtime.clone();
                Self { inner, runtime }
            }

            /// As `next`, but waits so long at most.
            pub fn next_within(&mut self, timeout: Duration) -> Result<Option<$item>, Nothing> {
                let next = self.inner.next();
                // The timer has to be made within the runtime.
                let next = async { tokio::time::timeout(timeout, next).await };
                let next = self.runtime.wait(next).map_err(|_| Nothing)?;
                Ok(next.map(|item| $wrap(item, &self.runtime)))
            }

            /// Why it is over, if that is an error.
            pub fn error(&self) -> Option<Error> {
                self.inner.error()
            }
        }

        impl Iterator for $name {
            type Item = $item;

            fn next(&mut self) -> Option<$item> {
                let item = self.runtime.wait(self.inner.next())?;
                Some($wrap(item, &self.runtime))
            }
        }
    };
}

iterator!(
    /// As [`ganger_client::Subscription`](crate::Subscription): an iterator of events.
    Subscription,
    nonblocking::Subscription,
    Event,
    |event, _: &Shared| event
);

impl Subscription {
    /// The next message; gaps are passed over.
    pub fn next_message(&mut self) -> Option<Message> {
        self.runtime.wait(self.inner.next_message())
    }

    /// As [`Subscription::position`](crate::Subscription::position).
    pub fn position(&self) -> Option<Position> {
        self.inner.position()
    }

    /// As [`Subscription::ack`](crate::Subscription::ack).
    pub fn ack(&self, message: &Message) {
        self.inner.ack(message);
    }
}

iterator!(
    /// As [`ganger_client::Watch`](crate::Watch): an iterator of events.
    Watch,
    nonblocking::Watch,
    WatchEvent,
    |event, _: &Shared| event
);

impl Watch {
    /// As [`Watch::position`](crate::Watch::position).
    pub fn position(&self) -> Option<Position> {
        self.inner.position()
    }
}

iterator!(
    /// As [`ganger_client::Holders`](crate::Holders): an iterator of those who hold a lease.
    Holders,
    nonblocking::Holders,
    Vec<Holder>,
    |holders, _: &Shared| holders
);

iterator!(
    /// As [`ganger_client::Responder`](crate::Responder): an iterator of requests.
    Responder,
    nonblocking::Responder,
    Request,
    |inner, runtime: &Shared| Request {
        inner,
        runtime: runtime.clone()
    }
);

/// As [`ganger_client::Request`](crate::Request).
pub struct Request {
    inner: nonblocking::Request,
    runtime: Shared,
}

impl Request {
    /// The subject it was sent to.
    pub fn subject(&self) -> &str {
        self.inner.subject()
    }

    /// Its payload.
    pub fn payload(&self) -> &[u8] {
        self.inner.payload()
    }

    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.inner.header(name)
    }

    /// How long the requester still waits, about.
    pub fn time_left(&self) -> Duration {
        self.inner.time_left()
    }

    /// As [`Request::reply`](crate::Request::reply).
    pub fn reply(self, payload: impl AsRef<[u8]>) -> Result<(), Error> {
        self.runtime.wait(self.inner.reply(payload))
    }

    /// As [`Request::reply_with`](crate::Request::reply_with).
    pub fn reply_with(
        self,
        payload: impl AsRef<[u8]>,
        options: &PublishOptions,
    ) -> Result<(), Error> {
        self.runtime.wait(self.inner.reply_with(payload, options))
    }

    /// As [`Request::fail`](crate::Request::fail).
    pub fn fail(self, why: impl AsRef<[u8]>) -> Result<(), Error> {
        self.runtime.wait(self.inner.fail(why))
    }
}

/// As [`ganger_client::Lease`](crate::Lease).
#[derive(Debug)]
pub struct Lease {
    inner: nonblocking::Lease,
    runtime: Shared,
}

impl Lease {
    pub(super) fn new(inner: nonblocking::Lease, runtime: &Shared) -> Self {
        let runtime = runtime.clone();
        Self { inner, runtime }
    }

    /// The fencing token.
    pub fn token(&self) -> u64 {
        self.inner.token()
    }

    /// The name of the lease.
    pub fn name(&self) -> &str {
        self.inner.name()
    }

    /// As [`Lease::is_held`](crate::Lease::is_held).
    pub fn is_held(&self) -> bool {
        self.inner.is_held()
    }

    /// Waits until it is lost; see [`Lease::lost`](crate::Lease::lost).
    pub fn lost(&self) {
        self.runtime.wait(self.inner.lost());
    }

    /// As [`Lease::set_value`](crate::Lease::set_value).
    pub fn set_value(&self, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.runtime.wait(self.inner.set_value(value))
    }

    /// As [`Lease::release`](crate::Lease::release).
    pub fn release(self) -> Result<(), Error> {
        self.runtime.wait(self.inner.release())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}
