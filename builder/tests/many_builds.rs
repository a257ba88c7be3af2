//! Many builds one after the other in one process, which then has what it had at the beginning.
//! `BOATYARD_FAULT_ROUNDS=1000` makes more of them than CI has.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]
#![expect(clippy::disallowed_methods, reason = "a developer chooses how many rounds there are")]

mod building;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use boatyard_content::local::disk::RealDisk;
use building::{build_on, context};

/// How many builds there are before anything is measured: what is made once is made then.
const FIRST: usize = 5;
/// Far less than each build keeping its largest file would be, and more than allocators keep.
const GROWTH_BYTES_MAX: u64 = 24 << 20;

fn count(directory: impl AsRef<Path>) -> usize {
    fs_err::read_dir(directory.as_ref()).map_or(0, Iterator::count)
}

/// Counts what a process can leave behind.
fn had(root: &Path) -> BTreeMap<&'static str, usize> {
    let mounts = fs_err::read_to_string("/proc/self/mounts").unwrap();
    let children = fs_err::read_dir("/proc/self/task").unwrap().map(|task| {
        let text = fs_err::read_to_string(task.unwrap().path().join("children"));
        text.unwrap_or_default().split_whitespace().count()
    });
    BTreeMap::from([
        ("descriptors", count("/proc/self/fd")),
        ("mounts below the root", mounts.matches(root.to_str().unwrap()).count()),
        ("processes", children.sum()),
        ("threads", count("/proc/self/task")),
        ("leases", count(root.join("leases"))),
        ("writes", count(root.join("ingest"))),
        ("snapshots", count(root.join("active/root"))),
    ])
}

/// Returns how much memory the process has.
fn memory() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() << 10
}

#[test]
fn many_builds_in_one_process_leave_it_as_it_was() {
    let rounds = std::env::var("BOATYARD_FAULT_ROUNDS").ok().and_then(|text| text.parse().ok());
    let directory = tempfile::tempdir().unwrap();
    let (context, root) = (context(directory.path()), directory.path().join("root"));
    let build = |round: usize| {
        // Some steps are found, and some made, in each of them.
        fs_err::write(context.join("b"), round.to_string()).unwrap();
        let c = (0..300_000_u64).map(|at| (at.wrapping_mul(round as u64 + 7) >> 5) as u8);
        fs_err::write(context.join("c"), c.collect::<Vec<u8>>()).unwrap();
        build_on(&root, Arc::new(RealDisk), &context).unwrap()
    };
    (0..FIRST).for_each(|round| drop(build(round)));
    let (before, memory_before) = (had(&root), memory());
    for round in 0..rounds.unwrap_or(30_usize).saturating_sub(FIRST) {
        build(FIRST + round);
    }
    assert_eq!(had(&root), before);
    let grown = memory().saturating_sub(memory_before);
    assert!(grown < GROWTH_BYTES_MAX, "it has {grown} bytes more");
}
