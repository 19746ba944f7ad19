//! Random histories of publishing and subscribing against a naive model, and threads: nothing
//! twice, nothing out of order, every loss announced with its exact count.

use ganger_broker::ids::Subscriber;
use ganger_broker::message::Message;
use ganger_broker::topics::channel::{Batch, Bounds, Delivery, Drained, Gap, Policy, Start, Wish};
use ganger_broker::topics::group::GroupBounds;
use ganger_broker::topics::{Effects, Published, Subscription, TopicLimits, Topics};
use ganger_protocol::Pattern;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

pub(crate) const LIMITS: TopicLimits = TopicLimits {
    topics: 100,
    ring: Bounds {
        messages: 8,
        bytes: 1 << 20,
        history: 1 << 20,
    },
    rings_bytes: 1 << 30,
    linger_ms: 100,
    lingering: 50,
    lingering_bytes: 1 << 30,
    group: GroupBounds {
        backlog: 10,
        backlog_bytes: 1 << 20,
        members: 10,
        redeliveries: 3,
    },
    retained: 10,
    retained_bytes: 1 << 20,
};

const PATTERNS: [&str; 6] = ["a.x", "a.*", "*.x", ">", "b.>", "b.y.z"];
const SUBJECTS: [&str; 6] = ["a.x", "a.y", "b.x", "b.y", "b.y.z", "c"];

pub(crate) fn message(subject: &str, number: usize) -> Arc<Message> {
    Arc::new(Message::plain(subject.as_bytes(), &number.to_le_bytes()).unwrap())
}

pub(crate) fn number(message: &Message) -> usize {
    usize::from_le_bytes(message.tail().payload().try_into().unwrap())
}

