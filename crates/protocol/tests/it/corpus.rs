//! What the fuzzer found worth keeping, run without it; and the seeds of that corpus.

use crate::samples;
use std::path::{Path, PathBuf};

#[path = "../../../../fuzz/bodies/protocol_frames.rs"]
#[allow(unreachable_pub)]
mod protocol_frames;
#[path = "../../../../fuzz/bodies/protocol_messages.rs"]
#[allow(unreachable_pub)]
mod protocol_messages;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target)
}

fn replay(target: &str, run: fn(&[u8])) {
    let folder = folder(target);
    let mut count = 0;
    for file in std::fs::read_dir(&folder).unwrap() {
        run(&std::fs::read(file.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "nothing in {}", folder.display());
}

#[test]
fn the_corpus_of_frames_is_survived() {
    replay("protocol_frames", protocol_frames::run);
}

#[test]
fn the_corpus_of_messages_is_survived() {
    replay("protocol_messages", protocol_messages::run);
}

#[test]
fn every_sample_is_survived_whole_cut_and_with_any_byte_changed() {
    for sample in samples::all() {
        for at in 0..=sample.bytes.len() {
            protocol_messages::run(&sample.bytes[..at]);
        }
        for at in 0..sample.bytes.len() {
            for change in [1, 0x80, 0xff] {
                let mut bytes = sample.bytes.clone();
                bytes[at] ^= change;
                protocol_messages::run(&bytes);
            }
        }
    }
}

/// Not a test: lays the seeds, when the messages have changed.
#[test]
#[ignore = "writes fuzz/corpus"]
fn lay_the_seeds() {
    let mut wire = vec![];
    for sample in samples::all() {
        let path = folder("protocol_messages").join(format!("seed-{}", sample.name));
        std::fs::write(path, &sample.bytes).unwrap();
    }
    for (number, frame) in samples::frames().into_iter().enumerate() {
        let mut bytes = bytes::BytesMut::new();
        frame.write_to(&mut bytes);
        wire.extend_from_slice(&bytes);
        let program = [&[255][..], &bytes].concat();
        let path = folder("protocol_frames").join(format!("seed-{number:02}"));
        std::fs::write(path, program).unwrap();
    }
    let program = [&[7][..], &wire].concat();
    std::fs::write(folder("protocol_frames").join("seed-all"), program).unwrap();
}
