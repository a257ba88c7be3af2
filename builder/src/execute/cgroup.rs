//! Limits on what a step may use: memory, CPU time, processes.
//!
//! A step with a limit gets a cgroup of its own, a *leaf*, in each hierarchy that enforces one of
//! its limits: in the unified one (v2), or in those of controllers of old (v1), or some here and
//! some there. The helper makes the leaf, the step's first process joins it and takes it for the
//! root of its cgroup namespace, and the helper removes it when the step is gone.
//!
//! ```text
//! v2   an ancestor of ours, or our own, whose children have the controllers
//!      └── boatyard-step-4711-3        4711: the helper; 3: its third step with limits
//! v1   our own cgroup, in the hierarchy of each controller
//!      └── boatyard-step-4711-3
//! ```
//!
//! The helper keeps a leaf locked. One that is not locked has lost its helper, and with it, by
//! death signal, all processes: the next helper removes it. Nothing is ever killed through a
//! cgroup, since a step's processes end with its PID namespace.
//!
//! Where cgroups cannot be written, a limit is not in force, and that is said.

mod hierarchy;
mod setting;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;
use rustix::thread::{NanosleepRelativeResult, Timespec, nanosleep};

use super::failure::{During, Failure};
use super::spec::Limits;
use hierarchy::{Hierarchy, Version};
use setting::Setting;

const PREFIX: &str = "boatyard-step-";
/// What our own processes are moved into, so that a cgroup that is ours alone can have leaves.
const OWN: &str = "boatyard-builder";

/// How often, and how long in all, a leaf is tried to be removed: its last process may still be on
/// its way out when its end has already been told.
const REMOVALS_MAX: u32 = 100;
const REMOVAL_PAUSE_NS: i64 = 2_000_000;

/// The cgroups that this process can use.
#[derive(Debug)]
pub(super) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    made: u32,
}

/// The cgroups of one step. Dropping it removes nothing: see [`Leaf::remove`].
#[derive(Debug)]
pub(super) struct Leaf {
    parts: Vec<Part>,
}

/// A leaf in one hierarchy.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    version: Version,
    controllers: Vec<String>,
    /// Locked as long as this process lives.
    _lock: OwnedFd,
}

/// What became of the limits of a step.
#[derive(Debug)]
pub(super) struct Limited {
    /// `None` if no limit could be set at all.
    pub(super) leaf: Option<Leaf>,
    /// What is not limited, for people, and why not.
    pub(super) missing: Vec<(&'static str, String)>,
}

impl Cgroups {
    /// Finds them; without any of the kernel's files there are none.
    pub(super) fn find() -> Cgroups {
        let read = |path: &str| fs_err::read_to_string(path).unwrap_or_default();
        let hierarchies =
            hierarchy::find(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
        Cgroups { hierarchies, made: 0 }
    }

    /// Removes the leaves whose helpers are dead.
    pub(super) fn sweep(&self) {
        for parent in self.hierarchies.iter().flat_map(Hierarchy::parents) {
            // Whoever makes a leaf holds this until it has locked it.
            let Ok(_making) = lock(parent, FlockOperation::LockExclusive) else { continue };
            let Ok(children) = fs_err::read_dir(parent) else { continue };
            for child in children.flatten() {
                if child.file_name().to_string_lossy().starts_with(PREFIX) {
                    // Not empty, or somebody else was faster: it is not ours to remove.
                    let _ = lock(&child.path(), FlockOperation::NonBlockingLockExclusive)
                        .and_then(|_| rmdir(&child.path()));
                }
            }
        }
    }

    /// Makes cgroups that hold a step to its limits, as far as that can be done here.
    pub(super) fn leaf(&mut self, limits: &Limits) -> Result<Limited, Failure> {
        self.made += 1;
        let name = format!("{PREFIX}{}-{}", std::process::id(), self.made);
        let wanted = setting::controllers(limits);
        let mut leaf = Leaf { parts: Vec::new() };
        let mut reasons = BTreeMap::new();
        for hierarchy in &self.hierarchies {
            let here: Vec<&str> =
                wanted.iter().copied().filter(|name| hierarchy.has(name)).collect();
            if here.is_empty() {
                continue;
            }
            match hierarchy.parent_for(&here).and_then(|at| Part::make(&at, &name, hierarchy)) {
                Ok(part) => leaf.parts.push(part),
                Err(error) => reasons.extend(here.iter().map(|name| (*name, error.to_string()))),
            }
        }
        let mut missing = Vec::new();
        for controller in wanted {
            let what = setting::name(controller);
            match leaf.set(limits, controller) {
                Ok(true) => {}
                Ok(false) => {
                    let nowhere = || format!("there is no cgroup with the controller {controller}");
                    missing.push((what, reasons.remove(controller).unwrap_or_else(nowhere)));
                }
                Err(Trouble::Missing(reason)) => missing.push((what, reason)),
                // The limit itself is wrong: more CPUs than there are, less memory than it takes.
                Err(Trouble::Value(errno, value)) => {
                    leaf.remove();
                    return Err(errno).during(&format!("limit the {what} of the step to"), &value);
                }
            }
        }
        Ok(Limited { leaf: (!leaf.parts.is_empty()).then_some(leaf), missing })
    }
}

/// Why a limit is not set.
#[derive(Debug)]
enum Trouble {
    /// This machine does not let us; the reason is for people.
    Missing(String),
    /// The kernel does not take the value.
    Value(Errno, String),
}

impl Part {
    fn make(parent: &Path, name: &str, hierarchy: &Hierarchy) -> io::Result<Part> {
        let path = parent.join(name);
        let making = lock(parent, FlockOperation::LockExclusive)?;
        fs_err::create_dir(&path)?;
        let lock = lock(&path, FlockOperation::LockExclusive)?;
        drop(making);
        let controllers = match hierarchy.version {
            Version::One => hierarchy.controllers.clone(),
            Version::Two => words(&path.join("cgroup.controllers")).into_iter().collect(),
        };
        let part = Part { path, version: hierarchy.version, controllers, _lock: lock };
        part.inherit_cpus(parent);
        Ok(part)
    }

