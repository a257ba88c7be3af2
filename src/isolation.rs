//! What a command needs that works on unpacked layers: to be root, if only among ids of its own,
//! and a way to make snapshots.

use std::path::Path;

use boatyard_builder::execute::userns::{self, EnterError, Entered};
use boatyard_builder::snapshot::{Choice, ViewKind, choose};
use clap::ValueEnum;
use rustix::thread::CapabilitySet;

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

    /// Finds the way for a root.
    pub fn choose(self, root: &Path) -> Result<Choice> {
        choose(root, self.kinds()).context("cannot unpack layers here")
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
