//! What the region needs now and then: the keys of dead processes and expired ones taken out.
//!
//! Nothing depends on it being done in time but how soon others see it: expired keys read as absent
//! anyway, and who needs the lock of a dead process takes it over. So it looks once in a long while,
//! when a key that was given a time to live here expires, and at once when a client is gone.

use super::broker::Broker;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// How often it looks if nothing happens, in milliseconds.
const LOOK_MS: u64 = 30_000;
/// Sweeps are so far apart at least, in milliseconds.
const SWEEP_MS: u64 = 200;
/// When it looks for a dead process after a connection ended, in milliseconds from the look before:
/// a process ends its connection and its session in no particular order, and first frees its memory.
const REAP_MS: [u64; 9] = [0, 1, 1, 2, 2, 4, 10, 50, 500];

/// When it has something to do.
#[derive(Debug, Default)]
pub(super) struct Janitor {
    /// When something expires next, in milliseconds of the broker's clock; 0 for never.
    sweep_at_ms: AtomicU64,
    /// When the last that is known to expire does.
    last_ms: AtomicU64,
    looked_at_ms: AtomicU64,
    /// Somebody left since the reaper looked first.
    left: AtomicBool,
    /// The reaper is at work.
    reaps: AtomicBool,
}

/// A key expires then.
pub(super) fn expires_in(broker: &Broker, ttl_ms: u64) {
    let at_ms = broker.now_ms().saturating_add(ttl_ms).max(1);
    let sweep = &broker.janitor.sweep_at_ms;
    broker.janitor.last_ms.fetch_max(at_ms, Ordering::AcqRel);
    let sooner = |now| (now == 0 || now > at_ms).then_some(at_ms);
    if sweep
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, sooner)
        .is_ok()
    {
        broker.timer.arm(at_ms);
    }
}

/// A process that has the region attached closed its connection, or died.
pub(super) fn somebody_left(broker: &Arc<Broker>) {
    let janitor = &broker.janitor;
    janitor.left.store(true, Ordering::SeqCst);
    if !janitor.reaps.swap(true, Ordering::SeqCst) {
        tokio::spawn(reap(Arc::clone(broker)));
    }
}

/// Looks for dead processes until some time after the last client has left.
async fn reap(broker: Arc<Broker>) {
    let janitor = &broker.janitor;
    loop {
        janitor.left.store(false, Ordering::SeqCst);
        for wait_ms in REAP_MS {
            if wait_ms > 0 {
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            }
            look(Arc::clone(&broker), false).await;
            // For another who left meanwhile it begins anew.
            if janitor.left.load(Ordering::SeqCst) {
                break;
            }
        }
        if janitor.left.load(Ordering::SeqCst) {
            continue;
        }
        janitor.reaps.store(false, Ordering::SeqCst);
        // Who left in between saw the reaper at work.
        let is_late = janitor.left.load(Ordering::SeqCst);
        if !is_late || janitor.reaps.swap(true, Ordering::SeqCst) {
            return;
        }
    }
}

/// Reaps, and sweeps if asked to. On another thread, because a stopped process may hold a lock.
async fn look(broker: Arc<Broker>, sweeps: bool) {
    let work = tokio::task::spawn_blocking(move || {
        if let Ok(reaped) = broker.region.reap() {
            broker.counters.reaped_sessions.add(reaped.sessions);
            broker.counters.reaped_keys.add(reaped.ephemeral);
        }
        if sweeps {
            // What can't be swept now is next time.
            broker
                .counters
                .swept_keys
                .add(broker.region.sweep().unwrap_or(0));
        }
    });
    // It fails only when the broker is stopped.
    let _ = work.await;
}

/// Sweeps if it is time, and returns when it is next.
pub(super) fn expire(broker: &Arc<Broker>, now_ms: u64) -> Option<u64> {
    let janitor = &broker.janitor;
    let sweep_at_ms = janitor.sweep_at_ms.load(Ordering::Acquire);
    let looked_at_ms = janitor.looked_at_ms.load(Ordering::Relaxed);
    let look_at_ms = looked_at_ms + LOOK_MS;
    let due_ms = match sweep_at_ms {
        0 => look_at_ms,
        at_ms => look_at_ms.min(at_ms.max(looked_at_ms + SWEEP_MS)),
    };
    if now_ms < due_ms {
        return Some(due_ms);
    }
    janitor.looked_at_ms.store(now_ms, Ordering::Relaxed);
    let look_at_ms = now_ms + LOOK_MS;
    // Those between the first and the last to expire are done with the last, if that is soon.
    let last_ms = janitor.last_ms.load(Ordering::Acquire);
    let is_soon = (now_ms..look_at_ms).contains(&last_ms);
    let next_ms = if is_soon { last_ms + 1 } else { 0 };
    janitor.sweep_at_ms.store(next_ms, Ordering::Release);
    tokio::spawn(look(Arc::clone(broker), true));
    // The region tells when its next key expires only to who looks at all of it.
    Some(if is_soon {
        next_ms.max(now_ms + SWEEP_MS)
    } else {
        look_at_ms
    })
}
