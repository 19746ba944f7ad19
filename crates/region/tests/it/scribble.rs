//! Somebody overwrites words of the region while others use it: every operation ends, with a result
//! or a typed error, and no access goes where it must not.

use crate::bodies::image::Image;
use crate::bodies::region_attach::{
    areas, bytes_of, damaged, hasty, read, to_bytes, use_all, write, VALUES,
};
use crate::files::{Mapping, SharedFile};
use crate::hostile::{Random, CASES};
use crate::watchdog::Watchdog;
use ganger_region::layout::{shard, WORD};
use ganger_region::{Access, AttachError, Options, Region};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// For how long each image is scribbled on.
const TIME: Duration = Duration::from_millis(700);
/// Passes of a handle before another one takes its place.
const PASSES: u64 = 5;

/// Who overwrites.
struct Scribbler<'m> {
    image: &'static Image,
    mapping: &'m Mapping,
    random: Random,
    /// Words of the pages that hold something in the image.
    used: Vec<usize>,
    stores: u64,
}

impl<'m> Scribbler<'m> {
    fn new(image: &'static Image, mapping: &'m Mapping) -> Self {
        let (start, count) = areas(image)[8];
        let pages = start as usize..(start + count) as usize;
        Self {
            image,
            mapping,
            random: Random(image.words.len() as u64),
            used: pages.filter(|&word| image.words[word] != 0).collect(),
            stores: 0,
        }
    }

    fn run(mut self, stop: &AtomicBool) -> u64 {
        while !stop.load(Ordering::Relaxed) {
            match self.random.next() % 24 {
                // Without it, soon nothing but errors would be left to find.
                0 => self.heal(),
                1 => self.hammer(),
                _ => self.damage(),
            }
            thread::sleep(Duration::from_micros(self.random.next() % 60));
        }
        self.stores
    }

    fn damage(&mut self) {
        let word = self.pick();
        let value = self.damaged(word);
        self.mapping.store(word, value);
        self.stores += 1;
    }

    /// Lets a word be one thing and another in turns, faster than anybody can look twice.
    fn hammer(&mut self) {
        let word = self.pick();
        let values = [self.mapping.load(word), self.damaged(word)];
        for turn in 0..20_000 {
            self.mapping.store(word, values[turn % 2]);
        }
        self.stores += 20_000;
    }

    /// Makes all words what they were, under those who use them.
    fn heal(&mut self) {
        for (word, value) in self.image.words.iter().enumerate() {
            if self.mapping.load(word) != *value {
                self.mapping.store(word, *value);
            }
        }
    }

    fn pick(&mut self) -> usize {
        let draw = self.random.next() as usize;
        match self.random.next() % 12 {
            // The lock, the root and the lists of a shard, which every write needs.
            0..=1 => {
                let shard_index = draw as u64 % self.image.geometry.shard_count;
                let words = self.image.geometry.shard_offset(shard_index) / WORD;
                words as usize + draw / 8 % shard::DAMAGED as usize
            }
            2..=4 => self.used[draw % self.used.len()],
            _ => {
                let (start, count) = areas(self.image)[draw % 9];
                start as usize + draw / 9 % count.max(1) as usize
            }
        }
    }

    fn damaged(&mut self, word: usize) -> u64 {
        let old = self.mapping.load(word);
        let value = (self.random.next() % u64::from(VALUES + 4)) as u8;
        if value >= VALUES {
            // What is somewhere else right now.
            let other = self.random.next() as usize % self.mapping.len();
            return self.mapping.load(other);
        }
        let parameter = self.random.next() as u32;
        damaged(self.image, &self.image.words, old, value, parameter)
    }
}

/// What one of those who use the region does, with handle after handle.
fn use_until(
    stop: &AtomicBool,
    case: &str,
    attach: &(impl Fn() -> Result<Region, AttachError> + Sync),
    pass: fn(&Region),
) -> (u64, Duration) {
    let watchdog = Watchdog::new(case);
    let (mut passes, mut longest) = (0, Duration::ZERO);
    // Once at least, however busy the machine.
    while passes == 0 || !stop.load(Ordering::Relaxed) {
        let Ok(region) = attach() else {
            thread::yield_now();
            continue;
        };
        for _ in 0..PASSES {
            watchdog.next(format!("{case}: pass {passes}"));
            let started = Instant::now();
            pass(&region);
            longest = longest.max(started.elapsed());
            passes += 1;
        }
        watchdog.next(format!("{case}: attaching"));
    }
    (passes, longest)
}

