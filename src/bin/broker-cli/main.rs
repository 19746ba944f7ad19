//! `broker-cli`: the tool for the broker. Not written yet, and says so.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!(
        "broker-cli {}: the broker is not written yet; what works so far is the shared memory \
         (see the README, or run `cargo run --release --example share`)",
        env!("CARGO_PKG_VERSION")
    );
    ExitCode::from(2)
}
