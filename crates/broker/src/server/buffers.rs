//! Memory to read into: for the connections that are being read, not for all there are.

use bytes::BytesMut;
use std::cell::RefCell;

/// Bytes read at a time.
const READ_LEN: usize = 64 << 10;
/// A quiet connection may keep so many bytes of a frame that has not arrived yet in a buffer of their
/// own length.
const PART_MAX: usize = 4 << 10;
/// The largest buffer that is left for others: a part of a frame was in the way of a whole read.
const SPARE_LEN_MAX: usize = 2 * READ_LEN;
/// Buffers that one thread keeps.
const SPARE_MAX: usize = 2;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Makes room for a read behind what is there.
pub(super) fn reserve(received: &mut BytesMut) {
    if received.capacity() <= PART_MAX {
        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop());
        let mut whole = spare.ok().flatten().unwrap_or_default();
        whole.reserve(READ_LEN);
        whole.extend_from_slice(received);
        *received = whole;
    }
    received.reserve(READ_LEN);
}

/// Takes the memory of a connection that is quiet for now, but for what has to stay.
pub(super) fn shrink(received: &mut BytesMut) {
    if received.capacity() <= PART_MAX || received.len() > PART_MAX {
        return;
    }
    let part = BytesMut::from(&received[..]);
    let mut whole = std::mem::replace(received, part);
    whole.clear();
    // Where a message still is a part of it, it can't be used again.
    if !whole.try_reclaim(READ_LEN) || whole.capacity() > SPARE_LEN_MAX {
        return;
    }
    // The thread may be about to end.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < SPARE_MAX {
            spare.push(whole);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_to_stay_does_and_the_memory_is_the_next_ones() {
        let mut received = BytesMut::from(&b"begun"[..]);
        reserve(&mut received);
        assert!(received.capacity() - received.len() >= READ_LEN);
        let place = received.as_ptr();
        received.extend_from_slice(b" and read");
        shrink(&mut received);
        assert_eq!(received, &b"begun and read"[..]);
        assert!(received.capacity() <= PART_MAX);
        let mut other = BytesMut::new();
        reserve(&mut other);
        assert_eq!((other.as_ptr(), other.len()), (place, 0));
    }

    #[test]
    fn memory_that_a_message_is_in_is_left_alone() {
        let mut received = BytesMut::new();
        reserve(&mut received);
        received.extend_from_slice(b"a message, and more");
        let message = received.split_to(9).freeze();
        shrink(&mut received);
        assert_eq!(received, &b", and more"[..]);
        let mut other = BytesMut::new();
        reserve(&mut other);
        other.extend_from_slice(&[0; READ_LEN]);
        assert_eq!(message, &b"a message"[..]);
    }

    #[test]
    fn few_buffers_are_kept_and_no_large_ones() {
        shrink(&mut BytesMut::with_capacity(SPARE_LEN_MAX + 1));
        (0..5).for_each(|_| shrink(&mut BytesMut::with_capacity(READ_LEN)));
        SPARE.with(|spare| {
            let spare = spare.borrow();
            assert_eq!(spare.len(), SPARE_MAX);
            assert!(spare
                .iter()
                .all(|buffer| buffer.capacity() <= SPARE_LEN_MAX));
        });
        let mut long = BytesMut::zeroed(PART_MAX + 1);
        shrink(&mut long);
        assert_eq!(long.len(), PART_MAX + 1);
    }
}