/// Two threads read, two write, and one scribbles.
fn scribble(image: &'static Image, file: &SharedFile, readers: Access) {
    let mapping = file.map();
    let attach = |access| attach(file, hasty().access(access));
    let (reader, writer) = (|| attach(readers), || attach(Access::ReadWrite));
    let (stop, stop_scribbling) = (AtomicBool::new(false), AtomicBool::new(false));
    let case = |who| format!("{}, {readers:?}: {who}", image.name);
    thread::scope(|scope| {
        let scribbler = scope.spawn(|| Scribbler::new(image, &mapping).run(&stop_scribbling));
        let users = [
            scope.spawn(|| use_until(&stop, &case("reader"), &reader, read)),
            scope.spawn(|| use_until(&stop, &case("reader"), &reader, read)),
            scope.spawn(|| use_until(&stop, &case("writer"), &writer, write)),
            scope.spawn(|| use_until(&stop, &case("all"), &writer, use_all)),
        ];
        thread::sleep(TIME);
        stop.store(true, Ordering::Relaxed);
        // Who is away for a while, or panicked, does not keep the others here.
        let ended = users.map(thread::ScopedJoinHandle::join);
        stop_scribbling.store(true, Ordering::Relaxed);
        let stores = scribbler.join().unwrap();
        for user in ended {
            let (passes, longest) = user.expect("an operation panicked");
            println!(
                "{}: {passes} passes, {longest:?}, {stores} stores",
                image.name
            );
        }
    });
}

fn attach(file: &SharedFile, options: Options) -> Result<Region, AttachError> {
    match file.name() {
        Some(name) => Region::open_named(name, options),
        None => Region::from_fd(file.open(), options),
    }
}

#[test]
fn words_that_change_under_readers_and_writers_are_survived() {
    for image in Image::all() {
        let file = SharedFile::anonymous(&to_bytes(&image.words));
        scribble(image, &file, Access::ReadWrite);
    }
}

#[test]
fn words_that_change_under_read_only_mappings_are_survived() {
    for image in Image::all() {
        let file = SharedFile::anonymous(&to_bytes(&image.words));
        scribble(image, &file, Access::ReadOnly);
    }
}

#[test]
fn words_of_a_named_region_that_change_under_its_users_are_survived() {
    for (image, readers) in Image::all()
        .iter()
        .zip([Access::ReadWrite, Access::ReadOnly])
    {
        let file = SharedFile::named("scribble", &to_bytes(&image.words));
        scribble(image, &file, readers);
    }
}

/// Damages between operations, as `hostile` does to memory of this process alone: here memory comes
/// from the system and goes back to it. There is room in /dev/shm.
fn damage_files(subject: &str, make: impl Fn(&[u8]) -> SharedFile) {
    let watchdog = Watchdog::new(subject);
    for seed in 0..CASES / 10 {
        watchdog.next(format!("{subject}, seed {seed}"));
        let mut random = Random(seed ^ 0xf11e);
        let damages = 1 + (random.next() % 24) as usize;
        let mut program = random.bytes(2 + damages * 8);
        program[0] %= 0xf0;
        program[1] &= !4;
        let file = make(&bytes_of(&program).unwrap());
        // Readers that can't write see it first, as it is.
        if let Ok(region) = attach(&file, hasty().access(Access::ReadOnly)) {
            read(&region);
        }
        if let Ok(region) = attach(&file, hasty()) {
            use_all(&region);
        }
    }
}

#[test]
fn damages_of_a_memfd_are_survived() {
    damage_files("memfd", SharedFile::anonymous);
}

#[test]
fn damages_of_a_named_region_are_survived() {
    damage_files("named", |bytes| SharedFile::named("damages", bytes));
}
