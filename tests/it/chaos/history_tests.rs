//! The judge, judged: histories made by hand, right ones and one for each way to be wrong.

use super::history::{judge_lock, judge_number, judge_register, Deed, Fault, Hold, Op, Step};

fn op(start: u64, end: u64, deed: Deed) -> Op {
    Op {
        start,
        end,
        returned: true,
        deed,
        revision: 0,
    }
}

fn cut_off(start: u64, end: u64, deed: Deed) -> Op {
    Op {
        returned: false,
        ..op(start, end, deed)
    }
}

fn with_revision(revision: u64, op: Op) -> Op {
    Op { revision, ..op }
}

fn faults(ops: &[Op]) -> Vec<Fault> {
    let mut found: Vec<Fault> = judge_register(ops)
        .into_iter()
        .map(|found| found.0)
        .collect();
    found.dedup();
    found
}

const NOTHING: Deed = Deed::Saw(None);
const A: u64 = 1;
const B: u64 = 2;
const C: u64 = 3;

fn saw(id: u64) -> Deed {
    Deed::Saw(Some(id))
}

#[test]
fn right_histories_pass() {
    let histories: [&[Op]; 8] = [
        &[op(1, 2, NOTHING), op(3, 4, Deed::Set(A)), op(5, 6, saw(A))],
        // While a set is under way, a read sees either.
        &[
            op(1, 9, Deed::Set(A)),
            op(2, 3, NOTHING),
            op(4, 5, saw(A)),
            op(6, 7, saw(A)),
        ],
        // Two sets at the same time may be done in either order.
        &[
            op(1, 9, Deed::Set(A)),
            op(2, 8, Deed::Set(B)),
            op(10, 11, saw(A)),
        ],
        &[
            op(1, 9, Deed::Set(A)),
            op(2, 8, Deed::Set(B)),
            op(10, 11, saw(B)),
        ],
        // A cut-off set happened, or it did not.
        &[
            op(1, 2, Deed::Set(A)),
            cut_off(3, 5, Deed::Set(B)),
            op(6, 7, saw(A)),
        ],
        &[
            op(1, 2, Deed::Set(A)),
            cut_off(3, 5, Deed::Set(B)),
            op(6, 7, saw(B)),
        ],
        // A delete, and one that was cut off.
        &[
            op(1, 2, Deed::Set(A)),
            op(3, 4, Deed::Delete),
            op(5, 6, NOTHING),
        ],
        &[
            op(1, 2, Deed::Set(A)),
            cut_off(3, 5, Deed::Delete),
            op(6, 7, NOTHING),
        ],
    ];
    for history in histories {
        assert_eq!(faults(history), [], "{history:?}");
    }
}

#[test]
fn a_torn_read_is_flagged() {
    assert_eq!(
        faults(&[op(1, 2, Deed::Set(A)), op(3, 4, Deed::SawTorn)]),
        [Fault::Torn]
    );
}

#[test]
fn an_invented_value_is_flagged() {
    assert_eq!(
        faults(&[op(1, 2, Deed::Set(A)), op(3, 4, saw(B))]),
        [Fault::Invented]
    );
    let from_the_future = [op(1, 2, saw(A)), op(3, 4, Deed::Set(A))];
    assert!(faults(&from_the_future).contains(&Fault::Invented));
}

#[test]
fn a_stale_read_is_flagged() {
    let replaced = [
        op(1, 2, Deed::Set(A)),
        op(3, 4, Deed::Set(B)),
        op(5, 6, saw(A)),
    ];
    assert!(faults(&replaced).contains(&Fault::Stale));
    let deleted = [
        op(1, 2, Deed::Set(A)),
        op(3, 4, Deed::Delete),
        op(5, 6, saw(A)),
    ];
    assert!(faults(&deleted).contains(&Fault::Stale));
    // A cut-off set can't come into effect after its process was dead.
    let undead = [
        cut_off(1, 2, Deed::Set(A)),
        op(3, 4, Deed::Set(B)),
        op(5, 6, saw(A)),
    ];
    assert!(faults(&undead).contains(&Fault::Stale));
}

