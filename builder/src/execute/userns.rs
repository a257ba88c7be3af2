//! Entering a user namespace: an ordinary user becomes root among ids of his own.
//!
//! ```text
//! uid_map of alice (1000), who has `alice:100000:65536` in /etc/subuid
//!     0     1000       1      root is herself: her files are hers, inside and outside
//!     1   100000   65536      everybody else of an image
//! ```
//!
//! The process itself goes: it keeps its pid, its terminal, its working directory and its
//! environment, signals reach it as before, and it ends with its own exit code. So it must have one
//! thread. Mounts get a namespace too, without which there is nothing to be root of.
//!
//! Mapping more than oneself takes privilege, which the set-uid programs `newuidmap` and
//! `newgidmap` have. They must run outside, so a copy of the process stays there until they are
//! done. Without them, or without subordinate ids, one id is mapped: see [`crate::ids`].

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd;
use std::process::Command;

use fs_err as fs;
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitId, WaitIdOptions, getegid, geteuid, getpid, waitid};

use super::sys::{self, Cloned, SingleThreaded};
use crate::ids;

/// How many ids images use: the highest that is common is `nobody`, 65534.
const IDS_WANTED: u32 = 65536;

/// How many ids the process has in the namespace that it entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// Those of files in an image.
    Many {
        /// How many, root among them.
        users: u32,
    },
    /// One: all files are root's.
    One {
        /// Why not more.
        reason: String,
    },
}

/// Why the process is in no namespace of its own.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// It has more than one thread.
    #[error("a user namespace must be entered before any thread is started")]
    Threads,
    /// The kernel refuses.
    #[error("this user may make no user namespace here")]
    Refused {
        /// Why.
        #[source]
        source: std::io::Error,
        /// What may be done about it.
        advice: &'static str,
    },
    /// The ids cannot be mapped.
    #[error("cannot map ids into a user namespace: {reason}")]
    Map {
        /// Why not.
        reason: String,
    },
    /// Something that the process needs for itself failed.
    #[error("cannot {action}")]
    Process {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// Enters a user namespace, and a mount namespace with it, in which this user is root.
///
/// # Errors
/// Where the kernel refuses; the process is then as it was. Where the ids cannot be mapped, it is
/// nobody in a namespace, and must end.
pub fn enter() -> Result<Entered, EnterError> {
    let single = SingleThreaded::check().during("count threads")?.ok_or(EnterError::Threads)?;
    let own = Own { uid: geteuid().as_raw(), gid: getegid().as_raw() };
    match Plan::new(own) {
        Ok(plan) => plan.enter(single, own),
        Err(reason) => {
            unshare(single)?;
            own.map_alone(reason)
        }
    }
}

/// Who this process is outside: inside, until ids are mapped, nobody can tell.
#[derive(Clone, Copy, Debug)]
struct Own {
    uid: u32,
    gid: u32,
}

impl Own {
    /// Maps this user alone, which takes no privilege but giving up setgroups(2) for ever.
    fn map_alone(self, reason: String) -> Result<Entered, EnterError> {
        let write = |file: &str, text: String| {
            fs::write(format!("/proc/self/{file}"), text)
                .map_err(|error| EnterError::Map { reason: format!("{reason}; {error}") })
        };
        write("setgroups", "deny".to_owned())?;
        write("gid_map", format!("0 {} 1\n", self.gid))?;
        write("uid_map", format!("0 {} 1\n", self.uid))?;
        Ok(Entered::One { reason })
    }
}

/// Makes the namespaces. They belong to whoever this process is.
fn unshare(single: SingleThreaded) -> Result<(), EnterError> {
    sys::unshare(single, libc::CLONE_NEWUSER | libc::CLONE_NEWNS)
        .map_err(|errno| EnterError::Refused { source: errno.into(), advice: advice(errno) })
}

/// Returns which of the kernel's switches may be the reason.
fn advice(errno: Errno) -> &'static str {
    let is = |path: &str, value: &str| {
        fs::read_to_string(path).is_ok_and(|content| content.trim() == value)
    };
    if is("/proc/sys/user/max_user_namespaces", "0") || errno == Errno::NOSPC {
        "root can allow them: sysctl user.max_user_namespaces=15000"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "root can allow them: sysctl kernel.unprivileged_userns_clone=1"
    } else if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "root can allow them: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    } else {
        "a container's seccomp filter forbids it: docker run --security-opt seccomp=unconfined"
    }
}

