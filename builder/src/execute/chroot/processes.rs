//! Finding and ending every process of a step that has no PID namespace.
//!
//! The helper is the step's subreaper: a process whose parent ends becomes its child, so whatever
//! the step started, and however often it forked or changed sessions, descends from the helper.
//! That is how it is found, in `/proc`. To end them all, they are stopped first, until no new one
//! shows up: what is stopped cannot fork.

use std::collections::HashSet;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, pidfd_send_signal, wait,
};

use crate::execute::sys::SignalQueue;

/// How often stopping is tried again before killing begins: a step may wake what we stopped.
const STOPS_MAX: usize = 16;
/// How long an ended process may take to show up before we look again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Ends all descendants of this process, and returns when none is left.
pub(super) fn end_all(signals: &SignalQueue) -> Result<(), Errno> {
    loop {
        let mut stopped = HashSet::new();
        for _ in 0..STOPS_MAX {
            let found = signal_descendants(Signal::STOP)?;
            let known = found.iter().all(|pid| stopped.contains(pid));
            stopped.extend(found);
            if known {
                break;
            }
        }
        signal_descendants(Signal::KILL)?;
        loop {
            match wait(WaitOptions::NOHANG) {
                Err(Errno::CHILD) => return Ok(()),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(errno) => return Err(errno),
            }
        }
        signals.clear();
        let again = Timespec::try_from(LOOK_AGAIN).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::new(signals, PollFlags::IN)], Some(&again)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Sends a signal to every descendant, and returns their ids.
fn signal_descendants(signal: Signal) -> Result<Vec<Pid>, Errno> {
    let found = descendants()?;
    for &pid in &found {
        // A number may have gone to a stranger since it was read. Held by a descriptor it cannot,
        // and whoever still has a parent of ours then is ours.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        let ours =
            parent_of(pid).is_some_and(|parent| parent == getpid() || found.contains(&parent));
        if ours {
            let _ = pidfd_send_signal(&process, signal);
        }
    }
    Ok(found)
}

/// Returns the processes that descend from this one.
fn descendants() -> Result<Vec<Pid>, Errno> {
    let mut processes = Vec::new();
    let entries = fs_err::read_dir("/proc").map_err(|error| errno(&error))?;
    for entry in entries {
        let entry = entry.map_err(|error| errno(&error))?;
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
        if let Some(parent) = parent_of(pid) {
            processes.push((pid, parent));
        }
    }
    let mut family = vec![getpid()];
    let mut index = 0;
    while let Some(&elder) = family.get(index) {
        let children = processes.iter().filter(|(_, parent)| *parent == elder);
        family.extend(children.map(|(pid, _)| *pid));
        index += 1;
    }
    family.remove(0);
    Ok(family)
}

/// Returns the parent of a process; `None` if it has ended.
fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = fs_err::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    parent_in(&stat)
}

/// Reads `PID (NAME) STATE PARENT ...`, whatever the name is.
fn parent_in(stat: &str) -> Option<Pid> {
    let (_, rest) = stat.rsplit_once(')')?;
    // Of the state, nothing is to be learned: a zombie may have threads that live.
    rest.split_ascii_whitespace().nth(1)?.parse().ok().and_then(Pid::from_raw)
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_a_parent() {
        let parent = |stat| parent_in(stat).map(|pid| pid.as_raw_nonzero().get());
        assert_eq!(parent("7 (sh) S 3 7 7 0 -1"), Some(3));
        assert_eq!(parent("7 (a) S 1 (b) R 4 7 7"), Some(4));
        assert_eq!(parent("7 (sh) Z 3 7 7 0 -1"), Some(3));
        assert_eq!(parent("1 (init) S 0 1 1 0 -1"), None);
        assert_eq!(parent(""), None);
    }
}
