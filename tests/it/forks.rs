//! Forks at any moment of what other threads are doing: the child must be able to go on, and must not
//! keep its parent's sessions alive.

use crate::harness::fork::Forked;
use crate::harness::{report, wait_until, Child, Watchdog};
use crate::regions::{assert_clean, handed_over, path};
use ganger_region::{Config, Options, Region};
use rustix::process::Signal;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Barrier;
use std::time::{Duration, Instant};

const ROUNDS: u32 = 600;
/// Threads that attach while another one forks.
const THREADS: usize = 3;
/// Over how long the forks are spread: some times what attaching takes.
const SPREAD: Duration = Duration::from_micros(150);

pub(crate) fn play(role: &str, arguments: &[&str]) -> bool {
    match (role, arguments) {
        ("forks", [path]) => fork_again_and_again(path),
        _ => return false,
    }
    true
}

#[test]
fn a_child_forked_while_other_threads_attach_goes_on_and_keeps_no_session_alive() {
    let _watchdog = Watchdog::new("a_child_forked_while_other_threads_attach", 300);
    let region = Region::create(&Config::new(2 << 20).sessions(16), Options::new()).unwrap();
    let mut forking = Child::spawn("forks", &[path(&region)]);
    assert_eq!(forking.hear(), "all sessions ended");
    assert!(forking.wait().success());
    assert_eq!(region.incr(b"children", 0).unwrap(), i64::from(ROUNDS));
    region.reap().unwrap();
    assert_eq!(region.stats().sessions_attached, 1);
    assert_clean(&region);
}

/// Each round has a parent that is killed, and its child, which lives a little longer.
fn fork_again_and_again(path: &str) {
    let region = handed_over(path, Options::new());
    for round in 0..ROUNDS {
        let (end, until_end) = rustix::pipe::pipe().unwrap();
        let (ready, word) = rustix::pipe::pipe().unwrap();
        let child = || {
            drop_in_child(&until_end);
            let wrote = region.incr(b"children", 1).is_ok();
            let _ = rustix::io::write(&word, if wrote { b"w" } else { b"-" });
            // Until the other side is closed.
            let _ = rustix::io::read(&end, &mut [0]);
        };
        let mut parent = Forked::new(|| fork_while_attaching(path, round, child));
        let otherwise = parent.wait_killed();
        assert!(otherwise.is_none(), "{otherwise:?}, not by a kill");
        let mut heard = [0];
        assert_eq!(rustix::io::read(&ready, &mut heard).unwrap(), 1);
        assert_eq!(&heard, b"w", "the child could not write");
        let attached = || {
            region.reap().unwrap();
            region.stats().sessions_attached
        };
        assert_eq!(
            attached(),
            3,
            "round {round}: the test, this process, the child"
        );
        drop(until_end);
        wait_until("the child to end", || attached() == 2);
    }
    report("all sessions ended");
}

/// Forks `child` while other threads attach, and kills this process; it never returns.
fn fork_while_attaching(path: &str, round: u32, child: impl Fn()) -> bool {
    let start = Barrier::new(THREADS + 1);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                std::mem::forget(handed_over(path, Options::new()));
            });
        }
        start.wait();
        let started = Instant::now();
        while started.elapsed() < SPREAD * (round % 100) / 100 {
            std::hint::spin_loop();
        }
        // SAFETY: the child does nothing that waits for another thread, unless the region makes it.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            child();
            // SAFETY: ends the process without running what its parent registered for its own end.
            unsafe { libc::_exit(0) };
        }
    });
    let own = rustix::process::getpid();
    rustix::process::kill_process(own, Signal::KILL).unwrap();
    false
}

/// Closes what the child of a fork inherited and its parents still have.
fn drop_in_child(fd: &OwnedFd) {
    // SAFETY: the child ends without running the owner's destructor.
    unsafe { libc::close(fd.as_raw_fd()) };
}