/// The maps to be made, and how.
struct Plan {
    uids: Map,
    gids: Map,
    /// With the rights of a root, no program is needed.
    is_root: bool,
}

impl Plan {
    /// Finds what may be mapped; or why that is one id.
    fn new(own: Own) -> Result<Plan, String> {
        if own.uid == 0 {
            let (uids, gids) = (Map::as_it_is(&ids::uid_map()), Map::as_it_is(&ids::gid_map()));
            return Ok(Plan { uids, gids, is_root: true });
        }
        for program in ["newuidmap", "newgidmap"] {
            // Without arguments it explains itself.
            if Command::new(program).output().is_err() {
                return Err(format!("{program} is not installed (Debian's package uidmap)"));
            }
        }
        let name = name_of(own.uid);
        let uids = Map::subordinate("/etc/subuid", name.as_deref(), own.uid, own.uid)?;
        let gids = Map::subordinate("/etc/subgid", name.as_deref(), own.uid, own.gid)?;
        Ok(Plan { uids, gids, is_root: false })
    }

    /// Makes the namespaces, and has a copy of this process make the maps from outside.
    fn enter(&self, single: SingleThreaded, own: Own) -> Result<Entered, EnterError> {
        let (go, begin) = pipe_with(PipeFlags::CLOEXEC).during("make a pipe")?;
        let (answer, tell) = pipe_with(PipeFlags::CLOEXEC).during("make a pipe")?;
        let process = getpid();
        let copy = sys::clone_process(single, 0).during("start the process that maps ids")?;
        let Cloned::Parent { pidfd: copy, .. } = copy else {
            drop((begin, answer));
            // No word comes if there is no namespace to map.
            if File::from(go).read_exact(&mut [0]).is_ok() {
                let failure = self.carry_out(process).err().unwrap_or_default();
                let _ = File::from(tell).write_all(failure.as_bytes());
            }
            sys::exit(0)
        };
        drop((go, tell));
        let unshared = unshare(single);
        if unshared.is_ok() {
            let _ = File::from(begin).write_all(b"!");
        } else {
            drop(begin);
        }
        let mut failure = String::new();
        let answered = File::from(answer).read_to_string(&mut failure);
        let _ = retry_on_intr(|| waitid(WaitId::PidFd(copy.as_fd()), WaitIdOptions::EXITED));
        unshared?;
        answered.map_err(|source| EnterError::Process { action: "map ids", source })?;
        if failure.is_empty() {
            return Ok(Entered::Many { users: self.uids.count() });
        }
        own.map_alone(failure)
    }

    /// Makes both maps of a process; outside of its namespace.
    fn carry_out(&self, process: Pid) -> Result<(), String> {
        for (program, file, map) in
            [("newgidmap", "gid_map", &self.gids), ("newuidmap", "uid_map", &self.uids)]
        {
            if self.is_root {
                let path = format!("/proc/{}/{file}", process.as_raw_nonzero());
                fs::write(path, map.lines()).map_err(|error| error.to_string())?;
            } else {
                map.hand_to(program, process)?;
            }
        }
        Ok(())
    }
}

/// Lines of a map: first id inside, first id outside, count.
#[derive(Debug, PartialEq, Eq)]
struct Map(Vec<(u32, u32, u32)>);

