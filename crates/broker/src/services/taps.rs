//! Taps: looking at messages as they go through. A tap is no subscriber: nobody waits for it, it
//! counts for nothing, and what it is too slow for it loses and is told so. Publishing pays one look
//! at a number while there is none.

use crate::ids::Subscriber;
use crate::message::Message;
use crate::services::watch::Wake;
use ganger_protocol::pubsub::{Gap, GapCause};
use ganger_protocol::{ErrorBody, ErrorCode, Flags, Head, Op, Pattern, Tail};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Taps at a time.
pub const TAPS_MAX: usize = 64;
/// Messages that wait for one tap, and their bytes.
const MESSAGES_MAX: usize = 4096;
const BYTES_MAX: usize = 4 << 20;

/// All taps.
pub struct Taps {
    shared: Arc<Shared>,
}

struct Shared {
    /// Taps in the list, so that publishing need not look at it while it is empty.
    count: AtomicUsize,
    list: RwLock<Vec<Arc<State>>>,
    wake: Wake,
    shown: AtomicU64,
    lost: AtomicU64,
    refused: AtomicU64,
}

struct State {
    who: Subscriber,
    pattern: Pattern,
    queue: Mutex<Queue>,
}

struct Queue {
    messages: VecDeque<Arc<Message>>,
    bytes: usize,
    /// Number of the next message.
    next: u64,
    /// Number of the first message that was not handed out, lost ones included.
    from: u64,
    is_idle: bool,
}

/// What happened to taps so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TapTotals {
    /// Taps there are.
    pub taps: u64,
    /// Messages shown.
    pub shown: u64,
    /// Messages that taps were too slow for.
    pub lost: u64,
    /// Taps refused because there were too many.
    pub refused: u64,
}

/// A tap; it ends when it is dropped.
pub struct Tap {
    shared: Arc<Shared>,
    state: Arc<State>,
}

