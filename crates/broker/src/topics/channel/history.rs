//! Letting go early what every subscriber has got, so that a stream that nobody is behind runs through a
//! piece of memory that the processor and its page tables have at hand.

use super::Channel;
use crate::topics::Effects;

/// One message goes for one that comes, and of so many one more, until the history fits: the allocator is
/// quick where pieces come and go in turn, and slow with hundreds at once.
const SHRINK_EVERY: u64 = 8;

/// Only where messages cost so much on the average. Small ones lie in memory in the order in which they
/// come and go as long as the ring is full, which is worth more; and it is full of them at a few megabytes.
const COST_MIN: usize = 1024;

impl Channel {
    /// Makes room in the history for a message of this cost by and by, as far as everybody has got what
    /// is there.
    pub(super) fn let_history_go(&mut self, cost: usize, effects: &mut Effects) {
        let count = 1 + u64::from(self.next.is_multiple_of(SHRINK_EVERY));
        for _ in 0..count {
            let fits = self.ring_bytes + cost <= self.bounds.history;
            let are_small = self.ring_bytes < self.ring.len() * COST_MIN;
            if fits || are_small || self.cursors.is_empty() || !self.everybody_has_got_the_oldest()
            {
                return;
            }
            self.evict(effects);
        }
    }

    /// Looks at the cursors, if need be, once for as many messages as there are cursors.
    fn everybody_has_got_the_oldest(&mut self) -> bool {
        let first = self.first();
        if first >= self.passed && self.next - self.passed_at >= self.cursors.len() as u64 {
            self.passed_at = self.next;
            let positions = self.cursors.iter().map(|(_, cursor)| cursor.position);
            self.passed = positions.min().unwrap_or(0);
        }
        first < self.passed
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{drain, message, op, wish, Got, Op};
    use super::super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const LEN: usize = 1000;

    /// A channel that keeps so many messages of `LEN` for later.
    fn channel(history: usize) -> Channel {
        let bounds = Bounds {
            messages: 20,
            bytes: usize::MAX,
            history: history * message(0, LEN).cost(),
        };
        Channel::new(bounds, Arc::new(Budget::new(usize::MAX)))
    }

    fn join(channel: &mut Channel, start: Start) -> CursorId {
        let who = Subscriber::new(1, 1);
        channel.join(who, wish(Policy::DropOldest, start)).0
    }

    fn append(channel: &mut Channel, count: usize) {
        for _ in 0..count {
            channel.append_now(&message(0, LEN), &mut Effects::default());
        }
    }

    #[test]
    fn what_everybody_has_got_goes_and_what_one_has_not_stays() {
        let mut channel = channel(4);
        let [one, other] = [(); 2].map(|()| join(&mut channel, Start::New));
        append(&mut channel, 10);
        assert_eq!(channel.len(), 10, "nobody has got any");
        drain(&mut channel, one);
        append(&mut channel, 2);
        assert_eq!(channel.len(), 12, "one has not got any");
        let all: Vec<Got> = (1..=12).map(Got::Message).collect();
        assert_eq!(drain(&mut channel, other), all);
        assert_eq!(drain(&mut channel, one), all[10..]);
        append(&mut channel, 1);
        assert_eq!(channel.len(), 12, "one goes for one that comes");
        for _ in 0..100 {
            append(&mut channel, 1);
            drain(&mut channel, one);
            drain(&mut channel, other);
        }
        assert_eq!(
            (channel.len(), channel.next()),
            (4, 114),
            "by and by it fits"
        );
        // Who comes and asks for more is told what is gone.
        let (from, to, lost) = (108, 110, 2);
        let late = join(&mut channel, Start::From(from));
        let mut expected = vec![Got::Gap(Gap { from, to, lost })];
        append(&mut channel, 5);
        drain(&mut channel, one);
        drain(&mut channel, other);
        append(&mut channel, 10);
        expected.extend((110..=128).map(Got::Message));
        assert_eq!(drain(&mut channel, late), expected);
    }

    #[test]
    fn what_nobody_is_there_for_stays_for_who_comes_back() {
        let mut channel = channel(4);
        let one = join(&mut channel, Start::New);
        append(&mut channel, 3);
        drain(&mut channel, one);
        channel.leave(one, &mut Effects::default());
        append(&mut channel, 10);
        let back = join(&mut channel, Start::From(4));
        let all: Vec<Got> = (4..=13).map(Got::Message).collect();
        assert_eq!(drain(&mut channel, back), all);
    }

    #[test]
    fn small_messages_stay_until_the_ring_is_full() {
        let mut channel = channel(1);
        let one = join(&mut channel, Start::New);
        for len in [1, 1000].into_iter().cycle().take(50) {
            channel.append_now(&message(0, len), &mut Effects::default());
            drain(&mut channel, one);
        }
        assert_eq!(channel.len(), 20);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 400,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Who is there from the beginning of what it wants notices nothing.
        #[test]
        fn subscribers_get_what_they_get_where_nothing_goes_early(
            ops in vec(op(), 0..200),
            history in 0..8_usize,
        ) {
            let mut channels = [channel(history), channel(1 << 20)];
            let mut ids = Vec::new();
            for op in ops {
                let done = channels.each_mut().map(|channel| {
                    let mut effects = Effects::default();
                    let (mut got, mut joined) = (Vec::new(), None);
                    match op {
                        Op::Append { key, len, now: true } => {
                            channel.append_now(&message(key, LEN + len), &mut effects);
                        }
                        Op::Append { key, len, now: false } => {
                            let outcome = channel.append(&message(key, LEN + len), &mut effects);
                            got.push(format!("{outcome:?}"));
                        }
                        Op::Join(policy, _) => {
                            let who = Subscriber::new(1, 1);
                            joined = Some(channel.join(who, wish(policy, Start::New)));
                        }
                        Op::Leave(which) if !ids.is_empty() => {
                            channel.leave(ids[which % ids.len()], &mut effects);
                        }
                        Op::Drain(which, batch) if !ids.is_empty() => {
                            let id = ids[which % ids.len()];
                            let drained = channel.drain(id, batch, &mut effects, |item| {
                                got.push(format!("{item:?}"));
                            });
                            got.push(format!("{drained:?}"));
                        }
                        Op::Leave(_) | Op::Drain(..) => {}
                    }
                    (got, joined, format!("{effects:?}"))
                });
                prop_assert_eq!(&done[0], &done[1]);
                match op {
                    Op::Leave(which) if !ids.is_empty() => {
                        ids.swap_remove(which % ids.len());
                    }
                    _ => ids.extend(done[0].1.map(|(id, _)| id)),
                }
                prop_assert!(channels[0].bytes() <= channels[1].bytes());
            }
        }
    }
}
