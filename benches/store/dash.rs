//! The floor: `DashMap` within one process, its values allocated, copied in and out.

use crate::sides::{Contents, Filling, Store};
use crate::workload::Key;
use dashmap::DashMap;
use std::hint::black_box;

#[derive(Default)]
pub(crate) struct Maps {
    values: DashMap<Key, Vec<u8>>,
    counters: DashMap<Key, i64>,
}

impl Maps {
    pub(crate) fn filled(filling: &Filling) -> Self {
        let maps = Self::default();
        for key in filling.all_keys() {
            match filling.contents {
                Contents::Values => drop(maps.values.insert(key, filling.first_value())),
                Contents::Counters => drop(maps.counters.insert(key, 0)),
            }
        }
        maps
    }
}

pub(crate) struct Dash<'m> {
    maps: &'m Maps,
    value: Vec<u8>,
}

impl<'m> Dash<'m> {
    pub(crate) fn new(maps: &'m Maps) -> Self {
        Self {
            maps,
            value: Vec::new(),
        }
    }
}

impl Store for Dash<'_> {
    #[inline(always)]
    fn get(&mut self, key: &Key) -> bool {
        let Some(found) = self.maps.values.get(key) else {
            return false;
        };
        self.value.clear();
        self.value.extend_from_slice(&found);
        black_box(&self.value);
        true
    }

    #[inline(always)]
    fn set(&mut self, key: &Key, value: &[u8]) {
        black_box(self.maps.values.insert(*key, value.to_vec()));
    }

    #[inline(always)]
    fn incr(&mut self, key: &Key) {
        *self.maps.counters.entry(*key).or_insert(0) += 1;
    }
}
