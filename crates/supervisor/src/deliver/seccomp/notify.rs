//! The kernel's questions and the answers to them.

use libc::{c_ulong, seccomp_notif, seccomp_notif_addfd, seccomp_notif_resp};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

const RECEIVE: c_ulong = 0xc050_2100;
const SEND: c_ulong = 0xc018_2101;
const ID_VALID: c_ulong = 0x4008_2102;
const ADD_FD: c_ulong = 0x4018_2103;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`.
const CONTINUE: u32 = 1;
/// `SECCOMP_ADDFD_FLAG_SETFD`: under the number that is given.
const SET_FD: u32 = 1;

/// Where the kernel asks.
#[derive(Debug)]
pub(super) struct Listener<'a>(pub(super) &'a OwnedFd);

/// A call that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub(super) id: u64,
    /// The calling thread.
    pub(super) tid: i32,
    pub(super) call: Call,
}

/// What is called, with its arguments.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call {
    Bind { fd: RawFd, address: u64, len: usize },
    Listen { fd: RawFd, backlog: u32 },
    Other,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is made as if nobody had asked.
    Go,
    /// It succeeded.
    Done,
    /// It failed with this error number.
    Fail(i32),
}

impl Listener<'_> {
    /// The next question; to be asked only when there is one, else this waits.
    pub(super) fn receive(&self) -> Result<Question, Errno> {
        // SAFETY: all zeroes is a value of the type, and what the kernel wants to get.
        let mut asked: seccomp_notif = unsafe { std::mem::zeroed() };
        self.control(RECEIVE, &raw mut asked)?;
        let [first, second, third, ..] = asked.data.args;
        // Registers are wider than these arguments; the kernel looks at the lower half only.
        let low = |register: u64| u32::try_from(register & 0xffff_ffff).unwrap_or(0);
        let fd = low(first).cast_signed();
        let call = match libc::c_long::from(asked.data.nr) {
            libc::SYS_bind => Call::Bind {
                fd,
                address: second,
                len: usize::try_from(low(third)).unwrap_or(0),
            },
            // A negative one is a large one to the kernel too.
            libc::SYS_listen => Call::Listen {
                fd,
                backlog: low(second),
            },
            _ => Call::Other,
        };
        let tid = asked.pid.cast_signed();
        Ok(Question {
            id: asked.id,
            tid,
            call,
        })
    }

    /// Whether the caller still waits, so that what was read of it was its own.
    pub(super) fn is_valid(&self, id: u64) -> bool {
        let mut id = id;
        self.control(ID_VALID, &raw mut id).is_ok()
    }

    /// Puts a duplicate of `fd` under the caller's number.
    pub(super) fn swap(
        &self,
        id: u64,
        number: RawFd,
        fd: &OwnedFd,
        is_closed_on_exec: bool,
    ) -> Result<(), Errno> {
        let closed_on_exec = libc::O_CLOEXEC.cast_unsigned();
        let mut added = seccomp_notif_addfd {
            id,
            flags: SET_FD,
            srcfd: fd.as_raw_fd().cast_unsigned(),
            newfd: number.cast_unsigned(),
            newfd_flags: if is_closed_on_exec { closed_on_exec } else { 0 },
        };
        self.control(ADD_FD, &raw mut added)
    }

    pub(super) fn answer(&self, id: u64, answer: Answer) -> Result<(), Errno> {
        let (error, flags) = match answer {
            Answer::Go => (0, CONTINUE),
            Answer::Done => (0, 0),
            Answer::Fail(errno) => (-errno, 0),
        };
        let mut response = seccomp_notif_resp {
            id,
            val: 0,
            error,
            flags,
        };
        self.control(SEND, &raw mut response)
    }

    fn control<T>(&self, request: c_ulong, argument: *mut T) -> Result<(), Errno> {
        loop {
            // SAFETY: each request is used with the type whose size is part of its number, and
            // the argument is a live local of the caller.
            let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request as _, argument) };
            if result >= 0 {
                return Ok(());
            }
            let error = std::io::Error::last_os_error();
            match Errno::from_io_error(&error) {
                Some(Errno::INTR) => {}
                errno => return Err(errno.unwrap_or(Errno::IO)),
            }
        }
    }
}
