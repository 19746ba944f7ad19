//! A bare loop of one operation on one key, for `scripts/instructions` to count under callgrind.

use crate::workload::{key, VALUE};
use ganger_region::{Config, Options, Region};
use std::hint::black_box;

/// Sets a region up and then runs `ops` operations on one hot key.
pub(crate) fn run(operation: &str, ops: u64) -> Result<(), String> {
    let region = Region::create(&Config::new(64 << 20), Options::new()).unwrap();
    let hot = key(7);
    let counter = key(8);
    region.set(&hot, &VALUE).unwrap();
    region.incr(&counter, 1).unwrap();
    let mut value = Vec::with_capacity(VALUE.len());
    match operation {
        "get" => {
            for _ in 0..ops {
                assert!(region.get_into(black_box(&hot), &mut value).unwrap());
                black_box(&value);
            }
        }
        "set" => {
            for _ in 0..ops {
                region.set(black_box(&hot), black_box(&VALUE)).unwrap();
            }
        }
        "incr" => {
            for _ in 0..ops {
                black_box(region.incr(black_box(&counter), 1).unwrap());
            }
        }
        other => return Err(format!("--callgrind takes get, set or incr, not {other}")),
    }
    Ok(())
}
