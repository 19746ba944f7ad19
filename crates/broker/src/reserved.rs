//! Keys of the region that are Ganger's own; the key-value service refuses them to clients.

use ganger_protocol::limits::RESERVED_KEY_BYTE;

/// The keys that Ganger uses so far begin so.
pub const PREFIX: &[u8] = b"\0ganger/";
/// The counter of fencing tokens.
pub const FENCE_KEY: &[u8] = b"\0ganger/fence";
/// Is in a region that a snapshot was made of or put into, so that an old one is not put into it
/// again when the broker is started anew.
pub const SNAPSHOT_KEY: &[u8] = b"\0ganger/snapshot";
/// Keys of the records of held leases begin so; the token follows.
pub const LEASE_PREFIX: &[u8] = b"\0ganger/lease/";

/// The key of a lease's record. Big-endian, so that keys sort as tokens do.
pub fn lease_key(token: u64) -> Vec<u8> {
    [LEASE_PREFIX, &token.to_be_bytes()].concat()
}

/// Whether a key is Ganger's own.
pub fn is_reserved(key: &[u8]) -> bool {
    key.first() == Some(&RESERVED_KEY_BYTE)
}

/// Whether a key outlives a reboot. Of Ganger's own, only the counter of fencing tokens does: who
/// held a lease is gone, but its token must not be given out again. Other reserved keys can only
/// come from programs that write to the region directly, and whatever they meant, it is data.
pub fn outlives_reboot(key: &[u8]) -> bool {
    !key.starts_with(PREFIX) || key == FENCE_KEY
}

#[cfg(test)]
mod tests {
    use super::*;
    use ganger_protocol::limits::PAYLOAD_KEY_PREFIX;

    #[test]
    fn all_of_gangers_keys_are_reserved_and_one_outlives_a_reboot() {
        let payload = [PAYLOAD_KEY_PREFIX, b"1"].concat();
        for key in [FENCE_KEY, &lease_key(7), &payload] {
            assert!(is_reserved(key));
            assert_eq!(outlives_reboot(key), key == FENCE_KEY);
        }
        assert!(!is_reserved(b"ganger") && !is_reserved(b"") && outlives_reboot(b"ganger"));
        assert!(is_reserved(&[0, 1, 2, 3]) && outlives_reboot(&[0, 1, 2, 3]));
        assert!(lease_key(255) < lease_key(256));
    }
}
