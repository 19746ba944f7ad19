//! A writer is killed at each of its stores, once while a reader reads and once while another
//! writer waits for its lock; and a writer that repairs after a kill is killed at each of its
//! stores, too, while a reader reads. With two preemptions, for splits and in the repair one: all
//! three at once have too many executions.

use super::*;
use ganger_region::model::killed_after;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// Number of stores the operation makes when it is alone.
fn stores_of(image: &Arc<Image>, operation: fn(&Region)) -> u64 {
    let is_over = |stores| {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        explore(image, 0, move |world| {
            let done = killed_after(&world.attach(), stores, operation).is_some();
            seen.store(done, Ordering::Relaxed);
        });
        over.load(Ordering::Relaxed)
    };
    (0..1000).find(|&stores| is_over(stores)).unwrap()
}

/// The preemptions explored, the operation to be killed, the one of the other writer, what a reader
/// may see meanwhile, and what must hold in the end: given whether the killed operation was over in
/// time.
#[derive(Clone, Copy)]
struct Story {
    preemptions: usize,
    doomed: fn(&Region),
    other: fn(&Region),
    seen: fn(&Region),
    after: fn(&Region, bool),
}

impl Story {
    fn tell(self, name: &str, fill: fn(&Region)) {
        let image = Image::of(fill);
        // A lock that is taken costs a few stores more.
        let stores = stores_of(&image, self.doomed) + 3;
        let executions: u64 = (0..=stores)
            .map(|stores| {
                self.with_a_reader(&image, stores) + self.with_another_writer(&image, stores)
            })
            .sum();
        report(&format!("{name}, killed at 0 to {stores}"), executions);
        self.tell_repair(name, &image);
    }

    /// The other writer takes over when the reader is done.
    fn with_a_reader(self, image: &Arc<Image>, stores: u64) -> u64 {
        explore(image, self.preemptions, move |world| {
            let (reader, doomed) = (world.attach_read_only(), world.attach());
            let other = world.attach();
            let dying = world.spawn(move || killed_after(&doomed, stores, self.doomed));
            (self.seen)(&reader);
            let over = dying.join().unwrap().is_some();
            (self.other)(&other);
            assert_clean(world, &other);
            (self.after)(&other, over);
        })
    }

    /// The other writer comes before, waits for the one that is killed, or comes after.
    fn with_another_writer(self, image: &Arc<Image>, stores: u64) -> u64 {
        explore(image, self.preemptions, move |world| {
            let (doomed, other) = (world.attach(), world.attach());
            let dying = world.spawn(move || killed_after(&doomed, stores, self.doomed));
            (self.other)(&other);
            let over = dying.join().unwrap().is_some();
            assert_clean(world, &other);
            (self.after)(&other, over);
        })
    }

