//! The parts of a snapshot as bytes.

use super::{Fault, What};

pub(super) const MAGIC: [u8; 8] = *b"GANGSNAP";
pub(super) const VERSION: u32 = 1;
pub(super) const HEADER_LEN: usize = 44;
pub(super) const FRAME_LEN: usize = 36;
pub(super) const ENTRY_HEAD_LEN: usize = 19;
const COUNTER: u8 = 1;

/// What a snapshot says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which region it is of: a number that the one who writes it chose.
    pub region: u64,
    /// When its writing began, by the wall clock in milliseconds.
    pub written_at_ms: u64,
    /// About how many entries it has, for showing progress. The end says how many exactly.
    pub expected: u64,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotEntry {
    /// The key.
    pub key: Vec<u8>,
    /// The value; a counter's is its `i64`, little-endian.
    pub value: Vec<u8>,
    /// When it expires by the wall clock in milliseconds, if it does.
    pub expires_at_ms: Option<u64>,
    /// Whether it is a counter.
    pub is_counter: bool,
}

/// What stands before a block, or at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) is_end: bool,
    pub(super) body_crc: u32,
    pub(super) number: u64,
    pub(super) entries: u64,
    pub(super) body_len: u64,
}

impl Header {
    pub(super) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.region.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.written_at_ms.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.expected.to_le_bytes());
        seal(&mut bytes);
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Result<Self, Fault> {
        let wrong = |what| Err(Fault { at: 0, what });
        if bytes[..8] != MAGIC {
            return wrong(What::Magic);
        }
        let (found, flags) = (u32_at(bytes, 8), u32_at(bytes, 12));
        if found != VERSION {
            return wrong(What::Version { found });
        }
        if !is_sealed(bytes) {
            return wrong(What::Checksum { part: "the header" });
        }
        if flags != 0 {
            let reason = "the header has flags that this build does not know";
            return wrong(What::Nonsense { reason });
        }
        Ok(Self {
            region: u64_at(bytes, 16),
            written_at_ms: u64_at(bytes, 24),
            expected: u64_at(bytes, 32),
        })
    }
}

impl Frame {
    pub(super) fn to_bytes(self) -> [u8; FRAME_LEN] {
        let mut bytes = [0; FRAME_LEN];
        bytes[..4].copy_from_slice(if self.is_end { b"END." } else { b"BLCK" });
        bytes[4..8].copy_from_slice(&self.body_crc.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.entries.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.body_len.to_le_bytes());
        seal(&mut bytes);
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; FRAME_LEN]) -> Result<Self, What> {
        if !is_sealed(bytes) {
            return Err(What::Checksum {
                part: "a block's head",
            });
        }
        let is_end = match &bytes[..4] {
            b"END." => true,
            b"BLCK" => false,
            _ => {
                return Err(What::Nonsense {
                    reason: "neither a block nor the end",
                })
            }
        };
        Ok(Self {
            is_end,
            body_crc: u32_at(bytes, 4),
            number: u64_at(bytes, 8),
            entries: u64_at(bytes, 16),
            body_len: u64_at(bytes, 24),
        })
    }
}

impl SnapshotEntry {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.push(if self.is_counter { COUNTER } else { 0 });
        // Keys have at most 1024 bytes; the writer refuses longer ones.
        let key_len = u16::try_from(self.key.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&key_len.to_le_bytes());
        out.extend_from_slice(&(self.value.len() as u64).to_le_bytes());
        let expires = self.expires_at_ms.map_or(0, |at| at.max(1));
        out.extend_from_slice(&expires.to_le_bytes());
        out.extend_from_slice(&self.key);
        out.extend_from_slice(&self.value);
    }

    /// The entry that a body begins with, and what follows it; `None` if there is none.
    pub(super) fn take(body: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = body.split_at_checked(ENTRY_HEAD_LEN)?;
        let flags = head[0];
        let key_len = usize::from(u16::from_le_bytes([head[1], head[2]]));
        let value_len = usize::try_from(u64_at(head, 3)).ok()?;
        let expires = u64_at(head, 11);
        let (key, rest) = rest.split_at_checked(key_len)?;
        let (value, rest) = rest.split_at_checked(value_len)?;
        let is_counter = flags == COUNTER;
        let is_sound = flags <= COUNTER && !key.is_empty() && (!is_counter || value_len == 8);
        let entry = Self {
            key: key.to_vec(),
            value: value.to_vec(),
            expires_at_ms: (expires != 0).then_some(expires),
            is_counter,
        };
        is_sound.then_some((entry, rest))
    }
}

/// Puts the checksum of all before into the last four bytes.
fn seal(bytes: &mut [u8]) {
    let at = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..at]);
    bytes[at..].copy_from_slice(&crc.to_le_bytes());
}

fn is_sealed(bytes: &[u8]) -> bool {
    let at = bytes.len() - 4;
    crc32fast::hash(&bytes[..at]) == u32_at(bytes, at)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
