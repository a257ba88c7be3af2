//! The kernel calls of the executor that no safe wrapper covers: the only `unsafe` of this crate.
//!
//! Each function is safe to call: what its soundness needs is either checked inside or carried
//! by an argument. The weightiest is [`SingleThreaded`]: a process that is copied while it has
//! several threads may find the allocator's lock held for ever by a thread that was not copied.

mod seccomp;
mod signals;

use std::ffi::{CString, c_char, c_int, c_long};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, statat};
use rustix::io::Errno;
use rustix::process::Pid;

pub(super) use seccomp::load_filter;
pub(super) use signals::{SignalQueue, fork};

/// Proof that this process has one thread, so that a copy of it is as good as the original.
///
/// The proof is made once and kept: whoever holds it does not start threads.
#[derive(Debug, Clone, Copy)]
pub(super) struct SingleThreaded(());

impl SingleThreaded {
    /// Counts the threads of this process; `None` if there is more than one.
    ///
    /// The link count of `/proc/self/task` is two plus the number of threads.
    pub(super) fn check() -> Result<Option<SingleThreaded>, Errno> {
        let tasks = statat(CWD, "/proc/self/task", AtFlags::empty())?;
        Ok((tasks.st_nlink == 3).then_some(SingleThreaded(())))
    }
}

/// Which side of [`clone_process`] the caller is.
#[derive(Debug)]
pub(super) enum Cloned {
    /// The original, with the copy's pid as seen here and a descriptor of the copy.
    Parent { pid: Pid, pidfd: OwnedFd },
    /// The copy.
    Child,
}

/// Copies this process, as fork(2) does, into new namespaces of the kinds `namespaces` names.
///
/// libc has no function for clone3(2), and its fork(2) cannot enter namespaces.
pub(super) fn clone_process(_: SingleThreaded, namespaces: c_int) -> Result<Cloned, Errno> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain integers, for which zero means "not asked for".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from((namespaces | libc::CLONE_PIDFD).cast_unsigned());
    arguments.pidfd = (&raw mut pidfd).addr() as u64;
    arguments.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    let size = size_of::<libc::clone_args>();
    // SAFETY: without CLONE_VM the copy has memory of its own, and no other thread existed that
    // could have held a lock. The kernel writes the descriptor to `pidfd`, which outlives the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size) };
    match check(pid)? {
        0 => Ok(Cloned::Child),
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::RANGE)?;
            // SAFETY: the kernel just made this descriptor for us and nobody else knows it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid, pidfd })
        }
    }
}

/// Moves this process into new namespaces of the kinds `namespaces` names.
pub(super) fn unshare(_: SingleThreaded, namespaces: c_int) -> Result<(), Errno> {
    // SAFETY: unshare touches no memory, and there is no other thread that could be parted from
    // what it shares with this one.
    check(c_long::from(unsafe { libc::unshare(namespaces) })).map(drop)
}

/// Replaces the program of this process; returns only if that failed.
///
/// std's and libc's `exec` run a file without `#!` as a shell script; the kernel does not.
pub(super) fn execute(program: &CString, arguments: &[CString], environment: &[CString]) -> Errno {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end in null and point at strings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    last_errno()
}

/// Ends this process at once: nothing is flushed, no destructor runs.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: _exit has no precondition.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor above standard error but `keep`.
///
/// For a fresh copy of a process, which must not hold what it does not know. Owners of the
/// descriptors may still exist as values in the copied memory: taking [`SingleThreaded`] and
/// being called from a function that never returns, they are never used again.
pub(super) fn close_all_but(_: SingleThreaded, keep: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: closing touches no memory; that nobody uses these descriptors any more is the
    // promise of `close_all_but`.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Changes attributes of the mount `tree` and of those below it, and makes them private.
///
/// `set` is a set of `MOUNT_ATTR_*`. With private propagation nothing mounted there later
/// shows up elsewhere, nor the other way round.
pub(super) fn set_mount_attributes(tree: BorrowedFd<'_>, set: u64) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: the path is an empty C string and the attributes have the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result).map(drop)
}

/// Makes the cgroups that this process is in the roots of those that it can see.
///
/// rustix has it, but calls it unsafe, since other kinds of namespaces would be.
pub(super) fn enter_cgroup_namespace() -> Result<(), Errno> {
    // SAFETY: what cgroups a process sees touches neither its memory nor its descriptors.
    check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }.into()).map(drop)
}

/// Enters a fresh, empty session keyring, so that the caller's keys cannot be searched.
pub(super) fn join_new_session_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    let name = std::ptr::null::<c_char>();
    // SAFETY: a null name asks for an anonymous keyring; nothing else is read.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) }).map(drop)
}

/// Moves the calling thread, and no other, into a new network namespace.
pub(super) fn enter_new_network_namespace() -> Result<(), Errno> {
    // SAFETY: unshare touches no memory. What is unsafe about it is a table of descriptors that
    // threads no longer share; that is not asked for.
    check(c_long::from(unsafe { libc::unshare(libc::CLONE_NEWNET) })).map(drop)
}

/// Has the kernel kill what `command` starts when the thread that starts it ends.
pub(super) fn end_with_this_thread(command: &mut Command) {
    // SAFETY: between fork and exec only prctl is called, which is safe after a fork.
    unsafe {
        command.pre_exec(|| {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL).into())
                .map(drop)
                .map_err(Into::into)
        });
    }
}

/// Brings the loopback interface of this network namespace up; `socket` is any socket in it.
pub(super) fn bring_loopback_up(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: ifreq is plain bytes and integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        (libc::IFF_UP | libc::IFF_RUNNING).try_into().expect("both flags are below 2^15");
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which `request` is.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    check(c_long::from(result)).map(drop)
}

/// Blocks every signal that can be blocked, to be taken by [`wait_for_signal`].
pub(super) fn block_signals() {
    // SAFETY: `all` is filled before it is read; a null third argument asks for nothing back.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

/// Waits for a blocked signal and returns its number.
pub(super) fn wait_for_signal() -> i32 {
    // SAFETY: `all` is filled before it is read; a null second argument asks for nothing back.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigwaitinfo(&raw const all, std::ptr::null_mut())
    }
}

/// How many signals Linux has; an eighth of it is the size of a set of them in bytes.
const SIGNALS: usize = 64;

/// Gives every signal its default action and unblocks all: what a program expects to start with.
///
/// The Rust runtime ignores SIGPIPE, and `nohup` SIGHUP; both would be inherited.
pub(super) fn reset_signals() {
    // All zero is the kernel's sigaction for the default action, on every architecture. libc's
    // own function refuses the two signals that it uses itself.
    let default = [0_u64; 8];
    let old = std::ptr::null_mut::<u64>();
    // SAFETY: default actions run no code of ours, and the kernel reads less than is there; the
    // set is emptied before it is read.
    unsafe {
        for signal in 1..=SIGNALS {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, SIGNALS / 8);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Sends the signal `number` to `process`.
///
/// For forwarding whatever came, real-time signals too, which [`rustix::process::Signal`] hides.
pub(super) fn send_signal(process: Pid, number: i32) {
    // SAFETY: kill has no memory precondition. That the process is gone is no error here.
    unsafe { libc::kill(process.as_raw_nonzero().get(), number) };
}

fn check(result: c_long) -> Result<c_long, Errno> {
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

fn last_errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
