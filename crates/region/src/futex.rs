//! Sleeping on a word of the region and waking who sleeps there. Works between processes, and on
//! read-only mappings.

use crate::memory::Memory;
#[cfg(not(loom))]
use crate::sync::AtomicU64;
use std::time::Duration;

/// Sleeps while the low half of the word at `offset` is `expected`, for `timeout` at most. May wake
/// early.
#[cfg(not(loom))]
pub(crate) fn wait(memory: &Memory, offset: u64, expected: u64, timeout: Duration) {
    wait_on(memory.word(offset), expected, timeout);
}

/// Wakes up to `count` sleepers of the word at `offset`.
#[cfg(not(loom))]
pub(crate) fn wake(memory: &Memory, offset: u64, count: i32) {
    wake_on(memory.word(offset), count);
}

/// As [`wait`], on a word of any shared memory.
#[cfg(not(loom))]
pub(crate) fn wait_on(word: &AtomicU64, expected: u64, timeout: Duration) {
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
    };
    // The low half is the value the kernel compares.
    #[allow(clippy::cast_possible_truncation)]
    let expected = expected as u32;
    // Little-endian: the low half of a word begins at the word's own address.
    let address: *const AtomicU64 = word;
    // SAFETY: the word is borrowed, so mapped, during the call, and the timeout outlives it. Every
    // way this can end (woken, changed, timed out, interrupted) is an early wake to the caller.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            address,
            libc::FUTEX_WAIT,
            expected,
            &raw const timeout,
            std::ptr::null::<u32>(),
            0,
        )
    };
}

/// As [`wake`], on a word of any shared memory.
#[cfg(not(loom))]
pub(crate) fn wake_on(word: &AtomicU64, count: i32) {
    let address: *const AtomicU64 = word;
    // SAFETY: FUTEX_WAKE uses the address only to find sleepers.
    unsafe { libc::syscall(libc::SYS_futex, address, libc::FUTEX_WAKE, count) };
}

#[cfg(loom)]
pub(crate) fn wait(_: &Memory, _: u64, _: u64, _: Duration) {
    loom::thread::yield_now();
}

#[cfg(loom)]
pub(crate) fn wake(_: &Memory, _: u64, _: i32) {}