/// What a tap hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown<'m> {
    /// A message.
    Message(Head, &'m Tail),
    /// What it was too slow for.
    Lost(&'m Gap),
}

impl Taps {
    /// Without taps; `wake` is called by publishers.
    pub fn new(wake: Wake) -> Self {
        let shared = Shared {
            count: AtomicUsize::new(0),
            list: RwLock::default(),
            wake,
            shown: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Shows a message, or request, to those who tap its subject.
    #[inline]
    pub fn offer(&self, message: &Arc<Message>) {
        if self.shared.count.load(Ordering::Relaxed) > 0 {
            self.shared.offer(message);
        }
    }

    /// Begins a tap. It is woken when there is something to drain.
    pub fn open(&self, who: Subscriber, pattern: Pattern) -> Result<Tap, ErrorBody> {
        let shared = &self.shared;
        let mut list = shared.list.write().unwrap_or_else(PoisonError::into_inner);
        if list.len() >= TAPS_MAX {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            let why = "the broker has all taps it may";
            let error = ErrorBody::new(ErrorCode::TooManySubscriptions, why);
            return Err(error.limit(TAPS_MAX));
        }
        let queue = Queue {
            messages: VecDeque::new(),
            bytes: 0,
            next: 1,
            from: 1,
            is_idle: true,
        };
        let state = Arc::new(State {
            who,
            pattern,
            queue: Mutex::new(queue),
        });
        list.push(Arc::clone(&state));
        shared.count.store(list.len(), Ordering::Relaxed);
        Ok(Tap {
            shared: Arc::clone(shared),
            state,
        })
    }

    /// What happened so far.
    pub fn totals(&self) -> TapTotals {
        let shared = &self.shared;
        TapTotals {
            taps: shared.count.load(Ordering::Relaxed) as u64,
            shown: shared.shown.load(Ordering::Relaxed),
            lost: shared.lost.load(Ordering::Relaxed),
            refused: shared.refused.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    #[cold]
    fn offer(&self, message: &Arc<Message>) {
        let Ok(subject) = std::str::from_utf8(message.subject()) else {
            return;
        };
        let mut wakes = Vec::new();
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        for state in list.iter().filter(|state| state.pattern.matches(subject)) {
            let mut queue = state.lock();
            self.lost.fetch_add(queue.push(message), Ordering::Relaxed);
            if std::mem::take(&mut queue.is_idle) {
                wakes.push(state.who);
            }
        }
        drop(list);
        if !wakes.is_empty() {
            (self.wake)(&wakes);
        }
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Returns how many were lost for it.
    fn push(&mut self, message: &Arc<Message>) -> u64 {
        self.bytes += message.cost();
        self.messages.push_back(Arc::clone(message));
        self.next += 1;
        let mut lost = 0;
        while self.messages.len() > MESSAGES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.messages.pop_front() else {
                break;
            };
            self.bytes -= oldest.cost();
            lost += 1;
        }
        lost
    }

    /// Number of the oldest message that is there.
    fn first(&self) -> u64 {
        self.next - self.messages.len() as u64
    }
}

impl Tap {
    /// Hands out up to `limit` messages, and what was lost before them. `false` if nothing is left:
    /// it will be woken.
    pub fn drain(&self, limit: usize, mut each: impl FnMut(Shown<'_>)) -> bool {
        let mut queue = self.state.lock();
        let (from, first) = (queue.from, queue.first());
        let count = queue.messages.len().min(limit.max(1));
        let messages: Vec<_> = queue.messages.drain(..count).collect();
        queue.bytes -= messages.iter().map(|message| message.cost()).sum::<usize>();
        queue.from = first + count as u64;
        queue.is_idle = queue.messages.is_empty();
        let more = !queue.is_idle;
        drop(queue);
        if from < first {
            each(Shown::Lost(&Gap {
                from,
                to: first - 1,
                count: Some(first - from),
                cause: GapCause::Slow,
            }));
        }
        let id = self.state.who.subscription.0;
        for (seq, message) in (first..).zip(&messages) {
            let flags = Flags(message.flags().0 & Flags::BY_REFERENCE.0);
            let head = Head::new(Op::Message, id).flags(flags).seq(seq);
            each(Shown::Message(head, message.tail()));
        }
        let shown = &self.shared.shown;
        shown.fetch_add(messages.len() as u64, Ordering::Relaxed);
        more
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let list = &self.shared.list;
        let mut list = list.write().unwrap_or_else(PoisonError::into_inner);
        list.retain(|state| !Arc::ptr_eq(state, &self.state));
        self.shared.count.store(list.len(), Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Taps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Taps").field(&self.totals()).finish()
    }
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tap").field(&self.state.who).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{self, Receiver};

    fn taps() -> (Taps, Receiver<Subscriber>) {
        let (send, woken) = mpsc::channel();
        let wake = move |all: &[Subscriber]| {
            for who in all {
                let _ = send.send(*who);
            }
        };
        (Taps::new(Box::new(wake)), woken)
    }

    fn message(subject: &str, len: usize) -> Arc<Message> {
        Arc::new(Message::plain(subject.as_bytes(), &vec![b'x'; len]).unwrap())
    }

    fn drain(tap: &Tap) -> (Vec<u64>, Vec<(u64, u64)>) {
        let (mut seqs, mut gaps) = (Vec::new(), Vec::new());
        while tap.drain(100, |shown| match shown {
            Shown::Message(head, _) => seqs.push(head.seq),
            Shown::Lost(gap) => {
                assert_eq!(gap.count, Some(gap.to - gap.from + 1));
                gaps.push((gap.from, gap.to));
            }
        }) {}
        (seqs, gaps)
    }

    #[test]
    fn a_tap_sees_what_it_asked_for_and_is_woken_once() {
        let (taps, woken) = taps();
        let who = Subscriber::new(3, 7);
        taps.offer(&message("a.b", 1));
        let tap = taps.open(who, "a.*".parse().unwrap()).unwrap();
        for subject in ["a.b", "b.b", "a.c", "a.b.c"] {
            taps.offer(&message(subject, 1));
        }
        assert_eq!(woken.try_iter().collect::<Vec<_>>(), [who]);
        assert_eq!(drain(&tap), (vec![1, 2], vec![]));
        taps.offer(&message("a.b", 1));
        assert_eq!(woken.try_iter().count(), 1);
        drop(tap);
        assert_eq!((taps.totals().taps, taps.totals().shown), (0, 2));
        taps.offer(&message("a.b", 1));
    }

    #[test]
    fn one_that_is_too_slow_loses_the_oldest_and_is_told_which() {
        let (taps, _woken) = taps();
        let tap = taps
            .open(Subscriber::new(1, 1), ">".parse().unwrap())
            .unwrap();
        let last = MESSAGES_MAX as u64;
        for _ in 0..last {
            taps.offer(&message("a", 1));
        }
        assert_eq!(taps.totals().lost, 0);
        taps.offer(&message("a", 1));
        let (seqs, gaps) = drain(&tap);
        assert_eq!((seqs.len(), seqs[0], gaps), (MESSAGES_MAX, 2, vec![(1, 1)]));
        // Bytes count too.
        for _ in 0..3 {
            taps.offer(&message("a", BYTES_MAX / 2));
        }
        let (seqs, gaps) = drain(&tap);
        assert_eq!((seqs, gaps), (vec![last + 4], vec![(last + 2, last + 3)]));
        assert_eq!(taps.totals().lost, 3);
    }

    #[test]
    fn one_tap_more_than_allowed_is_refused_and_counted() {
        let (taps, _woken) = taps();
        let open = || taps.open(Subscriber::new(1, 1), ">".parse().unwrap());
        let held: Vec<_> = (0..TAPS_MAX).map(|_| open().unwrap()).collect();
        assert_eq!(open().unwrap_err().limit, Some(TAPS_MAX as u64));
        assert_eq!(
            (taps.totals().refused, taps.totals().taps),
            (1, TAPS_MAX as u64)
        );
        drop(held);
        assert!(open().is_ok());
    }
}
