//! The process that tries a rung: it does to itself what a step would need, and ends.

use std::error::Error as _;
use std::os::fd::AsFd;
use std::process::ExitCode;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{WaitId, WaitIdOptions, chroot, geteuid, waitid};
use rustix::thread::{CapabilitySet, capabilities};

use crate::execute::failure::{During, Failure};
use crate::execute::init::mounts::{INERT, file_system};
use crate::execute::init::step;
use crate::execute::ladder::Rung;
use crate::execute::spec::Network;
use crate::execute::sys::{self, Cloned, SingleThreaded};
use crate::execute::userns::{self, EnterError};
use crate::execute::wire::{self, Report};

/// What a step without namespaces cannot do without: to give files away, to become users, to end
/// what they run, and the call itself.
const CHROOT_NEEDS: [(CapabilitySet, &str); 7] = [
    (CapabilitySet::SYS_CHROOT, "CAP_SYS_CHROOT"),
    (CapabilitySet::CHOWN, "CAP_CHOWN"),
    (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
    (CapabilitySet::FOWNER, "CAP_FOWNER"),
    (CapabilitySet::SETUID, "CAP_SETUID"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
    (CapabilitySet::KILL, "CAP_KILL"),
];

/// Tries the rung that the third argument names, and tells on standard input how that went.
pub(in crate::execute) fn main() -> ExitCode {
    let name = std::env::args_os().nth(3);
    let rung = Rung::ALL.into_iter().find(|rung| name.as_deref() == Some(rung.name().as_ref()));
    let tried = match rung {
        Some(Rung::Full) => full(),
        Some(Rung::Userns) => userns(),
        Some(Rung::Chroot) => change_root(),
        None => return ExitCode::FAILURE,
    };
    let report = tried.map_or_else(Report::Failed, |()| Report::Ready);
    match wire::send(rustix::stdio::stdin(), &report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn full() -> Result<(), Failure> {
    need(&[(CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN")])?;
    namespaces_and_mounts()
}

fn userns() -> Result<(), Failure> {
    userns::enter().map_err(|error| Failure::Namespace { reason: in_one_line(&error) })?;
    namespaces_and_mounts()
}

fn in_one_line(error: &EnterError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn change_root() -> Result<(), Failure> {
    need(&CHROOT_NEEDS)?;
    // It is the root already, but the kernel asks for the right all the same.
    chroot("/").during("change the root to", "/")
}

fn need(capabilities_needed: &[(CapabilitySet, &str)]) -> Result<(), Failure> {
    let held = capabilities(None).during("read", "capabilities")?.effective;
    let lacks = |&(capability, _): &(CapabilitySet, &str)| !held.contains(capability);
    let missing: Vec<&str> =
        capabilities_needed.iter().copied().filter(lacks).map(|(_, name)| name).collect();
    match (missing.is_empty(), geteuid().is_root()) {
        (true, _) => Ok(()),
        (false, true) => Err(Failure::Lacking { what: missing.join(", ") }),
        (false, false) => Err(Failure::Lacking { what: "the rights of root".to_owned() }),
    }
}

/// Makes the namespaces of a step, and in them the mounts that are refused first.
fn namespaces_and_mounts() -> Result<(), Failure> {
    let single = SingleThreaded::check()
        .during("count the threads in", "/proc/self/task")?
        .ok_or(Failure::Threads)?;
    let (ours, theirs) = wire::pair().during("make", "a socket")?;
    let cloned = sys::clone_process(single, step::namespaces(Network::None));
    match cloned.during("make namespaces for", "a step")? {
        Cloned::Child => {
            let report = mounts().map_or_else(Report::Failed, |()| Report::Ready);
            let _ = wire::send(&theirs, &report);
            sys::exit(0)
        }
        Cloned::Parent { pidfd, .. } => {
            drop(theirs);
            let report = wire::receive(&ours);
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            match report.during("hear from", "the process in the namespaces")? {
                Some(Report::Ready) => Ok(()),
                Some(Report::Failed(failure)) => Err(failure),
                _ => Err(Errno::PIPE).during("hear from", "the process in the namespaces"),
            }
        }
    }
}

fn mounts() -> Result<(), Failure> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .during("make private", "the mounts")?;
    for kind in ["tmpfs", "proc"] {
        let mounted = file_system(kind, &[], INERT).during("mount", kind)?;
        sys::set_mount_attributes(mounted.as_fd(), libc::MOUNT_ATTR_RDONLY)
            .during("make read-only", kind)?;
    }
    Ok(())
}
