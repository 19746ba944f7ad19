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

/// The fence before what readers may still look at is filled anew. Release: a reader that meets what
/// is stored after it sees what was stored before it.
#[inline(always)]
pub(crate) fn build_fence() {
    #[cfg(loom)]
    if crate::model::is_without(crate::model::Weakness::BuildFence) {
        return;
    }
    fence(Ordering::Release);
}

/// How the version of a bucket is raised. Release: who reads the new version also sees what was stored
/// before.
#[inline(always)]
pub(crate) fn version_ordering() -> Ordering {
    #[cfg(loom)]
    if crate::model::is_without(crate::model::Weakness::VersionRelease) {
        return Ordering::Relaxed;
    }
    Ordering::Release
}

/// Tells the processor (or the model) that this thread waits for another one.
#[inline]
pub(crate) fn spin_loop() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    std::hint::spin_loop();
}
