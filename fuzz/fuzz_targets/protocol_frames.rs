#![no_main]

#[path = "../bodies/protocol_frames.rs"]
mod protocol_frames;

libfuzzer_sys::fuzz_target!(|program: &[u8]| protocol_frames::run(program));
