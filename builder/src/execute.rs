//! Runs the commands of a Dockerfile in a sandbox.
//!
//! ```text
//! builder (threads, tokio)      helper (one thread)          a step (namespaces of its own)
//! Executor::start ──execute──▶  init::main
//! Executor::run ───request───▶  copies itself ────────────▶  1: mounts, pivot_root; reaps
//!   ▲ ▲                                                       └ 2: drops privileges, executes
//!   │ └── Made, Failed, Exited ───────────────────────────────┘    the command
//!   └──── Gone ───────────────  waits for process 1
//! ```
//!
//! A [`Spec`] says what to run; the root arrives as a mount that the snapshotter made and that
//! is attached nowhere. What the step needs beyond the image (`/proc`, `/dev`, `resolv.conf`) is
//! mounted over it; nothing of that stays in the layer, see [`stubs`].
//!
//! Left out, with places kept for them: the seccomp filter (`init/command.rs`), a cgroup per step
//! (`init/step.rs`), and user namespaces (the builder enters one before all this).
//!
//! Needs Linux 5.12 for mount_setattr(2).

pub mod environment;
mod executor;
mod failure;
pub mod init;
mod network;
mod outcome;
pub mod rootfs;
mod spec;
pub mod stubs;
#[expect(unsafe_code, reason = "kernel calls that neither std nor rustix covers")]
mod sys;
pub mod user;
mod wire;

pub use executor::{CancelHandle, Execute, Executor, InitCommand, Output};
pub use failure::ExecuteError;
pub use network::{NetworkError, NetworkOptions, Networks, Ways};
pub use outcome::Outcome;
pub use spec::{
    DEFAULT_HOSTNAME, DEFAULT_SHM_SIZE, MountKind, Network, Resource, Rlimit, Security, Source,
    Spec, StepMount, User,
};
