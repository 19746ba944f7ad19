//! Who gets new connections: weights from what the workers are and how full their queues stay.
//! Pure: the same input gives the same weights.

use std::collections::BTreeMap;

/// Looks at the queues that a slot must fail in a row before it loses its weight.
const STUCK_LOOKS: u32 = 5;

/// What matters of a worker here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate<S> {
    /// Where its connections wait.
    pub(crate) slot: S,
    /// The part it is meant to get, relative to the others'; 0: nothing new.
    pub(crate) share: u32,
    /// It serves.
    pub(crate) is_ready: bool,
    /// It serves, or will: it starts, or waits for its next start.
    pub(crate) may_serve: bool,
    /// Its queue stays full while others are idle.
    pub(crate) is_stuck: bool,
}

/// The weight of each slot that gets any.
///
/// Those that are ready share. Where none is, those that will be get connections all the same: they
/// wait in the queues rather than being refused.
pub(crate) fn weights<S: Copy + Ord>(candidates: &[Candidate<S>]) -> BTreeMap<S, u32> {
    let tiers: [fn(&Candidate<S>) -> bool; 3] = [
        |one| one.is_ready && !one.is_stuck,
        |one| one.is_ready,
        |one| one.may_serve,
    ];
    let mut weights = BTreeMap::new();
    for tier in tiers {
        for one in candidates.iter().filter(|one| one.share > 0) {
            if tier(one) {
                weights.insert(one.slot, one.share);
            }
        }
        if !weights.is_empty() {
            break;
        }
    }
    weights
}

/// Finds slots whose queue stays non-empty while others idle.
#[derive(Debug)]
pub(crate) struct Watch<S> {
    looks: BTreeMap<S, u32>,
}

impl<S> Default for Watch<S> {
    fn default() -> Self {
        Self {
            looks: BTreeMap::new(),
        }
    }
}

impl<S: Copy + Ord> Watch<S> {
    /// Takes one look at all queues. A slot is stuck when its queue was non-empty at many looks in
    /// a row while at least one other was empty at each of them; it recovers with its queue empty.
    pub(crate) fn look(&mut self, queues: &BTreeMap<S, u32>) {
        self.looks.retain(|slot, _| queues.contains_key(slot));
        let is_any_idle = queues.values().any(|len| *len == 0);
        for (slot, len) in queues {
            match (*len, is_any_idle) {
                (0, _) => {
                    self.looks.remove(slot);
                }
                (_, true) => {
                    let looks = self.looks.entry(*slot).or_default();
                    *looks = looks.saturating_add(1);
                }
                // All are busy: nobody is better off elsewhere.
                (_, false) => {}
            }
        }
    }

    /// Whether it is stuck.
    pub(crate) fn is_stuck(&self, slot: S) -> bool {
        self.looks
            .get(&slot)
            .is_some_and(|looks| *looks >= STUCK_LOOKS)
    }
}

/// Shares by which `percent` of new connections go to the new ones: of each new, of each old.
pub(crate) fn canary_shares(percent: u8, new: u16, old: u16) -> (u32, u32) {
    let percent = u32::from(percent.min(100));
    let (new, old) = (u32::from(new.max(1)), u32::from(old.max(1)));
    let (of_new, of_old) = (percent * old, (100 - percent) * new);
    let divisor = gcd(of_new, of_old).max(1);
    (of_new / divisor, of_old / divisor)
}

/// How many new workers carry `percent` of the load of `workers` without one of them having more
/// to do than an old one.
pub(crate) fn canary_workers(percent: u8, workers: u16) -> u16 {
    let wanted = (u32::from(workers) * u32::from(percent.min(100))).div_ceil(100);
    u16::try_from(wanted)
        .unwrap_or(workers)
        .clamp(1, workers.max(1))
}

