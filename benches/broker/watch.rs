//! When the processors were slow while something ran.

use crate::roles::now;
use crate::witness;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between two looks; a processor is slow for longer.
const EVERY: Duration = Duration::from_millis(2);
/// So close to a slow look the processor may be slow as well.
const MARGIN_NS: u64 = 5_000_000;
/// So many times the usual time of a look. Those of a process that slept until then differ by two without
/// that.
const SLOW: f64 = 3.0;

/// When looks found slow processors, on the clock of all processes.
pub(crate) struct Slow(Vec<u64>);

impl Slow {
    /// Runs something, and looks how fast processors are meanwhile.
    pub(crate) fn while_running<T>(run: impl FnOnce() -> T) -> (T, Self) {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let (mut times, mut looks) = (Vec::new(), Vec::new());
                while !is_over.load(Ordering::Relaxed) {
                    times.push(now());
                    looks.push(witness::look());
                    std::thread::sleep(EVERY);
                }
                let mut slow = witness::are_slow(&looks, SLOW).into_iter();
                times.retain(|_| slow.next().unwrap());
                Self(times)
            });
            let result = run();
            is_over.store(true, Ordering::Relaxed);
            (result, watch.join().unwrap())
        })
    }

    /// Whether processors ran as usual in this time.
    pub(crate) fn spared(&self, from: u64, to: u64) -> bool {
        let next = self.0.partition_point(|&slow| slow + MARGIN_NS < from);
        self.0.get(next).is_none_or(|&slow| slow > to + MARGIN_NS)
    }
}
