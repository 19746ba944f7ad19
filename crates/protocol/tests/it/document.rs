//! `docs/protocol.md` names everything there is, with its number or word.

use crate::samples;
use ganger_protocol::{limits, ErrorCode, Limits, Op};

const DOCUMENT: &str = include_str!("../../../../docs/protocol.md");

#[test]
fn the_document_has_every_op_with_its_number() {
    for op in Op::ALL {
        let name = format!("{op:?}");
        // `KvReply` is `KV_REPLY` there.
        let words: String = name
            .chars()
            .enumerate()
            .fold(String::new(), |mut words, (at, c)| {
                if at > 0 && c.is_ascii_uppercase() {
                    words.push('_');
                }
                words.push(c.to_ascii_uppercase());
                words
            });
        let row = format!("| `{words}` | 0x{:02x} |", op.to_u8());
        assert!(DOCUMENT.contains(&row), "no row {row}");
    }
}

#[test]
fn the_document_has_every_error_code_and_what_it_means() {
    for code in ErrorCode::ALL {
        let row = format!("| `{code}` | {} |", code.meaning());
        assert!(DOCUMENT.contains(&row), "no row {row}");
    }
}

#[test]
fn the_document_has_every_message_and_every_field() {
    for sample in samples::all() {
        if let Some(variant) = sample.variant() {
            assert!(
                DOCUMENT.contains(&format!("`{variant}`")),
                "no {}",
                sample.name
            );
        }
        let value = rmpv::decode::read_value(&mut &sample.bytes[..]).unwrap();
        let mut names = vec![];
        collect(&value, &mut names);
        for name in names {
            // `orders` is what a broker might count; words of texts are quoted there.
            let words = [format!("`{name}`"), format!("\"{name}\"")];
            let is_there = words.iter().any(|word| DOCUMENT.contains(word)) || name == "orders";
            assert!(is_there, "no `{name}` ({})", sample.name);
        }
    }
}

#[test]
fn the_document_has_the_limits_as_they_are() {
    let defaults = rmp_value(&Limits::default());
    for (name, value) in defaults.as_map().unwrap() {
        let row = format!("| `{}` | {value} |", name.as_str().unwrap());
        assert!(DOCUMENT.contains(&row), "no row {row}");
    }
    for (number, what) in [
        (limits::SUBJECT_LEN_MAX, "bytes of a subject"),
        (limits::SUBJECT_TOKENS_MAX, "tokens of a subject"),
        (limits::KEY_LEN_MAX, "bytes of a key"),
        (limits::NAME_LEN_MAX, "bytes of a name"),
        (limits::HEADERS_LEN_MAX, "bytes of encoded headers"),
        (limits::FRAME_LEN_MAX, "bytes behind the length word"),
        (limits::BODY_DEPTH_MAX, "levels of a body"),
        (limits::BODY_ITEMS_MAX, "values of a body"),
    ] {
        let row = format!("| {number} | {what}");
        assert!(DOCUMENT.contains(&row), "no row {row}");
    }
}

fn collect(value: &rmpv::Value, names: &mut Vec<String>) {
    if let Some(map) = value.as_map() {
        for (name, value) in map {
            names.push(name.as_str().unwrap().to_owned());
            collect(value, names);
        }
    }
    for value in value.as_array().into_iter().flatten() {
        collect(value, names);
    }
}

fn rmp_value(limits: &Limits) -> rmpv::Value {
    let bytes = rmp_serde::to_vec_named(limits).unwrap();
    rmpv::decode::read_value(&mut &bytes[..]).unwrap()
}
