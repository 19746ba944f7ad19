//! Single-stepping of a child process with ptrace(2).
//!
//! The child asks to be traced and stops itself with SIGSTOP: once before what is to be stepped,
//! once after it. In between, the parent lets it execute one instruction at a time. A traced child
//! that stands still is alive: the kernel keeps its file locks, so nobody may take it for dead.
//!
//! On aarch64 without LSE atomics a stepped load-exclusive never gets its store through; such a
//! test ends by its watchdog.
//!
//! Only the thread that started the child may step it, so a [`Tracee`] stays in the test that made
//! it. Should that thread or the whole test run die, the kernel kills the child
//! (PTRACE_O_EXITKILL).

use crate::harness::{self, Child};
use rustix::process::Signal;
use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity, CpuSet};
use std::io;

/// A child process that executes one instruction at a time.
pub(crate) struct Tracee {
    child: Child,
    /// The traced thread: the test runner of the child may run its role in another than the first.
    thread: i32,
    released: bool,
    /// Instructions executed so far.
    pub(crate) steps: u64,
}

/// While it lives, this thread and the children it starts run on one processor: handing a stopped
/// child back and forth between two costs an interrupt for every instruction.
pub(crate) struct OneProcessor(CpuSet);

impl OneProcessor {
    pub(crate) fn new() -> Self {
        let all = sched_getaffinity(None).unwrap();
        let mut one = CpuSet::new();
        one.set(sched_getcpu());
        sched_setaffinity(None, &one).unwrap();
        Self(all)
    }
}

impl Drop for OneProcessor {
    fn drop(&mut self) {
        sched_setaffinity(None, &self.0).unwrap();
    }
}

/// Where a child stands after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Behind one more instruction.
    Instruction,
    /// At the mark that it set by [`mark`].
    Mark,
}

impl Tracee {
    /// Starts a child in a role that calls [`be_traced`], and stops it there.
    ///
    /// # Panics
    /// If the system does not permit tracing: a proof that can't be run must not pass.
    pub(crate) fn start(role: &str, arguments: &[String]) -> Self {
        let mut child = Child::spawn(role, arguments);
        let said = child.hear();
        let thread = said.strip_prefix("thread ").unwrap_or_else(|| {
            panic!(
                "ptrace is not permitted here ({said}): single-stepping proves nothing without it"
            )
        });
        let tracee = Self {
            thread: thread.parse().unwrap(),
            child,
            released: false,
            steps: 0,
        };
        let stopped_by = tracee.wait();
        assert_eq!(stopped_by, libc::SIGSTOP, "the child begins with a mark");
        let options = usize::try_from(libc::PTRACE_O_EXITKILL).unwrap();
        tracee.request(libc::PTRACE_SETOPTIONS, options);
        tracee
    }

    /// Lets the child execute one instruction.
    ///
    /// # Panics
    /// If that ends the child, or brings a signal that kills.
    pub(crate) fn step(&mut self) -> Stop {
        let mut deliver = 0;
        loop {
            self.request(libc::PTRACE_SINGLESTEP, deliver);
            self.steps += 1;
            match self.wait() {
                libc::SIGTRAP => return Stop::Instruction,
                libc::SIGSTOP => return Stop::Mark,
                fatal @ (libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGABRT) => {
                    panic!("the child got signal {fatal} at instruction {}", self.steps)
                }
                other => deliver = usize::try_from(other).unwrap(),
            }
        }
    }

    /// Lets the child run; the next call must be [`Tracee::wait_for_mark`].
    pub(crate) fn run(&mut self) {
        self.request(libc::PTRACE_CONT, 0);
    }

    /// Waits until the running child is at its next mark.
    pub(crate) fn wait_for_mark(&mut self) {
        loop {
            match self.wait() {
                libc::SIGSTOP => return,
                other => self.request(libc::PTRACE_CONT, usize::try_from(other).unwrap()),
            }
        }
    }

    /// Lets the child go on by itself.
    pub(crate) fn release(&mut self) -> &mut Child {
        if !self.released {
            self.request(libc::PTRACE_DETACH, 0);
            self.released = true;
        }
        &mut self.child
    }

    /// Kills the child where it stands, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.pid()
    }

    fn end(&mut self) {
        if !self.released {
            self.released = true;
            self.child.signal(Signal::KILL);
            if self.thread != self.child.pid() {
                // A traced thread is not gone, and so its process neither, before its tracer waited
                // for it.
                let mut status = 0;
                // SAFETY: `status` is valid for the call; the thread is a tracee of this one.
                unsafe { libc::waitpid(self.thread, &raw mut status, libc::__WALL) };
            }
        }
        self.child.kill();
    }

    fn request(&self, request: libc::c_uint, data: usize) {
        // SAFETY: these requests take no address and, for data, a number; the kernel refuses any
        // thread that is not a stopped tracee of this one.
        let done = unsafe { libc::ptrace(request, self.thread, 0_usize, data) };
        assert!(
            done != -1,
            "ptrace request {request} failed: {}",
            io::Error::last_os_error()
        );
    }

    /// Waits until the child stops and returns the signal it stopped for.
    fn wait(&self) -> i32 {
        loop {
            let mut status = 0;
            // SAFETY: `status` is valid for the call.
            let who = unsafe { libc::waitpid(self.thread, &raw mut status, libc::__WALL) };
            if who == -1 {
                let error = io::Error::last_os_error();
                assert_eq!(error.kind(), io::ErrorKind::Interrupted, "{error}");
                continue;
            }
            assert!(
                libc::WIFSTOPPED(status),
                "the child ended at instruction {} with status {status:#x}",
                self.steps
            );
            return libc::WSTOPSIG(status);
        }
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        self.end();
    }
}

/// The side of the child: from here on the parent steps this thread.
pub(crate) fn be_traced() {
    // SAFETY: this request takes no other argument; its effect is that signals stop this thread.
    let refused = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0_usize, 0_usize) } == -1;
    if refused {
        harness::report(&io::Error::last_os_error().to_string());
        std::process::exit(1);
    }
    // SAFETY: gettid has no arguments and can't fail.
    let thread = unsafe { libc::gettid() };
    harness::report(&format!("thread {thread}"));
    mark();
}

/// The side of the child: stops for the parent.
pub(crate) fn mark() {
    // SAFETY: a traced thread that sends itself SIGSTOP stops for its tracer; no handler runs.
    let raised = unsafe { libc::raise(libc::SIGSTOP) };
    assert_eq!(raised, 0);
}
