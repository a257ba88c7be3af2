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
//!
//! An ordinary user's builder enters a user namespace before all this, see [`userns`].
//!
//! Needs Linux 5.12 for mount_setattr(2).

mod cgroup;
mod chroot;
pub mod emulation;
pub mod environment;
mod executor;
mod failure;
pub mod init;
pub mod ladder;
mod lazy;
mod network;
mod outcome;
pub mod rootfs;
mod seccomp;
mod spec;
pub mod stubs;
#[expect(unsafe_code, reason = "kernel calls that neither std nor rustix covers")]
mod sys;
pub mod user;
pub mod userns;
mod wire;

pub use chroot::ChrootExecutor;
pub use executor::{CancelHandle, Execute, Executor, InitCommand, Output};
pub use failure::ExecuteError;
pub use ladder::{Isolation, Refusal, Rung};
pub use lazy::LazyExecutor;
pub use network::{NetworkError, NetworkOptions, Networks, Ways};
pub use outcome::Outcome;
pub use spec::{
    Console, DEFAULT_HOSTNAME, DEFAULT_SHM_SIZE, Hidden, HostAddress, Limits, MountKind, Network,
    Resource, Rlimit, Security, Source, Spec, StepMount, User,
};
