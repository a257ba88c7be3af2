//! Where cgroups are mounted, and which of them are ours to have children.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{getpid, getppid};

use super::{OWN, put, words};

/// Which of the kernel's two kinds of cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// A hierarchy that is mounted where this process sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    /// Of v1 only: of v2, it depends on the cgroup.
    pub(super) controllers: Vec<String>,
    /// Where it is mounted.
    mount: PathBuf,
    /// Our own cgroup in it.
    own: PathBuf,
}

/// Reads `/proc/self/cgroup` and `/proc/self/mountinfo`.
pub(super) fn find(memberships: &str, mounts: &str) -> Vec<Hierarchy> {
    // `9:cpu,cpuacct:/path` of v1, `0::/path` of v2, `1:name=systemd:/path` of no controller.
    let own: BTreeMap<&str, &str> =
        memberships.lines().filter_map(|line| line.split_once(':')?.1.split_once(':')).collect();
    let mounted = mounts.lines().filter_map(Mount::parse).collect::<Vec<_>>();
    own.iter().filter_map(|(controllers, path)| hierarchy(controllers, path, &mounted)).collect()
}

fn hierarchy(controllers: &str, path: &str, mounted: &[Mount]) -> Option<Hierarchy> {
    let controllers: Vec<String> =
        controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let version = if controllers.is_empty() { Version::Two } else { Version::One };
    let mount = mounted.iter().find(|mount| match version {
        Version::Two => mount.kind == "cgroup2",
        Version::One => {
            mount.kind == "cgroup"
                && controllers.iter().all(|name| mount.options.split(',').any(|own| own == name))
        }
    })?;
    // In a container, the mount may show a part of the hierarchy that we are not in.
    let own = Path::new(path).strip_prefix(&mount.root).ok()?;
    let own = mount.point.join(own);
    Some(Hierarchy { version, controllers, mount: mount.point.clone(), own })
}

/// A line of `mountinfo`.
struct Mount {
    root: String,
    point: PathBuf,
    kind: String,
    options: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Mount> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?.to_owned(), PathBuf::from(place.next()?));
        let mut kind = kind.split(' ');
        let (kind, _source, options) = (kind.next()?.to_owned(), kind.next()?, kind.next()?);
        Some(Mount { root, point, kind, options: options.to_owned() })
    }
}

impl Hierarchy {
    /// Says whether it can enforce what the controller does.
    pub(super) fn has(&self, controller: &str) -> bool {
        match self.version {
            Version::One => self.controllers.iter().any(|own| own == controller),
            Version::Two => words(&self.mount.join("cgroup.controllers")).contains(controller),
        }
    }

    /// Returns the cgroups in which leaves may have been made, the nearest first.
    pub(super) fn parents(&self) -> impl Iterator<Item = &Path> {
        let above = if self.version == Version::One { 1 } else { usize::MAX };
        self.own.ancestors().take_while(|path| path.starts_with(&self.mount)).take(above)
    }

    /// Returns the nearest cgroup whose children can have all of `controllers`, or as many as any.
    ///
    /// In v1 that is our own. In v2 a cgroup has either processes or children with controllers, so
    /// it is our own only if nobody else is in it, and we move on into a child; else an ancestor,
    /// whose limits we are under in any case.
    ///
    /// # Errors
    ///
    /// If there is none that we may write to: with the reason of the last.
    pub(super) fn parent_for(&self, controllers: &[&str]) -> io::Result<PathBuf> {
        if self.version == Version::One {
            return Ok(self.own.clone());
        }
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        let (mut best, mut most) = (None, 0);
        for parent in self.parents() {
            if parent == self.own {
                make_room(parent);
            }
            let mut given = 0;
            for controller in controllers {
                match give_children(parent, controller) {
                    Ok(()) => given += 1,
                    Err(error) => last = error,
                }
            }
            if given > most {
                (best, most) = (Some(parent.to_owned()), given);
            }
            if given == controllers.len() {
                break;
            }
        }
        best.ok_or(last)
    }
}