fn gcd(a: u32, b: u32) -> u32 {
    match b {
        0 => a,
        b => gcd(b, a % b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(slot: u8, share: u32, is_ready: bool, may_serve: bool) -> Candidate<u8> {
        Candidate {
            slot,
            share,
            is_ready,
            may_serve,
            is_stuck: false,
        }
    }

    #[test]
    fn the_ready_ones_share_and_nobody_else() {
        let found = weights(&[
            candidate(0, 1, true, true),
            candidate(1, 1, false, true),
            candidate(2, 0, true, true),
            candidate(3, 3, true, true),
        ]);
        assert_eq!(found, BTreeMap::from([(0, 1), (3, 3)]));
    }

    #[test]
    fn where_nobody_is_ready_connections_wait_for_those_that_will_be() {
        let found = weights(&[candidate(0, 1, false, true), candidate(1, 1, false, false)]);
        assert_eq!(found, BTreeMap::from([(0, 1)]));
    }

    #[test]
    fn a_stuck_one_gets_nothing_new_unless_all_are() {
        let stuck = Candidate {
            is_stuck: true,
            ..candidate(0, 1, true, true)
        };
        let found = weights(&[stuck, candidate(1, 1, true, true)]);
        assert_eq!(found, BTreeMap::from([(1, 1)]));
        assert_eq!(weights(&[stuck]), BTreeMap::from([(0, 1)]));
    }

    #[test]
    fn a_queue_that_stays_full_while_others_idle_is_stuck_until_it_is_empty() {
        let mut watch = Watch::default();
        let busy = BTreeMap::from([(0, 3), (1, 0)]);
        for _ in 0..STUCK_LOOKS {
            assert!(!watch.is_stuck(0));
            watch.look(&busy);
        }
        assert!(watch.is_stuck(0) && !watch.is_stuck(1));
        watch.look(&BTreeMap::from([(0, 1), (1, 2)]));
        assert!(watch.is_stuck(0), "it has not recovered yet");
        watch.look(&BTreeMap::from([(0, 0), (1, 2)]));
        assert!(!watch.is_stuck(0));
    }

    #[test]
    fn nobody_is_stuck_where_all_are_busy() {
        let mut watch = Watch::default();
        for _ in 0..100 {
            watch.look(&BTreeMap::from([(0, 9), (1, 1)]));
        }
        assert!(!watch.is_stuck(0) && !watch.is_stuck(1));
    }

    #[test]
    fn canaries_get_their_percentage() {
        assert_eq!(canary_workers(10, 4), 1);
        assert_eq!(canary_workers(50, 4), 2);
        assert_eq!(canary_workers(51, 4), 3);
        assert_eq!(canary_workers(1, 1), 1);
        let (of_new, of_old) = canary_shares(10, 1, 4);
        assert_eq!(of_new * 100 / (of_new + 4 * of_old), 10);
    }

    proptest! {
        #[test]
        fn connections_always_go_somewhere_if_anybody_may_serve(
            found in prop::collection::vec((0..3_u32, any::<[bool; 3]>()), 1..20),
        ) {
            let candidates: Vec<Candidate<usize>> = found
                .iter()
                .enumerate()
                .map(|(slot, (share, [is_ready, may_serve, is_stuck]))| Candidate {
                    slot,
                    share: *share,
                    is_ready: *is_ready,
                    may_serve: *may_serve || *is_ready,
                    is_stuck: *is_stuck,
                })
                .collect();
            let weights = weights(&candidates);
            let is_anybody = candidates.iter().any(|one| one.share > 0 && one.may_serve);
            prop_assert_eq!(!weights.is_empty(), is_anybody);
            let is_any_ready = candidates.iter().any(|one| one.share > 0 && one.is_ready);
            for one in &candidates {
                let has = weights.contains_key(&one.slot);
                prop_assert!(!has || (one.share > 0 && one.may_serve));
                prop_assert!(!has || !is_any_ready || one.is_ready);
            }
        }

        #[test]
        fn a_canarys_percentage_is_met_exactly(percent in 0..=100_u8, new in 1..20_u16, old in 1..20_u16) {
            let (of_new, of_old) = canary_shares(percent, new, old);
            let (all_new, all_old) = (of_new * u32::from(new), of_old * u32::from(old));
            prop_assert_eq!(all_new * 100, u32::from(percent) * (all_new + all_old));
        }
    }
}
