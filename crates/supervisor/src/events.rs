//! What happened, for whoever wants to know: the last of it, and what follows. Nobody who reads
//! slowly holds up who tells.

use crate::logs::queue::Queue;
use crate::report::Event;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

/// Events that are kept.
pub const EVENTS_KEPT: usize = 1024;
/// Followers at a time.
const FOLLOWERS_MAX: usize = 256;

/// Something that happened, before it has a number and a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Happening {
    /// Whose: an app's name; empty for the supervisor itself, `broker` for the broker.
    pub app: String,
    /// The worker, if it is about one.
    pub worker: Option<u16>,
    /// The worker's generation, if it is about one.
    pub generation: Option<u64>,
    /// The worker's process, if it is about one.
    pub pid: Option<i32>,
    /// What: a short word that scripts can match.
    pub kind: String,
    /// The same in words.
    pub text: String,
}

impl Happening {
    /// Of an app, or of the supervisor itself where `app` is empty.
    pub fn new(app: &str, kind: &str, text: impl Into<String>) -> Self {
        Self {
            app: app.to_owned(),
            kind: kind.to_owned(),
            text: text.into(),
            ..Self::default()
        }
    }

    /// It is about this worker.
    #[must_use]
    pub fn of_worker(mut self, worker: u16, generation: u64, pid: Option<i32>) -> Self {
        self.worker = Some(worker);
        self.generation = Some(generation);
        self.pid = pid;
        self
    }
}

/// The events of a supervisor. Clones are handles on the same.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    kept: VecDeque<Event>,
    last_number: u64,
    followers: Vec<Weak<Queue<Event>>>,
}

/// Events from some moment on.
pub struct Follow(Arc<Queue<Event>>);

impl Events {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Numbers, keeps and spreads it.
    pub fn tell(&self, what: Happening) -> Event {
        let mut inner = self.inner();
        inner.last_number += 1;
        let event = Event {
            at_ms: now_ms(),
            number: inner.last_number,
            app: what.app,
            worker: what.worker,
            generation: what.generation,
            pid: what.pid,
            kind: what.kind,
            text: what.text,
        };
        if inner.kept.len() == EVENTS_KEPT {
            inner.kept.pop_front();
        }
        inner.kept.push_back(event.clone());
        inner.followers.retain(|follower| {
            let follower = follower.upgrade();
            follower.is_some_and(|queue| {
                queue.push(event.clone());
                true
            })
        });
        event
    }

    /// The last `count` events, the oldest first.
    pub fn last(&self, count: usize) -> Vec<Event> {
        let inner = self.inner();
        let skipped = inner.kept.len().saturating_sub(count);
        inner.kept.iter().skip(skipped).cloned().collect()
    }

    /// What happens from now on. `None` if too many follow already.
    pub fn follow(&self) -> Option<Follow> {
        let mut inner = self.inner();
        inner
            .followers
            .retain(|follower| follower.strong_count() > 0);
        if inner.followers.len() >= FOLLOWERS_MAX {
            return None;
        }
        let queue = Arc::new(Queue::new(EVENTS_KEPT, |_| 1, |_, _| {}));
        inner.followers.push(Arc::downgrade(&queue));
        Some(Follow(queue))
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follow {
    /// The next event. Who lags more than [`EVENTS_KEPT`] behind loses the oldest: the numbers have
    /// a hole then.
    pub async fn recv(&mut self) -> Event {
        self.0.pop().await
    }
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_numbered_and_the_oldest_go_first() {
        let events = Events::new();
        for number in 0..EVENTS_KEPT + 5 {
            events.tell(Happening::new("web", "worker-ready", number.to_string()));
        }
        let last = events.last(usize::MAX);
        assert_eq!(last.len(), EVENTS_KEPT);
        assert_eq!(last[0].number, 6);
        assert_eq!(last[0].text, "5");
        let newest = events.last(2);
        assert_eq!(newest[1].number, u64::try_from(EVENTS_KEPT + 5).unwrap());
        assert_eq!(newest.len(), 2);
    }

    #[tokio::test]
    async fn a_slow_follower_finds_a_hole_in_the_numbers() {
        let events = Events::new();
        let mut follow = events.follow().unwrap();
        for _ in 0..EVENTS_KEPT + 7 {
            events.tell(Happening::new("", "started", "started").of_worker(3, 1, Some(99)));
        }
        let first = follow.recv().await;
        assert_eq!(
            (first.number, first.worker, first.pid),
            (8, Some(3), Some(99))
        );
        assert_eq!(follow.recv().await.number, 9);
    }

    #[test]
    fn followers_are_limited_and_forgotten_when_they_go() {
        let events = Events::new();
        let mut all: Vec<_> = (0..FOLLOWERS_MAX)
            .map(|_| events.follow().unwrap())
            .collect();
        assert!(events.follow().is_none());
        all.pop();
        assert!(events.follow().is_some());
    }
}