#[test]
fn a_lost_write_is_flagged() {
    assert_eq!(
        faults(&[op(1, 2, Deed::Set(A)), op(3, 4, NOTHING)]),
        [Fault::Lost]
    );
    let deleted_before = [
        op(1, 2, Deed::Delete),
        op(3, 4, Deed::Set(A)),
        op(5, 6, NOTHING),
    ];
    assert_eq!(faults(&deleted_before), [Fault::Lost]);
    let deleted_after = [
        op(1, 2, Deed::Set(A)),
        op(3, 4, NOTHING),
        op(5, 6, Deed::Delete),
    ];
    assert_eq!(faults(&deleted_after), [Fault::Lost]);
}

#[test]
fn a_value_that_goes_and_comes_back_is_flagged() {
    // The set is under way all the time, so neither read is stale by itself.
    let absent_between = [
        op(1, 20, Deed::Set(A)),
        op(2, 3, saw(A)),
        op(4, 5, NOTHING),
        op(6, 7, saw(A)),
    ];
    assert_eq!(faults(&absent_between), [Fault::Interrupted]);
    let other_between = [
        op(1, 20, Deed::Set(A)),
        op(1, 20, Deed::Set(B)),
        op(2, 3, saw(A)),
        op(4, 5, saw(B)),
        op(6, 7, saw(A)),
    ];
    assert_eq!(faults(&other_between), [Fault::Interrupted]);
    // Both seen before and after the other: an order for the writes exists in none.
    let crossed = [
        op(1, 20, Deed::Set(A)),
        op(1, 20, Deed::Set(B)),
        op(2, 3, saw(A)),
        op(4, 5, saw(B)),
        op(6, 7, saw(A)),
        op(8, 9, saw(B)),
    ];
    assert!(faults(&crossed).contains(&Fault::Interrupted));
}

fn swap(from: u64, to: u64) -> Deed {
    Deed::Swap { from, to }
}

#[test]
fn right_swaps_pass() {
    let histories: [&[Op]; 4] = [
        &[
            op(1, 2, Deed::Set(A)),
            op(3, 6, swap(A, B)),
            op(4, 5, saw(A)),
            op(7, 8, saw(B)),
        ],
        // Of two at the same time, one is too late.
        &[
            op(1, 2, Deed::Set(A)),
            op(3, 6, swap(A, B)),
            op(3, 6, Deed::Missed(A)),
        ],
        // One that was cut off was done, or it was not, and then another is.
        &[
            op(1, 2, Deed::Set(A)),
            cut_off(3, 4, swap(A, B)),
            op(5, 6, swap(B, C)),
            op(7, 8, saw(C)),
        ],
        &[
            op(1, 2, Deed::Set(A)),
            cut_off(3, 4, swap(A, B)),
            op(5, 6, swap(A, C)),
            op(7, 8, saw(C)),
        ],
    ];
    for history in histories {
        assert_eq!(faults(history), [], "{history:?}");
    }
}

#[test]
fn two_swaps_of_the_same_value_are_flagged() {
    let both = [
        op(1, 2, Deed::Set(A)),
        op(3, 6, swap(A, B)),
        op(3, 6, swap(A, C)),
    ];
    assert!(faults(&both).contains(&Fault::SwappedTwice));
    // The first one was cut off, but somebody saw what it wrote.
    let seen = [
        both[0],
        cut_off(3, 6, swap(A, B)),
        both[2],
        op(7, 8, saw(B)),
    ];
    assert!(faults(&seen).contains(&Fault::SwappedTwice));
}

#[test]
fn a_swap_of_what_is_not_there_any_more_is_flagged() {
    let replaced = [
        op(1, 2, Deed::Set(A)),
        op(3, 4, Deed::Set(B)),
        op(5, 6, swap(A, C)),
    ];
    assert!(faults(&replaced).contains(&Fault::Stale));
    // Whenever the swap took place, the other value was there in the middle of it.
    let between = [
        op(1, 2, Deed::Set(A)),
        op(3, 9, swap(A, C)),
        op(4, 8, Deed::Set(B)),
        op(5, 5, saw(B)),
        op(6, 6, saw(B)),
        op(10, 11, saw(C)),
    ];
    assert_eq!(faults(&between), [Fault::Interrupted]);
    let back = [
        op(1, 2, Deed::Set(A)),
        op(3, 9, swap(A, B)),
        op(4, 5, saw(B)),
        op(6, 7, saw(A)),
    ];
    assert_eq!(faults(&back), [Fault::Interrupted]);
}

