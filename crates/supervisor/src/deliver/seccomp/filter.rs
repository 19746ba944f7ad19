//! The filter of system calls that a worker is started with: `bind` and `listen` are asked of the
//! supervisor, all others pass at the kernel's usual speed.

use libc::sock_filter;
use std::mem::offset_of;

/// `AUDIT_ARCH_*` of this machine. Calls of other kinds (32 bits, x32) have other numbers and pass.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// The instructions.
pub(crate) fn filter() -> Vec<sock_filter> {
    let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
    vec![
        load(offset_of!(libc::seccomp_data, arch)),
        jump_if_equal(ARCHITECTURE, 0, 4),
        load(offset_of!(libc::seccomp_data, nr)),
        jump_if_equal(number(libc::SYS_bind), 1, 0),
        jump_if_equal(number(libc::SYS_listen), 0, 1),
        op(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
        op(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ]
}

fn load(offset: usize) -> sock_filter {
    op(LOAD_WORD, u32::try_from(offset).unwrap_or(u32::MAX), 0, 0)
}

const fn jump_if_equal(k: u32, jt: u8, jf: u8) -> sock_filter {
    op(JUMP_IF_EQUAL, k, jt, jf)
}

const fn op(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}
