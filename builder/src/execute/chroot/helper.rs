//! The helper of one step: it furnishes the tree, runs the command in it, and clears both away.
//!
//! 1. leave the builder's session, adopt the orphans to come, queue signals;
//! 2. put into the tree what the step needs;
//! 3. copy ourselves; the copy makes the tree its root, gives up privileges, executes the command;
//! 4. reap until the command ends, the builder shuts the socket, or the builder is gone;
//! 5. end every process of the step, then take everything of ours out of the tree.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{
    DumpableBehavior, Pid, Signal, chdir, chroot, fchdir, getpid, getppid, set_child_subreaper,
    set_dumpable_behavior, set_parent_process_death_signal, setsid, umask,
};
use rustix::system::uname;
use rustix::thread::set_name;

use super::devices::{self, Played};
use super::furniture::Furniture;
use super::{mounts, processes};
use crate::execute::environment;
use crate::execute::failure::{During, Failure};
use crate::execute::init::{self, command, files, privileges, reaper};
use crate::execute::rootfs::{self, Kind};
use crate::execute::spec::Spec;
use crate::execute::sys::{self, SignalQueue, SingleThreaded};
use crate::execute::wire::{self, Report, Request};

/// Runs one step, which is asked for on standard input, and ends.
pub(in crate::execute) fn main() -> ExitCode {
    let Ok(Some((single, request))) = receive() else {
        // The builder sees the socket's end, and reports that.
        return ExitCode::FAILURE;
    };
    let report = match carry_out(single, &request) {
        Ok(ending) => ending,
        Err(failure) => Some(Report::Failed(failure)),
    };
    // If the builder is gone, there is nobody to tell.
    if let Some(report) = report {
        let _ = wire::send(&request.socket, &report);
    }
    let _ = wire::send(&request.socket, &Report::Gone);
    ExitCode::SUCCESS
}

/// Becomes a helper and takes the request; `None` when the builder is gone already.
fn receive() -> Result<Option<(SingleThreaded, Request)>, Errno> {
    let Some(single) = SingleThreaded::check()? else { return Err(Errno::BUSY) };
    set_name(c"boatyard-init")?;
    init::raise_open_files();
    // Away from the terminal's process group: Ctrl-C is for the builder to act upon.
    // It fails only if we lead a group already, which is as good.
    let _ = setsid();
    // The process id is of no meaning: it is not zero, and that means yes.
    set_child_subreaper(Some(getpid()))?;
    // No process of another user among the step's may trace us.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let builder = fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(wire::receive_request(&builder)?.map(|request| (single, request)))
}

/// Runs the step until nothing of it is left, and reports how its command ended; `None` if it had
/// to be ended.
fn carry_out(single: SingleThreaded, request: &Request) -> Result<Option<Report>, Failure> {
    let spec = request.spec.try_clone().map_err(|_| Errno::MFILE).during("read", "the spec")?;
    let mut spec: Spec = wire::from_memory(spec).during("read", "the spec")?;
    spec.hostname = uname().nodename().to_string_lossy().into_owned();
    // Modes are given where things are made; the command's own mask is set when it starts.
    umask(Mode::empty());
    let keyring = sys::join_new_session_keyring();
    // Kernels without keyrings, and containers that deny them, have none to protect.
    if !matches!(keyring, Err(Errno::NOSYS | Errno::PERM)) {
        keyring.during("make", "a session keyring")?;
    }
    let signals = SignalQueue::open().during("take", "signals")?;
    let mut furniture = Furniture::new(request.rootfs.as_fd())?;
    let ran = furnish(&mut furniture, request, &spec)
        .and_then(|played| run(single, request, &spec, &signals, &played));
    let ended = processes::end_all(&signals).during("end", "the processes of the step");
    let cleared = furniture.clear();
    let report = ran?;
    ended.and(cleared).map(|()| report)
}

