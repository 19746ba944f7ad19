//! Groups: fairness, deaths, bounds, and a random history in which every message has one fate.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const BOUNDS: GroupBounds = GroupBounds {
    backlog: 3,
    backlog_bytes: 10_000,
    members: 4,
    redeliveries: 2,
};

fn who(number: u32) -> Subscriber {
    Subscriber::new(u64::from(number), number)
}

fn takes(cap: u32, redeliver: bool) -> MemberOptions {
    MemberOptions { cap, redeliver }
}

fn message(number: u32) -> Arc<Message> {
    Arc::new(Message::plain(b"work", &number.to_le_bytes()).unwrap())
}

fn number(message: &Message) -> u32 {
    u32::from_le_bytes(message.tail().payload().try_into().unwrap())
}

fn sent(effects: &mut Effects) -> Vec<(u32, u32)> {
    let sent = effects.assignments.drain(..);
    sent.map(|assignment| (assignment.to.subscription.0, number(&assignment.message)))
        .collect()
}

#[test]
fn equals_take_turns_and_the_one_with_fewest_goes_first() {
    let mut group = Group::new(BOUNDS);
    let mut effects = Effects::default();
    for member in 1..=3 {
        group
            .join(who(member), takes(10, false), &mut effects)
            .unwrap();
    }
    for number in 0..6 {
        group.offer(&message(number), &mut effects);
    }
    assert_eq!(
        sent(&mut effects),
        [(1, 0), (2, 1), (3, 2), (1, 3), (2, 4), (3, 5)]
    );
    // The second one is done with both of its messages.
    assert!(group.ack(who(2), 2, &mut effects) && group.ack(who(2), 5, &mut effects));
    for number in 6..9 {
        group.offer(&message(number), &mut effects);
    }
    assert_eq!(sent(&mut effects), [(2, 6), (2, 7), (1, 8)]);
}

/// One who is always done at once must not get everything.
#[test]
fn idle_members_take_turns() {
    let mut group = Group::new(BOUNDS);
    let mut effects = Effects::default();
    for member in 1..=3 {
        group
            .join(who(member), takes(10, false), &mut effects)
            .unwrap();
    }
    let mut order = Vec::new();
    for number in 0..6 {
        group.offer(&message(number), &mut effects);
        let assignment = effects.assignments.remove(0);
        assert!(group.ack(assignment.to, assignment.delivery, &mut effects));
        order.push(assignment.to.subscription.0);
    }
    assert_eq!(order, [1, 2, 3, 1, 2, 3]);
}

#[test]
fn one_acknowledgement_may_stand_for_all_before_it() {
    let mut group = Group::new(BOUNDS);
    let mut effects = Effects::default();
    group.join(who(1), takes(3, true), &mut effects).unwrap();
    for number in 0..5 {
        group.offer(&message(number), &mut effects);
    }
    assert_eq!(group.ack_up_to(who(1), 2, &mut effects), 2);
    assert_eq!(group.ack_up_to(who(1), 2, &mut effects), 0);
    assert_eq!(sent(&mut effects), [(1, 0), (1, 1), (1, 2), (1, 3), (1, 4)]);
    assert_eq!(group.ack_up_to(who(1), u64::MAX, &mut effects), 3);
    assert_eq!(group.totals().acked, 5);
}

#[test]
fn what_a_dead_member_had_goes_to_others_before_anything_newer() {
    let mut group = Group::new(BOUNDS);
    let mut effects = Effects::default();
    group.join(who(1), takes(2, true), &mut effects).unwrap();
    for number in 0..3 {
        group.offer(&message(number), &mut effects);
    }
    assert_eq!(sent(&mut effects), [(1, 0), (1, 1)]);
    assert!(group.leave(who(1), &mut effects));
    // Nobody is there: it waits, but nothing new does.
    assert_eq!(group.offer(&message(9), &mut effects), Offered::NoMembers);
    group.join(who(2), takes(9, true), &mut effects).unwrap();
    let redeliveries: Vec<u32> = effects.assignments.iter().map(|a| a.redeliveries).collect();
    assert_eq!(redeliveries, [1, 1, 0]);
    assert_eq!(sent(&mut effects), [(2, 0), (2, 1), (2, 2)]);
    assert!(!group.ack(who(1), 1, &mut effects) && !group.ack(who(2), 1, &mut effects));
    assert_eq!(group.totals().stray_acks, 2);
}

