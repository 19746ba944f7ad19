//! Inserts, replacements and deletions of values of all lengths, counters, and writes with conditions.

use super::super::contents::Written;
use super::{
    counting, delete, deleting, incr, inserting, on, replacing, set_new, value, Operation, Plan,
    Task, HOUR_MS, LARGE,
};
use ganger_region::{Region, SetOptions};

pub(super) static OPERATIONS: &[Operation] = &[
    on(
        "insert",
        |region| inserting(region, 12, 40),
        |region, task| set_new(region, task, 40),
    ),
    on(
        "replace_in_the_same_class",
        |region| replacing(region, 40, 40),
        |region, task| set_new(region, task, 40),
    ),
    on(
        "replace_in_another_class",
        |region| replacing(region, 40, 300),
        |region, task| set_new(region, task, 300),
    ),
    on(
        "replace_small_by_large",
        |region| replacing(region, 40, LARGE),
        |region, task| set_new(region, task, LARGE),
    ),
    on(
        "replace_large_by_small",
        |region| replacing(region, LARGE, 40),
        |region, task| set_new(region, task, 40),
    ),
    on("delete", |region| deleting(region, 40), delete),
    on(
        "delete_a_large_value",
        |region| deleting(region, LARGE),
        delete,
    ),
    on("incr_a_new_counter", |region| counting(region, None), incr),
    on("incr_in_place", |region| counting(region, Some(41)), incr),
    on(
        "append",
        |region| appending(region, 40, 40),
        |region, task| append(region, task, 40),
    ),
    on("update", |region| replacing(region, 40, 40), update),
    Operation {
        evicts: true,
        ..on(
            "replace_in_a_cache",
            |region| replacing(region, 40, 40),
            |region, task| {
                set_new(region, task, 40);
            },
        )
    },
    on(
        "append_in_the_same_class",
        |region| appending(region, 40, 8),
        |region, task| append(region, task, 8),
    ),
    on(
        "append_that_makes_a_value_large",
        |region| appending(region, LARGE - 100, 100),
        |region, task| append(region, task, 100),
    ),
    on(
        "append_to_an_absent_key",
        |region| inserting(region, 12, 40),
        |region, task| append(region, task, 40),
    ),
    on("update_of_a_counter", updating_a_counter, update),
    on(
        "get_or_insert",
        |region| inserting(region, 12, 40),
        |region, task| {
            let value = region.get_or_insert_with(&task.key, || task.new[..40].to_vec());
            assert_eq!(value.unwrap(), task.new[..40]);
        },
    ),
    on("set_if_revision", setting_if_revision, |region, task| {
        let revision = region.entry(&task.key).unwrap().unwrap().revision;
        let options = SetOptions::new().if_revision(revision).keep_expiry();
        let set = region.set_with(&task.key, &task.new[..40], options);
        assert!(set.unwrap().is_some());
    }),
    on(
        "delete_if_revision",
        |region| deleting(region, 40),
        |region, task| {
            let revision = region.entry(&task.key).unwrap().unwrap().revision;
            assert!(region.delete_if(&task.key, revision).unwrap());
        },
    ),
];

fn appending(region: &Region, old: usize, more: usize) -> Plan {
    let plan = replacing(region, old, 0);
    let whole = [value("old", old), value("new", more)].concat();
    Plan::new(plan.subject, plan.keys, Some(Written::plain(&whole)))
}

fn append(region: &Region, task: &Task, more: usize) {
    let len = region.append(&task.key, &task.new[..more]).unwrap();
    assert!(len >= more as u64);
}

fn update(region: &Region, task: &Task) {
    let new = region.update(&task.key, |old| old.map(|_| task.new[..40].to_vec()));
    assert_eq!(new.unwrap().as_deref(), Some(&task.new[..40]));
}

/// A counter becomes a plain value.
fn updating_a_counter(region: &Region) -> Plan {
    let plan = counting(region, Some(41));
    Plan::new(
        plan.subject,
        plan.keys,
        Some(Written::plain(&value("new", 40))),
    )
}

fn setting_if_revision(region: &Region) -> Plan {
    let plan = replacing(region, 40, 40);
    assert!(region.expire(&plan.subject, HOUR_MS).unwrap());
    let new = Written::plain(&value("new", 40)).keeping_expiry();
    Plan::new(plan.subject, plan.keys, Some(new))
}
