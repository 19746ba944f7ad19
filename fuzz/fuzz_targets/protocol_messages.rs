#![no_main]

#[path = "../bodies/protocol_messages.rs"]
mod protocol_messages;

libfuzzer_sys::fuzz_target!(|program: &[u8]| protocol_messages::run(program));
