//! Damaged regions: a program of damages to a real region, or any bytes at all, and then every
//! operation. Each must end with a result or a typed error.

use super::image::{clocked, Image, KEYS};
use super::program::key_of;
use ganger_region::layout::{entry, header, shard, slot, WORD};
use ganger_region::test_support::Heap;
use ganger_region::{Cursor, Options, Region, SetOptions};
use std::time::Duration;

/// The lock word of a holder that died: whoever locks the shard next repairs it.
pub const ABANDONED: u64 = 0xffff;

/// Damages of one program.
const DAMAGES_MAX: usize = 64;
/// Bytes of one damage in a program: what, where (2), to which value, its parameter (4).
const DAMAGE_LEN: usize = 8;

/// Runs a program: which image, how it is treated as a whole, and its damages. From 0xf0 on, the
/// rest of the program is the region itself (0xf0), or what follows a sound header (0xf1 and up).
pub fn run(program: &[u8]) {
    if let Some(bytes) = bytes_of(program) {
        exercise(&Heap::from_bytes(&bytes));
    }
}

/// The region that a program makes.
pub fn bytes_of(program: &[u8]) -> Option<Vec<u8>> {
    let (&[selector, treatment], rest) = program.split_first_chunk::<2>()?;
    let images = Image::all();
    let image = &images[usize::from(selector) % images.len()];
    if selector == 0xf0 {
        return Some(rest.to_vec());
    }
    let mut words = image.words.clone();
    if selector > 0xf0 {
        let start = (header::LEN / WORD) as usize + usize::from(treatment) * 64;
        for (word, chunk) in words[start..].iter_mut().zip(rest.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().unwrap());
        }
    } else {
        for damage in rest.chunks_exact(DAMAGE_LEN).take(DAMAGES_MAX) {
            apply(damage, image, &mut words);
        }
    }
    if treatment & 1 != 0 {
        abandon_locks(image, &mut words);
    }
    if treatment & 2 != 0 {
        swap_pages(image, &mut words, u64::from(treatment >> 3));
    }
    let mut bytes = to_bytes(&words);
    if treatment & 4 != 0 {
        bytes.truncate(bytes.len() / 32 * usize::from(treatment >> 3));
    }
    Some(bytes)
}

