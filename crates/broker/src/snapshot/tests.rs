//! Snapshots: there and back, cut off everywhere, flipped everywhere, and hostile.

use super::format::{Frame, FRAME_LEN, HEADER_LEN};
use super::*;
use crate::reserved::{lease_key, FENCE_KEY};
use ganger_region::{Config, Options, Region, SetOptions};
use proptest::prelude::*;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const HEADER: Header = Header {
    region: 7,
    written_at_ms: 1_000_000,
    expected: 3,
};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ganger-snapshot-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn region() -> Region {
    Region::create(&Config::new(8 << 20), Options::new()).unwrap()
}

fn entry(key: &str, value: &str) -> SnapshotEntry {
    SnapshotEntry {
        key: key.into(),
        value: value.into(),
        expires_at_ms: None,
        is_counter: false,
    }
}

/// A whole snapshot with a few entries.
fn bytes(value: &str) -> Vec<u8> {
    let mut writer = SnapshotWriter::begin(Vec::new(), HEADER).unwrap();
    for key in ["a", "b", "c"] {
        writer.push(&entry(key, value)).unwrap();
    }
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<SnapshotEntry>, Fault> {
    let mut reader = SnapshotReader::begin(bytes, bytes.len() as u64)?;
    let mut entries = Vec::new();
    while let Some(block) = reader.next_block()? {
        entries.extend(block);
    }
    Ok(entries)
}

fn save(region: &Region, path: &Path, now_ms: u64) -> u64 {
    let mut file = SnapshotFile::begin(path, HEADER).unwrap();
    while file.step(region, 3, now_ms).unwrap() {}
    file.commit().unwrap()
}

fn load(path: &Path, now_ms: u64) -> Result<Option<(Region, Restored)>, RestoreError> {
    let region = region();
    let restored = restore(&region, path, Onto::All, now_ms, |_, _| {})?;
    Ok(restored.map(|restored| (region, restored)))
}

#[test]
fn a_region_comes_back_without_what_belonged_to_sessions() {
    let folder = Folder::new();
    let path = folder.file("state");
    let from = region();
    for number in 0..500_u32 {
        from.set(&number.to_le_bytes(), &[7; 300]).unwrap();
    }
    let large = vec![9; 1 << 20];
    from.set(b"large", &large).unwrap();
    from.incr(b"counter", -5).unwrap();
    from.incr_with(b"window", 3, Some(60_000)).unwrap();
    from.set_with(b"short", b"1", SetOptions::new().ttl_ms(60_000))
        .unwrap();
    from.set_with(b"mine", b"1", SetOptions::new().ephemeral())
        .unwrap();
    from.set(&lease_key(1), b"1").unwrap();
    from.incr(FENCE_KEY, 41).unwrap();
    assert_eq!(save(&from, &path, 1_000_000), 505);

    let (to, restored) = load(&path, 1_020_000).unwrap().unwrap();
    assert_eq!(
        (restored.entries, restored.expired, restored.header),
        (505, 0, HEADER)
    );
    assert_eq!(to.get(&3_u32.to_le_bytes()).unwrap(), Some(vec![7; 300]));
    assert_eq!(to.get(b"large").unwrap(), Some(large));
    assert_eq!(
        (
            to.incr(b"counter", 0).unwrap(),
            to.incr(FENCE_KEY, 0).unwrap()
        ),
        (-5, 41)
    );
    assert!(!to.exists(b"mine").unwrap() && !to.exists(&lease_key(1)).unwrap());
    for key in [&b"short"[..], b"window"] {
        // 20 of its 60 seconds went by while the machine was off.
        let left = to.ttl(key).unwrap().flatten().unwrap();
        assert!((20_000..=40_000).contains(&left), "{left}");
    }
    let (to, restored) = load(&path, 1_060_000).unwrap().unwrap();
    assert_eq!((restored.entries, restored.expired), (503, 2));
    assert!(!to.exists(b"short").unwrap());
}

#[test]
fn a_file_cut_off_anywhere_is_refused_by_name_and_the_previous_one_used() {
    let folder = Folder::new();
    let path = folder.file("state");
    let (old, new) = (bytes("old"), bytes("new"));
    fs::write(previous_path(&path), &old).unwrap();
    let region = region();
    for len in 0..new.len() {
        fs::write(&path, &new[..len]).unwrap();
        let restored = restore(&region, &path, Onto::All, 0, |_, _| {})
            .unwrap()
            .unwrap();
        assert_eq!(restored.path, previous_path(&path));
        assert_eq!(region.get(b"a").unwrap().unwrap(), b"old");
        let refused = &restored.refused[0];
        assert_eq!((&refused.path, restored.refused.len()), (&path, 1));
        assert!(matches!(refused.fault.what, What::Ends { .. }), "{refused}");
    }
    // Without a previous one, nothing of it is used.
    fs::remove_file(previous_path(&path)).unwrap();
    let error = load(&path, 0).map(|_| ()).unwrap_err().to_string();
    let expected = format!(
        "{}: the file ends within a block's head at byte",
        path.display()
    );
    assert!(error.starts_with(&expected), "{error}");
    fs::remove_file(&path).unwrap();
    assert!(load(&path, 0).unwrap().is_none());
}

#[test]
fn every_flipped_bit_and_every_byte_more_is_refused() {
    let whole = bytes("value");
    assert_eq!(read(&whole).unwrap().len(), 3);
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            assert!(read(&flipped).is_err(), "bit {bit} of byte {at}");
        }
    }
    let longer = [&whole[..], b"x"].concat();
    assert!(matches!(
        read(&longer).unwrap_err().what,
        What::Nonsense { .. }
    ));
    let twice = [&whole[..whole.len() - FRAME_LEN], &whole[HEADER_LEN..]].concat();
    let fault = read(&twice).unwrap_err();
    assert_eq!(
        fault.to_string(),
        format!(
            "a block is missing or stands twice at byte {}",
            whole.len() - FRAME_LEN
        )
    );
}

