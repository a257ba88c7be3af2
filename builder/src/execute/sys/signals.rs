//! Kernel calls of the helper that runs a step without namespaces.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, read};
use rustix::process::Pid;

use super::{SingleThreaded, block_signals, check};

/// Copies this process; `None` in the copy.
///
/// Containers deny clone3(2), by which [`super::clone_process`] copies.
pub(in crate::execute) fn fork(_: SingleThreaded) -> Result<Option<Pid>, Errno> {
    // SAFETY: no other thread exists that could hold a lock which the copy would wait for.
    let pid = check(unsafe { libc::fork() }.into())?;
    i32::try_from(pid).map(Pid::from_raw).map_err(|_| Errno::RANGE)
}

/// The signals that this process is sent, as a descriptor that can be polled.
#[derive(Debug)]
pub(in crate::execute) struct SignalQueue(OwnedFd);

impl SignalQueue {
    /// Blocks every signal that can be blocked; from now on they queue here.
    pub(in crate::execute) fn open() -> Result<SignalQueue, Errno> {
        block_signals();
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the set is filled before it is read; the kernel makes a descriptor of our own.
        unsafe {
            let mut all = MaybeUninit::uninit();
            libc::sigfillset(all.as_mut_ptr());
            let fd = check(libc::signalfd(-1, all.as_ptr(), flags).into())?;
            Ok(SignalQueue(OwnedFd::from_raw_fd(i32::try_from(fd).map_err(|_| Errno::RANGE)?)))
        }
    }

    /// Forgets what is queued: what matters is found by looking.
    pub(in crate::execute) fn clear(&self) {
        let mut buffer = [0; size_of::<libc::signalfd_siginfo>() * 16];
        while read(&self.0, &mut buffer).is_ok_and(|length| length > 0) {}
    }
}

impl AsFd for SignalQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
