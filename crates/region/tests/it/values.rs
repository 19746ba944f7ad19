//! Values of serde types, and values of more pages than one entry lists.

use ganger_region::test_support::Heap;
use ganger_region::{Config, Options, Region, TypedError};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Visit {
    user: String,
    pages: Vec<u32>,
    referrer: Option<String>,
}

fn visit() -> Visit {
    Visit {
        user: "ada".to_owned(),
        pages: vec![1, 1 << 20],
        referrer: None,
    }
}

#[test]
fn a_struct_comes_back_as_it_was() {
    let (_heap, region) = Heap::create(&Config::new(1 << 20), Options::new()).unwrap();
    assert_eq!(region.get_typed::<Visit>(b"visit").unwrap(), None);
    region.set_typed(b"visit", &visit()).unwrap();
    assert_eq!(region.get_typed(b"visit").unwrap(), Some(visit()));
}

#[test]
fn update_typed_changes_makes_and_deletes() {
    let (_heap, region) = Heap::create(&Config::new(1 << 20), Options::new()).unwrap();
    let mut expected = visit();
    for page in 0..3 {
        let made = region.update_typed(b"visit", |old: Option<Visit>| {
            let mut new = old.unwrap_or_else(visit);
            new.pages.push(page);
            Some(new)
        });
        expected.pages.push(page);
        assert_eq!(made.unwrap(), Some(expected.clone()));
        assert_eq!(region.get_typed(b"visit").unwrap(), Some(expected.clone()));
    }
    region
        .update_typed(b"visit", |_: Option<Visit>| None)
        .unwrap();
    assert!(!region.exists(b"visit").unwrap());
}

#[test]
fn a_value_of_another_type_is_an_error_and_stays() {
    let (_heap, region) = Heap::create(&Config::new(1 << 20), Options::new()).unwrap();
    let revision = region.set(b"visit", b"\xc1 is never MessagePack").unwrap();
    let read = region.get_typed::<Visit>(b"visit");
    assert!(matches!(read, Err(TypedError::Decode(_))), "{read:?}");
    let updated = region.update_typed(b"visit", |_: Option<Visit>| panic!("nothing to change"));
    assert!(matches!(updated, Err(TypedError::Decode(_))), "{updated:?}");
    let entry = region.entry(b"visit").unwrap().unwrap();
    assert_eq!(
        (entry.value.as_slice(), entry.revision),
        (&b"\xc1 is never MessagePack"[..], revision)
    );
}

/// 1024 pages are listed by the entry itself; more by pages that list pages.
#[test]
fn a_value_of_more_pages_than_an_entry_lists_lives_and_goes() {
    let region = Region::create(&Config::new(512 << 20), Options::new()).unwrap();
    let mut value: Vec<u8> = (0..64 << 20 >> 2_u32).flat_map(u32::to_le_bytes).collect();
    region.set(b"large", &value).unwrap();
    let at_the_limit = region.stats().pages_used;
    // 100,000 bytes more than 64 MiB: two pages of value, and one that lists.
    let more = [0xab; 100_000];
    assert_eq!(
        region.append(b"large", &more).unwrap(),
        value.len() as u64 + 100_000
    );
    value.extend_from_slice(&more);
    assert!(region.get(b"large").unwrap().unwrap() == value);
    assert_eq!(region.stats().pages_used, at_the_limit + 3);
    let audit = region.check().unwrap();
    assert!(audit.is_clean(), "{:?}", audit.problems);
    region.set(b"large", b"small").unwrap();
    assert!(
        region.stats().pages_used <= 2,
        "pages stay: {:?}",
        region.stats()
    );
    assert!(region.check().unwrap().is_clean());
}

/// Long values are copied line by line, and those of more than a block page by page.
#[test]
fn values_come_back_whole_whatever_their_length() {
    let region = Region::create(&Config::new(64 << 20), Options::new()).unwrap();
    let bytes: Vec<u8> = (0..1 << 18 >> 2_u32).flat_map(u32::to_le_bytes).collect();
    let mut into = Vec::new();
    for edge in [64, 4096, 8192, 16_384, 32_768, 65_536, 131_072, 200_000] {
        for len in edge - 80..edge + 80 {
            // Not from the beginning of a line.
            let value = &bytes[3..3 + len];
            region.set(b"key", value).unwrap();
            assert!(region.get(b"key").unwrap().as_deref() == Some(value));
            assert!(region.get_into(b"key", &mut into).unwrap() && into == value);
        }
    }
}

#[test]
fn many_keys_at_once_give_what_each_gives_alone() {
    let region = Region::create(&Config::new(64 << 20), Options::new()).unwrap();
    // Keys of all kinds of lengths, half of them there; enough for buckets that overflow.
    let key = |number: usize| format!("{number:0width$}", width = 5 + number % 40).into_bytes();
    for number in (0..20_000).step_by(2) {
        let value = vec![
            number as u8;
            if number % 100 == 0 {
                9000
            } else {
                number % 200
            }
        ];
        region.set(&key(number), &value).unwrap();
    }
    for start in (0..20_000).step_by(50) {
        let keys: Vec<_> = (start..start + 50).map(key).collect();
        let alone: Vec<_> = keys.iter().map(|key| region.get(key).unwrap()).collect();
        assert_eq!(region.get_many(&keys).unwrap(), alone);
    }
}
