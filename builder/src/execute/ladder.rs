//! The ways in which steps can be isolated, and which of them this machine allows.
//!
//! ```text
//! full     namespaces and mounts, as root                         what it should be
//! userns   the same, in a user namespace of our own               an ordinary user; podman's containers
//! chroot   a directory, and nothing else of its own               docker's containers, pods
//! ```
//!
//! Whether a rung holds is found by standing on it: a process of its own makes the namespaces and
//! mounts that a step would get, and says what was refused. Nothing is guessed from versions and
//! settings; those explain a refusal to a person, and that is `doctor`'s affair.

pub(super) mod probe;

use std::fmt;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::str::FromStr;

use super::executor::InitCommand;
use super::failure::ExecuteError;
use super::wire::{self, Report};

/// What the helper is called with, after the arguments of its [`InitCommand`].
pub(super) const ROLE: &str = "probe";

/// A way to isolate steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// A directory of its own, among the processes and in the network of the caller.
    Chroot,
    /// As [`Rung::Full`], in a user namespace of our own.
    Userns,
    /// Mount, PID, IPC, UTS, cgroup and network namespaces, as root.
    Full,
}

impl Rung {
    /// All of them, the best first.
    pub const ALL: [Rung; 3] = [Rung::Full, Rung::Userns, Rung::Chroot];

    /// Returns the name by which a person asks for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Rung::Full => "full",
            Rung::Userns => "userns",
            Rung::Chroot => "chroot",
        }
    }

    /// Tries it, in a process of its own.
    ///
    /// # Errors
    ///
    /// What was refused first, or that the process cannot be started.
    pub fn try_out(self, init: &InitCommand) -> Result<(), ExecuteError> {
        let (ours, theirs) = wire::pair().map_err(ExecuteError::builder("make a socket"))?;
        let mut probe = Command::new(&init.program)
            .args(&init.args)
            .args([ROLE, self.name()])
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|source| ExecuteError::Start { program: init.program.clone(), source })?;
        let report = wire::receive(ours.as_fd());
        // What it has to say was said.
        let _ = probe.wait();
        match report {
            Ok(Some(Report::Ready)) => Ok(()),
            Ok(Some(Report::Failed(failure))) => Err(failure.into()),
            _ => Err(ExecuteError::HelperDied),
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How steps are to be isolated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// As well as can be.
    #[default]
    Auto,
    /// In this way, or not at all.
    Only(Rung),
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Isolation::Auto => f.write_str("auto"),
            Isolation::Only(rung) => rung.fmt(f),
        }
    }
}

/// There is no such way.
#[derive(Debug, thiserror::Error)]
#[error("there is no isolation `{0}`: use auto, full, userns or chroot")]
pub struct UnknownIsolation(String);

impl FromStr for Isolation {
    type Err = UnknownIsolation;

    fn from_str(text: &str) -> Result<Isolation, UnknownIsolation> {
        if text == "auto" {
            return Ok(Isolation::Auto);
        }
        let rung = Rung::ALL.into_iter().find(|rung| rung.name() == text);
        rung.map(Isolation::Only).ok_or_else(|| UnknownIsolation(text.to_owned()))
    }
}

/// A way that was refused, and why.
#[derive(Debug)]
pub struct Refusal {
    /// The way.
    pub rung: Rung,
    /// What was refused.
    pub why: ExecuteError,
}

impl Isolation {
    /// Finds the best way that works here, of those allowed.
    ///
    /// # Errors
    ///
    /// Why each of them does not.
    pub fn choose(self, init: &InitCommand) -> Result<Rung, Vec<Refusal>> {
        let mut refusals = Vec::new();
        for rung in Rung::ALL {
            if matches!(self, Isolation::Only(only) if only != rung) {
                continue;
            }
            match rung.try_out(init) {
                Ok(()) => return Ok(rung),
                Err(why) => refusals.push(Refusal { rung, why }),
            }
        }
        Err(refusals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_asked_for_by_its_name() {
        for rung in Rung::ALL {
            assert_eq!(rung.name().parse::<Isolation>().unwrap(), Isolation::Only(rung));
        }
        assert_eq!("auto".parse::<Isolation>().unwrap(), Isolation::Auto);
        assert_eq!(
            "strong".parse::<Isolation>().unwrap_err().to_string(),
            "there is no isolation `strong`: use auto, full, userns or chroot"
        );
    }
}