pub fn to_bytes(words: &[u64]) -> Vec<u8> {
    let mut bytes = vec![0; words.len() * 8];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// As if all shards' lock holders had died.
pub fn abandon_locks(image: &Image, words: &mut [u64]) {
    for index in 0..image.geometry.shard_count {
        words[(image.geometry.shard_offset(index) / WORD + shard::LOCK) as usize] = ABANDONED;
    }
}

/// Lets pages change places.
pub fn swap_pages(image: &Image, words: &mut [u64], seed: u64) {
    let pages = image.geometry.page_count;
    let page_words = (ganger_region::layout::PAGE_WORDS) as usize;
    for page in 0..pages {
        let other = (page * 5 + seed + 1) % pages;
        let (low, high) = (page.min(other), page.max(other));
        if low != high {
            let (first, second) =
                words.split_at_mut((image.geometry.page_offset(high) / WORD) as usize);
            let low = (image.geometry.page_offset(low) / WORD) as usize;
            first[low..low + page_words].swap_with_slice(&mut second[..page_words]);
        }
    }
}

/// The words of each area of a region: where they begin, and how many there are.
pub fn areas(image: &Image) -> [(u64, u64); 9] {
    let geometry = &image.geometry;
    let area = |from: u64, to: u64| (from / WORD, (to - from) / WORD);
    [
        (0, header::POOL_CACHE + header::POOL_CACHE_WORDS),
        area(geometry.sessions_offset, geometry.shards_offset),
        area(geometry.shards_offset, geometry.buckets_offset),
        area(geometry.buckets_offset, geometry.directory_offset),
        area(geometry.directory_offset, geometry.page_states_offset),
        area(
            geometry.page_states_offset,
            geometry.page_descriptors_offset,
        ),
        area(geometry.page_descriptors_offset, geometry.events_offset),
        area(geometry.feed_offset, geometry.pages_offset),
        area(geometry.pages_offset, geometry.region_len),
    ]
}

/// Values that a damaged word may have, by number.
pub const VALUES: u8 = 14;

pub fn damaged(image: &Image, words: &[u64], old: u64, value: u8, parameter: u32) -> u64 {
    let geometry = &image.geometry;
    let parameter = u64::from(parameter);
    let block =
        geometry.pages_offset + parameter * 16 % (geometry.region_len - geometry.pages_offset);
    match value % VALUES {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => old ^ 1 << (parameter % 64),
        4 => parameter,
        5 => block,
        6 => words[parameter as usize % words.len()],
        7 => old.wrapping_add(1),
        8 => old.wrapping_sub(1),
        9 => slot::LINK | block & !63,
        10 => old & !slot::OFFSET_MASK | block,
        11 => parameter % (geometry.page_count + 2),
        12 => old & !(0xffff << 40) | (parameter & 0xffff) << 40,
        _ => entry::FREE_LINK | parameter,
    }
}

fn apply(damage: &[u8], image: &Image, words: &mut [u64]) {
    let &[area, low, high, value, a, b, c, d] = damage else {
        return;
    };
    let (start, count) = areas(image)[usize::from(area) % 9];
    if count == 0 {
        return;
    }
    // Several steps through a page, so that 16 bits reach all of it.
    let step = if area >= 128 {
        1
    } else {
        count.div_ceil(1 << 16).max(1)
    };
    let index = (start + u64::from(u16::from_le_bytes([low, high])) * step % count) as usize;
    let parameter = u32::from_le_bytes([a, b, c, d]);
    words[index] = damaged(image, words, words[index], value, parameter);
}

/// Attaches and does everything there is to do.
pub fn exercise(heap: &Heap) {
    if let Ok(region) = heap.attach(hasty()) {
        use_all(&region);
    }
}

/// The options of a handle that waits for a lock for a moment only.
pub fn hasty() -> Options {
    clocked().lock_timeout(Duration::from_millis(1))
}

/// Does everything there is to do.
pub fn use_all(region: &Region) {
    read(region);
    write(region);
    read(region);
    let removed = region.clear();
    if removed.is_ok() {
        let _ = region.set(b"after", b"all");
    }
    let _ = region.check();
}

/// Everything that reads.
pub fn read(region: &Region) {
    let limit = region.value_len_max() as usize;
    let keys: Vec<Vec<u8>> = (0..KEYS).map(key_of).chain([b"counter".to_vec()]).collect();
    let mut value = Vec::new();
    for key in &keys {
        let found = region.get_into(key, &mut value);
        assert!(found.is_err() || value.len() <= limit);
        let _ = region.entry(key);
        let _ = region.exists(key);
        let _ = region.ttl(key);
    }
    if let Ok(values) = region.get_many(&keys) {
        assert_eq!(values.len(), keys.len());
    }
    let mut next = Some(Cursor::START);
    while let Some(cursor) = next {
        let Ok(page) = region.scan(b"", cursor, 7) else {
            break;
        };
        assert!(page
            .entries
            .iter()
            .all(|(key, entry)| key.len() <= 1024 && entry.value.len() <= limit));
        assert!(page.next != Some(cursor), "a scan stands still");
        next = page.next;
    }
    let _ = (region.stats(), region.len(), region.is_empty());
    if let Ok(mut feed) = region.feed() {
        feed.poll(|_| {});
        let _ = region.set(b"news", b"1");
        feed.poll(|_| {});
        feed.wait(Duration::ZERO);
    }
    if let Ok(audit) = region.check() {
        assert!(audit.problems.len() <= 100);
    }
}

/// Everything that writes.
pub fn write(region: &Region) {
    for number in 0..KEYS {
        let key = key_of(number);
        // Replaced, deleted, longer, large: all ways for an entry to be left.
        let _ = match number % 10 {
            0 => region.set(&key, &[1; 100]).map(drop),
            1 => region.append(&key, &[2; 300]).map(drop),
            2 => region.delete(&key).map(drop),
            3 => region
                .update(&key, |old| Some(old.unwrap_or(b"new").repeat(2)))
                .map(drop),
            4 => region.set(&key, &[3; 70_000]).map(drop),
            5 => region
                .set_with(&key, b"short", SetOptions::new().ephemeral().ttl_ms(5))
                .map(drop),
            6 => region.expire(&key, 50).map(drop),
            7 => region.touch(&key, 50).map(drop),
            8 => region.persist(&key).map(drop),
            _ => region.get_or_insert_with(&key, || vec![4; 1000]).map(drop),
        };
        let _ = region.set_with(&key, b"kept", SetOptions::new().if_present().keep_expiry());
    }
    let _ = region.incr(b"counter", 1);
    let _ = region.update(&key_of(4), |_| None);
    // Enough for splits and for pages to begin, and back.
    for number in 1000..1120 {
        let _ = region.set(&key_of(number), &[5; 40]);
    }
    let _ = region.sweep();
    let _ = region.reap();
    for number in 1000..1120 {
        let _ = region.delete(&key_of(number));
    }
}