/// Makes the controller one that children of `parent` have.
fn give_children(parent: &Path, controller: &str) -> io::Result<()> {
    let file = parent.join("cgroup.subtree_control");
    if !words(&file).contains(controller) {
        put(&file, &format!("+{controller}"))?;
    }
    // It may be there, and the directory not ours to write to.
    if rustix::fs::access(parent, rustix::fs::Access::WRITE_OK).is_err() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

/// Moves the builder and its helper into a child, if nobody else is in the cgroup.
///
/// That is how systemd delegates: a service or scope of its own, with us in it. If anything fails,
/// the cgroup is as before or no worse, and an ancestor is tried.
fn make_room(own: &Path) {
    let ours =
        [Some(getpid()), getppid()].map(|pid| pid.map(|pid| pid.as_raw_nonzero().to_string()));
    let members = words(&own.join("cgroup.procs"));
    // Moved already, by us or by an earlier helper of this builder.
    if own.ends_with(OWN) {
        return;
    }
    if members.is_empty() || !members.iter().all(|pid| ours.contains(&Some(pid.clone()))) {
        return;
    }
    let room = own.join(OWN);
    let _ = fs_err::create_dir(&room);
    for pid in members {
        let _ = put(&room.join("cgroup.procs"), &pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
25 1 0:23 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
26 25 0:24 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
27 25 0:25 /box /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory
28 25 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
29 25 0:27 /other /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
";

    #[test]
    fn finds_where_we_are() {
        let memberships = "12:pids:/box/a\n5:memory:/box/a\n4:cpu,cpuacct:/\n0::/user/b\n";
        let found = find(memberships, MOUNTS);
        let places: Vec<_> =
            found.iter().map(|h| (h.version, h.own.display().to_string())).collect();
        assert_eq!(
            places,
            [
                (Version::Two, "/sys/fs/cgroup/unified/user/b".to_owned()),
                (Version::One, "/sys/fs/cgroup/cpu,cpuacct/".to_owned()),
                (Version::One, "/sys/fs/cgroup/memory/a".to_owned()),
            ],
            "of pids, another part is mounted than the one that we are in"
        );
        assert!(found[1].has("cpu") && !found[1].has("memory"));
        assert!(find("", "").is_empty());
    }

    /// A directory that looks like one of v2, with this controller for its children.
    fn cgroup(path: &Path, members: &str, children_have: &str) {
        fs_err::create_dir_all(path).unwrap();
        fs_err::write(path.join("cgroup.procs"), members).unwrap();
        fs_err::write(path.join("cgroup.subtree_control"), children_have).unwrap();
    }

    #[test]
    fn leaves_go_where_children_have_the_controller() {
        let dir = tempfile::tempdir().unwrap();
        let hierarchy = |own: &str| Hierarchy {
            version: Version::Two,
            controllers: Vec::new(),
            mount: dir.path().to_owned(),
            own: dir.path().join(own),
        };
        cgroup(dir.path(), "1\n", "memory pids");
        cgroup(&dir.path().join("slice"), "", "memory");
        cgroup(&dir.path().join("slice/scope"), "1\n2\n", "");
        let scope = hierarchy("slice/scope");
        let parents: Vec<_> = scope.parents().map(Path::to_owned).collect();
        assert_eq!(
            parents,
            ["slice/scope", "slice", ""].map(|path| dir.path().join(path)),
            "nearest first, and not above the mount"
        );
        // A file takes what the kernel would refuse, so the scope serves here.
        assert_eq!(scope.parent_for(&["memory"]).unwrap(), dir.path().join("slice/scope"));
        let written = dir.path().join("slice/scope/cgroup.subtree_control");
        assert_eq!(fs_err::read_to_string(&written).unwrap(), "+memory");
        assert!(!dir.path().join("slice/scope").join(OWN).exists(), "others are in it");
        fs_err::remove_file(&written).unwrap();
        fs_err::create_dir(&written).unwrap();
        assert_eq!(scope.parent_for(&["memory"]).unwrap(), dir.path().join("slice"));
    }

    #[test]
    fn a_cgroup_that_is_ours_alone_is_left_for_a_child() {
        let dir = tempfile::tempdir().unwrap();
        cgroup(dir.path(), &format!("{}\n", std::process::id()), "");
        // The kernel would make the file with the directory.
        let room = dir.path().join(OWN);
        cgroup(&room, "", "");
        make_room(dir.path());
        let moved = fs_err::read_to_string(room.join("cgroup.procs")).unwrap();
        assert_eq!(moved, std::process::id().to_string());
        make_room(&room);
        assert!(!room.join(OWN).exists(), "once is enough");
    }
}
