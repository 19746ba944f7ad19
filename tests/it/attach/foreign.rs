use super::{read_only, small};
use crate::harness::Watchdog;
use crate::regions::{assert_clean, bytes_of, sealed, unsealed, Name};
use ganger_region::layout::{header, LAYOUT_VERSION, MAGIC, WORD};
use ganger_region::{AttachError, Options, Region};
use std::fs::File;
use std::os::fd::OwnedFd;

fn attach(fd: OwnedFd) -> Result<Region, AttachError> {
    let second = fd.try_clone().unwrap();
    let read = Region::from_fd(second, read_only()).map(drop);
    let both = Region::from_fd(fd, Options::new());
    // Reading takes no fewer proofs than writing.
    assert_eq!(
        read.map_err(|error| error.to_string()),
        both.as_ref().map(|_| ()).map_err(|error| error.to_string())
    );
    both
}

const KEYS: u64 = 500;
/// Words of the header that the layout gives a meaning.
const KNOWN: u64 = header::POOL_CACHE + header::POOL_CACHE_WORDS;

/// The bytes of a region with numbered keys.
fn image() -> Vec<u8> {
    let region = Region::create(&small(), Options::new()).unwrap();
    for key in 0..KEYS {
        region
            .set(&key.to_le_bytes(), &key.to_be_bytes().repeat(4))
            .unwrap();
    }
    bytes_of(&region)
}

fn with_word(image: &[u8], index: u64, word: u64) -> Vec<u8> {
    let at = usize::try_from(index * WORD).unwrap();
    let mut bytes = image.to_vec();
    bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
    bytes
}

fn word_of(image: &[u8], index: u64) -> u64 {
    let at = usize::try_from(index * WORD).unwrap();
    u64::from_le_bytes(image[at..at + 8].try_into().unwrap())
}

fn assert_not_a_region(fd: OwnedFd) {
    let error = attach(fd).unwrap_err();
    assert!(matches!(error, AttachError::NotARegion(_)), "{error:?}");
    assert!(error.to_string().contains("not a region"), "{error}");
}

