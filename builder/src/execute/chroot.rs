//! Steps without namespaces and without mounts: what an unprivileged container allows.
//!
//! Inside a container that docker started with its defaults, nothing can be mounted and no
//! namespace made; what is left are chroot(2), mknod(2), and the ids of the container. So a step
//! runs in a directory tree of its own ([`crate::snapshot`] makes it by copying), among the
//! container's processes and in its network: whatever the container may do, the step may do.
//!
//! ```text
//! builder                       helper, one per step (one thread)       the command
//! ChrootExecutor::run ─execute─▶ furnishes the tree ─────fork─────────▶ chroot, privileges,
//!   ▲                            adopts orphans, reaps                  executes
//!   └───── Exited, Gone ──────── kills what is left, clears the tree
//! ```
//!
//! What the other executor mounts is put into the tree here, and what the image has in its place
//! is set aside meanwhile ([`furniture`]): `/dev` with devices, or with what the helper plays
//! where none can be made ([`devices`]); `/proc` and `/sys` empty; `/etc/resolv.conf` and
//! `/etc/hosts`; the sources of read-only mounts, copied, and caches, which are moved there and back
//! ([`mounts`]). When the step is over all
//! of that goes, whatever became of it, and the image's own returns.
//!
//! Left out: a network, host name, limits on memory of the step's own, and a filter for system
//! calls. A step that asks for no network is refused; the rest is the container's.

mod devices;
mod furniture;
pub(super) mod helper;
mod mounts;
mod processes;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use super::executor::{CancelHandle, Execute, InitCommand, Output, Running, check_count};
use super::failure::ExecuteError;
use super::outcome::Outcome;
use super::spec::{Console, MountKind, Network, Spec, StepMount};
use super::wire;

/// What the helper is called with, after the arguments of its [`InitCommand`].
pub(super) const ROLE: &str = "chroot";

/// Runs steps in a directory, with no namespaces of their own; see the module.
///
/// The `rootfs` of [`Execute::run`] is a directory of a plain file system here. Its parent
/// belongs to the snapshot too, out of the step's sight: there the helper sets things aside.
#[derive(Debug)]
pub struct ChrootExecutor {
    init: InitCommand,
    /// What was said, and need not be said again.
    warned: Mutex<BTreeSet<&'static str>>,
}

impl ChrootExecutor {
    /// Returns an executor whose helpers are started by `init`.
    #[must_use]
    pub fn new(init: InitCommand) -> ChrootExecutor {
        ChrootExecutor { init, warned: Mutex::default() }
    }

    fn start_helper(&self, socket: OwnedFd) -> Result<Helper, ExecuteError> {
        Command::new(&self.init.program)
            .args(&self.init.args)
            .arg(ROLE)
            // A step can read the environment of any process around it.
            .env_clear()
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .spawn()
            .map(Helper)
            .map_err(|source| ExecuteError::Start { program: self.init.program.clone(), source })
    }
}

impl Execute for ChrootExecutor {
    fn run(
        &self,
        rootfs: OwnedFd,
        spec: &Spec,
        output: &mut dyn Output,
        cancel: &CancelHandle,
    ) -> Result<Outcome, ExecuteError> {
        if spec.network == Network::None {
            let wish = "be kept from the network".to_owned();
            return Err(ExecuteError::NoNamespaces { wish });
        }
        if matches!(spec.console, Console::Terminal) {
            let wish = "have a terminal of its own".to_owned();
            return Err(ExecuteError::NoNamespaces { wish });
        }
        if spec.network == Network::Default {
            let wish = "have a network of its own".to_owned();
            return Err(ExecuteError::NoNamespaces { wish });
        }
        let sources = sources(spec)?;
        for warning in warnings(spec) {
            if self.warned.lock().is_ok_and(|mut warned| warned.insert(warning)) {
                output.warning(warning);
            }
        }
        let (ours, theirs) = wire::pair().map_err(ExecuteError::builder("make a socket"))?;
        let helper = self.start_helper(theirs)?;
        let mut running = Running::start(ours.as_fd(), rootfs.as_fd(), None, spec, &sources)?;
        let waited = running.wait(output, cancel, spec.timeout);
        // The helper ends by itself after its last word, or when it sees the end of the socket.
        drop((ours, helper));
        waited.and_then(|()| running.outcome(None))
    }
}

/// A helper process, waited for when this is dropped.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        // Whether it ended well was said on the socket.
        let _ = self.0.wait();
    }
}

/// Returns what the mounts need: the helper copies it, or moves it into the tree and back.
fn sources(spec: &Spec) -> Result<Vec<OwnedFd>, ExecuteError> {
    check_count(spec)?;
    let mut sources = Vec::new();
    for StepMount { target, kind } in &spec.mounts {
        let wish = match kind {
            MountKind::Bind { read_only: false, .. } => Some("a writable mount"),
            MountKind::Part { .. } => Some("a part of a file system"),
            MountKind::Secret { .. } => Some("a secret as a file, which would lie on the disk,"),
            MountKind::Bind { .. } | MountKind::Kept { .. } | MountKind::Tmpfs { .. } => None,
        };
        if let Some(wish) = wish {
            let wish = format!("have {wish} at {target}");
            return Err(ExecuteError::NoNamespaces { wish });
        }
        let Some(source) = kind.source() else { continue };
        let source = source.descriptor();
        let source = source.ok_or_else(|| ExecuteError::NoSource { target: target.clone() })?;
        sources.push(source.try_clone_to_owned().map_err(|source| ExecuteError::Builder {
            operation: "keep the source of a mount",
            source,
        })?);
    }
    Ok(sources)
}

/// Returns what of a step's mounts is not as it was asked for.
fn warnings(spec: &Spec) -> Vec<&'static str> {
    let has = |is: fn(&MountKind) -> bool| spec.mounts.iter().any(|mount| is(&mount.kind));
    let mut warnings = Vec::new();
    if has(|kind| matches!(kind, MountKind::Tmpfs { .. })) {
        warnings.push(
            "file systems in memory are directories on the disk here, and their size is not \
             limited: steps without namespaces cannot mount any",
        );
    }
    if has(|kind| matches!(kind, MountKind::Kept { read_only: true, .. })) {
        warnings.push("read-only caches can be written to by steps without namespaces");
    }
    warnings
}
