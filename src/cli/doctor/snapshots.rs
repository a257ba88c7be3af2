//! How the file systems of steps can be made where the root is.

use std::path::Path;

use boatyard_builder::execute::{Rung, userns};
use boatyard_builder::snapshot::{ViewKind, choose};

use super::{Finding, Section, in_one_line};

/// Tries the kinds of snapshots that fit a rung. It may move this process into a user namespace,
/// as a build would, so it has to come last.
pub(super) fn examine(root: &Path, rung: Rung) -> Section {
    let kinds: &[ViewKind] = match rung {
        Rung::Full | Rung::Userns => &ViewKind::ALL,
        Rung::Chroot => &[ViewKind::Copy],
    };
    Section { name: "File systems of steps, the best first", findings: findings(root, rung, kinds) }
}

fn findings(root: &Path, rung: Rung, kinds: &[ViewKind]) -> Vec<Finding> {
    let failed = |why: String| vec![Finding::bad("snapshots", why)];
    if rung == Rung::Userns
        && let Err(error) = userns::enter()
    {
        return failed(in_one_line(&error));
    }
    let there = root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let scratch = match tempfile::Builder::new().prefix(".new-doctor-").tempdir_in(there) {
        Ok(scratch) => scratch,
        Err(error) => return failed(error.to_string()),
    };
    match choose(scratch.path(), kinds) {
        Ok(choice) => {
            let refused = choice.refused.iter();
            let refused = refused.map(|(kind, why)| Finding::missing(name(*kind), why.clone()));
            refused
                .chain([Finding::good(name(choice.view.kind()), meaning(choice.view.kind()))])
                .collect()
        }
        Err(error) => failed(in_one_line(&error)),
    }
}

fn name(kind: ViewKind) -> &'static str {
    match kind {
        ViewKind::Root => "overlay (root)",
        ViewKind::User => "overlay (user)",
        ViewKind::Fuse => "fuse-overlayfs",
        ViewKind::Copy => "copies",
    }
}

fn meaning(kind: ViewKind) -> &'static str {
    match kind {
        ViewKind::Root => "the kernel's, with root's attributes",
        ViewKind::User => "the kernel's, in a user namespace",
        ViewKind::Fuse => "by a program: slower than the kernel",
        ViewKind::Copy => {
            "of the whole tree, for each step: slow unless the file system can share blocks"
        }
    }
}
