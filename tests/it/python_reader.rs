//! `examples/region_reader` knows nothing but `docs/region.md`: what it reads from a live
//! region, while others write, must be what this crate wrote there.

use crate::harness::{path_of, Watchdog};
use crate::regions::{bytes_of, sealed};
use ganger_region::{Config, Options, Region, SetOptions, WhenFull};
use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

/// Keys of a quiet set start with this byte, those of the busy writer with another one.
const QUIET: u8 = b'q';
const BUSY: u8 = b'w';

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

fn python(region: &Region, arguments: &[&str]) -> Output {
    python_on(&path_of(region.fd().unwrap()), arguments)
}

fn python_on(path: &str, arguments: &[&str]) -> Output {
    let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/region_reader");
    let output = Command::new("python3")
        .args([reader, path])
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output();
    output.unwrap_or_else(|error| {
        panic!("python3 does not start ({error}): install it, for example by `apt install python3`")
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keys of every length that the hash treats in another way, and then some; the first byte is
/// given.
fn key(length: usize, number: usize) -> Vec<u8> {
    let mut key = vec![QUIET];
    key.extend((1..length).map(|place| (number >> (8 * (place % 4))) as u8 ^ place as u8));
    key
}

/// The keys that stay as they are, of all kinds.
fn fill(region: &Region, keys: usize) -> Pairs {
    let mut pairs = Pairs::new();
    let mut set = |key: Vec<u8>, value: Vec<u8>| {
        region.set(&key, &value).unwrap();
        pairs.insert(key, value);
    };
    (1..=1024).for_each(|length| set(key(length, length), hex(&[length as u8]).into_bytes()));
    (0..keys).for_each(|number| set(key(12, number), number.to_string().into_bytes()));
    for length in [0, 1, 7, 8, 9, 32_000, 32_768, 65_536, 65_537, 200 << 10] {
        let value = (0..length)
            .map(|place| (place * 7 + length) as u8)
            .collect();
        set(key(20, length), value);
    }
    for (number, count) in [0, 1, -1, i64::MIN, i64::MAX].into_iter().enumerate() {
        let key = key(33, number);
        region.delete(&key).unwrap();
        region.incr(&key, count).unwrap();
        pairs.insert(key, count.to_le_bytes().to_vec());
    }
    let lasting = SetOptions::new().ttl_ms(3_600_000);
    for (number, options) in [lasting, lasting.ephemeral(), SetOptions::new().ephemeral()]
        .into_iter()
        .enumerate()
    {
        let key = key(40, number);
        region.set_with(&key, b"kept", options).unwrap();
        pairs.insert(key, b"kept".to_vec());
    }
    for number in 0..10 {
        let expired = SetOptions::new().ttl_ms(0);
        region.set_with(&key(50, number), b"gone", expired).unwrap();
        pairs.remove(&key(50, number));
    }
    pairs
}

/// Keys of the busy writer that are replaced so often that a reader meets it in the middle.
const HOT: usize = 16;

/// Writes, replaces, counts and deletes, so that buckets split and merge, until told to stop.
fn write_busily(region: &Region, stop: &AtomicBool) {
    let mut round = 0_usize;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        for number in 0..4000_usize {
            let key = busy_key(number);
            if round.is_multiple_of(3) && number >= HOT {
                region.delete(&key).unwrap();
            } else {
                set_busy(region, &key, round, 1 + (number + round) % 40);
            }
            if number.is_multiple_of(256) {
                // Large values, whose pages soon hold another one.
                (0..HOT).for_each(|hot| set_busy(region, &busy_key(hot), round + number, 8000));
            }
        }
        region.incr(&[BUSY, b'n'], 1).unwrap();
    }
}

fn busy_key(number: usize) -> Vec<u8> {
    let mut key = vec![BUSY];
    key.extend_from_slice(&number.to_le_bytes());
    key
}

/// The value is the key and the round, again and again: so parts of two values don't fit together.
fn set_busy(region: &Region, key: &[u8], round: usize, times: usize) {
    let value = [key, &round.to_le_bytes()].concat().repeat(times);
    region.set(key, &value).unwrap();
}

/// What a scan printed. Each key comes once.
fn parse(output: &Output) -> Pairs {
    let bytes = |hex: &str| {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect::<Vec<u8>>()
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let mut pairs = Pairs::new();
    for line in text.lines() {
        let (key, value) = line.split_once('\t').unwrap();
        let again = pairs.insert(bytes(key), bytes(value));
        assert!(again.is_none(), "{key} came twice");
    }
    pairs
}

fn assert_busy_pair(key: &[u8], value: &[u8]) {
    if key == [BUSY, b'n'] {
        assert_eq!(value.len(), 8);
        return;
    }
    let part = key.len() + 8;
    let whole = value.starts_with(key)
        && value.len().is_multiple_of(part)
        && value.chunks(part).all(|chunk| chunk == &value[..part]);
    assert!(whole, "the value of {} is torn", hex(key));
}

fn assert_same(read: &Pairs, written: &Pairs) {
    for (key, value) in written {
        assert!(
            read.get(key) == Some(value),
            "wrong or missing: {}",
            hex(key)
        );
    }
    assert_eq!(
        read.len(),
        written.len(),
        "there are keys that nobody wrote"
    );
}

/// Scans and single gets of all that is quiet, and scans of what is written meanwhile.
fn read_beside_a_writer(region: &Region, quiet: &Pairs) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_busily(region, &stop));
        let reader = scope.spawn(|| {
            assert_same(
                &parse(&python(region, &["scan", &hex(&[QUIET]), "--hex"])),
                quiet,
            );
            let busy = parse(&python(region, &["scan", &hex(&[BUSY]), "--hex"]));
            busy.iter()
                .for_each(|(key, value)| assert_busy_pair(key, value));
            let gets = quiet.iter().step_by(quiet.len() / 12);
            for (key, value) in gets.chain(quiet.iter().take(4)) {
                let got = python(region, &["get", &hex(key), "--hex"]);
                assert_eq!(got.status.code(), Some(0), "{got:?}");
                assert_eq!(got.stdout, hex(value).into_bytes());
            }
        });
        let read = reader.join();
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        read.unwrap();
    });
}

