//! What happens between fork and exec. The child shares locks with threads that are not there any
//! more, so nothing here allocates, locks or panics: system calls and plain stores only.

use super::{raw, SpawnError};
use crate::config::Command;
use libc::{c_char, c_int, sock_filter};
use rustix::io::Errno;
use rustix::process::Pid;
use std::ffi::CString;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Bytes of a report of failure: the step and the error's number.
pub(super) const REPORT_LEN: usize = 5;
/// Wait uninterruptibly for the supervisor's answer, once it has read the question (Linux 5.19): a
/// signal would otherwise have the program's `bind` fail with `EINTR` or be done twice.
const WAIT_KILLABLE: libc::c_ulong = 1 << 5;

/// `CLONE_INTO_CGROUP` (Linux 5.7), which libc has in a type that is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// All the child needs, made before it is there. Descriptors have numbers above those in `fds`.
pub(super) struct Plan {
    pub(super) program: CString,
    pub(super) argv: Vec<CString>,
    pub(super) environment: super::program::Environment,
    pub(super) cwd: CString,
    pub(super) stdin: OwnedFd,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) report: OwnedFd,
    pub(super) group: Option<Group>,
    pub(super) fds: Vec<(OwnedFd, RawFd)>,
    pub(super) filter: Option<Vec<sock_filter>>,
    pub(super) parent: Pid,
}

/// The control group that the child is to be in.
pub(super) struct Group {
    /// To begin there.
    pub(super) directory: OwnedFd,
    /// To move there.
    pub(super) procs: OwnedFd,
}

/// What the child could not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Group = 1,
    Cgroup,
    Directory,
    Descriptors,
    Seccomp,
    Exec,
}

/// A step that failed, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failed {
    step: Step,
    errno: Errno,
}

impl Plan {
    /// Forks; the child goes on with [`Self::run`] and never returns from here.
    pub(super) fn fork(&self) -> Result<Pid, Errno> {
        let argv = pointers(self.argv.iter());
        let envp = pointers(self.environment.strings.iter());
        // Who moves to a group waits for a grace period of the kernel's, some ten milliseconds, and this
        // thread with it. Who begins there does not.
        match self.group.as_ref().and_then(fork_into) {
            Some(0) => self.run(&argv, &envp, None),
            Some(pid) => return Pid::from_raw(pid).ok_or(Errno::SRCH),
            None => {}
        }
        // SAFETY: the child makes async-signal-safe calls only, on memory that was made before,
        // and ends by exec or _exit.
        match unsafe { libc::fork() } {
            0 => self.run(&argv, &envp, self.group.as_ref()),
            pid if pid > 0 => Pid::from_raw(pid).ok_or(Errno::SRCH),
            _ => Err(last_errno()),
        }
    }

