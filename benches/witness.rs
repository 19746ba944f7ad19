//! How fast the processor runs just now. That of a virtual machine can run at a tenth of its speed for some
//! hundredths of a second, with nothing of ours at work and all processors at once.

use std::hint::black_box;
use std::time::Instant;

const STEPS: u32 = 300;

/// Nanoseconds of a multiplication that waits for the one before it. The lesser of two: an interrupt falls
/// on one.
pub(crate) fn look() -> f64 {
    let once = || {
        let mut value = black_box(1_u64);
        let started = Instant::now();
        for _ in 0..STEPS {
            value = value.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 1;
        }
        black_box(value);
        started.elapsed().as_nanos() as f64 / f64::from(STEPS)
    };
    once().min(once())
}

/// Which of these looks found a slow processor: one that took more than `slow` times the usual time.
pub(crate) fn are_slow(looks: &[f64], slow: f64) -> Vec<bool> {
    let limit = slow * crate::report::Spread::of(looks).median;
    looks.iter().map(|&nanos| nanos > limit).collect()
}
