//! A terminal for the command, made in the step: its `/dev/pts` has it, and `tty` names it.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchown, openat};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

use crate::execute::failure::{During, Failure};
use crate::execute::spec::{Console, Spec};
use crate::execute::wire::{self, Report, Request};

/// Where new terminals are made: in the step's own `/dev`, which holds nothing of the image.
const MULTIPLEXER: &str = "/dev/pts/ptmx";
/// The group of terminals in every distribution.
const TTY: u32 = 5;

/// Makes the terminal that the step asks for, sends its other end to the builder, and returns the
/// command's. The root of this process must be the step's already.
pub(super) fn open(request: &Request, spec: &Spec) -> Result<Option<OwnedFd>, Failure> {
    if !matches!(spec.console, Console::Terminal) {
        return Ok(None);
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let far = openat(CWD, MULTIPLEXER, flags, Mode::empty()).during("open", MULTIPLEXER)?;
    unlockpt(&far).during("unlock", "the terminal")?;
    // By descriptor, not by name.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let near = ioctl_tiocgptpeer(&far, flags).during("open", "the terminal")?;
    let (owner, group) = (Uid::from_raw(spec.user.uid), Gid::from_raw(TTY));
    fchown(&near, Some(owner), Some(group)).during("give away", "the terminal")?;
    wire::send_with(&request.socket, &Report::Terminal, &[far.as_fd()])
        .during("hand over", "the terminal")?;
    Ok(Some(near))
}