#[test]
fn a_swap_that_misses_what_is_there_is_flagged() {
    let history = [
        op(1, 2, Deed::Set(A)),
        op(3, 4, Deed::Missed(A)),
        op(5, 6, saw(A)),
    ];
    assert_eq!(faults(&history), [Fault::Refused]);
}

#[test]
fn the_presence_of_nothing_is_flagged() {
    let some = |start| op(start, start + 1, Deed::SawSome);
    assert_eq!(
        faults(&[some(1), op(3, 4, Deed::Set(A))]),
        [Fault::Invented]
    );
    let deleted = [op(1, 2, Deed::Set(A)), op(3, 4, Deed::Delete), some(5)];
    assert_eq!(faults(&deleted), [Fault::Invented]);
    // What replaced something is not what was there before it.
    let replaced = [
        deleted[0],
        deleted[1],
        op(5, 6, Deed::Replace(B)),
        op(7, 8, saw(B)),
    ];
    assert_eq!(faults(&replaced), [Fault::Invented]);
    assert_eq!(faults(&replaced[2..]), [Fault::Invented]);
    for good in [
        [op(1, 2, Deed::Set(A)), op(3, 4, Deed::Replace(B))],
        [op(1, 6, Deed::Set(A)), op(3, 4, Deed::Replace(B))],
        [op(1, 2, Deed::Set(A)), some(3)],
        [cut_off(1, 6, Deed::Set(A)), some(3)],
    ] {
        assert_eq!(faults(&good), []);
    }
    let perhaps = [deleted[0], cut_off(3, 4, Deed::Delete), some(5)];
    assert_eq!(faults(&perhaps), []);
}

#[test]
fn revisions_out_of_order_are_flagged() {
    let good = [
        with_revision(4, op(1, 2, Deed::Set(A))),
        with_revision(4, op(3, 4, saw(A))),
        with_revision(6, op(5, 6, Deed::Set(B))),
    ];
    assert_eq!(faults(&good), []);
    let another = [good[0], with_revision(6, good[1])];
    assert_eq!(faults(&another), [Fault::Revision]);
    let back = [good[0], with_revision(2, good[2])];
    assert_eq!(faults(&back), [Fault::Revision]);
    let twice = [good[0], with_revision(4, good[2])];
    assert_eq!(faults(&twice), [Fault::Revision]);
}

fn step(start: u64, end: u64, by: i64, sum: i64) -> Step {
    Step {
        start,
        end,
        by,
        sum: Some(sum),
    }
}

#[test]
fn additions_that_are_lost_doubled_or_out_of_order_are_flagged() {
    let perhaps = Step {
        sum: None,
        ..step(5, 6, 10, 0)
    };
    let good = [
        step(1, 2, 3, 3),
        step(3, 4, 0, 3),
        perhaps,
        step(7, 8, 1, 4),
    ];
    assert_eq!(judge_number(&good, 4), [""; 0]);
    let done = [step(1, 2, 3, 3), perhaps, step(7, 8, 1, 14)];
    assert_eq!(judge_number(&done, 14), [""; 0]);
    assert_eq!(
        judge_number(&good, 3).len(),
        1,
        "an acknowledged one is missing"
    );
    assert_eq!(judge_number(&good, 15).len(), 1, "more than was ever added");
    let twice = [step(1, 2, 1, 1), step(3, 4, 1, 1)];
    assert_eq!(
        judge_number(&twice, 2).len(),
        1,
        "both made it 1: an update is lost"
    );
    let back = [step(1, 2, 1, 2), step(3, 4, 1, 1)];
    assert_eq!(judge_number(&back, 2).len(), 1, "the later one made less");
    let looked_back = [step(1, 2, 1, 1), step(3, 4, 0, 0)];
    assert_eq!(judge_number(&looked_back, 1).len(), 1, "a stale look");
}

#[test]
fn two_holders_of_a_lock_are_flagged() {
    let hold = |from, until| Hold {
        from,
        until,
        killed: false,
    };
    assert_eq!(judge_lock(&mut [hold(5, 6), hold(1, 4)]), [""; 0]);
    assert_eq!(judge_lock(&mut [hold(5, 6), hold(1, 8)]).len(), 1);
}
