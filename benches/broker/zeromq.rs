//! ZeroMQ `PUB`/`SUB` over `ipc://`: a C program, built where its headers are installed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program that plays its roles, or `None` without a compiler or libzmq.
pub(crate) fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    PROGRAM.get_or_init(build).as_deref()
}

fn build() -> Option<PathBuf> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/broker/zeromq.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-zeromq");
    let mut command = Command::new("cc");
    command
        .args(["-O2", "-o"])
        .arg(&program)
        .arg(source)
        .arg("-lzmq");
    let built = command.output().is_ok_and(|output| output.status.success());
    built.then_some(program)
}
