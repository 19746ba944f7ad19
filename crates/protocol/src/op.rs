//! What a frame is about, and the flags it can carry.

/// Makes [`Op`] from one table: variant, number on the wire, meaning.
macro_rules! ops {
    ($($name:ident = $number:literal, $meaning:literal;)*) => {
        /// What a frame is about. `docs/protocol.md` says for each what its fields mean.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Op {
            $(#[doc = $meaning] $name,)*
            /// One this build does not know: answered with
            /// [`UnknownOperation`](crate::ErrorCode::UnknownOperation), and nothing else happens.
            Unknown(u8),
        }

        impl Op {
            /// Every op this build knows.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its byte on the wire.
            pub const fn to_u8(self) -> u8 {
                match self {
                    $(Self::$name => $number,)*
                    Self::Unknown(number) => number,
                }
            }

            /// The op of a byte.
            pub const fn from_u8(number: u8) -> Self {
                match number {
                    $($number => Self::$name,)*
                    _ => Self::Unknown(number),
                }
            }
        }
    };
}

ops! {
    Hello = 0x01, "Client: who it is and what it can; always its first frame.";
    Welcome = 0x02, "Broker: the answer to a hello.";
    Error = 0x03, "Broker: a request failed; with id 0, something about the connection.";
    Ok = 0x04, "Broker: a request is done; `seq` is its result, if it is a number.";
    Ended = 0x05, "Broker: a subscription, watch, observation or tap is over.";
    Cancel = 0x06, "Client: ends whatever has this id.";
    Ping = 0x07, "Either: asks for a pong with the same id and seq.";
    Pong = 0x08, "Either: the answer to a ping.";
    Goodbye = 0x09, "Either: its sender is about to stop or close.";

    Publish = 0x10, "Client: a message for all who subscribed to its subject.";
    Message = 0x11, "Broker: a message of a subscription.";
    Gap = 0x12, "Broker: messages of a subscription were lost.";
    Ack = 0x13, "Client: a message of a queue group is done with.";
    Subscribe = 0x14, "Client: asks for the messages of a pattern.";
    Subscribed = 0x15, "Broker: the answer to a subscribe.";

    Request = 0x20, "Client: a question to one responder. Broker: the question, to that responder.";
    Reply = 0x21, "Responder to broker, and broker to requester: the answer.";

    Get = 0x30, "Client: the value of a key.";
    Set = 0x31, "Client: stores a value.";
    Delete = 0x32, "Client: removes a key.";
    Incr = 0x33, "Client: adds to a counter.";
    Kv = 0x34, "Client: any key-value operation, or a batch of them.";
    Value = 0x38, "Broker: the value that was asked for.";
    Nothing = 0x39, "Broker: the key is not there, or the condition is not met.";
    KvReply = 0x3a, "Broker: the answer to a `Kv`.";

    Watch = 0x40, "Client: asks for the state of a key or prefix, and its changes.";
    SnapshotBegin = 0x41, "Broker: what a watcher knew is void; the state follows.";
    SnapshotEntry = 0x42, "Broker: one entry of the state.";
    SnapshotEnd = 0x43, "Broker: that was the state; from here on come changes.";
    Change = 0x44, "Broker: a key changed.";
    Watching = 0x45, "Broker: a watch goes on where it was; changes follow, no snapshot.";

    Lease = 0x50, "Client: acquires, renews, releases or observes a lease.";
    LeaseEvent = 0x51, "Broker: what became of it.";

    Admin = 0x60, "Client: asks what the broker does, or tells it to do something.";
    AdminReply = 0x61, "Broker: the answer.";
    AdminProgress = 0x62, "Broker: how far something long has come.";
}

/// The flags of a frame. What a bit means depends on the op; bits that mean nothing are sent as 0
/// and ignored by the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// None.
    pub const NONE: Self = Self(0);

    /// `Publish`: answer with `Ok` (whose `seq` is the number of subscriptions reached).
    pub const WANT_ACK: Self = Self(1);
    /// `Publish`: keep it as the subject's last message; with an empty payload, forget the last one.
    /// `Message`: it is one that was kept.
    pub const RETAIN: Self = Self(1 << 1);
    /// `Publish`, `Message`, `Request`, `Reply`: the payload is a [`Reference`](crate::Reference).
    pub const BY_REFERENCE: Self = Self(1 << 2);
    /// `Publish`: not to subscriptions of the same connection.
    pub const NO_ECHO: Self = Self(1 << 3);
    /// `Message`: it is older than the subscription.
    pub const REPLAY: Self = Self(1 << 4);
    /// `Ack`: this message and all before it that this member got.
    pub const UP_TO: Self = Self(1 << 5);
    /// `Reply`: the responder could not do it; the payload says why in its own terms.
    pub const FAILED: Self = Self(1 << 6);

    /// `Set`: `seq` is the time to live in milliseconds; beside `IF_REVISION`, the headers slot is,
    /// as a `u64`.
    pub const TTL: Self = Self(1);
    /// `Set`: only if the key is not there.
    pub const IF_ABSENT: Self = Self(1 << 1);
    /// `Set`: only if the key is there.
    pub const IF_PRESENT: Self = Self(1 << 2);
    /// `Set`, `Delete`: only if the key's revision is `seq`.
    pub const IF_REVISION: Self = Self(1 << 3);
    /// `Set`: a key that is there keeps its expiry.
    pub const KEEP_EXPIRY: Self = Self(1 << 4);
    /// `Set`: the key goes when this connection ends.
    pub const EPHEMERAL: Self = Self(1 << 5);
    /// `Value`, `SnapshotEntry`, `Change`: the value is a counter, 8 bytes little-endian.
    pub const COUNTER: Self = Self(1 << 6);

    const REDELIVERIES_SHIFT: u32 = 12;

    /// Whether all bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and those of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// `Message`: how often it was delivered before, 15 at most.
    pub const fn redeliveries(self) -> u8 {
        (self.0 >> Self::REDELIVERIES_SHIFT) as u8
    }

    /// These with another number of earlier deliveries; more than 15 are 15.
    #[must_use]
    pub const fn with_redeliveries(self, count: u8) -> Self {
        let count = if count > 15 { 15 } else { count as u16 };
        let rest = self.0 & ((1 << Self::REDELIVERIES_SHIFT) - 1);
        Self(rest | count << Self::REDELIVERIES_SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_byte_is_an_op_and_no_two_share_one() {
        for number in 0..=u8::MAX {
            assert_eq!(Op::from_u8(number).to_u8(), number);
        }
        let numbers: HashSet<u8> = Op::ALL.iter().map(|op| op.to_u8()).collect();
        assert_eq!(numbers.len(), Op::ALL.len());
    }

    #[test]
    fn redeliveries_stop_at_fifteen_and_touch_no_other_flag() {
        let flags = Flags::RETAIN.with(Flags::REPLAY);
        for (count, told) in [(0, 0), (1, 1), (15, 15), (16, 15), (255, 15)] {
            let counted = flags.with_redeliveries(9).with_redeliveries(count);
            assert_eq!(counted.redeliveries(), told);
            assert!(counted.has(flags) && !counted.has(Flags::UP_TO));
            assert_eq!(counted.with_redeliveries(0), flags);
        }
    }
}