impl Map {
    /// Maps the ids that a map of this process has to themselves.
    fn as_it_is(map: &str) -> Map {
        Map(ids::ranges(map).into_iter().map(|(first, count)| (first, first, count)).collect())
    }

    /// Maps an id, and what a file says that the user may have beside it.
    fn subordinate(path: &str, name: Option<&str>, uid: u32, own: u32) -> Result<Map, String> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let ranges = subordinate(&text, name, uid);
        if ranges.is_empty() {
            let user = name.map_or_else(|| uid.to_string(), str::to_owned);
            return Err(format!("{path} has no line for {user}"));
        }
        Ok(Map::new(own, &ranges))
    }

    /// Maps an id to root, and the ranges to what follows, as many as an image may want.
    fn new(own: u32, ranges: &[(u32, u32)]) -> Map {
        let mut lines = vec![(0, own, 1)];
        let mut next = 1;
        for &(first, count) in ranges {
            let count = count.min(IDS_WANTED.saturating_sub(next - 1));
            if count > 0 {
                lines.push((next, first, count));
                next += count;
            }
        }
        Map(lines)
    }

    fn count(&self) -> u32 {
        self.0.iter().fold(0, |sum, (_, _, count)| count.saturating_add(sum))
    }

    fn lines(&self) -> String {
        let lines = self.0.iter().map(|(inside, outside, n)| format!("{inside} {outside} {n}\n"));
        lines.collect()
    }

    fn hand_to(&self, program: &str, process: Pid) -> Result<(), String> {
        let numbers = self.0.iter().flat_map(|&(inside, outside, n)| [inside, outside, n]);
        let output = Command::new(program)
            .arg(process.as_raw_nonzero().to_string())
            .args(numbers.map(|number| number.to_string()))
            .output()
            .map_err(|error| format!("{program}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{program} refused: {}", said.trim()))
    }
}

/// Returns the name of a user, if /etc/passwd has one.
fn name_of(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let mut accounts = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let account = accounts.find(|fields| fields.get(2).is_some_and(|id| *id == uid.to_string()))?;
    Some(account[0].to_owned())
}

/// subuid(5): `login name or UID:numerical subordinate user ID:numerical subordinate user ID count`.
///
/// Returns the ranges of a user, each with its first id and their number.
fn subordinate(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let user = fields.next()?;
        let is_mine = Some(user) == name || user == uid.to_string();
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (is_mine && count > 0).then_some((first, count))
    };
    text.lines().filter_map(range).collect()
}

trait During<T> {
    fn during(self, action: &'static str) -> Result<T, EnterError>;
}

impl<T> During<T> for Result<T, Errno> {
    fn during(self, action: &'static str) -> Result<T, EnterError> {
        self.map_err(|errno| EnterError::Process { action, source: errno.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "# a comment\nroot:1:2\nalice:100000:65536\n1000:300000:10\nalice:x:1\n";
        assert_eq!(subordinate(text, Some("alice"), 1000), [(100_000, 65536), (300_000, 10)]);
        assert_eq!(subordinate(text, None, 1000), [(300_000, 10)]);
        assert_eq!(subordinate(text, Some("bob"), 7), []);
    }

    #[test]
    fn a_map_begins_with_oneself_and_has_what_images_want() {
        let lines = |ranges: &[(u32, u32)]| Map::new(1000, ranges).lines();
        assert_eq!(lines(&[(100_000, 65536)]), "0 1000 1\n1 100000 65536\n");
        assert_eq!(lines(&[(5000, 10), (9000, 5)]), "0 1000 1\n1 5000 10\n11 9000 5\n");
        assert_eq!(
            lines(&[(1, 60000), (100_000, 60000), (900_000, 9)]),
            "0 1000 1\n1 1 60000\n60001 100000 5536\n"
        );
    }

    #[test]
    fn roots_map_is_what_it_has() {
        assert_eq!(Map::as_it_is("0 1000 1\n1 100000 65536").lines(), "0 0 1\n1 1 65536\n");
    }
}
