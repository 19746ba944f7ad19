//! Keys that expire, and those that are expired but still there.

use super::super::contents::Written;
use super::super::verify::key_of_shard;
use super::{counting, incr, inserting, on, replacing, set_new, value, Operation, Plan, HOUR_MS};
use crate::harness;
use ganger_region::{Options, Region, SetOptions};

pub(super) static OPERATIONS: &[Operation] = &[
    on(
        "expire",
        |region| expiring(replacing(region, 40, 40)),
        |region, task| assert!(region.expire(&task.key, HOUR_MS).unwrap()),
    ),
    on(
        "persist",
        |region| {
            let plan = replacing(region, 40, 40);
            assert!(region.expire(&plan.subject, HOUR_MS).unwrap());
            let after = Written::plain(&value("old", 40)).keeping_revision();
            Plan::new(plan.subject, plan.keys, Some(after))
        },
        |region, task| assert!(region.persist(&task.key).unwrap()),
    ),
    on(
        "set_with_expiry",
        |region| {
            let plan = inserting(region, 12, 40);
            let after = Written::plain(&value("new", 40)).expiring(HOUR_MS);
            Plan::new(plan.subject, plan.keys, Some(after))
        },
        |region, task| {
            let options = SetOptions::new().ttl_ms(HOUR_MS);
            let set = region.set_with(&task.key, &task.new[..40], options);
            assert!(set.unwrap().is_some());
        },
    ),
    on(
        "set_over_an_expired_key",
        |region| {
            let plan = inserting(region, 12, 40);
            expired(region, &plan.subject);
            plan
        },
        |region, task| set_new(region, task, 40),
    ),
    on("sweep", sweeping, |region, _| {
        assert_eq!(region.sweep().unwrap(), 3);
    }),
    // The others' writes sweep as well.
    on("sweep_among_others", sweeping, |region, _| {
        assert!(region.sweep().unwrap() <= 3);
    }),
    on(
        "touch",
        |region| {
            let plan = replacing(region, 40, 40);
            assert!(region.expire(&plan.subject, HOUR_MS / 2).unwrap());
            expiring(plan)
        },
        |region, task| assert!(region.touch(&task.key, HOUR_MS).unwrap()),
    ),
    on(
        "incr_a_new_counter_with_expiry",
        |region| {
            let plan = counting(region, None);
            let new = Written::counter(1).expiring(HOUR_MS);
            Plan::new(plan.subject, plan.keys, Some(new))
        },
        |region, task| {
            assert_eq!(region.incr_with(&task.key, 1, Some(HOUR_MS)).unwrap(), 1);
        },
    ),
    on(
        "incr_that_keeps_the_expiry",
        |region| {
            let plan = counting(region, Some(41));
            assert!(region.expire(&plan.subject, HOUR_MS).unwrap());
            let new = Written::counter(42).keeping_expiry();
            Plan::new(plan.subject, plan.keys, Some(new))
        },
        incr,
    ),
    on(
        "incr_of_an_expired_counter",
        |region| {
            let plan = counting(region, None);
            assert_eq!(region.incr_with(&plan.subject, 41, Some(1)).unwrap(), 41);
            wait_until_gone(region, &plan.subject);
            plan
        },
        |region, task| assert_eq!(region.incr(&task.key, 1).unwrap(), 1),
    ),
];

fn sweeping(region: &Region) -> Plan {
    let plan = inserting(region, 12, 40);
    let mut keys = plan.keys;
    for number in 0..3 {
        keys.push(key_of_shard(region, 0, "short-lived", number));
        expired(region, keys.last().unwrap());
    }
    Plan {
        subject: plan.subject,
        keys,
        changes: Vec::new(),
    }
}

/// A key that is there, but expired. Whoever writes it has a clock that stands still when the system
/// began, and so sweeps no others.
fn expired(region: &Region, key: &[u8]) {
    let fd = region.fd().unwrap().try_clone_to_owned().unwrap();
    let past = Region::from_fd(fd, Options::new().clock(|| 1)).unwrap();
    let options = SetOptions::new().ttl_ms(1);
    past.set_with(key, &value("expired", 40), options).unwrap();
    assert!(past.exists(key).unwrap() && !region.exists(key).unwrap());
}

fn expiring(plan: Plan) -> Plan {
    let old = Written::plain(&value("old", 40)).keeping_revision();
    Plan::new(plan.subject, plan.keys, Some(old.expiring(HOUR_MS)))
}

pub(super) fn wait_until_gone(region: &Region, key: &[u8]) {
    harness::wait_until("a key to expire", || !region.exists(key).unwrap());
}
