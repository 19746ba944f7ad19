//! Topics: who gets which message.

// One pattern's messages.
mod budget;
pub mod channel;
mod conflate;
pub mod group;
mod positions;
// All patterns.
mod join;
mod linger;
mod registry;
pub mod retained;
mod topic;
pub mod trie;

pub use budget::Budget;
pub use join::{Joined, Membership, SubscribeError, Subscription};
pub use registry::{Chosen, Pending, Published, Route, TopicLimits, Topics, TopicsTotals};
pub use topic::{ChannelStats, GroupStats, Topic, TopicStats};

use crate::ids::{ConnectionId, Subscriber};

/// What follows from an operation for others; the server does it. Its vectors are emptied by the
/// server and used again, so that publishing asks for no memory.
#[derive(Debug, Default)]
pub struct Effects {
    /// Subscribers that had nothing to drain and now have.
    pub wake: Vec<Subscriber>,
    /// Subscribers that are to be disconnected, because they were too slow and asked for it.
    pub overrun: Vec<Subscriber>,
    /// Publishers that were blocked and may try again.
    pub resume: Vec<ConnectionId>,
    /// Messages for members of queue groups, and requests for responders.
    pub assignments: Vec<group::Assignment>,
}
