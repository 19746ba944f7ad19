//! The steps a program is made of, and the keys and values they work on.

/// A key by number: some short, some long, two prefixes.
pub fn key_of(number: u16) -> Vec<u8> {
    let prefix = if number.is_multiple_of(2) {
        "even"
    } else {
        "odd"
    };
    let mut key = format!("{prefix}:{number}").into_bytes();
    match number % 16 {
        7 => key.resize(1024, b'k'),
        8 => key.resize(90, b'k'),
        _ => {}
    }
    key
}

/// A value of a length and a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Val {
    pub len: u32,
    pub seed: u8,
}

impl Val {
    pub fn bytes(self) -> Vec<u8> {
        let seed = usize::from(self.seed);
        (0..self.len as usize)
            .map(|index| ((index * 31 + index / 251 + seed) % 256) as u8)
            .collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum If {
    Always,
    Absent,
    Present,
    Current,
    Stale,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct How {
    pub condition: If,
    pub ttl: Option<u64>,
    pub keep_expiry: bool,
    pub ephemeral: bool,
}

impl How {
    pub const PLAIN: Self = Self {
        condition: If::Always,
        ttl: None,
        keep_expiry: false,
        ephemeral: false,
    };
}

/// One step of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Set(u16, Val),
    SetWith(u16, Val, How),
    Delete(u16),
    /// Delete if the revision is the current one, or an old one.
    DeleteIf(u16, bool),
    Incr(u16, i64, Option<u64>),
    Append(u16, Val),
    GetOrInsert(u16, Val),
    /// Longer by one byte; made if absent.
    Lengthen(u16),
    /// An update that deletes.
    UpdateAway(u16),
    Expire(u16, u64),
    Touch(u16, u64),
    Persist(u16),
    /// So many keys from a number on, with a time to live or without.
    Fill(u16, u16, Val, Option<u64>),
    Drain(u16, u16),
    Clear,
    Sweep,
    Advance(u64),
    /// The handle that the next steps use.
    Use(u8),
    /// The handle detaches in good order and attaches again.
    Reattach,
    /// All processes are killed; others attach.
    Crash,
    Verify,
}

impl Op {
    /// The key of an operation on one key.
    pub fn key(self) -> u16 {
        match self {
            Self::Set(key, _)
            | Self::SetWith(key, ..)
            | Self::Delete(key)
            | Self::DeleteIf(key, _)
            | Self::Incr(key, ..)
            | Self::Append(key, _)
            | Self::GetOrInsert(key, _)
            | Self::Lengthen(key)
            | Self::UpdateAway(key)
            | Self::Expire(key, _)
            | Self::Touch(key, _)
            | Self::Persist(key) => key,
            _ => unreachable!("not an operation on one key"),
        }
    }
}
