//! The keys of the run: of each kind, numbers of their own.

use std::ops::Range;

/// Registers that everybody fights for.
pub(super) const HOT: u64 = 24;
/// Registers in all; enough that the index grows and shrinks.
pub(super) const REGISTERS: u64 = 1500;
pub(super) const COUNTERS: Range<u64> = 10_000..10_004;
pub(super) const UPDATED: Range<u64> = 11_000..11_003;
pub(super) const LOCKS: Range<u64> = 12_000..12_003;
/// Values that only grow.
pub(super) const SEQUENCES: Range<u64> = 13_000..13_002;
/// Values that expire: of each slot, one that only its clients write.
pub(super) const LEASES: Range<u64> = 14_000..14_008;
/// Registers that nobody deletes.
pub(super) const STABLE: Range<u64> = 16_000..16_100;

/// The name of a key; names are of many lengths.
pub(super) fn name(key: u64) -> Vec<u8> {
    let mut name = format!("key-{key}-").into_bytes();
    name.resize(name.len() + usize::try_from(key * 37 % 120).unwrap(), b'x');
    name
}

/// The key of a name; `None` if no key has that name.
pub(super) fn key_of(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let key = text.strip_prefix("key-")?.split('-').next()?.parse().ok()?;
    let kinds = [COUNTERS, UPDATED, LOCKS, SEQUENCES, LEASES, STABLE];
    let known = key < REGISTERS || kinds.iter().any(|kind| kind.contains(&key));
    (known && name(key) == bytes).then_some(key)
}

#[test]
fn names_lead_back_to_their_keys() {
    for key in (0..REGISTERS).chain(STABLE).chain(LEASES) {
        assert_eq!(key_of(&name(key)), Some(key));
        assert_eq!(key_of(&name(key)[1..]), None);
    }
    assert_eq!(key_of(&name(REGISTERS)), None);
}
