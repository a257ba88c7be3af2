//! What a command needs that works on unpacked layers: to be root, if only among ids of its own,
//! and a way to make snapshots; and what it needs to run steps: a way to isolate them.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use boatyard_builder::execute::userns::{self, EnterError, Entered};
use boatyard_builder::execute::{
    ChrootExecutor, Execute, ExecuteError, InitCommand, Isolation, LazyExecutor, Networks, Refusal,
    Rung,
};
use boatyard_builder::snapshot::{Choice, View, ViewKind, choose};
use clap::ValueEnum;
use rustix::fs::{Gid, Uid};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::report::{self, Context as _, Failure, Result};

/// How snapshots are made, as it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Snapshots {
    /// The best way that works.
    #[default]
    Auto,
    /// The kernel's overlays.
    Overlay,
    /// The program fuse-overlayfs.
    FuseOverlayfs,
    /// Copies of whole trees: they need nothing, and take time and space.
    Copy,
}

impl Snapshots {
    fn kinds(self) -> &'static [ViewKind] {
        match self {
            Snapshots::Auto => &ViewKind::ALL,
            Snapshots::Overlay => &[ViewKind::Root, ViewKind::User],
            Snapshots::FuseOverlayfs => &[ViewKind::Fuse],
            Snapshots::Copy => &[ViewKind::Copy],
        }
    }

    /// Finds the way for a root, and for steps that are isolated so.
    pub fn choose(self, root: &Path, rung: Rung) -> Result<Choice> {
        let kinds = match rung {
            Rung::Full | Rung::Userns => self.kinds(),
            // It can mount nothing.
            Rung::Chroot => &[ViewKind::Copy],
        };
        let failed = || format!("cannot unpack layers in {}", root.display());
        let choice = choose(root, kinds).context(failed())?;
        Ok(match rung {
            Rung::Full | Rung::Userns => choice,
            Rung::Chroot => Choice { view: View::unmounted(), ..choice },
        })
    }
}

/// Finds the way in which steps are isolated, and becomes whoever it takes.
///
/// To be called before any thread is started. The weakest way is taken in silence only by those who
/// named it.
pub fn isolate(wanted: Isolation) -> Result<Rung> {
    let rung = wanted.choose(&InitCommand::of_this_program()).map_err(|refusals| {
        let hint = "`boatyard doctor` says what this machine allows, and what to do about it";
        let failure = Failure::new(match wanted {
            Isolation::Auto => "there is no way to isolate build steps here".to_owned(),
            Isolation::Only(rung) => format!("--isolation={rung} is not possible here"),
        });
        failure.because(Refused(refusals)).hint(hint)
    })?;
    match rung {
        Rung::Full => {}
        Rung::Userns => become_root_of_a_namespace()?,
        Rung::Chroot if wanted == Isolation::Auto => report::warn(
            "build steps are not isolated from this container: they see its processes and use its \
             network, and have no /proc (--isolation=chroot says that this is meant; `boatyard \
             doctor` says what more would take)",
        ),
        Rung::Chroot => {}
    }
    Ok(rung)
}

/// Why nothing of what was asked for is possible.
#[derive(Debug)]
struct Refused(Vec<Refusal>);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = |Refusal { rung, why }: &Refusal| format!("{rung}: {}", in_one_line(why));
        f.write_str(&self.0.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}

impl std::error::Error for Refused {}

/// Returns an error with its cause, in one line.
pub fn in_one_line(error: &ExecuteError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Tells whether steps that are isolated so can have networks of their own.
pub fn has_networks(rung: Rung) -> bool {
    match rung {
        Rung::Full | Rung::Userns => true,
        Rung::Chroot => false,
    }
}

/// Returns what runs steps that are isolated so.
pub fn executor(rung: Rung, networks: &Networks) -> Box<dyn Execute> {
    let init = InitCommand::of_this_program();
    match rung {
        Rung::Full | Rung::Userns => {
            Box::new(LazyExecutor::new(init).with_networks(networks.clone()))
        }
        Rung::Chroot => Box::new(ChrootExecutor::new(init)),
    }
}

/// Makes an ordinary user root in a user namespace; whoever is root already stays where he is.
///
/// To be called before any thread is started. It says what will be different with one id alone.
pub fn become_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        if !may_mount() {
            // Where even a namespace is refused, what can be done without one is still tried.
            let _ = userns::enter();
        }
        return Ok(());
    }
    become_root_of_a_namespace()
}

fn become_root_of_a_namespace() -> Result<()> {
    match userns::enter() {
        Ok(Entered::Many { .. }) => Ok(()),
        Ok(Entered::One { reason }) => {
            report::warn(&format!(
                "{reason}: with one user id, every file of an image is root's, and USER changes \
                 nothing"
            ));
            Ok(())
        }
        Err(error) => {
            let advice = match &error {
                EnterError::Refused { advice, .. } => *advice,
                _ => "run it as root",
            };
            Err(Failure::new("cannot work with unpacked layers as this user")
                .because(error)
                .hint(advice))
        }
    }
}

fn may_mount() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|held| held.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Where a user is at home, and who that is.
#[derive(Debug)]
pub struct Account {
    uid: u32,
    gid: u32,
    /// The home directory.
    pub home: PathBuf,
}

impl Account {
    /// Returns who owns a root that root is about to work on; `None` if that is root, nobody that
    /// this machine knows, or if there is no root yet.
    pub fn of_root(root: &Path) -> Option<Account> {
        let owner = fs_err::metadata(root.join("version")).ok()?.uid();
        if owner == 0 {
            return None;
        }
        // passwd(5): name:password:UID:GID:comment:home:shell
        let passwd = fs_err::read_to_string("/etc/passwd").ok()?;
        let account = |line: &str| {
            let fields: Vec<_> = line.split(':').collect();
            let (uid, gid) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
            let home = PathBuf::from(fields.get(5)?);
            (uid == owner).then_some(Account { uid, gid, home })
        };
        passwd.lines().find_map(account)
    }

    /// Becomes this user for good: what root wrote below another's root, that user could not
    /// remove. To be called before any thread is started.
    pub fn enter(&self) -> Result<()> {
        let enter = || {
            set_thread_groups(&[])?;
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)?;
            // Else /proc/self would be root's, and newuidmap would refuse.
            set_dumpable_behavior(DumpableBehavior::Dumpable)
        };
        let uid = self.uid;
        enter().map_err(|errno| {
            Failure::new(format!("cannot become uid {uid}, who owns the root"))
                .because(std::io::Error::from(errno))
                .hint("run it as that user, or name a directory of your own with --root")
        })
    }
}
