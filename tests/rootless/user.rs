//! An ordinary user that a test makes, and whose processes and files are gone when it ends.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use crate::support::place::text;
use crate::support::{Place, Run};

/// The first of the ids that users are given beside their own; far from what machines use.
const SUBORDINATE_FIRST: u32 = 1_000_000_000;
const SUBORDINATE_COUNT: u32 = 65536;

/// Binds a `/dev/fuse` that everybody may open, as udev makes it, in a mount namespace of its own.
const WITH_FUSE: &str = "
mount -t tmpfs nodes /mnt
mknod -m 666 /mnt/fuse c 10 229
mount --bind /mnt/fuse /dev/fuse
exec \"$@\"";

/// A user.
pub struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: PathBuf,
    program: PathBuf,
}

impl User {
    /// Makes a user who has subordinate ids.
    pub fn with_subordinate_ids(place: &Place) -> User {
        let user = User::without_subordinate_ids(place);
        let first = SUBORDINATE_FIRST + user.uid * SUBORDINATE_COUNT;
        let range = format!("{first}-{}", first + SUBORDINATE_COUNT - 1);
        Run::new("usermod")
            .args(["--add-subuids", &range, "--add-subgids", &range])
            .arg(&user.name)
            .ok();
        user
    }

    /// Makes a user whose id is the only one.
    pub fn without_subordinate_ids(place: &Place) -> User {
        let name = format!("by-{}", std::process::id());
        // A system's user is given no subordinate ids by itself.
        Run::new("useradd")
            .args(["--system", "--no-create-home", "--shell", "/bin/sh", &name])
            .ok();
        let id =
            |which: &str| Run::new("id").args([which, name.as_str()]).ok().text().parse().unwrap();
        let (uid, gid) = (id("-u"), id("-g"));
        let home = place.path("user");
        fs_err::create_dir(&home).unwrap();
        chown(&home, Some(uid), Some(gid)).unwrap();
        // The place is closed to others, and so may be the directory of the tests' programs.
        open(place.path("").as_path());
        let program = place.path("boatyard");
        fs_err::copy(env!("CARGO_BIN_EXE_boatyard"), &program).unwrap();
        User { name, uid, gid, home, program }
    }

    /// Returns Boatyard's root, where it is if nobody says.
    pub fn root(&self) -> PathBuf {
        self.home.join(".local/share/boatyard")
    }

    /// Returns our command, ready to be run by the user.
    pub fn boatyard<const N: usize>(&self, args: [&str; N]) -> Run {
        self.run(text(&self.program), args)
    }

    /// Returns our command, where every user may use FUSE.
    pub fn boatyard_with_fuse<const N: usize>(&self, args: [&str; N]) -> Run {
        let shell = ["--mount", "sh", "-c", WITH_FUSE, "sh"];
        Run::new("unshare").args(shell).args(self.line()).arg(&self.program).args(args)
    }

    /// Returns what `shell` runs of the command line that is added to it: our command, run by the
    /// user.
    pub fn boatyard_in<const N: usize>(&self, shell: Run, args: [&str; N]) -> Run {
        shell.args(self.line()).arg(&self.program).args(args).current_dir(&self.home)
    }

    /// Returns a program, ready to be run by the user.
    pub fn run<const N: usize>(&self, program: &str, args: [&str; N]) -> Run {
        let [become_user, line @ ..] = &self.line()[..] else { unreachable!("it is not empty") };
        Run::new(become_user).args(line).arg(program).args(args).current_dir(&self.home)
    }

    /// Becomes the user, with an environment that says nothing else.
    fn line(&self) -> Vec<String> {
        let (uid, gid, home) = (self.uid, self.gid, self.home.display());
        let words =
            ["setpriv", "--clear-groups", "--reuid", "--regid", "env", "--ignore-environment"];
        let [setpriv, groups, reuid, regid, env, empty] = words.map(str::to_owned);
        let path = "PATH=/usr/local/bin:/usr/bin:/bin".to_owned();
        let (reuid, regid) = (format!("{reuid}={uid}"), format!("{regid}={gid}"));
        vec![setpriv, groups, reuid, regid, env, empty, format!("HOME={home}"), path]
    }

    /// Returns the command lines of all processes that are the user's, or of a subordinate id.
    pub fn processes(&self) -> Vec<String> {
        let first = SUBORDINATE_FIRST + self.uid * SUBORDINATE_COUNT;
        let own = |uid: u32| uid == self.uid || (first..first + SUBORDINATE_COUNT).contains(&uid);
        let mut found = Vec::new();
        for entry in fs_err::read_dir("/proc").unwrap() {
            let path = entry.unwrap().path();
            // One that ends meanwhile is none.
            let Ok(status) = fs_err::read_to_string(path.join("status")) else { continue };
            let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or("");
            if uids.split_whitespace().any(|uid| uid.parse().is_ok_and(own)) {
                let line = fs_err::read(path.join("cmdline")).unwrap_or_default();
                found.push(String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
        found
    }
}

impl Drop for User {
    fn drop(&mut self) {
        Run::new("userdel").arg(&self.name).run();
    }
}

fn open(directory: &Path) {
    fs_err::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
}
