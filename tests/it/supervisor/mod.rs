//! The supervisor as its users meet it: the real binary runs real programs that know nothing of it,
//! under a load of which every answer is judged.

/// Programs that go wrong, and systems that refuse.
mod faults;
/// A `ganger run` of a test, its verbs, and what it must not leave behind.
mod ganger;
/// Two generations beside each other, and workers that hang.
mod generations;
/// Terminals that go away.
mod hangups;
/// Deaths of workers, of the broker and of the supervisor.
mod kills;
/// Workers that hang, and the supervisor's own watchdog.
mod liveness;
/// Every way in which Node listens, and what node:cluster promises its workers.
mod node;
/// Real programs, unmodified.
mod programs;
/// Workers that do not take their connections.
mod queues;
/// Releases that must not go live.
mod releases;
/// One more app either starts or fails at once.
mod starts;
/// What the system says of processes and sockets.
mod system;
/// The verbs, and the demo.
mod verbs;
/// Planned changes lose nothing.
mod zero_loss;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a test repeats what it is about: so many times, or a multiple of that in a long run.
fn rounds(usual: usize) -> usize {
    let times = std::env::var("GANGER_SUPERVISOR_TIMES").ok();
    usual * times.and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// Waits for what takes real programs a while, however busy the machine is.
fn wait_until_patient(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The folder of the programs that tests run.
fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A file among the fixtures that is installed and not in the repository. Where it is not there, the
/// test is skipped; in continuous integration it fails.
fn installed(path: &str) -> Option<String> {
    let path = fixtures().join(path);
    if path.exists() {
        return Some(path.to_str().unwrap().to_owned());
    }
    lacking(&format!(
        "{} is missing: run scripts/fixtures",
        path.display()
    ));
    None
}

/// A program of the system.
fn program(name: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name));
    let found = found.into_iter().find(|path| path.is_file());
    if found.is_none() {
        lacking(&format!("{name} is not installed"));
    }
    found.map(|path| path.to_str().unwrap().to_owned())
}

/// An example of this package, which `cargo test` builds.
fn example(name: &str) -> Option<String> {
    let this = std::env::current_exe().unwrap();
    let path = this.parent()?.parent()?.join("examples").join(name);
    if path.exists() {
        return Some(path.to_str().unwrap().to_owned());
    }
    lacking(&format!(
        "{} is missing: cargo build --examples",
        path.display()
    ));
    None
}

fn lacking(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "{what}");
    eprintln!("SKIPPED: {what}");
}

/// A script among the fixtures, if the program that runs it is there.
fn script(program_name: &str, path: &str) -> Option<[String; 2]> {
    let path = fixtures().join(path).to_str().unwrap().to_owned();
    Some([program(program_name)?, path])
}
