//! Payloads by reference: in the region, not on the wire.

use crate::limits::KEY_LEN_MAX;
use bytes::{BufMut, Bytes, BytesMut};

/// The payload of a frame with [`Flags::BY_REFERENCE`](crate::Flags::BY_REFERENCE): the length of
/// the real payload (`u64`), then the key under which the publisher stored it in the region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference<'a> {
    /// Bytes of the real payload.
    pub len: u64,
    /// Where it is.
    pub key: &'a [u8],
}

impl<'a> Reference<'a> {
    /// As a payload.
    pub fn to_payload(self) -> Bytes {
        let mut payload = BytesMut::with_capacity(8 + self.key.len());
        payload.put_u64(self.len);
        payload.put_slice(self.key);
        payload.freeze()
    }

    /// From a payload; `None` if it is none.
    pub fn from_payload(payload: &'a [u8]) -> Option<Self> {
        let (len, key) = payload.split_first_chunk()?;
        (1..=KEY_LEN_MAX).contains(&key.len()).then_some(Self {
            len: u64::from_be_bytes(*len),
            key,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_a_key_of_1_to_1024_bytes() {
        for len in [1, KEY_LEN_MAX] {
            let key = vec![7; len];
            let reference = Reference {
                len: 1 << 40,
                key: &key,
            };
            let payload = reference.to_payload();
            assert_eq!(Reference::from_payload(&payload), Some(reference));
        }
        for len in [0, 7, 8, 8 + KEY_LEN_MAX + 1] {
            assert_eq!(Reference::from_payload(&vec![0; len]), None);
        }
    }
}
