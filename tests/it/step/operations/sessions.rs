//! Ephemeral keys, sessions, the feed, and what concerns a whole region.

use super::super::contents::Written;
use super::super::verify::key_of_shard;
use super::{
    counting, delete, deleting, fill, incr, inserting, on, replacing, set_new, value, Operation,
    Perform, Plan,
};
use ganger_region::{Region, SetOptions};

pub(super) static OPERATIONS: &[Operation] = &[
    on("clear", clearing, |region, _| {
        assert_eq!(region.clear().unwrap(), 12);
    }),
    // Their keys go too, if they are there before their bucket's turn.
    on("clear_among_others", clearing, |region, _| {
        assert!((12..=14).contains(&region.clear().unwrap()));
    }),
    on(
        "set_ephemeral",
        |region| {
            let plan = inserting(region, 12, 40);
            let after = Written::plain(&value("new", 40)).ephemeral();
            Plan::new(plan.subject, plan.keys, Some(after))
        },
        |region, task| {
            let set = region.set_with(&task.key, &task.new[..40], SetOptions::new().ephemeral());
            assert!(set.unwrap().is_some());
        },
    ),
    on(
        "reap",
        |region| {
            let mut keys = fill(region, 12);
            let dying = ephemeral_keys(region);
            for key in &dying {
                let set = region.set_with(key, b"mine", SetOptions::new().ephemeral());
                assert!(set.unwrap().is_some());
            }
            keys.extend_from_slice(&dying);
            Plan {
                subject: keys[0].clone(),
                keys,
                changes: dying.into_iter().map(|key| (key, None)).collect(),
            }
        },
        |region, _| assert_eq!(region.reap().unwrap().ephemeral, 3),
    ),
    on(
        "turn_the_feed_on",
        |region| unchanged(fill(region, 12)),
        |region, _| drop(region.feed().unwrap()),
    ),
    on(
        "set_with_feed",
        |region| fed(region, replacing(region, 40, 40)),
        |region, task| {
            set_new(region, task, 40);
        },
    ),
    on(
        "delete_with_feed",
        |region| fed(region, deleting(region, 40)),
        delete,
    ),
    on(
        "incr_with_feed",
        |region| fed(region, counting(region, Some(41))),
        incr,
    ),
    on(
        "inherit",
        |_| panic!("an heir gets a region that somebody left"),
        |region, task| set_new(region, task, 40),
    ),
    Operation {
        perform: Perform::Attach,
        ..on(
            "attach_a_session",
            |region| unchanged(fill(region, 12)),
            |_, _| {},
        )
    },
    Operation {
        perform: Perform::Detach,
        ..on(
            "detach",
            |region| {
                let mut keys = fill(region, 12);
                let own = ephemeral_keys(region);
                keys.extend_from_slice(&own);
                Plan {
                    subject: keys[0].clone(),
                    keys,
                    changes: own.into_iter().map(|key| (key, None)).collect(),
                }
            },
            |_, _| {},
        )
    },
];

fn clearing(region: &Region) -> Plan {
    let keys = fill(region, 12);
    Plan {
        subject: keys[0].clone(),
        changes: keys.iter().map(|key| (key.clone(), None)).collect(),
        keys,
    }
}

fn unchanged(keys: Vec<Vec<u8>>) -> Plan {
    Plan {
        subject: keys[0].clone(),
        keys,
        changes: Vec::new(),
    }
}

fn fed(region: &Region, plan: Plan) -> Plan {
    drop(region.feed().unwrap());
    plan
}

/// Keys of the child that detaches.
pub(crate) fn ephemeral_keys(region: &Region) -> Vec<Vec<u8>> {
    (0..3)
        .map(|number| key_of_shard(region, 0, "ephemeral", number))
        .collect()
}
