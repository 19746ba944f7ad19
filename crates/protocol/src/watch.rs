//! Watching a key or a prefix: its state, then every change.
//!
//! The frame's id is the watch's. `SnapshotBegin`, any number of `SnapshotEntry`, `SnapshotEnd`,
//! then `Change` after `Change`; whenever changes were lost, a new `SnapshotBegin` voids what was
//! known. Entries and changes carry no MessagePack: see [`WatchValue`].

use crate::body::{bodies, yes};
use crate::frame::{FrameError, Tail};
use crate::op::Flags;
use crate::pubsub::{GapCause, Position};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Body of [`Op::Watch`](crate::Op::Watch).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Which keys.
    pub select: Select,
    /// Goes on at this position, without a snapshot, if the broker still has all changes since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Position>,
    /// Whether values come along, or only revisions.
    #[serde(default = "yes")]
    pub values: bool,
    /// How far the broker may be ahead of what the watcher has acknowledged; without it, as far as the
    /// connection takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

/// What may be on its way to a watcher, or wait there to be taken. One frame more may come when
/// either bound is not reached yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Frames.
    pub frames: u32,
    /// Their bytes, length words included.
    pub bytes: u64,
}

/// Which keys are watched.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Select {
    /// This one.
    Key(Bytes),
    /// All that begin so.
    Prefix(Bytes),
}

/// Body of [`Op::Watching`](crate::Op::Watching): the watch goes on where it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watching {
    /// The position it goes on from.
    pub position: Position,
}

/// Body of [`Op::SnapshotBegin`](crate::Op::SnapshotBegin): whatever the watcher knew of these keys
/// is void.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SnapshotBegin {
    /// Why, if this is not simply the beginning: changes were lost, how many nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<GapCause>,
}

/// Body of [`Op::SnapshotEnd`](crate::Op::SnapshotEnd): the state is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEnd {
    /// Entries that were sent.
    pub entries: u64,
    /// Where to resume from until a change comes.
    pub position: Position,
}

bodies! {
    Watch => Watch,
    Watching => Watching,
    SnapshotBegin => SnapshotBegin,
    SnapshotEnd => SnapshotEnd,
}

/// What happened to a key: the low two bits of the flags of a [`Change`](crate::Op::Change).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It has a new value.
    Set = 0,
    /// It was deleted.
    Delete = 1,
    /// It expired, or what it was bound to ended.
    Expire = 2,
    /// It was evicted.
    Evict = 3,
}

impl ChangeKind {
    /// As flags.
    pub fn to_flags(self) -> Flags {
        Flags(self as u16)
    }

    /// From flags.
    pub fn from_flags(flags: Flags) -> Self {
        match flags.0 & 3 {
            0 => Self::Set,
            1 => Self::Delete,
            2 => Self::Expire,
            _ => Self::Evict,
        }
    }
}

/// The tail of a [`SnapshotEntry`](crate::Op::SnapshotEntry) or [`Change`](crate::Op::Change): the
/// key in the subject slot; as payload the revision (`u64`), then the value. The frame's `seq` is
/// the watch's position: a watcher that saw it resumes from one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchValue<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The revision of the entry or the change.
    pub revision: u64,
    /// The value; empty if the key is gone, or values were not asked for.
    pub value: &'a [u8],
}

impl<'a> WatchValue<'a> {
    /// As a tail, for any number of watchers.
    pub fn to_tail(self) -> Result<Tail, FrameError> {
        let payload = [&self.revision.to_be_bytes(), self.value].concat();
        Tail::new(self.key, b"", &payload)
    }

    /// From a tail; `None` if it is none.
    pub fn from_tail(tail: &'a Tail) -> Option<Self> {
        let (revision, value) = tail.payload().split_first_chunk()?;
        Some(Self {
            key: tail.subject(),
            revision: u64::from_be_bytes(*revision),
            value,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_its_tail() {
        for value in [&b""[..], b"value"] {
            let value = WatchValue {
                key: b"key",
                revision: 1 << 60,
                value,
            };
            let tail = value.to_tail().unwrap();
            assert_eq!(WatchValue::from_tail(&tail), Some(value));
        }
        let short = Tail::new(b"key", b"", b"1234567").unwrap();
        assert_eq!(WatchValue::from_tail(&short), None);
    }

    #[test]
    fn a_kind_survives_beside_other_flags() {
        for kind in [
            ChangeKind::Set,
            ChangeKind::Delete,
            ChangeKind::Expire,
            ChangeKind::Evict,
        ] {
            let flags = kind.to_flags().with(Flags::COUNTER);
            assert_eq!(ChangeKind::from_flags(flags), kind);
        }
    }
}
