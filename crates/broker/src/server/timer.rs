//! One timer for all deadlines. It sleeps until the first of them, and without one for good.

use super::broker::Broker;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// When the timer goes off next.
#[derive(Debug)]
pub struct Timer {
    at_ms: AtomicU64,
    changed: Notify,
}

impl Timer {
    pub(super) fn new() -> Self {
        Self {
            at_ms: AtomicU64::new(u64::MAX),
            changed: Notify::new(),
        }
    }

    /// Makes sure that it goes off at this time of the broker's clock, if not before. Called by
    /// whoever makes a deadline, after it is where the timer looks.
    pub fn arm(&self, at_ms: u64) {
        if self.at_ms.fetch_min(at_ms, Ordering::AcqRel) > at_ms {
            self.changed.notify_one();
        }
    }
}

/// Waits for deadlines and does what is due, for ever.
pub(super) async fn run(broker: Arc<Broker>) {
    let timer = &broker.timer;
    loop {
        // From here on, whoever makes an earlier deadline than it says is heard.
        timer.at_ms.store(u64::MAX, Ordering::Release);
        let now_ms = broker.now_ms();
        let next = broker.expire(now_ms);
        let at_ms = timer.at_ms.fetch_min(next, Ordering::AcqRel).min(next);
        if at_ms == u64::MAX {
            timer.changed.notified().await;
            continue;
        }
        let left = at_ms.saturating_sub(broker.now_ms());
        // Expired or told of an earlier deadline: either way it is looked at anew.
        let _ = tokio::time::timeout(Duration::from_millis(left), timer.changed.notified()).await;
    }
}