/// Takes so many bytes and then fails, as a full disk does.
struct Full(Vec<u8>, usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.1 - self.0.len();
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = room.min(bytes.len());
        self.0.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_disk_that_fills_up_at_any_byte_is_an_error() {
    let all = bytes("new").len();
    for room in 0..=all {
        let write = || {
            let mut writer = SnapshotWriter::begin(Full(Vec::new(), room), HEADER)?;
            for key in ["a", "b", "c"] {
                writer.push(&entry(key, "new"))?;
            }
            writer.finish()
        };
        assert_eq!(write().is_ok(), room == all);
    }
}

/// The folder as a kill leaves it after each step of writing a second snapshot.
#[test]
fn a_kill_at_any_moment_leaves_a_whole_snapshot() {
    let (old, new) = (bytes("old"), bytes("new"));
    let mut images: Vec<Vec<(&str, &[u8])>> = Vec::new();
    for len in 0..=new.len() {
        images.push(vec![("state", &old), ("state.tmp", &new[..len])]);
    }
    images.push(vec![("state.1", &old), ("state.tmp", &new)]);
    images.push(vec![("state.1", &old), ("state", &new)]);
    let count = images.len();
    let folder = Folder::new();
    let path = folder.file("state");
    let region = region();
    for (number, image) in images.into_iter().enumerate() {
        for name in ["state", "state.1", "state.tmp"] {
            let _ = fs::remove_file(folder.file(name));
        }
        for (name, bytes) in image {
            fs::write(folder.file(name), bytes).unwrap();
        }
        let restored = restore(&region, &path, Onto::All, 0, |_, _| {})
            .unwrap()
            .unwrap();
        let expected: &[u8] = if number == count - 1 { b"new" } else { b"old" };
        assert_eq!(region.get(b"c").unwrap().unwrap(), expected);
        assert!(restored.refused.is_empty());
    }
    // The next one is not disturbed by what lies around.
    fs::write(folder.file("state.tmp"), "rubbish").unwrap();
    assert_eq!(save(&region, &path, 0), 3);
    assert!(!folder.file("state.tmp").exists());
    assert_eq!(fs::read(previous_path(&path)).unwrap(), new);
}

#[test]
fn one_that_is_given_up_leaves_the_last_one_and_nothing_else() {
    let folder = Folder::new();
    let path = folder.file("state");
    let region = region();
    region.set(b"key", b"value").unwrap();
    save(&region, &path, 0);
    let mut file = SnapshotFile::begin(&path, HEADER).unwrap();
    file.step(&region, 1, 0).unwrap();
    drop(file);
    let names: Vec<_> = fs::read_dir(&folder.0)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["state"]);
}

