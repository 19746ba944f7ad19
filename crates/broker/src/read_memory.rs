//! Memory to read into: for the connections that are being read, not for all there are.
//!
//! Long messages may stay where they were read. A message that outlives those beside it keeps all the
//! memory they shared, so how much is kept in vain is known at every moment: while it is more than
//! [`VAIN_MAX`], nothing more is lent, and messages are copied. So what is lent is at most that much more
//! than the messages in it were when they were most.

use bytes::{Bytes, BytesMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of one piece.
pub const READ_LEN: usize = 64 << 10;
/// Bytes that may be kept for no other reason than being beside a message, and memory still be lent.
pub const VAIN_MAX: usize = 8 << 20;
/// The largest piece that is left for others: a part of a frame was in the way of a whole read.
const SPARE_LEN_MAX: usize = 2 * READ_LEN;
/// Pieces that are left for others.
const SPARE_MAX: usize = 2;

/// The memory that a broker's connections read into.
#[derive(Debug, Default)]
pub struct ReadMemory {
    spare: Mutex<Vec<BytesMut>>,
    /// Bytes of the pieces that messages may be in.
    lent: AtomicUsize,
    /// Bytes of the messages that are in them.
    used: AtomicUsize,
}

impl ReadMemory {
    /// An empty piece.
    pub fn take(&self) -> BytesMut {
        let spare = self.lock().pop();
        spare.unwrap_or_else(|| BytesMut::with_capacity(READ_LEN))
    }

    /// Leaves a piece to who reads next.
    pub fn give_back(&self, mut piece: BytesMut) {
        piece.clear();
        // Where a frame still is a part of it, it can't be used again.
        if !piece.try_reclaim(READ_LEN) || piece.capacity() > SPARE_LEN_MAX {
            return;
        }
        let mut spare = self.lock();
        if spare.len() < SPARE_MAX {
            spare.push(piece);
        }
    }

    /// Makes a piece one that messages can be slices of; `Err` with the piece as it was, if too much is
    /// kept in vain already.
    pub fn lend(self: &Arc<Self>, piece: BytesMut) -> Result<Bytes, BytesMut> {
        if self.in_vain() > VAIN_MAX {
            return Err(piece);
        }
        // Nothing else is told by these numbers, here and below.
        self.lent.fetch_add(piece.capacity(), Ordering::Relaxed);
        let memory = Arc::clone(self);
        Ok(Bytes::from_owner(Lent { piece, memory }))
    }

    /// Bytes that are kept and are no part of a message.
    pub fn in_vain(&self) -> usize {
        let lent = self.lent.load(Ordering::Relaxed);
        lent.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<BytesMut>> {
        // Nothing panics while it is held.
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A piece that there may be slices of.
struct Lent {
    piece: BytesMut,
    memory: Arc<ReadMemory>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Self { piece, memory } = self;
        memory.lent.fetch_sub(piece.capacity(), Ordering::Relaxed);
        memory.give_back(std::mem::take(piece));
    }
}

/// Counts a message in lent memory, as long as it is there.
#[derive(Debug)]
pub struct Used {
    len: usize,
    memory: Arc<ReadMemory>,
}

impl Used {
    /// A message of so many bytes.
    pub fn new(len: usize, memory: &Arc<ReadMemory>) -> Self {
        memory.used.fetch_add(len, Ordering::Relaxed);
        let memory = Arc::clone(memory);
        Self { len, memory }
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.len, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A piece that is full.
    fn filled(memory: &ReadMemory) -> BytesMut {
        let mut piece = memory.take();
        piece.resize(READ_LEN, 7);
        piece
    }

    #[test]
    fn what_was_given_back_is_taken_again_and_little_is_left_for_others() {
        let memory = ReadMemory::default();
        let piece = filled(&memory);
        let place = piece.as_ptr();
        memory.give_back(piece);
        let again = memory.take();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));

        memory.give_back(BytesMut::with_capacity(SPARE_LEN_MAX + 1));
        assert_eq!(memory.lock().len(), 0);
        (0..5).for_each(|_| memory.give_back(BytesMut::with_capacity(READ_LEN)));
        assert_eq!(memory.lock().len(), SPARE_MAX);
    }

    #[test]
    fn memory_is_read_into_again_once_the_last_slice_of_it_is_gone() {
        let memory = Arc::new(ReadMemory::default());
        let lent = memory.lend(filled(&memory)).unwrap();
        let place = lent.as_ptr();
        let slice = lent.slice(5..9);
        drop(lent);
        let mut other = memory.take();
        other.resize(READ_LEN, 9);
        assert_eq!(slice, [7; 4][..]);
        assert_ne!(other.as_ptr(), place);
        drop(slice);
        assert_eq!(memory.take().as_ptr(), place);
    }

    #[test]
    fn nothing_is_lent_while_too_much_is_kept_in_vain_nor_counted_when_all_is_gone() {
        let memory = Arc::new(ReadMemory::default());
        let mut lent = Vec::new();
        // Whole pieces that are used do not count.
        for _ in 0..2 * VAIN_MAX / READ_LEN {
            let piece = memory.lend(filled(&memory)).unwrap();
            lent.push((piece, Used::new(READ_LEN, &memory)));
        }
        assert_eq!(memory.in_vain(), 0);
        // Of these, a byte is used.
        let refused = loop {
            match memory.lend(filled(&memory)) {
                Ok(piece) => lent.push((piece.slice(..1), Used::new(1, &memory))),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, [7; READ_LEN][..]);
        assert!((VAIN_MAX + 1..=VAIN_MAX + READ_LEN).contains(&memory.in_vain()));
        lent.truncate(1);
        assert!(memory.lend(filled(&memory)).is_ok());
        lent.clear();
        let left = (&memory.lent, &memory.used);
        let left = (
            left.0.load(Ordering::Relaxed),
            left.1.load(Ordering::Relaxed),
        );
        assert_eq!(left, (0, 0));
    }
}
