//! The user and group ids that this process can give to files.
//!
//! An image's files belong to many. In the initial user namespace root can give a file to anybody;
//! in another one, to whom the namespace maps; without subordinate ids that is one user alone, and
//! then every file of an image is root's. That is part of what a layer is: it goes into cache keys,
//! and trees of one map are no trees of another.

use std::fmt::Write as _;

use fs_err as fs;
use rustix::thread::CapabilitySet;

const UID_MAP: &str = "/proc/self/uid_map";
const GID_MAP: &str = "/proc/self/gid_map";
/// The map of the initial user namespace.
const EVERYBODY: &str = "0 0 4294967295";

/// Reports whether owners cannot be kept: all files are made root's.
///
/// It is asked once per build, after the process entered the namespace that it works in.
pub fn is_single() -> bool {
    let may_give = rustix::thread::capabilities(None)
        .is_ok_and(|held| held.effective.contains(CapabilitySet::CHOWN));
    !may_give || is_of_one(&map(UID_MAP)) || is_of_one(&map(GID_MAP))
}

/// Returns a short name for the maps of this process; `None` where ids are as they are.
pub(crate) fn map_name() -> Option<String> {
    let (uids, gids) = (map(UID_MAP), map(GID_MAP));
    if uids == EVERYBODY && gids == EVERYBODY {
        return None;
    }
    let hash = blake3::hash(format!("{uids}\n{gids}").as_bytes());
    Some(hash.to_hex()[..8].to_owned())
}

/// Returns the ids that a map of this process, `uid_map` or `gid_map`, holds: first and count.
pub(crate) fn ranges(map: &str) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut numbers = line.split(' ').map(str::parse);
        let first = numbers.next()?.ok()?;
        Some((first, numbers.nth(1)?.ok()?))
    };
    map.lines().filter_map(range).collect()
}

/// Reads a map, with one space between its numbers; empty where there is none.
fn map(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut clean = String::new();
    for line in text.lines() {
        let numbers: Vec<_> = line.split_whitespace().collect();
        // Writing to a string cannot fail.
        let _ = writeln!(clean, "{}", numbers.join(" "));
    }
    clean.trim_end().to_owned()
}

/// Returns this process's map of user ids.
pub(crate) fn uid_map() -> String {
    map(UID_MAP)
}

/// Returns this process's map of group ids.
pub(crate) fn gid_map() -> String {
    map(GID_MAP)
}

fn is_of_one(map: &str) -> bool {
    let ranges = ranges(map);
    !ranges.is_empty() && ranges.iter().map(|(_, count)| u64::from(*count)).sum::<u64>() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_id_is_single_and_more_are_not() {
        assert!(is_of_one("0 1000 1"));
        for more in ["0 1000 1\n1 100000 65536", EVERYBODY, ""] {
            assert!(!is_of_one(more), "{more}");
        }
        assert_eq!(ranges("0 1000 1\n1 100000 65536"), [(0, 1), (1, 65536)]);
    }
}
