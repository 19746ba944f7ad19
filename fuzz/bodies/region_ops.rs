//! A program of operations by three handles with crashes between them, decoded from bytes and held
//! against a map.

use super::oracle::{Place, World};
use super::program::{How, If, Op, Val};
use ganger_region::WhenFull;

/// Steps of one program.
const STEPS_MAX: usize = 200;

/// Runs a program; panics where the region and the map differ.
pub fn run(program: &[u8]) {
    let mut bytes = Bytes(program);
    let setup = bytes.byte();
    let when_full = if setup & 1 == 0 {
        WhenFull::Reject
    } else {
        WhenFull::Evict
    };
    let shards = if setup & 2 == 0 { 1 } else { 4 };
    let mut world = World::new(Place::Heap, 1 << 20, shards, when_full, 3);
    for _ in 0..STEPS_MAX {
        if bytes.0.is_empty() {
            break;
        }
        world.apply(bytes.op());
        if setup & 4 != 0 {
            world.check();
        }
    }
    world.verify();
}

/// Bytes that are taken from the front; zeros when there are no more.
struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&first, rest)) => {
                self.0 = rest;
                first
            }
            None => 0,
        }
    }

    fn op(&mut self) -> Op {
        let kind = self.byte();
        let key = u16::from(self.byte() % 24);
        match kind % 24 {
            0 => Op::Set(key, self.value()),
            1 => Op::SetWith(key, self.value(), self.how()),
            2 => Op::Delete(key),
            3 => Op::DeleteIf(key, self.byte() & 1 == 1),
            4 => Op::Incr(key, 1, None),
            5 => Op::Incr(key, i64::MAX >> (self.byte() % 64), self.ttl()),
            6 | 7 => Op::Append(key, self.value()),
            8 => Op::GetOrInsert(key, self.value()),
            9 | 10 => Op::Lengthen(key),
            11 => Op::UpdateAway(key),
            12 => Op::Expire(key, u64::from(self.byte())),
            13 => Op::Touch(key, u64::from(self.byte())),
            14 => Op::Persist(key),
            15 | 16 => {
                let value = Val {
                    len: u32::from(self.byte()),
                    seed: self.byte(),
                };
                Op::Fill(
                    u16::from(self.byte()) * 4,
                    u16::from(self.byte()) * 2,
                    value,
                    self.ttl(),
                )
            }
            17 => Op::Drain(u16::from(self.byte()) * 4, u16::from(self.byte()) * 2),
            18 => match self.byte() {
                0 => Op::Clear,
                _ => Op::Reattach,
            },
            19 => Op::Sweep,
            20 => Op::Advance(u64::from(self.byte())),
            21 => Op::Use(key as u8),
            22 => Op::Crash,
            _ => Op::Verify,
        }
    }

    fn value(&mut self) -> Val {
        let (scale, seed) = (self.byte(), self.byte());
        let len = u32::from(seed) << (scale % 11);
        Val { len, seed }
    }

    fn ttl(&mut self) -> Option<u64> {
        let ttl = self.byte();
        (ttl & 1 == 1).then_some(u64::from(ttl >> 1))
    }

    fn how(&mut self) -> How {
        const CONDITIONS: [If; 8] = [
            If::Always,
            If::Always,
            If::Always,
            If::Always,
            If::Absent,
            If::Present,
            If::Current,
            If::Stale,
        ];
        let flags = self.byte();
        How {
            condition: CONDITIONS[usize::from(flags & 7)],
            ttl: self.ttl(),
            keep_expiry: flags & 8 != 0,
            ephemeral: flags & 16 != 0,
        }
    }
}