#[test]
fn nobody_else_may_read_it_and_no_link_is_followed() {
    use std::os::unix::fs::{symlink, PermissionsExt};
    let folder = Folder::new();
    let (path, victim) = (folder.file("state"), folder.file("victim"));
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, folder.file("state.tmp")).unwrap();
    save(&region(), &path, 0);
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    assert_eq!(
        fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let nowhere = folder.file("no/such/folder");
    let error = SnapshotFile::begin(&nowhere, HEADER)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with(nowhere.to_str().unwrap()), "{error}");
}

#[test]
fn a_region_that_is_too_small_names_the_key() {
    let folder = Folder::new();
    let path = folder.file("state");
    let from = region();
    from.set(b"large", &vec![1; 1 << 20]).unwrap();
    save(&from, &path, 0);
    let small = Region::create(&Config::new(1 << 20), Options::new()).unwrap();
    let error = restore(&small, &path, Onto::All, 0, |_, _| {})
        .unwrap_err()
        .to_string();
    assert!(error.contains("`large`"), "{error}");
}

#[test]
fn a_block_that_claims_to_be_huge_is_refused_before_memory_is_asked_for() {
    let mut bytes = HEADER.to_bytes().to_vec();
    let frame = Frame {
        is_end: false,
        body_crc: 0,
        number: 0,
        entries: 1,
        body_len: u64::MAX,
    };
    bytes.extend_from_slice(&frame.to_bytes());
    let fault = read(&bytes).unwrap_err();
    assert_eq!(fault.to_string(), "the file ends within a block at byte 44");
}

#[test]
fn counts_that_do_not_agree_are_refused_though_the_checksums_are_right() {
    let whole = bytes("value");
    let body_len = whole.len() - HEADER_LEN - 2 * FRAME_LEN;
    let body = &whole[HEADER_LEN + FRAME_LEN..][..body_len];
    let with = |in_block, in_end| {
        let block = Frame {
            is_end: false,
            body_crc: crc32fast::hash(body),
            number: 0,
            entries: in_block,
            body_len: body_len as u64,
        };
        let end = Frame {
            is_end: true,
            body_crc: 0,
            number: 1,
            entries: in_end,
            body_len: 0,
        };
        let parts = [
            &HEADER.to_bytes()[..],
            &block.to_bytes(),
            body,
            &end.to_bytes(),
        ];
        read(&parts.concat()).map(|entries| entries.len())
    };
    assert_eq!(with(3, 3).unwrap(), 3);
    for (in_block, in_end) in [(3, 2), (3, 4), (2, 2), (4, 4), (u64::MAX, 3)] {
        let fault = with(in_block, in_end).unwrap_err();
        assert!(matches!(fault.what, What::Nonsense { .. }), "{fault}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// With the checksums right, so that what is behind them is reached.
    #[test]
    fn no_body_makes_the_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = HEADER.to_bytes().to_vec();
        let frame = Frame {
            is_end: false,
            body_crc: crc32fast::hash(&body),
            number: 0,
            entries: 1,
            body_len: body.len() as u64,
        };
        bytes.extend_from_slice(&frame.to_bytes());
        bytes.extend_from_slice(&body);
        prop_assert!(read(&bytes).is_err());
    }
}
