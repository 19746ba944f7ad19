//! The one module that names atomics, so that `--cfg loom` can put model-checked ones in their
//! place.
//!
//! Every word of the region is an [`AtomicU64`]: racing accesses of different widths are undefined
//! behaviour in Rust's memory model, so there is one width, always.

#[cfg(loom)]
pub(crate) use crate::model::AtomicU64;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{fence, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{fence, AtomicU64, Ordering};

/// Atomics of this process alone (handles, fork detection); they are never part of the model.
pub(crate) mod local {
    pub(crate) use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
}

/// Tells the processor (or the model) that this thread waits for another one.
#[inline]
pub(crate) fn spin_loop() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    std::hint::spin_loop();
}
