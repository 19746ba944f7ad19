//! How fast the machine's memory answers just now, whoever else uses it. On a shared machine it takes
//! four times as long for some hundredths of a second every second or two, with nothing of ours running.

use crate::workload::Random;
use std::hint::black_box;
use std::time::Instant;

/// Reads of one look, each of an address that the one before gave.
const READS: u32 = 64;
/// Places of four bytes: 64 MiB, more than the caches hold.
const PLACES: usize = 16 << 20;

pub(crate) struct Witness {
    /// One cycle through all places, in no order.
    next: Vec<u32>,
    at: u32,
}

impl Witness {
    pub(crate) fn new() -> Self {
        let mut random = Random::new(0x317);
        let mut next: Vec<u32> = (0..PLACES as u32).collect();
        // Sattolo 1986: swapping with lower places only leaves one cycle.
        for place in (1..PLACES).rev() {
            next.swap(place, random.below(place as u64) as usize);
        }
        Self { next, at: 0 }
    }

    /// Nanoseconds that a read took.
    pub(crate) fn look(&mut self) -> f64 {
        let started = Instant::now();
        for _ in 0..READS {
            self.at = self.next[self.at as usize];
        }
        black_box(self.at);
        started.elapsed().as_nanos() as f64 / f64::from(READS)
    }
}