#[test]
fn a_message_that_kills_its_members_is_given_up() {
    let mut group = Group::new(BOUNDS);
    let mut effects = Effects::default();
    group.join(who(0), takes(1, true), &mut effects).unwrap();
    group.offer(&message(7), &mut effects);
    for member in 1..=3 {
        group.leave(who(member - 1), &mut effects);
        group
            .join(who(member), takes(1, true), &mut effects)
            .unwrap();
    }
    assert_eq!(sent(&mut effects), [(0, 7), (1, 7), (2, 7)]);
    assert_eq!(
        (group.totals().dropped_poison, group.backlog()),
        (1, (0, 0))
    );
}

#[test]
fn one_more_than_allowed_is_refused_and_counted() {
    let mut group = Group::new(BOUNDS);
    let mut effects = Effects::default();
    for member in 0..4 {
        group
            .join(who(member), takes(1, false), &mut effects)
            .unwrap();
    }
    let limit = 4;
    let fifth = group.join(who(4), takes(1, false), &mut effects);
    assert_eq!(fifth, Err(GroupJoinError::Full { limit }));
    let again = group.join(who(3), takes(1, false), &mut effects);
    assert_eq!(again, Err(GroupJoinError::Member));
    let fates: Vec<_> = (0..8)
        .map(|n| group.offer(&message(n), &mut effects))
        .collect();
    assert_eq!(
        fates[3..],
        [
            Offered::Assigned(4),
            Offered::Waits,
            Offered::Waits,
            Offered::Waits,
            Offered::Full,
        ]
    );
    assert_eq!(group.totals().dropped_full, 1);

    let tight = GroupBounds {
        backlog_bytes: message(0).cost(),
        ..BOUNDS
    };
    let mut group = Group::new(tight);
    group.join(who(0), takes(1, false), &mut effects).unwrap();
    let fates = [0; 3].map(|_| group.offer(&message(0), &mut effects));
    assert_eq!(fates, [Offered::Assigned(1), Offered::Waits, Offered::Full]);
}

#[derive(Debug, Clone)]
enum Op {
    Join(u32, u32, bool),
    Leave(u32),
    Offer,
    Ack(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0..6_u32, 0..4_u32, any::<bool>()).prop_map(|(who, cap, again)| Op::Join(who, cap, again)),
        1 => (0..6_u32).prop_map(Op::Leave),
        8 => Just(Op::Offer),
        6 => any::<usize>().prop_map(Op::Ack),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_message_has_one_fate(ops in vec(op(), 0..200)) {
        let mut group = Group::new(BOUNDS);
        let mut effects = Effects::default();
        let mut in_hand: Vec<Assignment> = Vec::new();
        let mut options: HashMap<Subscriber, MemberOptions> = HashMap::new();
        let (mut offered, mut acked, mut unrouted) = (0_u32, 0, 0);
        for op in ops {
            match op {
                Op::Join(number, cap, again) => {
                    if group.join(who(number), takes(cap, again), &mut effects).is_ok() {
                        options.insert(who(number), takes(cap.max(1), again));
                    }
                }
                Op::Leave(number) => {
                    let was_in = options.remove(&who(number)).is_some();
                    in_hand.retain(|assignment| assignment.to != who(number));
                    prop_assert_eq!(group.leave(who(number), &mut effects), was_in);
                }
                Op::Offer => {
                    let fate = group.offer(&message(offered), &mut effects);
                    unrouted += u64::from(fate == Offered::NoMembers);
                    offered += 1;
                }
                Op::Ack(which) if !in_hand.is_empty() => {
                    let assignment = in_hand.swap_remove(which % in_hand.len());
                    prop_assert!(group.ack(assignment.to, assignment.delivery, &mut effects));
                    acked += 1;
                }
                Op::Ack(_) => {}
            }
            in_hand.append(&mut effects.assignments);
            let mut numbers: Vec<u32> = in_hand.iter().map(|a| number(&a.message)).collect();
            numbers.sort_unstable();
            prop_assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "given to two");
            for stats in group.member_stats() {
                let theirs = in_hand.iter().filter(|a| a.to == stats.subscriber).count();
                prop_assert_eq!(stats.unacked, theirs);
                prop_assert!(theirs <= options[&stats.subscriber].cap as usize);
            }
            let (waiting, bytes) = group.backlog();
            prop_assert_eq!(bytes, waiting * message(0).cost());
            let has_room = |stats: &MemberStats| {
                stats.unacked < options[&stats.subscriber].cap as usize
            };
            prop_assert!(waiting == 0 || !group.member_stats().any(|stats| has_room(&stats)));
            let totals = group.totals();
            let ended = acked + unrouted + totals.dropped_full + totals.dropped_dead
                + totals.dropped_poison;
            prop_assert_eq!(u64::from(offered), ended + (in_hand.len() + waiting) as u64);
        }
    }
}
