//! What all apps of a supervisor share.

use crate::events::{Events, Happening};
use crate::guard::Guard;
use crate::logs::Logs;
use ganger_client::Home;
use rustix::process::Pid;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The supervisor as its apps see it.
pub(crate) struct World {
    /// Where its sockets are.
    pub(crate) home: Home,
    /// What happened.
    pub(crate) events: Events,
    /// What the workers wrote.
    pub(crate) logs: Logs,
    /// The shared memory, for every worker.
    pub(crate) region: Option<OwnedFd>,
    /// Marks everything that this supervisor starts.
    pub(crate) mark: String,
    /// Clears up after a killed supervisor.
    guard: Mutex<Option<Guard>>,
    /// Children of our own, which somebody waits for.
    children: Mutex<BTreeSet<i32>>,
    started: Instant,
    started_epoch_ms: u64,
    instances: AtomicU64,
    random: AtomicU64,
}

impl World {
    pub(crate) fn new(
        home: Home,
        events: Events,
        logs: Logs,
        region: Option<OwnedFd>,
        mark: String,
        guard: Option<Guard>,
    ) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let epoch = since_epoch.map_or(0, |since| since.as_millis());
        Self {
            home,
            events,
            logs,
            region,
            mark,
            guard: Mutex::new(guard),
            children: Mutex::default(),
            started: Instant::now(),
            started_epoch_ms: u64::try_from(epoch).unwrap_or(u64::MAX),
            instances: AtomicU64::new(0),
            random: AtomicU64::new(seed()),
        }
    }

    /// Milliseconds since the supervisor started.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Such a time as milliseconds since the Unix epoch.
    pub(crate) fn epoch_ms(&self, ms: u64) -> u64 {
        self.started_epoch_ms.saturating_add(ms)
    }

    /// The moment of such a time.
    pub(crate) fn instant(&self, ms: u64) -> tokio::time::Instant {
        let after = std::time::Duration::from_millis(ms);
        let far = || Instant::now() + std::time::Duration::from_secs(86_400);
        self.started.checked_add(after).unwrap_or_else(far).into()
    }

    /// A number that no process of this supervisor had before.
    pub(crate) fn next_instance(&self) -> u64 {
        // ordering: only its being different each time matters.
        self.instances.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Any number, for jitter.
    pub(crate) fn random(&self) -> u64 {
        // SplitMix64. ordering: a number of its own is all that a caller wants.
        let mut z = self
            .random
            .fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Tells everybody what happened.
    pub(crate) fn tell(&self, what: Happening) -> crate::report::Event {
        self.events.tell(what)
    }

    /// This child, the leader of a group, is waited for by who started it.
    pub(crate) fn own(&self, pid: Pid) {
        self.children().insert(pid.as_raw_nonzero().get());
        if let Some(guard) = &*self.guard() {
            guard.watch(pid);
        }
    }

    /// It is no more.
    pub(crate) fn disown(&self, pid: Pid) {
        self.children().remove(&pid.as_raw_nonzero().get());
        if let Some(guard) = &*self.guard() {
            guard.forget(pid);
        }
    }

    /// Whether somebody waits for it.
    pub(crate) fn is_own(&self, pid: i32) -> bool {
        let guard = self
            .guard()
            .as_ref()
            .map(|guard| guard.pid().as_raw_nonzero().get());
        guard == Some(pid) || self.children().contains(&pid)
    }

    /// All has ended in good order: there is nothing left to guard.
    pub(crate) fn dismiss_guard(&self) {
        if let Some(guard) = self.guard().take() {
            guard.dismiss();
        }
    }

    fn guard(&self) -> MutexGuard<'_, Option<Guard>> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn children(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Without entropy the jitter is the same each time: no harm.
    let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::NONBLOCK);
    u64::from_ne_bytes(bytes)
}