/// Puts into the tree what the other executor mounts over it.
fn furnish(
    furniture: &mut Furniture<'_>,
    request: &Request,
    spec: &Spec,
) -> Result<Vec<Played>, Failure> {
    // First, so that a link of the image from there into /proc hits the image's own /proc.
    furniture.put_file(files::RESOLV_CONF, &files::resolv_conf(spec))?;
    furniture.put_file(files::HOSTS, files::hosts(spec).as_bytes())?;
    let dev = furniture.put_directory("/dev", 0o755)?;
    let played = devices::fill(&dev).during("make the devices in", "/dev")?;
    furniture.put_directory("/proc", 0o555)?;
    furniture.put_directory("/sys", 0o555)?;
    mounts::put(furniture, &spec.mounts, &request.sources)?;
    let owner = Some((spec.user.uid, spec.user.gid));
    // A working directory that is made here belongs to the layer, so nobody is told.
    rootfs::make(request.rootfs.as_fd(), &spec.cwd, Kind::Directory, owner, &mut |_| Ok(()))
        .during("make the working directory", &spec.cwd)?;
    Ok(played)
}

/// Runs the command until it ends, or has to: `None`.
fn run(
    single: SingleThreaded,
    request: &Request,
    spec: &Spec,
    signals: &SignalQueue,
    played: &[Played],
) -> Result<Option<Report>, Failure> {
    let helper = getpid();
    let Some(command) = sys::fork(single).during("start", "the command's process")? else {
        let Err(failure) = become_command(request, spec, helper);
        let _ = wire::send(&request.socket, &Report::Failed(failure));
        sys::exit(127)
    };
    loop {
        if let Some(ending) = reaper::reap(command) {
            return Ok(Some(ending));
        }
        match wait(request, signals, played).during("wait for", "the command")? {
            Happened::Something => {}
            Happened::End => return Ok(None),
        }
    }
}

/// What woke the helper.
enum Happened {
    Something,
    /// The step has to end.
    End,
}

fn wait(request: &Request, signals: &SignalQueue, played: &[Played]) -> Result<Happened, Errno> {
    let mut watched =
        vec![PollFd::new(&request.socket, PollFlags::RDHUP), PollFd::new(signals, PollFlags::IN)];
    watched.extend(played.iter().map(|device| {
        let (descriptor, events) = device.cue();
        PollFd::from_borrowed_fd(descriptor, events)
    }));
    match poll(&mut watched, None) {
        Err(Errno::INTR) => return Ok(Happened::Something),
        other => other?,
    };
    let happened = |index: usize| !watched[index].revents().is_empty();
    if happened(0) {
        return Ok(Happened::End);
    }
    if happened(1) {
        signals.clear();
    }
    for (index, device) in played.iter().enumerate() {
        if happened(index + 2) {
            device.play()?;
        }
    }
    Ok(Happened::Something)
}

/// Becomes the command; returns only if that fails.
fn become_command(request: &Request, spec: &Spec, helper: Pid) -> Result<Infallible, Failure> {
    setsid().during("start", "a session")?;
    sys::reset_signals();
    // Standard input is nothing already, unless there is something to read.
    if let Some(stdin) = &request.stdin {
        rustix::stdio::dup2_stdin(stdin).during("redirect", "standard input")?;
    }
    rustix::stdio::dup2_stdout(&request.stdout).during("redirect", "standard output")?;
    rustix::stdio::dup2_stderr(&request.stderr).during("redirect", "standard error")?;
    enter(&request.rootfs).during("change the root to", "the image")?;
    privileges::limit(&spec.rlimits)?;
    command::enter(&spec.cwd)?;
    privileges::become_user(&spec.user, spec.security)?;
    // After the change of user, which makes the kernel forget the wish.
    set_parent_process_death_signal(Some(Signal::KILL)).during("watch", "the helper")?;
    if getppid() != Some(helper) {
        sys::exit(1);
    }
    command::execute(spec, &environment::of_step(spec))
}

fn enter(root: &OwnedFd) -> Result<(), Errno> {
    fchdir(root)?;
    chroot(".")?;
    chdir("/")
}
