//! Control messages: MessagePack with named fields.
//!
//! Both sides may be of different versions. Fields that the receiver doesn't know are ignored; those
//! that are missing have a default, if they were not there from the beginning; a variant that the
//! receiver doesn't know is an error of that request alone.

use crate::frame::FrameError;
use crate::limits::{BODY_DEPTH_MAX, BODY_ITEMS_MAX};
use crate::op::Op;
use serde::de::DeserializeOwned;
use serde::Serialize;

/// A control message: the payload of the frames of one op.
pub trait Body: Serialize + DeserializeOwned {
    /// The op whose frames carry it.
    const OP: Op;

    /// Its bytes.
    fn to_bytes(&self) -> Result<Vec<u8>, EncodeError> {
        Ok(rmp_serde::to_vec_named(self)?)
    }

    /// The message of these bytes.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        check(bytes)?;
        rmp_serde::from_slice(bytes).map_err(DecodeError::from)
    }
}

/// Why a control message could not be read. The request it belongs to fails, nothing else does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It is sound, but asks for something this build does not know.
    #[error("not known here: {0}")]
    Unknown(String),
    /// It is no MessagePack, or lacks something, or has something of another type.
    #[error("malformed: {0}")]
    Malformed(String),
}

/// Why a control message could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// It does not fit a frame.
    #[error(transparent)]
    Frame(FrameError),
    /// MessagePack has no room for it.
    #[error(transparent)]
    MessagePack(#[from] rmp_serde::encode::Error),
}

impl From<rmp_serde::decode::Error> for DecodeError {
    fn from(error: rmp_serde::decode::Error) -> Self {
        match error {
            // Serde's own words, and all it gives.
            rmp_serde::decode::Error::Syntax(text) if text.starts_with("unknown variant") => {
                Self::Unknown(text)
            }
            error => Self::Malformed(error.to_string()),
        }
    }
}

/// Whether the bytes are one MessagePack value that is all there, neither deep nor of too many
/// parts: before anything is made of it.
fn check(bytes: &[u8]) -> Result<(), DecodeError> {
    let malformed = |why: &str| Err(DecodeError::Malformed(why.to_owned()));
    let mut walk = Walk { left: bytes };
    // How many values are still to come on each level.
    let mut open = [0_usize; BODY_DEPTH_MAX];
    let mut depth = 0;
    for _ in 0..BODY_ITEMS_MAX {
        let Some(inside) = walk.value() else {
            return malformed("it ends too early, or begins like nothing");
        };
        if inside > 0 {
            if depth == BODY_DEPTH_MAX {
                return malformed("it is nested too deeply");
            }
            open[depth] = inside;
            depth += 1;
            continue;
        }
        while depth > 0 {
            open[depth - 1] -= 1;
            if open[depth - 1] > 0 {
                break;
            }
            depth -= 1;
        }
        if depth == 0 {
            return match walk.left {
                [] => Ok(()),
                _ => malformed("something follows it"),
            };
        }
    }
    malformed("it has too many parts")
}

struct Walk<'a> {
    left: &'a [u8],
}

impl Walk<'_> {
    /// Steps over a value's marker and, if it has no values inside, its bytes. Returns how many
    /// values are inside.
    fn value(&mut self) -> Option<usize> {
        let marker = self.number(1)?;
        let (skip, inside) = match marker {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (0, 0),
            0x80..=0x8f => (0, 2 * (marker - 0x80)),
            0x90..=0x9f => (0, marker - 0x90),
            0xa0..=0xbf => (marker - 0xa0, 0),
            0xc4 | 0xd9 => (self.number(1)?, 0),
            0xc5 | 0xda => (self.number(2)?, 0),
            0xc6 | 0xdb => (self.number(4)?, 0),
            // No message has extension types.
            0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => return None,
            0xcc | 0xd0 => (1, 0),
            0xcd | 0xd1 => (2, 0),
            0xca | 0xce | 0xd2 => (4, 0),
            0xcb | 0xcf | 0xd3 => (8, 0),
            0xdc => (0, self.number(2)?),
            0xdd => (0, self.number(4)?),
            0xde => (0, self.number(2)? * 2),
            0xdf => (0, self.number(4)?.checked_mul(2)?),
            _ => return None,
        };
        self.left = self.left.get(skip..)?;
        Some(inside)
    }

    fn number(&mut self, len: usize) -> Option<usize> {
        let (bytes, left) = self.left.split_at_checked(len)?;
        self.left = left;
        Some(
            bytes
                .iter()
                .fold(0, |number, byte| number << 8 | usize::from(*byte)),
        )
    }
}

