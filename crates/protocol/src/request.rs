//! The number by which a reply finds its request.

use crate::limits::REQUEST_TIMEOUT_MS_MAX;

const TIMEOUT_BITS: u32 = 24;

/// The `seq` of a request on its way to the responder, which the reply carries back as it is: the
/// broker's number of the request, and how long the requester still waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestTag {
    number: u64,
    timeout_ms: u32,
}

impl RequestTag {
    /// Numbers there are: a broker counts on from 0 after so many.
    pub const NUMBERS: u64 = 1 << (u64::BITS - TIMEOUT_BITS);

    /// The tag of a request. Of the number, the low 40 bits are kept; a longer time is cut to
    /// [`REQUEST_TIMEOUT_MS_MAX`].
    pub fn new(number: u64, timeout_ms: u64) -> Self {
        let longest = u64::from(REQUEST_TIMEOUT_MS_MAX);
        Self {
            number: number % Self::NUMBERS,
            timeout_ms: u32::try_from(timeout_ms.min(longest)).unwrap_or(REQUEST_TIMEOUT_MS_MAX),
        }
    }

    /// The broker's number of the request.
    pub fn number(self) -> u64 {
        self.number
    }

    /// Milliseconds until nobody waits for the reply any more.
    pub fn timeout_ms(self) -> u32 {
        self.timeout_ms
    }

    /// As the `seq` of a frame.
    pub fn to_seq(self) -> u64 {
        self.number << TIMEOUT_BITS | u64::from(self.timeout_ms)
    }

    /// From the `seq` of a frame.
    pub fn from_seq(seq: u64) -> Self {
        Self::new(seq >> TIMEOUT_BITS, seq & u64::from(REQUEST_TIMEOUT_MS_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_survives_the_wire_and_holds_its_limits() {
        for seq in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            assert_eq!(RequestTag::from_seq(seq).to_seq(), seq);
        }
        let beyond = RequestTag::new(RequestTag::NUMBERS, u64::from(REQUEST_TIMEOUT_MS_MAX) + 1);
        assert_eq!(
            (beyond.number(), beyond.timeout_ms()),
            (0, REQUEST_TIMEOUT_MS_MAX)
        );
        let tag = RequestTag::new(5, 250);
        assert_eq!((tag.number(), tag.timeout_ms()), (5, 250));
    }
}
