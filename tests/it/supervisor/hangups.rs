//! SIGHUP: a reload, or the end of the terminal.

use super::ganger::{Ganger, Place, Recipe};
use super::script;
use crate::harness::wait_until;
use rustix::process::Signal;
use std::os::fd::{FromRawFd, OwnedFd};

/// A terminal: the end that a window holds, and the one that programs see.
fn terminal() -> (OwnedFd, OwnedFd) {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: takes flags only.
    let window = unsafe { libc::posix_openpt(flags) };
    assert!(window >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the descriptor was just opened and is nobody else's.
    let owned = unsafe { OwnedFd::from_raw_fd(window) };
    // SAFETY: a descriptor of a terminal that is open.
    assert_eq!(unsafe { libc::unlockpt(window) }, 0);
    // SAFETY: as before; the argument is flags.
    let inner = unsafe { libc::ioctl(window, libc::TIOCGPTPEER, flags) };
    assert!(inner >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the descriptor was just opened and is nobody else's.
    (owned, unsafe { OwnedFd::from_raw_fd(inner) })
}

fn recipe(test: &'static str) -> Option<Recipe> {
    let command = script("node", "node/http.js")?;
    Some(Place::new(test).recipe(&command))
}

fn wait_reloaded(ganger: &Ganger, before: &[u32]) {
    wait_until("all to be replaced", || {
        let pids = ganger.pids();
        pids.len() == 2 && !pids.iter().any(|pid| before.contains(pid))
    });
    ganger.wait_ready(2);
}

/// The window is closed: the supervisor ends as at Ctrl-C. It is the first of its session here, whom
/// the kernel tells.
#[test]
fn a_supervisor_ends_with_its_terminal() {
    let Some(recipe) = recipe("terminal") else {
        return;
    };
    let (window, inner) = terminal();
    let mut ganger = recipe.terminal(inner).start();
    drop(window);
    let status = ganger.wait();
    assert!(status.success(), "in good order: {status}");
    ganger.into_place().assert_empty();
}

/// The same beneath a shell, whom the kernel tells first.
#[test]
fn a_supervisor_beneath_a_shell_ends_with_their_terminal() {
    let Some(recipe) = recipe("terminal of a shell") else {
        return;
    };
    let (window, inner) = terminal();
    let recipe = recipe.beneath(&["sh", "-c", "\"$@\"; exit 1", "sh"]);
    let mut ganger = recipe.terminal(inner).start();
    drop(window);
    ganger.wait();
    ganger.into_place().assert_empty();
}

/// A shell may send the signal before the terminal goes: what counts is whether it does.
#[test]
fn a_signal_just_before_the_terminal_goes_is_its_end_and_two_are_no_haste() {
    let Some(recipe) = recipe("early signal") else {
        return;
    };
    let (window, inner) = terminal();
    let mut ganger = recipe.terminal(inner).start();
    ganger.signal(Signal::HUP);
    drop(window);
    ganger.signal(Signal::HUP);
    let status = ganger.wait();
    assert!(status.success(), "in good order: {status}");
    ganger.into_place().assert_empty();
}

#[test]
fn with_its_terminal_there_it_reloads() {
    let Some(recipe) = recipe("reload at a terminal") else {
        return;
    };
    let (_window, inner) = terminal();
    let ganger = recipe.terminal(inner).start();
    let before = ganger.pids();
    ganger.signal(Signal::HUP);
    wait_reloaded(&ganger, &before);
    ganger.stop();
}

/// As `nohup` starts it: it neither ends nor reloads.
#[test]
fn where_the_signal_is_ignored_it_stays_so() {
    let Some(recipe) = recipe("nohup") else {
        return;
    };
    let (window, inner) = terminal();
    let recipe = recipe.terminal(inner).before_exec(|| {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        // SAFETY: to ignore a signal has no obligations.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
        Ok(())
    });
    let ganger = recipe.start();
    let before = ganger.pids();
    ganger.signal(Signal::HUP);
    drop(window);
    let status = std::fs::read_to_string(format!("/proc/{}/status", ganger.pid())).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = u64::from_str_radix(mask.unwrap().trim(), 16).unwrap();
    assert_eq!(mask & 1, 1, "signal 1 is ignored");
    // It was told before it was asked this.
    let events = ganger.must(&["events", "-n", "100"]);
    assert!(!events.contains("reload"), "{events}");
    assert_eq!(ganger.pids(), before);
    ganger.stop();
}
