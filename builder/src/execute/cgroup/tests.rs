//! Leaves of a helper that is dead.

use super::*;

#[test]
fn a_leaf_that_nobody_holds_is_removed_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let memberships = "0::/\n";
    let mounts = format!("1 1 0:1 / {} rw - cgroup2 cgroup2 rw\n", dir.path().display());
    let cgroups = Cgroups { hierarchies: hierarchy::find(memberships, &mounts), made: 0 };
    let [left, held, full, other] =
        ["boatyard-step-1-1", "boatyard-step-1-2", "boatyard-step-2-1", "docker"]
            .map(|name| dir.path().join(name));
    for path in [&left, &held, &full, &other] {
        fs_err::create_dir(path).unwrap();
    }
    fs_err::create_dir(full.join("child")).unwrap();
    let holder = lock(&held, FlockOperation::LockExclusive).unwrap();
    cgroups.sweep();
    assert_eq!([&left, &held, &full, &other].map(|path| path.exists()), [false, true, true, true]);
    drop(holder);
    cgroups.sweep();
    assert!(!held.exists());
}
