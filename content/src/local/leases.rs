//! The leases of running processes: `ROOT/leases/<process>/{owner,<n>}`.
//!
//! A process keeps `owner` locked as long as it lives, and the helpers that it starts inherit the
//! lock: the descriptor is not closed on exec. A directory whose `owner` nobody locks belonged to
//! a process that is gone; what its leases name is held no more.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use fs_err as fs;
use rustix::fs::FlockOperation;
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};

use crate::lease::{Holding, Lease};
use crate::local::durable::temporary_name;
use crate::local::layout::Layout;
use crate::local::lock::try_lock;
use crate::local::shelves::{entries, read_if_there};
use crate::store::{Doing as _, StoreError};

/// A process that has a root open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its process ID, in its own namespace.
    pub pid: u32,
    /// What it was started as.
    pub command: String,
    /// Since when.
    pub since: jiff::Timestamp,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (process {}, since {:.0})", self.command, self.pid, self.since)
    }
}

/// This process's directory of leases.
#[derive(Debug)]
pub(crate) struct Membership {
    directory: PathBuf,
    next: AtomicU64,
    /// Locked as long as it is open, here or in a helper.
    _owner: fs::File,
}

impl Membership {
    /// Makes the directory. It is locked before it has its name, so that nobody can take it for a
    /// dead process's.
    pub(crate) fn join(layout: &Layout, command: &str) -> Result<Membership, StoreError> {
        let member = Member {
            pid: std::process::id(),
            command: command.to_owned(),
            since: jiff::Timestamp::now(),
        };
        let staged = layout.leases().join(temporary_name());
        fs::create_dir_all(&staged).doing("create a directory of leases")?;
        let owner_path = staged.join("owner");
        let text = serde_json::to_vec(&member).expect("numbers and texts always serialise");
        fs::write(&owner_path, text).doing("write a lease's owner")?;
        let owner = fs::File::open(&owner_path).doing("open a lease's owner")?;
        try_lock(&owner, FlockOperation::NonBlockingLockExclusive)?;
        fcntl_setfd(&owner, FdFlags::empty()).doing("let helpers inherit a lease")?;
        let name = format!("{}-{}", member.pid, uuid::Uuid::new_v4().simple());
        let directory = layout.leases().join(name);
        fs::rename(&staged, &directory).doing("name a directory of leases")?;
        Ok(Membership { directory, next: AtomicU64::new(1), _owner: owner })
    }

    /// Begins a lease.
    pub(crate) fn lease(&self) -> Result<Lease, StoreError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(number.to_string());
        let file = fs::OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)
            .doing("begin a lease")?;
        Ok(Lease::in_file(file))
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // Leases that outlive the root in this process are void with it; nothing else is in there.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Returns the processes that are alive.
pub(crate) fn members(layout: &Layout) -> Result<Vec<Member>, StoreError> {
    let mut members = Vec::new();
    for directory in directories(layout)? {
        if is_alive(&directory)? {
            let owner = read_if_there(&directory.join("owner"))?.unwrap_or_default();
            members.extend(serde_json::from_slice::<Member>(&owner));
        }
    }
    Ok(members)
}

/// Returns all that living processes hold, and deletes what dead ones left.
pub(crate) fn holdings(layout: &Layout) -> Result<HashSet<Holding>, StoreError> {
    let mut holdings = HashSet::new();
    for directory in directories(layout)? {
        if is_alive(&directory)? {
            for lease in entries(&directory) {
                let path = lease?.path();
                if path.file_name().is_some_and(|name| name != "owner") {
                    let bytes = read_if_there(&path)?.unwrap_or_default();
                    holdings
                        .extend(String::from_utf8_lossy(&bytes).lines().filter_map(Holding::parse));
                }
            }
        } else {
            // A process that is joining keeps its directory locked from before it has this name.
            let _ = fs::remove_dir_all(&directory);
        }
    }
    Ok(holdings)
}

/// Returns the living processes that hold something.
pub(crate) fn who_holds(layout: &Layout, holding: &Holding) -> Result<Vec<Member>, StoreError> {
    let line = format!("{holding}\n");
    let mut members = Vec::new();
    for directory in directories(layout)? {
        let mut holds = false;
        for lease in entries(&directory) {
            let path = lease?.path();
            let text = read_if_there(&path)?.unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            holds |= text.split_inclusive('\n').any(|known| known == line);
        }
        if holds && is_alive(&directory)? {
            let owner = read_if_there(&directory.join("owner"))?.unwrap_or_default();
            members.extend(serde_json::from_slice::<Member>(&owner));
        }
    }
    Ok(members)
}

fn directories(layout: &Layout) -> Result<Vec<PathBuf>, StoreError> {
    entries(&layout.leases())
        .filter(|entry| {
            !entry.as_ref().is_ok_and(|entry| entry.file_name().as_encoded_bytes()[0] == b'.')
        })
        .map(|entry| entry.map(|entry| entry.path()))
        .collect()
}

fn is_alive(directory: &Path) -> Result<bool, StoreError> {
    match fs::File::open(directory.join("owner")) {
        Ok(owner) => Ok(!try_lock(&owner, FlockOperation::NonBlockingLockShared)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).doing("open a lease's owner"),
    }
}
