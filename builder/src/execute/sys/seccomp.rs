//! Filters of system calls.

use rustix::io::Errno;

use super::check;

/// Loads a filter for this process and all that come from it; it can never be taken off.
///
/// rustix and libc have no function for seccomp(2).
pub(in crate::execute) fn load_filter(program: &[libc::sock_filter]) -> Result<(), Errno> {
    let length = program.len().try_into().map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // Without the flag, kernels before 5.16 slow the process down, lest it speculate.
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW);
    // SAFETY: the kernel reads `len` instructions, writes none, and checks the program.
    check(unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) }).map(drop)
}
