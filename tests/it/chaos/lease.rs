//! Keys that expire. One process after the other writes such a key, so that it is known at each time
//! what may be there, and until when; all others look.
//!
//! The region counts milliseconds, rounded down, of the clock that the log counts nanoseconds of. So
//! what is written for `ttl` between two times expires between their milliseconds plus `ttl`.

/// Nanoseconds of a tick of the region's clock.
const TICK: u64 = 1_000_000;

/// What the writer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Set { id: u64, ttl: Option<u64> },
    SetKeepingExpiry { id: u64 },
    Expire(u64),
    Touch(u64),
    Persist,
    Delete,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Act {
    pub(super) start: u64,
    /// For one that was cut off: when its process was dead.
    pub(super) end: u64,
    pub(super) deed: Deed,
    /// What it returned: whether it was done. `None` if it was cut off.
    pub(super) done: Option<bool>,
}

/// What a read told of a value's expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    Untold,
    Never,
    /// In so many milliseconds.
    In(u64),
}

impl Expiry {
    /// As a word of the log.
    pub(super) fn to_word(self) -> u64 {
        match self {
            Self::Untold => 0,
            Self::Never => 1,
            Self::In(ms) => ms + 2,
        }
    }

    pub(super) fn from_word(word: u64) -> Self {
        match word {
            0 => Self::Untold,
            1 => Self::Never,
            more => Self::In(more - 2),
        }
    }
}

/// What a read saw.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    pub(super) start: u64,
    pub(super) end: u64,
    /// `None` for nothing.
    pub(super) id: Option<u64>,
    pub(super) expiry: Expiry,
}

/// A value that may be there, and the first and last tick at which it may expire, if it ever does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    id: u64,
    expires: Option<(u64, u64)>,
}

/// What may be there from the start of one act until the end of the next.
struct Phase {
    from: u64,
    until: u64,
    states: Vec<Option<Held>>,
}

/// Whether every read saw what may have been there: never a value after its expiry, never nothing
/// before it. Where entries are evicted, nothing may be there at any time.
pub(super) fn judge_lease(acts: &[Act], sights: &[Sight], evicts: bool) -> Vec<String> {
    let mut phases = vec![Phase {
        from: 0,
        until: u64::MAX,
        states: vec![None],
    }];
    for act in acts {
        let before = phases.last_mut().unwrap();
        before.until = act.end;
        let mut states = Vec::new();
        for state in &before.states {
            for state in after(*state, act, evicts) {
                if !states.contains(&state) {
                    states.push(state);
                }
            }
        }
        if states.is_empty() {
            return vec![format!("{act:?}, but there was {:?}", before.states)];
        }
        phases.push(Phase {
            from: act.start,
            until: u64::MAX,
            states,
        });
    }
    let wrong = sights.iter().filter(|sight| {
        let first = phases.partition_point(|phase| phase.until < sight.start);
        let mut during = phases[first..]
            .iter()
            .take_while(|phase| phase.from <= sight.end);
        !during.any(|phase| may_show(phase, sight, evicts))
    });
    wrong.map(|sight| format!("{sight:?}")).collect()
}

/// What may be there after an act on what was there before it; nothing at all if it can't have
/// returned what it did.
fn after(state: Option<Held>, act: &Act, evicts: bool) -> Vec<Option<Held>> {
    let (start, end) = (act.start / TICK, act.end / TICK);
    let live = state.filter(|held| held.expires.is_none_or(|(_, last)| start < last));
    let may_be_gone =
        evicts || state.is_none_or(|held| held.expires.is_some_and(|(first, _)| first <= end));
    let within = |ttl| (start + ttl, end + ttl);
    let mut states = Vec::new();
    let (is_set, then, otherwise) = match act.deed {
        Deed::Set { id, ttl } => {
            let held = Held {
                id,
                expires: ttl.map(within),
            };
            (true, Some(Some(held)), Some(held))
        }
        Deed::SetKeepingExpiry { id } => {
            let kept = live.map(|old| Some(Held { id, ..old }));
            let new = Held { id, expires: None };
            (true, kept, Some(new))
        }
        Deed::Expire(ttl) => (
            false,
            live.map(|old| {
                Some(Held {
                    expires: Some(within(ttl)),
                    ..old
                })
            }),
            None,
        ),
        Deed::Touch(ttl) => {
            let (first, last) = within(ttl);
            let later = |old: (u64, u64)| (old.0.max(first), old.1.max(last));
            (
                false,
                live.map(|old| {
                    Some(Held {
                        expires: old.expires.map(later),
                        ..old
                    })
                }),
                None,
            )
        }
        Deed::Persist => (
            false,
            live.map(|old| {
                Some(Held {
                    expires: None,
                    ..old
                })
            }),
            None,
        ),
        Deed::Delete => (false, live.map(|_| None), None),
    };
    if act.done.is_none() {
        states.push(state);
    }
    if act.done != Some(false) {
        states.extend(then);
    }
    // Whether a set found something is not told.
    if may_be_gone && (is_set || act.done != Some(true)) {
        states.push(otherwise);
    }
    states
}

