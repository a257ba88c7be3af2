//! The first process of a step, from its birth in new namespaces to its life as a reaper.
//!
//! The order matters, and follows what the field's runtimes learned:
//!
//! 1. tie our life to the helper's, close what is not ours, join the cgroups of our limits;
//! 2. a keyring, a network, a host name of our own;
//! 3. the file tree: all mounts, made by descriptor, then `pivot_root`;
//! 4. a second process, which gives up privileges and executes the command ([`command`]);
//! 5. reap and forward signals until the command ends ([`reaper`]).

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Signal, set_parent_process_death_signal, umask};
use rustix::system::sethostname;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{command, mounts, privileges, reaper, terminal};
use crate::execute::cgroup::Leaf;
use crate::execute::failure::{During, Failure};
use crate::execute::seccomp;
use crate::execute::spec::{Network, Spec};
use crate::execute::sys::{self, Cloned, SingleThreaded};
use crate::execute::wire::{self, Report, Request};

/// What the helper has for a step, beyond what was asked for.
pub(super) struct Means<'a> {
    /// The helper, to see whether it still is there.
    pub(super) helper: &'a OwnedFd,
    pub(super) filter: &'a seccomp::Program,
    /// The cgroups that enforce the step's limits.
    pub(super) leaf: Option<&'a Leaf>,
}

/// Returns the namespaces that a step has of its own from the start.
///
/// The roots of a namespace of cgroups are those that its maker is in: a step that is to join some
/// makes it later.
pub(in crate::execute) fn namespaces(network: Network, leaf: Option<&Leaf>) -> i32 {
    let mut all = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if leaf.is_none() {
        all |= libc::CLONE_NEWCGROUP;
    }
    match network {
        // The default one was made before, and is entered.
        Network::Host | Network::Default => all,
        Network::None => all | libc::CLONE_NEWNET,
    }
}

/// Sets a step up and sees it through, as the first process of its namespaces.
///
/// Never returns, so that nobody uses what was closed here.
pub(super) fn run(single: SingleThreaded, request: &Request, means: &Means<'_>) -> ! {
    let Err(failure) = begin(single, request, means);
    let _ = wire::send(&request.socket, &Report::Failed(failure));
    sys::exit(1)
}

fn begin(
    single: SingleThreaded,
    request: &Request,
    means: &Means<'_>,
) -> Result<Infallible, Failure> {
    live_no_longer_than(means.helper)?;
    close_foreign(single, request, means.helper)?;
    if let Some(leaf) = means.leaf {
        leaf.join()?;
        sys::enter_cgroup_namespace().during("make a namespace of", "cgroups")?;
    }
    let spec = request.spec.try_clone().map_err(|_| Errno::MFILE).during("read", "the spec")?;
    let mut spec: Spec = wire::from_memory(spec).during("read", "the spec")?;
    // Modes are given where things are made; the command's own mask is set when it starts.
    umask(Mode::empty());
    let keyring = sys::join_new_session_keyring();
    // Kernels without keyrings, and containers that deny them, have none to protect.
    if !matches!(keyring, Err(Errno::NOSYS | Errno::PERM)) {
        keyring.during("make", "a session keyring")?;
    }
    if let Some(namespace) = &request.namespace {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), kind).during("enter", "the step's network")?;
    }
    if spec.network == Network::None {
        loopback().during("bring up", "the loopback interface")?;
    }
    sethostname(spec.hostname.as_bytes()).during("set the host name to", &spec.hostname)?;
    mounts::enter(request, &mut spec, means.leaf)?;
    start(single, request, &spec, means.filter)
}

/// Has the kernel kill us when the helper ends.
fn live_no_longer_than(helper: &OwnedFd) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).during("watch", "the helper")?;
    // It may have ended before the kernel knew of our wish.
    let mut watched = [PollFd::new(helper, PollFlags::IN)];
    match poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))
        .during("watch", "the helper")?
    {
        0 => Ok(()),
        _ => sys::exit(1),
    }
}

/// Closes the helper's descriptors, among them those of other steps.
fn close_foreign(
    single: SingleThreaded,
    request: &Request,
    helper: &OwnedFd,
) -> Result<(), Failure> {
    let Request {
        heading: _,
        spec,
        socket,
        rootfs,
        stdout,
        stderr,
        namespace,
        guard: _,
        held: _,
        stdin,
        sources,
    } = request;
    let mut ours = vec![helper.as_fd()];
    ours.extend([spec, socket, rootfs, stdout, stderr].map(AsFd::as_fd));
    ours.extend(namespace.iter().chain(stdin).chain(sources).map(AsFd::as_fd));
    sys::close_all_but(single, &ours).during("close", "the helper's descriptors")
}

fn loopback() -> Result<(), Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sys::bring_loopback_up(socket.as_fd())
}

/// Starts the command as a second process, and becomes its reaper.
fn start(
    single: SingleThreaded,
    request: &Request,
    spec: &Spec,
    filter: &seccomp::Program,
) -> Result<Infallible, Failure> {
    let terminal = terminal::open(request, spec)?;
    sys::block_signals();
    match sys::clone_process(single, 0).during("start", "the command's process")? {
        Cloned::Child => {
            let Err(failure) = command::run(request, spec, terminal.as_ref(), filter);
            let _ = wire::send(&request.socket, &Report::Failed(failure));
            sys::exit(127)
        }
        Cloned::Parent { pid, pidfd: _ } => {
            rustix::stdio::dup2_stdout(rustix::stdio::stdin()).during("close", "our output")?;
            rustix::stdio::dup2_stderr(rustix::stdio::stdin()).during("close", "our output")?;
            sys::close_all_but(single, &[request.socket.as_fd()])
                .during("close", "the step's descriptors")?;
            privileges::keep_only_kill()?;
            reaper::run(pid, &request.socket)
        }
    }
}
