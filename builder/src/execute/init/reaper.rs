//! What the first process of a step does while the command runs.
//!
//! Orphans become its children; without it they would stay zombies, and a command that waits
//! for "all processes but mine" would wait for ever. What is sent to it is meant for the command.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

use crate::execute::sys;
use crate::execute::wire::{self, Report};

/// Reaps until `command` ends, reports how, and exits.
///
/// With our exit the kernel kills what the command left running. All signals are blocked.
pub(super) fn run(command: Pid, socket: &OwnedFd) -> ! {
    loop {
        match sys::wait_for_signal() {
            libc::SIGCHLD => {
                if let Some(report) = reap(command) {
                    let _ = wire::send(socket, &report);
                    sys::exit(0)
                }
            }
            // An interrupted wait.
            number if number < 0 => {}
            number => sys::send_signal(command, number),
        }
    }
}

/// Takes all ended children off the process table; tells if the command was one of them.
pub(in crate::execute) fn reap(command: Pid) -> Option<Report> {
    let mut report = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == command {
            report = ending(status);
        }
    }
    report
}

fn ending(status: WaitStatus) -> Option<Report> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(Report::Exited(code)),
        (None, Some(signal)) => Some(Report::Signaled(signal)),
        (None, None) => None,
    }
}