#[test]
fn python_reads_all_kinds_of_entries_beside_a_writer() {
    let _watchdog = Watchdog::new("python_reads_all_kinds_of_entries", 300);
    let config = Config::new(64 << 20).shards(2);
    let region = Region::create(&config, Options::new()).unwrap();
    let quiet = fill(&region, 50_000);
    // The index has more pages than stand in a shard, and some buckets overflow.
    let stats = region.stats();
    assert!(stats.buckets > 2 * 7 * 1024, "{stats:?}");
    read_beside_a_writer(&region, &quiet);
}

#[test]
fn python_reads_a_cache_and_a_region_of_one_shard() {
    let _watchdog = Watchdog::new("python_reads_a_cache", 300);
    let config = Config::new(32 << 20).shards(1).when_full(WhenFull::Evict);
    let region = Region::create(&config, Options::new()).unwrap();
    let quiet = fill(&region, 1000);
    // Marks from reads are part of what a reader meets.
    quiet
        .keys()
        .step_by(2)
        .for_each(|key| drop(region.get(key).unwrap()));
    read_beside_a_writer(&region, &quiet);
}

/// More than 64 MiB, so that the list of pages does not fit the entry.
#[test]
fn python_reads_a_nested_value() {
    let _watchdog = Watchdog::new("python_reads_a_nested_value", 300);
    let region = Region::create(&Config::new(320 << 20), Options::new()).unwrap();
    let mut value = vec![b'.'; (64 << 20) + 1];
    for (at, byte) in value.iter_mut().enumerate().step_by(4093) {
        *byte = (at >> 12) as u8;
    }
    region.set(b"nested", &value).unwrap();
    let got = python(&region, &["get", "nested"]);
    assert!(
        got.status.success() && got.stdout == value,
        "{:?}",
        got.status
    );
}

#[test]
fn python_tells_absent_from_wrong_use_and_shows_numbers() {
    let _watchdog = Watchdog::new("python_tells_absent", 300);
    let region = Region::create(&Config::new(4 << 20), Options::new()).unwrap();
    region.set(b"greeting", b"hello").unwrap();
    region.incr(b"visits", -41).unwrap();
    region
        .set_with(b"old", b"", SetOptions::new().ttl_ms(0))
        .unwrap();
    let says = |arguments: &[&str], code: i32, out: &str| {
        let output = python(&region, arguments);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            out,
            "{arguments:?}"
        );
    };
    says(&["get", "greeting"], 0, "hello");
    says(&["get", "visits"], 0, "-41");
    says(&["get", "nothing"], 1, "");
    says(&["get", "old"], 1, "");
    says(&["scan", "g"], 0, "greeting\thello\n");
    says(&["get"], 2, "");
    says(&["get", "6g", "--hex"], 2, "");
    for foreign in [
        concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        "/nowhere",
    ] {
        let output = python_on(foreign, &["scan"]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.starts_with("region_reader: ") && said.lines().count() == 1,
            "{said}"
        );
    }
    // A wrong secret of the hash: every key would be absent.
    let mut damaged = bytes_of(&region);
    damaged[26 * 8] ^= 1;
    let damaged = sealed(&damaged);
    let output = python_on(&path_of(&damaged), &["get", "greeting"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let stats = region.stats();
    let output = python(&region, &["stats"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let told: BTreeMap<&str, u64> = text
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, number)| (name, number.parse().unwrap()))
        .collect();
    let used = ["blocks", "index", "value", "list"];
    let used = used.map(|kind| told[format!("pages_{kind}").as_str()]);
    assert_eq!(
        [
            told["declared_bytes"],
            told["shards"],
            told["entries"],
            told["bytes"],
            told["buckets"],
            told["writes"],
            told["sessions_attached"],
            told["pages_free"],
            used.iter().sum(),
        ],
        [
            stats.declared_bytes,
            stats.shards,
            stats.entries,
            stats.bytes,
            stats.buckets,
            stats.writes,
            stats.sessions_attached,
            stats.pages_free,
            stats.pages_used,
        ]
    );
}
