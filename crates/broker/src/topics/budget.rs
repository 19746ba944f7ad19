//! A bound on the bytes that many channels keep together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes kept, and how many may be. Counting is exact; a channel that finds the bound reached gives
/// up its own oldest messages, but always keeps its newest.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    /// Nothing used of `max` bytes.
    pub fn new(max: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            max,
        }
    }

    /// Bytes used.
    pub fn used(&self) -> usize {
        // Nothing else is told by this number, here and below.
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that may be used.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Whether so many bytes more are within the bound.
    pub(crate) fn fits(&self, more: usize) -> bool {
        self.used().saturating_add(more) <= self.max
    }

    pub(crate) fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}