#[derive(Debug, Clone)]
enum Op {
    Publish(&'static str),
    Subscribe(&'static str, bool, Start),
    /// The one who left with this number comes back.
    Resume(usize),
    Leave(usize),
    Drain(usize, usize),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let start = prop_oneof![
        2 => Just(Start::New),
        1 => (0..20_u64).prop_map(Start::Last),
    ];
    prop_oneof![
        12 => select(SUBJECTS.to_vec()).prop_map(Op::Publish),
        3 => (select(PATTERNS.to_vec()), prop::bool::weighted(0.3), start)
            .prop_map(|(pattern, conflates, start)| Op::Subscribe(pattern, conflates, start)),
        2 => any::<usize>().prop_map(Op::Resume),
        2 => any::<usize>().prop_map(Op::Leave),
        8 => (any::<usize>(), 1..12_usize).prop_map(|(who, messages)| Op::Drain(who, messages)),
        2 => (0..80_u64).prop_map(Op::Wait),
    ]
}

/// The messages of a pattern since it was first subscribed to.
struct Log {
    epoch: u64,
    messages: Vec<(&'static str, usize)>,
    until: Option<u64>,
}

struct Reader {
    who: Subscriber,
    pattern: &'static str,
    conflates: bool,
    subscription: Option<Subscription>,
    epoch: u64,
    /// What it expects next.
    next: u64,
    is_idle: bool,
}

struct World {
    topics: Topics,
    logs: HashMap<&'static str, Log>,
    readers: Vec<Reader>,
    now: u64,
    published: usize,
}

impl World {
    fn step(&mut self, op: Op) -> Result<(), TestCaseError> {
        let mut effects = Effects::default();
        match op {
            Op::Publish(subject) => self.publish(subject)?,
            Op::Subscribe(pattern, conflates, start) => {
                let who = Subscriber::new(1, u32::try_from(self.readers.len()).unwrap());
                self.readers.push(Reader {
                    who,
                    pattern,
                    conflates,
                    subscription: None,
                    epoch: 0,
                    next: 0,
                    is_idle: false,
                });
                self.join(self.readers.len() - 1, start, None)?;
            }
            Op::Resume(which) => {
                let gone = |reader: &Reader| reader.subscription.is_none();
                if let Some(at) = self.pick(which, gone) {
                    let (epoch, next) = (self.readers[at].epoch, self.readers[at].next);
                    self.join(at, Start::From(next), Some(epoch))?;
                }
            }
            Op::Leave(which) => {
                if let Some(at) = self.pick(which, |reader| reader.subscription.is_some()) {
                    let subscription = self.readers[at].subscription.take().unwrap();
                    self.topics
                        .unsubscribe(subscription, self.now, &mut effects);
                    let pattern = self.readers[at].pattern;
                    let is_last = !self
                        .readers
                        .iter()
                        .any(|reader| reader.pattern == pattern && reader.subscription.is_some());
                    if is_last {
                        let until = self.now + LIMITS.linger_ms;
                        self.logs.get_mut(pattern).unwrap().until = Some(until);
                    }
                }
            }
            Op::Drain(which, messages) => {
                if let Some(at) = self.pick(which, |reader| reader.subscription.is_some()) {
                    self.drain(at, messages)?;
                }
            }
            Op::Wait(by) => {
                self.now += by;
                self.topics.expire(self.now);
                self.logs
                    .retain(|_, log| log.until.is_none_or(|until| until > self.now));
            }
        }
        prop_assert_eq!(self.topics.len(), self.logs.len());
        let lingering = self.logs.values().filter(|log| log.until.is_some());
        prop_assert_eq!(self.topics.lingering(), lingering.count());
        Ok(())
    }

    fn pick(&self, which: usize, wanted: impl Fn(&Reader) -> bool) -> Option<usize> {
        let fitting: Vec<usize> = (0..self.readers.len())
            .filter(|at| wanted(&self.readers[*at]))
            .collect();
        (!fitting.is_empty()).then(|| fitting[which % fitting.len()])
    }

    fn publish(&mut self, subject: &'static str) -> Result<(), TestCaseError> {
        let mut effects = Effects::default();
        let message = message(subject, self.published);
        let published = self.topics.publish(&message, &mut effects).unwrap();
        for (pattern, log) in &mut self.logs {
            if pattern.parse::<Pattern>().unwrap().matches(subject) {
                log.messages.push((subject, self.published));
            }
        }
        self.published += 1;
        let mut reached = 0;
        let mut woken = Vec::new();
        for reader in &mut self.readers {
            let matches = reader.pattern.parse::<Pattern>().unwrap().matches(subject);
            if reader.subscription.is_some() && matches {
                reached += 1;
                if std::mem::take(&mut reader.is_idle) {
                    woken.push(reader.who);
                }
            }
        }
        prop_assert!(matches!(published, Published::Done(count) if count == reached));
        effects.wake.sort_unstable();
        prop_assert_eq!(effects.wake, woken);
        Ok(())
    }

    fn join(&mut self, at: usize, start: Start, epoch: Option<u64>) -> Result<(), TestCaseError> {
        let reader = &mut self.readers[at];
        let wish = Wish {
            policy: if reader.conflates {
                Policy::Conflate
            } else {
                Policy::DropOldest
            },
            start,
            ..Wish::default()
        };
        let pattern = reader.pattern.parse().unwrap();
        let mut effects = Effects::default();
        let joined = self
            .topics
            .subscribe(&pattern, reader.who, wish, epoch, &mut effects)
            .unwrap();
        let log = self.logs.entry(reader.pattern).or_insert(Log {
            epoch: joined.epoch,
            messages: Vec::new(),
            until: None,
        });
        log.until = None;
        prop_assert_eq!(joined.epoch, log.epoch);
        prop_assert_eq!(
            joined.is_another,
            epoch.is_some_and(|epoch| epoch != log.epoch)
        );
        let next = log.messages.len() as u64 + 1;
        let first = next.saturating_sub(LIMITS.ring.messages as u64).max(1);
        // A gap at the beginning is told by the first drain.
        reader.next = match start {
            Start::From(seq) if !joined.is_another => seq,
            Start::Last(count) => next.saturating_sub(count).max(first),
            _ => next,
        };
        reader.epoch = joined.epoch;
        prop_assert_eq!(joined.next, reader.next.max(first));
        prop_assert_eq!(joined.is_ready, reader.next < next);
        reader.is_idle = !joined.is_ready;
        reader.subscription = Some(joined.subscription);
        Ok(())
    }

    fn drain(&mut self, at: usize, messages: usize) -> Result<(), TestCaseError> {
        let reader = &mut self.readers[at];
        let log = &self.logs[reader.pattern].messages;
        let next = log.len() as u64 + 1;
        let first = next.saturating_sub(LIMITS.ring.messages as u64).max(1);
        let batch = Batch {
            messages,
            bytes: usize::MAX,
        };
        let mut got: Vec<Result<(u64, usize), Gap>> = Vec::new();
        let subscription = reader.subscription.as_ref().unwrap();
        let drained = subscription.drain(batch, &mut Effects::default(), |item| {
            got.push(match item {
                Delivery::Message(seq, message) => Ok((seq, number(message))),
                Delivery::Gap(gap) => Err(gap),
            });
        });
        reader.is_idle = drained == Drained::Idle;
        let message = |seq: u64| log[usize::try_from(seq).unwrap() - 1];
        for item in got {
            match item {
                Ok((seq, number)) => {
                    prop_assert_eq!(number, message(seq).1, "the message of this number");
                    if reader.conflates {
                        prop_assert!(seq >= reader.next, "nothing twice, nothing out of order");
                        // What is between has been replaced by something newer.
                        for skipped in reader.next..seq {
                            let subject = message(skipped).0;
                            let newer = (skipped + 1..next).any(|seq| message(seq).0 == subject);
                            prop_assert!(newer);
                        }
                    } else {
                        prop_assert_eq!(seq, reader.next);
                    }
                    reader.next = seq + 1;
                }
                Err(gap) => {
                    prop_assert!(
                        !reader.conflates || gap.to <= first,
                        "no more than was gone"
                    );
                    prop_assert_eq!(gap.from, reader.next);
                    prop_assert_eq!(gap.lost, gap.to - gap.from);
                    prop_assert!(
                        reader.conflates || gap.to == first,
                        "what is there is not lost"
                    );
                    reader.next = gap.to;
                }
            }
        }
        if drained == Drained::Idle {
            prop_assert!(reader.conflates || reader.next == next);
            // The last word of each subject has arrived.
            for missing in reader.next..next {
                let subject = message(missing).0;
                prop_assert!((missing + 1..next).any(|seq| message(seq).0 == subject));
            }
            reader.next = next;
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_twice_nothing_out_of_order_every_loss_announced(ops in vec(op(), 0..250)) {
        let mut world = World {
            topics: Topics::new(LIMITS, 1000),
            logs: HashMap::new(),
            readers: Vec::new(),
            now: 0,
            published: 0,
        };
        for op in ops {
            world.step(op)?;
        }
        for mut reader in std::mem::take(&mut world.readers) {
            if let Some(subscription) = reader.subscription.take() {
                world.topics.unsubscribe(subscription, world.now, &mut Effects::default());
            }
        }
        world.topics.expire(u64::MAX);
        prop_assert!(world.topics.is_empty());
        prop_assert_eq!((world.topics.bytes(), world.topics.next_deadline()), ((0, 0), None));
    }
}

/// Publishers and subscribers on threads, some of whom come and go all the time.
#[test]
fn threads_see_each_publishers_messages_in_order_and_every_gap() {
    const PER_PUBLISHER: usize = 3000;
    let topics = Topics::new(LIMITS, 1);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers = ["a.x", "a.*", ">"].map(|pattern| {
            let who = Subscriber::new(2, 1);
            let pattern: Pattern = pattern.parse().unwrap();
            let joined = topics
                .subscribe(
                    &pattern,
                    who,
                    Wish::default(),
                    None,
                    &mut Effects::default(),
                )
                .unwrap();
            let is_over = &is_over;
            scope.spawn(move || read_until(&joined.subscription, is_over))
        });
        let (topics, is_over) = (&topics, &is_over);
        for visitor in 0..2_u32 {
            scope.spawn(move || {
                let mut effects = Effects::default();
                while !is_over.load(Ordering::Acquire) {
                    for pattern in ["a.*", "b.x", "*.*.z"] {
                        let who = Subscriber::new(3, visitor);
                        let pattern = pattern.parse().unwrap();
                        let joined =
                            topics.subscribe(&pattern, who, Wish::default(), None, &mut effects);
                        topics.unsubscribe(joined.unwrap().subscription, 0, &mut effects);
                        topics.expire(u64::from(visitor) * 1000);
                    }
                    effects = Effects::default();
                }
            });
        }
        let publishers = [0, 1].map(|publisher| {
            scope.spawn(move || {
                let mut effects = Effects::default();
                for number in 0..PER_PUBLISHER {
                    let message = message("a.x", number * 2 + publisher);
                    topics.publish(&message, &mut effects).unwrap();
                    effects.wake.clear();
                }
            })
        });
        for publisher in publishers {
            publisher.join().unwrap();
        }
        is_over.store(true, Ordering::Release);
        for reader in readers {
            assert_eq!(reader.join().unwrap(), 2 * PER_PUBLISHER as u64);
        }
    });
}

/// Returns how many messages were got or announced as lost.
fn read_until(subscription: &Subscription, is_over: &AtomicBool) -> u64 {
    let batch = Batch {
        messages: 5,
        bytes: 1000,
    };
    let mut next = 1;
    let mut last: BTreeMap<usize, usize> = BTreeMap::new();
    loop {
        let was_over = is_over.load(Ordering::Acquire);
        let drained = subscription.drain(batch, &mut Effects::default(), |item| match item {
            Delivery::Message(seq, message) => {
                assert_eq!(seq, next);
                next += 1;
                let number = number(message);
                let before = last.insert(number % 2, number);
                assert!(before.is_none_or(|before| before < number));
            }
            Delivery::Gap(gap) => {
                assert_eq!((gap.from, gap.lost), (next, gap.to - gap.from));
                next = gap.to;
            }
        });
        if drained == Drained::Idle {
            if was_over {
                return next - 1;
            }
            std::thread::yield_now();
        }
    }
}