    /// The first writer is dead already; the one that takes over and repairs is killed, a third one
    /// goes on.
    fn tell_repair(self, name: &str, image: &Arc<Image>) {
        let first_stores = stores_of(image, self.doomed);
        let mut executions = 0;
        for first in [first_stores / 3, first_stores * 2 / 3, first_stores - 1] {
            for stores in 0..1000 {
                let over = Arc::new(AtomicBool::new(false));
                let seen = Arc::clone(&over);
                executions += explore(image, 1, move |world| {
                    let (reader, dead) = (world.attach_read_only(), world.attach());
                    let (repairer, third) = (world.attach(), world.attach());
                    assert!(killed_after(&dead, first, self.doomed).is_none());
                    let dying = world.spawn(move || killed_after(&repairer, stores, self.other));
                    (self.seen)(&reader);
                    seen.store(dying.join().unwrap().is_some(), Ordering::Relaxed);
                    (self.other)(&third);
                    assert_clean(world, &third);
                });
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
        report(&format!("{name}, killed in the repair"), executions);
    }
}

#[test]
fn a_replacing_writer_may_be_killed_at_any_store() {
    let story = Story {
        preemptions: 2,
        doomed: |region| {
            write(region, b"key", 2);
        },
        other: |region| {
            write(region, b"key", 3);
        },
        seen: |region| {
            let seen = read(region, b"key").expect("the key was never absent");
            assert!((1..=3).contains(&seen), "{seen}");
        },
        after: |region, _| {
            let last = read(region, b"key");
            assert!(matches!(last, Some(2 | 3)), "{last:?}");
            assert_eq!(read(region, b"neighbour"), Some(7));
        },
    };
    story.tell("replace", |region| {
        write(region, b"key", 1);
        write(region, b"neighbour", 7);
    });
}

#[test]
fn an_inserting_writer_may_be_killed_at_any_store() {
    let story = Story {
        preemptions: 2,
        doomed: |region| {
            write(region, b"key", 2);
        },
        other: |region| {
            write(region, b"other", 3);
        },
        seen: |region| {
            let seen = read(region, b"key");
            assert!(matches!(seen, None | Some(2)), "{seen:?}");
        },
        after: |region, over| {
            let seen = read(region, b"key");
            assert!(seen == Some(2) || seen.is_none() && !over, "{seen:?}");
            assert_eq!(read(region, b"other"), Some(3));
            assert_eq!(read(region, b"neighbour"), Some(7));
        },
    };
    story.tell("insert", |region| {
        write(region, b"neighbour", 7);
    });
}

#[test]
fn a_deleting_writer_may_be_killed_at_any_store() {
    let story = Story {
        preemptions: 2,
        doomed: |region| {
            region.delete(b"key").unwrap();
        },
        other: |region| {
            write(region, b"other", 3);
        },
        seen: |region| {
            let seen = read(region, b"key");
            assert!(matches!(seen, None | Some(1)), "{seen:?}");
        },
        after: |region, over| {
            let seen = read(region, b"key");
            assert!(seen.is_none() || seen == Some(1) && !over, "{seen:?}");
            assert_eq!(read(region, b"other"), Some(3));
            assert_eq!(read(region, b"neighbour"), Some(7));
        },
    };
    story.tell("delete", |region| {
        write(region, b"key", 1);
        write(region, b"neighbour", 7);
    });
}

#[test]
fn an_incrementing_writer_may_be_killed_at_any_store() {
    let story = Story {
        preemptions: 2,
        doomed: |region| {
            region.incr(b"counter", 1).unwrap();
        },
        other: |region| {
            region.incr(b"counter", 10).unwrap();
        },
        seen: |region| {
            let seen = count(region, b"counter");
            assert!(matches!(seen, 5 | 6 | 15 | 16), "{seen}");
        },
        after: |region, over| {
            let sum = count(region, b"counter");
            assert!(sum == 16 || sum == 15 && !over, "{sum}");
        },
    };
    story.tell("increment", |region| {
        region.incr(b"counter", 5).unwrap();
    });
}

#[test]
fn a_splitting_writer_may_be_killed_at_any_store() {
    let story = Story {
        preemptions: 1,
        doomed: |region| {
            let [_, new] = keys_of::<2>(region, 1);
            write(region, &new, 2);
        },
        other: |region| {
            let [stay, _] = keys_of::<2>(region, 0);
            write(region, &stay, 3);
        },
        seen: |region| {
            let [moved] = keys_of::<1>(region, 1);
            assert_eq!(read(region, &moved), Some(1));
        },
        after: |region, over| {
            let ([stay, other], [moved, new]) = (keys_of(region, 0), keys_of(region, 1));
            assert_eq!(read(region, &stay), Some(3));
            assert_eq!(read(region, &other), Some(1));
            assert_eq!(read(region, &moved), Some(1));
            let seen = read(region, &new);
            assert!(seen == Some(2) || seen.is_none() && !over, "{seen:?}");
        },
    };
    story.tell("split", |region| {
        let ([stay, other], [moved]) = (keys_of(region, 0), keys_of(region, 1));
        for key in [stay, moved, other] {
            write(region, &key, 1);
        }
    });
}

#[test]
fn of_two_heirs_one_repairs_and_neither_loses_its_increment() {
    let image = Image::of(|region| {
        region.incr(b"counter", 5).unwrap();
        write(region, b"neighbour", 7);
    });
    let doomed = |region: &Region| {
        region.incr(b"counter", 1).unwrap();
    };
    let mut executions = 0;
    for stores in 1..stores_of(&image, doomed) {
        executions += explore(&image, 1, move |world| {
            let (dead, one, other) = (world.attach(), world.attach(), world.attach());
            assert!(killed_after(&dead, stores, doomed).is_none());
            let audited = one.clone();
            let heirs =
                [one, other].map(|heir| world.spawn(move || heir.incr(b"counter", 10).unwrap()));
            let mut sums = heirs.map(|heir| heir.join().unwrap());
            sums.sort_unstable();
            let last = count(&audited, b"counter");
            assert!(last == 25 || last == 26, "{last}");
            assert_eq!(sums, [last - 10, last]);
            assert_clean(world, &audited);
            assert!(audited.stats().repairs <= 1);
        });
    }
    report("two heirs", executions);
}
