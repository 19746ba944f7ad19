//! The channel against a naive one, which loops over everybody all the time.

use super::*;
use ganger_protocol::{Flags, Tail};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

const BOUNDS: Bounds = Bounds {
    messages: 6,
    bytes: 900,
    history: 900,
};

#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    Append { key: u8, len: usize, now: bool },
    Join(Policy, Start),
    Leave(usize),
    Drain(usize, Batch),
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let policy = prop_oneof![
        3 => Just(Policy::DropOldest),
        3 => Just(Policy::Conflate),
        1 => (1..9_u64).prop_map(|wait_ms| Policy::Block { wait_ms }),
        1 => Just(Policy::Disconnect),
    ];
    let start = prop_oneof![
        3 => Just(Start::New),
        1 => (0..9_u64).prop_map(Start::Last),
        1 => (0..60_u64).prop_map(Start::From),
    ];
    let batch = (1..9_usize, prop_oneof![Just(10_000), 1..300_usize])
        .prop_map(|(messages, bytes)| Batch { messages, bytes });
    prop_oneof![
        10 => (0..12_u8, prop_oneof![5 => 0..50_usize, 1 => 0..1000_usize], any::<bool>())
            .prop_map(|(key, len, now)| Op::Append { key, len, now }),
        2 => (policy, start).prop_map(|(policy, start)| Op::Join(policy, start)),
        1 => any::<usize>().prop_map(Op::Leave),
        5 => (any::<usize>(), batch).prop_map(|(who, batch)| Op::Drain(who, batch)),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Got {
    Message(u64),
    Gap(Gap),
}

#[derive(Default)]
struct Naive {
    /// All there ever were.
    messages: Vec<Arc<Message>>,
    /// How many of them have left the ring.
    gone: usize,
    /// What left the ring and a conflating cursor may want.
    kept: BTreeMap<u64, Arc<Message>>,
    cursors: Vec<NaiveCursor>,
    joined: u32,
}

struct NaiveCursor {
    id: CursorId,
    who: Subscriber,
    policy: Policy,
    position: u64,
    gap: Option<Gap>,
    missed: u64,
    idle: bool,
    holds_up: bool,
    overrun: bool,
    delivered: u64,
    lost: u64,
}

impl Naive {
    fn next(&self) -> u64 {
        self.messages.len() as u64 + 1
    }

    fn first(&self) -> u64 {
        self.gone as u64 + 1
    }

    fn message(&self, seq: u64) -> &Arc<Message> {
        &self.messages[usize::try_from(seq).unwrap() - 1]
    }

    fn is_newest(&self, seq: u64) -> bool {
        let subject = self.message(seq).subject();
        (seq + 1..self.next()).all(|later| self.message(later).subject() != subject)
    }

    fn bytes(&self) -> usize {
        let ring = self.messages[self.gone..].iter();
        ring.chain(self.kept.values())
            .map(|message| message.cost())
            .sum()
    }

    fn append(&mut self, message: Arc<Message>, now: bool) -> Result<Vec<Subscriber>, Blocked> {
        let mut overrun = Vec::new();
        loop {
            let ring = &self.messages[self.gone..];
            let bytes: usize = ring.iter().map(|message| message.cost()).sum();
            let fits = ring.len() < BOUNDS.messages && bytes + message.cost() <= BOUNDS.bytes;
            if fits || ring.is_empty() {
                break;
            }
            let seq = self.first();
            let mut wait = None;
            for cursor in &mut self.cursors {
                if let (Policy::Block { wait_ms }, true) = (cursor.policy, cursor.holds_up) {
                    if cursor.position <= seq {
                        wait = wait.max(Some(wait_ms));
                        cursor.holds_up &= !now;
                    }
                }
            }
            if let (Some(wait_ms), false) = (wait, now) {
                return Err(Blocked { wait_ms });
            }
            self.evict(seq, &mut overrun);
        }
        self.messages.push(message);
        let seq = self.next() - 1;
        let subject = self.message(seq).subject().to_vec();
        self.kept.retain(|_, message| message.subject() != subject);
        Ok(overrun)
    }

    fn evict(&mut self, seq: u64, overrun: &mut Vec<Subscriber>) {
        self.gone += 1;
        for cursor in &mut self.cursors {
            if cursor.policy == Policy::Disconnect && cursor.position <= seq && !cursor.overrun {
                cursor.overrun = true;
                overrun.push(cursor.who);
            }
        }
        let is_wanted = self
            .cursors
            .iter()
            .any(|cursor| cursor.policy == Policy::Conflate && cursor.position <= seq);
        if is_wanted && self.is_newest(seq) {
            self.kept.insert(seq, Arc::clone(self.message(seq)));
        }
        let cost = |kept: &BTreeMap<u64, Arc<Message>>| -> usize {
            kept.values().map(|message| message.cost()).sum()
        };
        while self.kept.len() > BOUNDS.messages || cost(&self.kept) > BOUNDS.bytes {
            let (dropped, _) = self.kept.pop_first().unwrap();
            for cursor in &mut self.cursors {
                if cursor.policy == Policy::Conflate && cursor.position <= dropped {
                    cursor.missed += 1;
                    let from = cursor.gap.map_or(cursor.position, |gap| gap.from);
                    let lost = cursor.gap.map_or(0, |gap| gap.lost) + 1;
                    let to = dropped + 1;
                    cursor.gap = Some(Gap { from, to, lost });
                    cursor.lost += 1;
                }
            }
        }
    }

    fn drain(&mut self, at: usize, batch: Batch) -> (Vec<Got>, Drained) {
        let (first, next) = (self.first(), self.next());
        let mut got = Vec::new();
        if self.cursors[at].overrun {
            return (got, Drained::Overrun);
        }
        let cursor = &mut self.cursors[at];
        cursor.missed = 0;
        cursor.holds_up = true;
        let conflates = cursor.policy == Policy::Conflate;
        if cursor.position < first && !conflates {
            let lost = first - cursor.position;
            cursor.gap = Some(Gap {
                from: cursor.gap.map_or(cursor.position, |gap| gap.from),
                to: first,
                lost: cursor.gap.map_or(0, |gap| gap.lost) + lost,
            });
            cursor.lost += lost;
            cursor.position = first;
        }
        got.extend(cursor.gap.take().map(Got::Gap));
        let (mut messages, mut bytes) = (batch.messages, batch.bytes);
        let mut position = self.cursors[at].position;
        while position < next && messages > 0 && bytes > 0 {
            let in_ring = position >= first;
            let wanted = if conflates {
                self.is_newest(position) && (in_ring || self.kept.contains_key(&position))
            } else {
                true
            };
            if wanted {
                got.push(Got::Message(position));
                self.cursors[at].delivered += 1;
                bytes = bytes.saturating_sub(self.message(position).tail().len());
            }
            messages -= usize::from(wanted || in_ring);
            position += 1;
        }
        self.cursors[at].position = position;
        self.cursors[at].idle = position == next;
        self.trim();
        let drained = if position == next {
            Drained::Idle
        } else {
            Drained::More
        };
        (got, drained)
    }

    fn trim(&mut self) {
        let conflating = || self.cursors.iter().filter(|c| c.policy == Policy::Conflate);
        if conflating().all(|cursor| cursor.missed == 0) {
            let min = conflating().map(|cursor| cursor.position).min();
            self.kept
                .retain(|seq, _| Some(*seq) >= min && min.is_some());
        }
    }
}

pub(super) fn message(key: u8, len: usize) -> Arc<Message> {
    Arc::new(Message::plain(&[b'a' + key], &vec![key; len]).unwrap())
}

pub(super) fn wish(policy: Policy, start: Start) -> Wish {
    Wish {
        policy,
        start,
        ..Wish::default()
    }
}

fn sorted(mut who: Vec<Subscriber>) -> Vec<Subscriber> {
    who.sort_unstable();
    who
}

fn run(ops: Vec<Op>) -> Result<(), TestCaseError> {
    let budget = Arc::new(Budget::new(usize::MAX));
    let mut channel = Channel::new(BOUNDS, Arc::clone(&budget));
    let mut naive = Naive::default();
    for op in ops {
        let mut effects = Effects::default();
        match op {
            Op::Append { key, len, now } => {
                let message = message(key, len);
                let outcome = if now {
                    Ok(channel.append_now(&message, &mut effects))
                } else {
                    channel.append(&message, &mut effects)
                };
                match naive.append(message, now) {
                    Err(blocked) => prop_assert_eq!(outcome, Err(blocked)),
                    Ok(overrun) => {
                        prop_assert_eq!(outcome, Ok(naive.next() - 1));
                        prop_assert_eq!(sorted(effects.overrun), sorted(overrun));
                        let idle = naive.cursors.iter_mut().filter(|cursor| cursor.idle);
                        let idle = idle.map(|cursor| {
                            cursor.idle = false;
                            cursor.who
                        });
                        prop_assert_eq!(sorted(effects.wake), sorted(idle.collect()));
                    }
                }
            }
            Op::Join(policy, start) => {
                let who = Subscriber::new(1, naive.joined);
                naive.joined += 1;
                let (id, ready) = channel.join(who, wish(policy, start));
                let (first, next) = (naive.first(), naive.next());
                let wanted = match start {
                    Start::New => next,
                    Start::Last(count) => (next.max(count) - count).max(first),
                    Start::From(seq) => seq.clamp(1, next),
                };
                let position = wanted.max(first);
                let gap = (wanted < first).then(|| Gap {
                    from: wanted,
                    to: first,
                    lost: first - wanted,
                });
                prop_assert_eq!(ready, gap.is_some() || position < next);
                naive.cursors.push(NaiveCursor {
                    id,
                    who,
                    policy,
                    position,
                    gap,
                    missed: 0,
                    idle: !ready,
                    holds_up: true,
                    overrun: false,
                    delivered: 0,
                    lost: gap.map_or(0, |gap| gap.lost),
                });
            }
            Op::Leave(which) if !naive.cursors.is_empty() => {
                let cursor = naive.cursors.swap_remove(which % naive.cursors.len());
                channel.leave(cursor.id, &mut effects);
                naive.trim();
            }
            Op::Drain(which, batch) if !naive.cursors.is_empty() => {
                let at = which % naive.cursors.len();
                let mut got = Vec::new();
                let drained = channel.drain(naive.cursors[at].id, batch, &mut effects, |item| {
                    got.push(match item {
                        Delivery::Message(seq, _) => Got::Message(seq),
                        Delivery::Gap(gap) => Got::Gap(gap),
                    });
                });
                prop_assert_eq!((got, drained), naive.drain(at, batch));
            }
            Op::Leave(_) | Op::Drain(..) => {}
        }
        prop_assert_eq!(
            (channel.first(), channel.next()),
            (naive.first(), naive.next())
        );
        prop_assert_eq!(channel.bytes(), naive.bytes());
        prop_assert_eq!(budget.used(), naive.bytes());
        let mut stats: Vec<_> = channel.subscriber_stats().collect();
        stats.sort_unstable_by_key(|stats| stats.subscriber);
        naive.cursors.sort_unstable_by_key(|cursor| cursor.who);
        for (stats, cursor) in stats.iter().zip(&naive.cursors) {
            prop_assert_eq!(stats.lag, naive.next() - cursor.position);
            prop_assert_eq!(stats.delivered, cursor.delivered);
            let conflates = cursor.policy == Policy::Conflate;
            let gone = naive.first().saturating_sub(cursor.position);
            let pending = if conflates { 0 } else { gone };
            prop_assert_eq!(stats.lost, cursor.lost + pending);
        }
        prop_assert_eq!(stats.len(), naive.cursors.len());
    }
    drop(channel);
    prop_assert_eq!(budget.used(), 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn it_does_what_the_naive_channel_does(ops in vec(op(), 0..200)) {
        run(ops)?;
    }
}

fn channel(messages: usize, bytes: usize) -> Channel {
    Channel::new(
        Bounds {
            messages,
            bytes,
            history: bytes,
        },
        Arc::new(Budget::new(usize::MAX)),
    )
}

pub(super) fn drain(channel: &mut Channel, id: CursorId) -> Vec<Got> {
    let batch = Batch {
        messages: usize::MAX,
        bytes: usize::MAX,
    };
    let mut got = Vec::new();
    channel.drain(id, batch, &mut Effects::default(), |item| {
        got.push(match item {
            Delivery::Message(seq, _) => Got::Message(seq),
            Delivery::Gap(gap) => Got::Gap(gap),
        });
    });
    got
}

#[test]
fn a_message_larger_than_the_ring_stands_alone_in_it() {
    let mut channel = channel(10, 1000);
    let mut effects = Effects::default();
    for len in [10, 10, 5000, 10] {
        channel.append_now(&message(0, len), &mut effects);
        assert!(channel.bytes() <= 1000 || channel.len() == 1);
    }
    assert_eq!((channel.first(), channel.next()), (4, 5));
}

/// A subscriber that stopped for good must not cost every publish its wait.
#[test]
fn publishers_wait_once_for_a_stopped_subscriber() {
    let mut channel = channel(2, 1000);
    let mut effects = Effects::default();
    let (slow, _) = channel.join(
        Subscriber::new(1, 1),
        wish(Policy::Block { wait_ms: 50 }, Start::New),
    );
    for _ in 0..2 {
        channel.append(&message(0, 1), &mut effects).unwrap();
    }
    let blocked = channel.append(&message(0, 1), &mut effects);
    assert_eq!(blocked, Err(Blocked { wait_ms: 50 }));
    channel.wait(ConnectionId(7));
    channel.wait(ConnectionId(7));
    channel.append_now(&message(0, 1), &mut effects);
    assert_eq!(effects.resume, [ConnectionId(7)]);
    for _ in 0..10 {
        channel.append(&message(0, 1), &mut effects).unwrap();
    }
    let gap = Gap {
        from: 1,
        to: 12,
        lost: 11,
    };
    let expected = [Got::Gap(gap), Got::Message(12), Got::Message(13)];
    assert_eq!(drain(&mut channel, slow), expected);
    // It has read on, so it is waited for again.
    for _ in 0..2 {
        channel.append(&message(0, 1), &mut effects).unwrap();
    }
    channel.append(&message(0, 1), &mut effects).unwrap_err();
    channel.wait(ConnectionId(8));
    effects.resume.clear();
    let batch = Batch {
        messages: 1,
        bytes: 1,
    };
    channel.drain(slow, batch, &mut effects, |_| {});
    assert_eq!(effects.resume, [ConnectionId(8)]);
    channel.append(&message(0, 1), &mut effects).unwrap();
}

#[test]
fn a_busy_key_does_not_push_out_the_last_word_on_a_quiet_one() {
    let mut channel = channel(4, 10_000);
    let mut effects = Effects::default();
    let (slow, _) = channel.join(Subscriber::new(1, 1), wish(Policy::Conflate, Start::New));
    channel.append_now(&message(1, 1), &mut effects);
    for _ in 0..100 {
        channel.append_now(&message(0, 1), &mut effects);
    }
    assert_eq!(
        drain(&mut channel, slow),
        [Got::Message(1), Got::Message(101)]
    );
    assert_eq!(channel.len(), 4);
}

#[test]
fn all_channels_together_keep_within_their_budget() {
    let budget = Arc::new(Budget::new(10 * message(0, 1).cost()));
    let bounds = Bounds {
        messages: 100,
        bytes: 100_000,
        history: 100_000,
    };
    let mut channels = [(); 3].map(|()| Channel::new(bounds, Arc::clone(&budget)));
    let mut effects = Effects::default();
    for turn in 0..60 {
        let channel = &mut channels[turn / 20];
        if turn % 20 == 0 {
            channel.join(Subscriber::new(1, 1), wish(Policy::Conflate, Start::New));
        }
        channel.append_now(&message(u8::try_from(turn).unwrap(), 1), &mut effects);
        // Each keeps its newest, whatever the others have.
        assert!(budget.used() <= 12 * message(0, 1).cost());
    }
    assert!(channels.iter().all(|channel| !channel.is_empty()));
    assert!(channels
        .iter()
        .all(|channel| channel.totals().pressed_out > 0));
    // Elsewhere there is less room.
    let small = Arc::new(Budget::new(3 * message(0, 1).cost()));
    channels[0].move_to(Arc::clone(&small), &mut effects);
    let before = channels[0].bytes();
    assert_eq!((small.used(), before <= small.max()), (before, true));
    drop(channels);
    assert_eq!((budget.used(), small.used()), (0, 0));
}

#[test]
fn one_that_wants_to_be_close_loses_what_is_far_behind() {
    let mut channel = channel(10, 10_000);
    let mut effects = Effects::default();
    let close = Wish {
        max_lag: Some(2),
        ..Wish::default()
    };
    let (id, _) = channel.join(Subscriber::new(1, 1), close);
    for _ in 0..5 {
        channel.append_now(&message(0, 1), &mut effects);
    }
    let (from, to, lost) = (1, 4, 3);
    assert_eq!(channel.subscriber_stats().next().unwrap().lost, lost);
    let gap = Got::Gap(Gap { from, to, lost });
    assert_eq!(
        drain(&mut channel, id),
        [gap, Got::Message(4), Got::Message(5)]
    );
}

#[test]
fn nobody_hears_itself_who_does_not_want_to() {
    let mut channel = channel(10, 10_000);
    let mut effects = Effects::default();
    let quiet = Wish {
        no_echo: true,
        ..Wish::default()
    };
    let [(quiet, _), (other, _)] =
        [quiet, Wish::default()].map(|wish| channel.join(Subscriber::new(1, 1), wish));
    for (publisher, flags) in [(1, Flags::NONE), (2, Flags::NO_ECHO), (1, Flags::NO_ECHO)] {
        let tail = Tail::new(b"a", b"", b"").unwrap();
        let message = Arc::new(Message::new(tail, flags, ConnectionId(publisher)));
        channel.append_now(&message, &mut effects);
    }
    assert_eq!(drain(&mut channel, quiet), [Got::Message(2)]);
    assert_eq!(
        drain(&mut channel, other),
        [Got::Message(1), Got::Message(2)]
    );
}