    /// `group`: where it has yet to go.
    fn run(&self, argv: &[*const c_char], envp: &[*const c_char], group: Option<&Group>) -> ! {
        let failed = match self.prepare(group) {
            Err(failed) => failed,
            Ok(()) => {
                // SAFETY: three arrays of C strings that end with a null pointer (`pointers`) and
                // outlive the call, since this stack frame does.
                unsafe { libc::execve(self.program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
                Failed {
                    step: Step::Exec,
                    errno: last_errno(),
                }
            }
        };
        failed.tell(&self.report);
        // SAFETY: no obligations; nothing of the parent's is flushed or unwound.
        unsafe { libc::_exit(127) }
    }

    fn prepare(&self, group: Option<&Group>) -> Result<(), Failed> {
        // SAFETY: plain numbers. It fails only when the parent did the same, or is gone.
        check(unsafe { libc::setpgid(0, 0) }).map_err(at(Step::Group))?;
        // SAFETY: plain numbers.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        // SAFETY: no obligations.
        if unsafe { libc::getppid() } != self.parent.as_raw_nonzero().get() {
            // The parent died before the line above could tell.
            // SAFETY: no obligations.
            unsafe { libc::_exit(127) }
        }
        default_signals();
        if let Some(group) = group {
            let procs = group.procs.as_raw_fd();
            // SAFETY: one byte of a literal.
            let written = unsafe { libc::write(procs, c"0".as_ptr().cast(), 1) };
            check(c_int::try_from(written).unwrap_or(-1)).map_err(at(Step::Cgroup))?;
        }
        // SAFETY: a C string of the parent's.
        check(unsafe { libc::chdir(self.cwd.as_ptr()) }).map_err(at(Step::Directory))?;
        self.descriptors().map_err(at(Step::Descriptors))?;
        self.environment.set_own_pid();
        if let Some(filter) = &self.filter {
            let listener = install(filter).map_err(at(Step::Seccomp))?;
            hand_over(&self.report, listener).map_err(at(Step::Seccomp))?;
        }
        Ok(())
    }

    /// Gives the descriptors their numbers, and no others to the program.
    fn descriptors(&self) -> Result<(), Errno> {
        // SAFETY: plain numbers. A kernel before 5.11 refuses the flag; all descriptors of this
        // process are opened so that exec closes them, so this is for foreign ones only.
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 4_u32) };
        let streams = [
            (self.stdin.as_raw_fd(), 0),
            (raw(self.stdout.as_ref()), 1),
            (raw(self.stderr.as_ref()), 2),
        ];
        let own = self
            .fds
            .iter()
            .map(|(fd, number)| (fd.as_raw_fd(), *number));
        for (fd, number) in streams.into_iter().chain(own) {
            if fd >= 0 {
                // SAFETY: plain numbers; `fd` is never one of the targets, being above them all.
                check(unsafe { libc::dup2(fd, number) })?;
            }
        }
        Ok(())
    }
}

/// As `fork`, but the child begins in the group. `None` if that can't be had: a filter of a container
/// may forbid the call, or the system refuse it as it will refuse `fork`.
fn fork_into(group: &Group) -> Option<libc::pid_t> {
    // SAFETY: all zeroes is a value of the type, which has numbers only.
    let mut wanted: libc::clone_args = unsafe { std::mem::zeroed() };
    wanted.flags = CLONE_INTO_CGROUP;
    wanted.exit_signal = u64::try_from(libc::SIGCHLD).ok()?;
    wanted.cgroup = u64::try_from(group.directory.as_raw_fd()).ok()?;
    let len = size_of::<libc::clone_args>();
    // SAFETY: a record of that length on this stack. Memory is not shared and no stack is named, so the
    // child goes on here with a copy of all, as after `fork`. The C library does not know of it, and runs
    // no handlers: as `fork`'s, this child makes bare system calls only, and ends by exec or _exit.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const wanted, len) };
    libc::pid_t::try_from(pid).ok().filter(|pid| *pid >= 0)
}

/// Forks a process that installs a filter, sends the listener for it through `socket`, and calls
/// `bind` on a Unix socket and the path `/`. It exits with 0 if that succeeded, which only another's
/// answer makes possible.
pub(crate) fn fork_binder(socket: &OwnedFd, filter: &[sock_filter]) -> Result<Pid, Errno> {
    // SAFETY: the child makes async-signal-safe calls only and ends by _exit.
    match unsafe { libc::fork() } {
        0 => {
            let done = install(filter)
                .and_then(|listener| hand_over(socket, listener))
                .and_then(|()| bind_somewhere());
            // SAFETY: no obligations.
            unsafe { libc::_exit(done.map_or_else(Errno::raw_os_error, |()| 0)) }
        }
        pid if pid > 0 => Pid::from_raw(pid).ok_or(Errno::SRCH),
        _ => Err(last_errno()),
    }
}

fn bind_somewhere() -> Result<(), Errno> {
    // SAFETY: plain numbers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    check(fd)?;
    // SAFETY: all zeroes is a value of the type.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or(1);
    address.sun_path[0] = c_char::try_from(b'/').unwrap_or(0);
    let len = libc::socklen_t::try_from(size_of::<libc::sa_family_t>() + 2).unwrap_or(0);
    // SAFETY: an address of at least that length, on this stack.
    check(unsafe { libc::bind(fd, (&raw const address).cast(), len) })
}

/// Dispositions and mask as a program expects them: Rust ignores SIGPIPE, and this process has
/// handlers and maybe blocks.
fn default_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: resets a disposition; numbers that are not allowed are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: all zeroes is a value of the type.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a set on this stack.
    unsafe { libc::sigemptyset(&raw mut none) };
    // SAFETY: a set on this stack; the old one is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

