//! Who is who: plain numbers, given out by the server and by its clients.

/// A connection; the server gives each a new one, and never one again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// A subscription of a connection; its client chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(pub u32);

/// A request of a connection that waits for an answer; its client chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u32);

/// One subscription among all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subscriber {
    /// Whose it is.
    pub connection: ConnectionId,
    /// Which of that connection's.
    pub subscription: SubscriptionId,
}

impl Subscriber {
    /// A subscriber by its two numbers.
    pub fn new(connection: u64, subscription: u32) -> Self {
        Self {
            connection: ConnectionId(connection),
            subscription: SubscriptionId(subscription),
        }
    }
}
