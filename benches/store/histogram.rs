//! Where the times of single operations are counted, in memory that all processes share.

use crate::shared::Mapping;
use std::sync::atomic::Ordering;

/// Each doubling of a time is cut into so many parts: a time is known to 3 %.
const PARTS: u64 = 32;
const PARTS_LOG2: u32 = PARTS.trailing_zeros();
/// Times of nine minutes and more count as that.
const DOUBLINGS: u64 = 35;
/// Words of a histogram.
pub(crate) const WORDS: usize = ((1 + DOUBLINGS) * PARTS) as usize;

/// Counts one time, as the only one who writes to this histogram.
#[inline]
pub(crate) fn count(memory: &Mapping, first: usize, nanos: u64) {
    let word = memory.word(first + place(nanos));
    word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// Counts of times, taken out of shared memory.
#[derive(Debug, Clone)]
pub(crate) struct Histogram(Vec<u64>);

impl Histogram {
    pub(crate) fn new() -> Self {
        Self(vec![0; WORDS])
    }

    /// Adds what was counted, and begins anew.
    pub(crate) fn drain(&mut self, memory: &Mapping, first: usize) {
        for (place, count) in self.0.iter_mut().enumerate() {
            *count += memory.word(first + place).swap(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(&other.0) {
            *count += more;
        }
    }

    /// The time, in nanoseconds, that this part of all operations stays within.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let points = self.points();
        let found = points.iter().find(|(_, share)| *share >= part);
        found
            .or(points.last())
            .map_or(f64::NAN, |(nanos, _)| *nanos)
    }

    /// Times in nanoseconds, and the part of all operations that stays within each.
    pub(crate) fn points(&self) -> Vec<(f64, f64)> {
        let total: u64 = self.0.iter().sum();
        let mut seen = 0;
        let counted = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        counted
            .map(|(place, count)| {
                seen += count;
                (middle(place), seen as f64 / total as f64)
            })
            .collect()
    }
}

fn place(nanos: u64) -> usize {
    let doubling = nanos.max(1).ilog2();
    let place = match doubling.checked_sub(PARTS_LOG2) {
        None => nanos,
        Some(above) => u64::from(above) * PARTS + (nanos >> above),
    };
    (place as usize).min(WORDS - 1)
}

/// The middle of the times that have this place.
fn middle(place: usize) -> f64 {
    let place = place as u64;
    match (place / PARTS).checked_sub(1) {
        None => place as f64,
        Some(above) => {
            let width = (1_u64 << above) as f64;
            (place % PARTS + PARTS) as f64 * width + (width - 1.0) / 2.0
        }
    }
}