#[test]
fn files_of_other_kinds_are_no_regions() {
    let _watchdog = Watchdog::new("files_of_other_kinds_are_no_regions", 180);
    let dir = std::env::temp_dir().join(format!("ganger-foreign-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let open = |name: &str, bytes: &[u8]| -> OwnedFd {
        let path = dir.join(name);
        std::fs::write(&path, bytes).unwrap();
        let both = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path);
        both.unwrap().into()
    };
    let random: Vec<u8> = (0..200_000_u32)
        .flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_le_bytes())
        .collect();
    assert_not_a_region(open("empty", b""));
    assert_not_a_region(open("text", b"key = value\n"));
    assert_not_a_region(File::open(&dir).unwrap().into());
    assert_not_a_region(File::open("/dev/zero").unwrap().into());
    let (pipe, _other_end) = std::io::pipe().unwrap();
    assert_not_a_region(pipe.into());
    // Long enough for a header, but anybody may cut it, whatever is in it.
    for bytes in [&random, &image()] {
        let error = attach(open("random", bytes)).unwrap_err();
        assert!(matches!(error, AttachError::NotSealed), "{error:?}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
    assert_not_a_region(sealed(&random));
    assert_not_a_region(sealed(&b"text ".repeat(5000)));
}

#[test]
fn a_file_that_others_could_cut_is_refused() {
    let _watchdog = Watchdog::new("a_file_that_others_could_cut_is_refused", 180);
    let image = image();
    let error = attach(unsealed(&image)).unwrap_err();
    assert!(matches!(error, AttachError::NotSealed), "{error:?}");
    assert!(error.to_string().contains("not sealed"), "{error}");
    assert_whole(&attach(sealed(&image)).unwrap());
}

#[test]
fn a_named_file_that_is_no_region_is_refused() {
    let _watchdog = Watchdog::new("a_named_file_that_is_no_region_is_refused", 180);
    let name = Name::new("foreign");
    let file = File::from(super::shm(&name, 0));
    use std::os::unix::fs::FileExt;
    for bytes in [&b"short"[..], &b"text ".repeat(5000)] {
        file.write_all_at(bytes, 0).unwrap();
        for options in [Options::new(), read_only()] {
            let error = Region::open_named(name.as_str(), options).unwrap_err();
            assert!(matches!(error, AttachError::NotARegion(_)), "{error:?}");
        }
    }
}

/// Its owner could cut the file, which can't be sealed.
#[test]
fn a_named_region_of_another_user_is_refused() {
    let _watchdog = Watchdog::new("a_named_region_of_another_user_is_refused", 180);
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: giving a file to another user takes root");
        return;
    }
    let name = Name::new("owned");
    let region = Region::create_named(name.as_str(), &small(), Options::new()).unwrap();
    region.set(b"key", b"value").unwrap();
    let path = format!("/dev/shm/{}", name.as_str());
    std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
    for options in [Options::new(), read_only()] {
        let error = Region::open_named(name.as_str(), options).unwrap_err();
        let is_told = matches!(error, AttachError::Foreign { owner: 12_345 });
        assert!(
            is_told && error.to_string().contains("user 12345"),
            "{error:?}"
        );
    }
    std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    let again = Region::open_named(name.as_str(), Options::new()).unwrap();
    assert_eq!(again.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
}

#[test]
fn a_cut_off_region_is_refused() {
    let _watchdog = Watchdog::new("a_cut_off_region_is_refused", 180);
    let image = image();
    for len in [0, 1, 8, 64, 4088, 4095] {
        assert_not_a_region(sealed(&image[..len]));
    }
    for len in [4096, 8192, 65_536, image.len() - 65_536, image.len() - 1] {
        let error = attach(sealed(&image[..len])).unwrap_err();
        assert!(matches!(error, AttachError::Header(_)), "{len}: {error:?}");
        assert!(error.to_string().contains("longer than its file"));
    }
}

#[test]
fn other_magic_versions_and_features_are_told_by_name() {
    let _watchdog = Watchdog::new("other_magic_versions_and_features_are_told_by_name", 180);
    let image = image();
    for magic in [1, MAGIC + 1, MAGIC.swap_bytes(), u64::MAX] {
        assert_not_a_region(sealed(&with_word(&image, header::MAGIC, magic)));
    }
    let error = attach(sealed(&with_word(&image, header::MAGIC, 0))).unwrap_err();
    assert!(matches!(error, AttachError::Unfinished), "{error:?}");
    for found in [0, LAYOUT_VERSION + 1, u32::MAX] {
        let bytes = with_word(&image, header::VERSION, u64::from(found));
        let error = attach(sealed(&bytes)).unwrap_err();
        let told = matches!(error, AttachError::Version { found: told } if told == found);
        assert!(told, "{error:?}");
        assert!(error.to_string().contains("use the same release"));
    }
    for unknown in [2, 1 << 31] {
        let word = u64::from(LAYOUT_VERSION) | u64::from(unknown) << 32;
        let error = attach(sealed(&with_word(&image, header::VERSION, word))).unwrap_err();
        let told = matches!(error, AttachError::Features { unknown: told } if told == unknown);
        assert!(told, "{error:?}");
        assert!(error.to_string().contains("use a newer release"));
    }
}

/// Each word of the header gets other values, one at a time. What the region's shape or its keys'
/// places follow from must be refused; the rest must do no harm.
#[test]
fn every_damaged_header_word_is_refused_or_harmless() {
    let _watchdog = Watchdog::new("every_damaged_header_word_is_refused_or_harmless", 180);
    let image = image();
    for index in 0..header::LEN / WORD {
        let old = word_of(&image, index);
        let news = [
            0,
            1,
            3,
            old + 1,
            old ^ 1 << 32,
            old << 1,
            old + 65_536,
            !old,
        ];
        // Beyond the words of the layout there are only zeros, which all mean the same: nothing.
        let news = &news[..if index < KNOWN { news.len() } else { 2 }];
        let mut refused = 0;
        let mut changed = 0;
        for new in news.iter().copied().filter(|new| *new != old) {
            changed += 1;
            match attach(sealed(&with_word(&image, index, new))) {
                Ok(region) => assert_whole(&region),
                Err(_) => refused += 1,
            }
        }
        let decides =
            index <= header::CHECK || (header::HASH_SEED..header::HASH_SEED + 8).contains(&index);
        if decides {
            assert_eq!(refused, changed, "word {index}, {old:#x}");
        }
    }
}

/// Reads and writes everything.
fn assert_whole(region: &Region) {
    for key in 0..KEYS {
        let value = region.get(&key.to_le_bytes()).unwrap();
        assert_eq!(value, Some(key.to_be_bytes().repeat(4)), "key {key}");
    }
    for key in 0..50_u32 {
        region.set(&key.to_le_bytes(), &[1; 1000]).unwrap();
    }
    region.set(b"large", &[2; 100_000]).unwrap();
    assert_clean(region);
    assert_eq!(region.clear().unwrap(), KEYS + 51);
    assert_clean(region);
}