/// Says which op carries which message.
macro_rules! bodies {
    ($($body:ty => $op:ident,)*) => {
        $(impl $crate::Body for $body {
            const OP: $crate::Op = $crate::Op::$op;
        })*
    };
}
pub(crate) use bodies;

/// For `#[serde(default = ...)]`.
pub(crate) fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::KvRequest;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn is_malformed(bytes: &[u8], why: &str) -> bool {
        check(bytes) == Err(DecodeError::Malformed(why.to_owned()))
    }

    #[test]
    fn what_is_too_deep_or_has_too_many_parts_is_refused_before_it_is_made() {
        let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
        assert_eq!(check(&nested(BODY_DEPTH_MAX)), Ok(()));
        assert!(is_malformed(
            &nested(BODY_DEPTH_MAX + 1),
            "it is nested too deeply"
        ));
        assert!(is_malformed(&nested(1 << 20), "it is nested too deeply"));
        let flat = |parts: usize| {
            let len = u32::try_from(parts - 1).unwrap().to_be_bytes();
            [vec![0xdd], len.to_vec(), vec![0xc0; parts - 1]].concat()
        };
        assert_eq!(check(&flat(BODY_ITEMS_MAX)), Ok(()));
        assert!(is_malformed(
            &flat(BODY_ITEMS_MAX + 1),
            "it has too many parts"
        ));
        // As a message: a request for a million keys.
        let mut many = b"\x81\xa8get_many\x81\xa4keys".to_vec();
        many.extend(flat(BODY_ITEMS_MAX));
        assert!(matches!(
            KvRequest::from_bytes(&many),
            Err(DecodeError::Malformed(_))
        ));
    }

    #[test]
    fn what_is_declared_and_not_there_is_refused_before_it_is_made() {
        let early = "it ends too early, or begins like nothing";
        for bytes in [
            &b""[..],
            b"\xc1",
            b"\xd4\x01\x00",
            b"\xc6\xff\xff\xff\xff",
            b"\xdb\x00\x00\x00\x02a",
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff",
            b"\x81\xa3get",
        ] {
            assert!(is_malformed(bytes, early), "{bytes:?}");
        }
        assert!(is_malformed(b"\xc0\xc0", "something follows it"));
        assert_eq!(check(b"\x90"), Ok(()));
        assert_eq!(check(b"\x82\x01\x90\x02\x92\x80\xa1a"), Ok(()));
    }

    proptest! {
        /// The two readers of MessagePack agree on what is one sound value.
        #[test]
        fn the_check_agrees_with_another_reader(bytes in vec(any::<u8>(), 0..40)) {
            let mut left = &bytes[..];
            if check(&bytes).is_ok() {
                prop_assert!(rmpv::decode::read_value(&mut left).is_ok() && left.is_empty());
            }
        }

        #[test]
        fn every_value_of_another_writer_passes(value in value()) {
            let mut bytes = Vec::new();
            rmpv::encode::write_value(&mut bytes, &value).unwrap();
            prop_assert_eq!(check(&bytes), Ok(()));
        }
    }

    fn value() -> impl Strategy<Value = rmpv::Value> {
        use rmpv::Value as V;
        let leaf = prop_oneof![
            Just(V::Nil),
            any::<bool>().prop_map(V::from),
            any::<i64>().prop_map(V::from),
            any::<u64>().prop_map(V::from),
            any::<f64>().prop_map(V::from),
            any::<f32>().prop_map(V::from),
            ".{0,70}".prop_map(V::from),
            vec(any::<u8>(), 0..300).prop_map(V::from),
        ];
        leaf.prop_recursive(4, 200, 20, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..20).prop_map(V::from),
                vec((inner.clone(), inner), 0..20).prop_map(V::from),
            ]
        })
    }
}