/// Installs the filter for this process and all it will start.
fn install(filter: &[sock_filter]) -> Result<RawFd, Errno> {
    // SAFETY: plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap_or(u16::MAX),
        filter: filter.as_ptr().cast_mut(),
    };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    for flags in [listener | WAIT_KILLABLE, listener] {
        // SAFETY: `program` names `len` instructions that outlive the call; the kernel copies them.
        let fd = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
        if fd >= 0 {
            return RawFd::try_from(fd).map_err(|_| Errno::BADF);
        }
        if last_errno() != Errno::INVAL {
            break;
        }
    }
    Err(last_errno())
}

/// Sends a descriptor through the socket, and keeps none.
fn hand_over(socket: &OwnedFd, fd: RawFd) -> Result<(), Errno> {
    #[repr(C, align(8))]
    struct Control([u8; 64]);
    let mut control = Control([0; 64]);
    let mut byte = 0_u8;
    let mut io = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let size = u32::try_from(size_of::<RawFd>()).unwrap_or(4);
    // SAFETY: all zeroes is a value of the type.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut io;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    // SAFETY: arithmetic on a number.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(size) } as _;
    // SAFETY: `message` has a control buffer with room for one header.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    let Some(header) = std::ptr::NonNull::new(header) else {
        return Err(Errno::NOBUFS);
    };
    // SAFETY: arithmetic on a number.
    let length = unsafe { libc::CMSG_LEN(size) };
    let filled = libc::cmsghdr {
        cmsg_len: length as _,
        cmsg_level: libc::SOL_SOCKET,
        cmsg_type: libc::SCM_RIGHTS,
    };
    // SAFETY: the header lies at the aligned start of `control`.
    unsafe { header.write(filled) };
    // SAFETY: the data of a header within `control`.
    let data = unsafe { libc::CMSG_DATA(header.as_ptr()) };
    // SAFETY: `CMSG_SPACE` left room for one number there; it need not be aligned.
    unsafe { data.cast::<RawFd>().write_unaligned(fd) };
    // SAFETY: all of the message lies on this stack.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) };
    check(c_int::try_from(sent).unwrap_or(-1))?;
    // SAFETY: a descriptor that only this function knows.
    unsafe { libc::close(fd) };
    Ok(())
}

impl Failed {
    fn tell(self, socket: &OwnedFd) {
        let mut bytes = [self.step as u8; REPORT_LEN];
        bytes[1..].copy_from_slice(&self.errno.raw_os_error().to_le_bytes());
        // SAFETY: bytes on this stack. Nobody is left to hear of an error of this.
        unsafe { libc::write(socket.as_raw_fd(), bytes.as_ptr().cast(), REPORT_LEN) };
    }

    /// The error for people.
    pub(super) fn named(self, command: &Command) -> SpawnError {
        SpawnError::step(self.step, self.errno, command)
    }
}

impl From<[u8; REPORT_LEN]> for Failed {
    fn from(bytes: [u8; REPORT_LEN]) -> Self {
        let [step, number @ ..] = bytes;
        let known = [
            Step::Group,
            Step::Cgroup,
            Step::Directory,
            Step::Descriptors,
            Step::Seccomp,
        ];
        let step = known.into_iter().find(|known| *known as u8 == step);
        Self {
            step: step.unwrap_or(Step::Exec),
            errno: Errno::from_raw_os_error(i32::from_le_bytes(number)),
        }
    }
}

fn at(step: Step) -> impl Fn(Errno) -> Failed {
    move |errno| Failed { step, errno }
}

fn check(result: c_int) -> Result<(), Errno> {
    if result < 0 {
        return Err(last_errno());
    }
    Ok(())
}

fn last_errno() -> Errno {
    // SAFETY: the address of this thread's error number, always there.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    Errno::from_raw_os_error(unsafe { *errno })
}

/// Pointers to the strings and the null pointer that ends them.
fn pointers<'a>(strings: impl Iterator<Item = &'a CString>) -> Vec<*const c_char> {
    strings
        .map(|text| text.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}
