//! Values that prove themselves: every byte, and the length, follows from who wrote the value, as
//! his how manieth, under which key. So a value that is torn, mixed, cut or of another key is
//! recognised by itself.

use super::random::mix;

/// Bits of an id: slot of the writer (8 bits), number of its record (32 bits).
const ID_BITS: u32 = 40;
pub(super) const LEN_MAX: u64 = 100 * 1024;

/// Fills `out` with the value of that id.
pub(super) fn make(key: u64, id: u64, out: &mut Vec<u8>) {
    let seed = seed(key, id);
    let len = len_of(seed);
    out.clear();
    out.reserve(len + 8);
    out.extend_from_slice(&(id << (64 - ID_BITS) | seed >> ID_BITS).to_le_bytes());
    for word in 1..len.div_ceil(8) as u64 {
        out.extend_from_slice(&filler(seed, word).to_le_bytes());
    }
    out.truncate(len);
}

/// The id of a value, or `None` if nobody made these bytes under this key in one piece.
pub(super) fn id_of(key: u64, bytes: &[u8]) -> Option<u64> {
    let head = u64::from_le_bytes(*bytes.first_chunk()?);
    let id = head >> (64 - ID_BITS);
    let seed = seed(key, id);
    let good = bytes.len() == len_of(seed) && head == (id << (64 - ID_BITS) | seed >> ID_BITS);
    let mut chunks = bytes.chunks_exact(8).zip(0..);
    let whole = good
        && chunks.all(|(chunk, word)| word == 0 || chunk == filler(seed, word).to_le_bytes())
        && {
            let rest = bytes.chunks_exact(8).remainder();
            let last = filler(seed, bytes.len() as u64 / 8).to_le_bytes();
            rest == &last[..rest.len()]
        };
    whole.then_some(id)
}

fn seed(key: u64, id: u64) -> u64 {
    mix(mix(key ^ 0x5bd1_e995) ^ id)
}

fn filler(seed: u64, word: u64) -> u64 {
    (seed ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Small blocks most often, each order of magnitude up to page lists now and then.
fn len_of(seed: u64) -> usize {
    let draw = mix(seed ^ 1);
    let (low, high) = match draw % 100 {
        0..=64 => (8, 256),
        65..=84 => (256, 4096),
        85..=94 => (4096, 33 * 1024),
        _ => (33 * 1024, LEN_MAX + 1),
    };
    usize::try_from(low + (draw >> 32) % (high - low)).unwrap()
}

#[test]
fn values_prove_who_wrote_them() {
    let mut value = Vec::new();
    let mut lens = Vec::new();
    for id in (0..2000).map(|number| (number % 7) << 32 | number) {
        make(id % 5, id, &mut value);
        assert_eq!(id_of(id % 5, &value), Some(id));
        lens.push(value.len() as u64);
    }
    assert!(lens.iter().any(|len| *len < 64) && lens.iter().any(|len| *len > LEN_MAX - 4096));
}

#[test]
fn torn_values_give_themselves_away() {
    let (mut value, mut other) = (Vec::new(), Vec::new());
    for id in 1..500 {
        make(1, id, &mut value);
        make(1, id + 1, &mut other);
        assert_eq!(id_of(2, &value), None, "under another key");
        assert_eq!(id_of(1, &value[..value.len() - 1]), None, "cut");
        assert_eq!(id_of(1, &[&value[..], &[0]].concat()), None, "longer");
        let half = value.len().min(other.len()) / 2;
        let mixed = [&value[..half], &other[half..]].concat();
        assert_eq!(id_of(1, &mixed), None, "two halves");
        let last = value.len() - 1;
        value[last] ^= 1;
        assert_eq!(id_of(1, &value), None, "one bit");
    }
    assert_eq!(id_of(1, &[]), None);
    assert_eq!(id_of(1, &[0; 64]), None);
}