    /// A cpuset of old takes no process before it has CPUs and memory nodes.
    fn inherit_cpus(&self, parent: &Path) {
        if self.version == Version::One {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs_err::read_to_string(parent.join(file)) {
                    // If this fails, joining will tell.
                    let _ = put(&self.path.join(file), &value);
                }
            }
        }
    }

    fn set(&self, setting: &Setting) -> Result<(), Trouble> {
        let file = self.path.join(setting.file);
        let Err(error) = put(&file, &setting.value) else { return Ok(()) };
        match errno(&error) {
            // A kernel without accounting of swap limits memory all the same.
            Errno::NOENT | Errno::OPNOTSUPP if setting.optional => Ok(()),
            errno @ (Errno::INVAL | Errno::RANGE | Errno::NOSPC | Errno::BUSY) => {
                Err(Trouble::Value(errno, setting.value.clone()))
            }
            _ => Err(Trouble::Missing(error.to_string())),
        }
    }

    /// How many processes the kernel killed for want of memory; v2 and v1 call it alike.
    fn out_of_memory_kills(&self) -> u64 {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs_err::read_to_string(self.path.join(file)).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }
}

impl Leaf {
    /// Writes what the controller enforces; `false` if this leaf does not have the controller.
    fn set(&self, limits: &Limits, controller: &str) -> Result<bool, Trouble> {
        let has = |part: &&Part| part.controllers.iter().any(|own| own == controller);
        let Some(part) = self.parts.iter().find(has) else { return Ok(false) };
        let settings = setting::settings(limits, part.version);
        let mut ours = settings.iter().filter(|setting| setting.controller == controller);
        ours.try_for_each(|setting| part.set(setting)).map(|()| true)
    }

    /// Makes this process a member.
    pub(super) fn join(&self) -> Result<(), Failure> {
        for part in &self.parts {
            let file = part.path.join("cgroup.procs");
            let joined = put(&file, "0").map_err(|error| errno(&error));
            joined.during("join", &file.to_string_lossy())?;
        }
        Ok(())
    }

    /// Returns the v1 hierarchies that it is in, each by its controllers.
    pub(super) fn old_hierarchies(&self) -> impl Iterator<Item = &[String]> {
        let old = self.parts.iter().filter(|part| part.version == Version::One);
        old.map(|part| part.controllers.as_slice())
    }

    /// Says whether the kernel killed a member because the limit on memory was reached.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        self.parts.iter().any(|part| part.out_of_memory_kills() > 0)
    }

    /// Removes it, now that it has no member.
    ///
    /// If that cannot be done, the next helper will: there is nobody to tell.
    pub(super) fn remove(self) {
        for part in self.parts {
            for _ in 0..REMOVALS_MAX {
                match rmdir(&part.path) {
                    Err(Errno::BUSY) => pause(),
                    _ => break,
                }
            }
        }
    }
}

fn pause() {
    let mut left = Timespec { tv_sec: 0, tv_nsec: REMOVAL_PAUSE_NS };
    while let NanosleepRelativeResult::Interrupted(remaining) = nanosleep(&left) {
        left = remaining;
    }
}

fn lock(directory: &Path, operation: FlockOperation) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, directory, flags, Mode::empty())?;
    flock(&directory, operation)?;
    Ok(directory)
}

/// Writes to a file of the kernel's, which says that there is no such file rather than that none
/// can be made.
fn put(file: &Path, value: &str) -> io::Result<()> {
    fs_err::OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

fn rmdir(path: &Path) -> Result<(), Errno> {
    rustix::fs::rmdir(path)
}

fn words(file: &Path) -> BTreeSet<String> {
    let text = fs_err::read_to_string(file).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests;