fn may_show(phase: &Phase, sight: &Sight, evicts: bool) -> bool {
    let first_tick = sight.start.max(phase.from) / TICK;
    let last_tick = sight.end.min(phase.until) / TICK;
    phase.states.iter().any(|state| match (state, sight.id) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some(held), None) => evicts || held.expires.is_some_and(|(first, _)| first <= last_tick),
        (Some(held), Some(id)) => {
            let told = match (sight.expiry, held.expires) {
                (Expiry::Untold, _) | (Expiry::Never, None) => true,
                (Expiry::In(ms), Some((first, last))) => {
                    sight.start / TICK + ms <= last && first <= sight.end / TICK + ms
                }
                _ => false,
            };
            held.id == id && told && held.expires.is_none_or(|(_, last)| first_tick < last)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times in milliseconds.
    fn act(start: u64, end: u64, deed: Deed) -> Act {
        Act {
            start: start * TICK,
            end: end * TICK,
            deed,
            done: Some(true),
        }
    }

    fn saw(start: u64, end: u64, id: impl Into<Option<u64>>) -> Sight {
        Sight {
            start: start * TICK,
            end: end * TICK,
            id: id.into(),
            expiry: Expiry::Untold,
        }
    }

    fn set(id: u64, ttl: u64) -> Deed {
        Deed::Set { id, ttl: Some(ttl) }
    }

    #[track_caller]
    fn assert_faults(acts: &[Act], sight: Sight, faults: usize) {
        let found = judge_lease(acts, &[sight], false);
        assert_eq!(found.len(), faults, "{found:?}");
    }

    #[test]
    fn a_value_is_there_until_its_tick_and_not_after_it() {
        let acts = [act(10, 12, set(1, 20))];
        assert_faults(&acts, saw(1, 2, None), 0);
        assert_faults(&acts, saw(1, 2, 1), 1);
        assert_faults(&acts, saw(13, 14, 1), 0);
        assert_faults(&acts, saw(13, 29, None), 1);
        // It expires in one of the ticks 30 to 32.
        for tick in 30..32 {
            assert_faults(&acts, saw(tick, tick, None), 0);
            assert_faults(&acts, saw(tick, tick, 1), 0);
        }
        assert_faults(&acts, saw(32, 32, 1), 1);
        assert_faults(&acts, saw(33, 34, None), 0);
        assert_faults(&acts, saw(13, 14, 2), 1);
    }

    #[test]
    fn changes_of_the_expiry_count() {
        let first = act(10, 10, set(1, 20));
        let with = |deed| [first, act(20, 20, deed)];
        assert_faults(&with(Deed::Expire(5)), saw(25, 25, 1), 1);
        assert_faults(&with(Deed::Expire(5)), saw(24, 24, None), 1);
        assert_faults(&with(Deed::Expire(50)), saw(69, 69, None), 1);
        assert_faults(&with(Deed::Touch(5)), saw(29, 29, None), 1);
        assert_faults(&with(Deed::Touch(5)), saw(30, 30, 1), 1);
        assert_faults(&with(Deed::Touch(15)), saw(34, 34, None), 1);
        assert_faults(&with(Deed::Persist), saw(99, 99, None), 1);
        assert_faults(&with(Deed::SetKeepingExpiry { id: 2 }), saw(30, 30, 2), 1);
        assert_faults(
            &with(Deed::SetKeepingExpiry { id: 2 }),
            saw(29, 29, None),
            1,
        );
        assert_faults(&with(Deed::Set { id: 2, ttl: None }), saw(99, 99, None), 1);
        assert_faults(&with(Deed::Delete), saw(21, 21, 1), 1);
    }

    #[test]
    fn what_was_cut_off_was_done_or_was_not() {
        let cut_off = Act {
            done: None,
            ..act(20, 22, set(2, 20))
        };
        let acts = [act(10, 10, set(1, 20)), cut_off];
        for id in [1, 2] {
            assert_faults(&acts, saw(25, 25, id), 0);
        }
        assert_faults(&acts, saw(25, 25, None), 1);
        assert_faults(&acts, saw(31, 31, 1), 1);
        assert_faults(&acts, saw(42, 42, 2), 1);
    }

    #[test]
    fn results_that_can_not_be_are_flagged() {
        let too_late = [act(10, 10, set(1, 5)), act(15, 15, Deed::Persist)];
        assert_eq!(judge_lease(&too_late, &[], false).len(), 1);
        let refused = Act {
            done: Some(false),
            ..act(14, 14, Deed::Touch(5))
        };
        let acts = [act(10, 10, set(1, 5)), refused];
        assert_eq!(judge_lease(&acts, &[], false).len(), 1);
        assert_eq!(judge_lease(&acts, &[], true), [""; 0], "it was evicted");
    }

    #[test]
    fn told_expiries_are_compared() {
        let acts = [act(10, 11, set(1, 20))];
        let told = |expiry| Sight {
            expiry,
            ..saw(15, 16, 1)
        };
        for ms in 14..=16 {
            assert_faults(&acts, told(Expiry::In(ms)), 0);
        }
        for expiry in [Expiry::In(13), Expiry::In(17), Expiry::Never] {
            assert_faults(&acts, told(expiry), 1);
        }
    }
}
