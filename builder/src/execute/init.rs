//! The helper process: it starts steps, watches them, and ends them.
//!
//! A builder has threads, and a process with threads cannot safely be copied. So the builder
//! executes the program once more, with a socket as standard input, and that copy, which never
//! has a second thread, copies itself for each step into new namespaces. It holds one descriptor
//! of each step's first process and one end of the step's socket:
//!
//! - a step's socket is its life line: when the builder shuts it, the step is killed;
//! - when the builder is gone, so is everything: the helper's own socket ends, it kills all steps;
//! - when the helper is gone, the kernel kills the steps (`PR_SET_PDEATHSIG`).
//!
//! The helper keeps running from a read-only mount of its own file, see `seal`: a step's first
//! process is a copy of the helper, and what `/proc/1/exe` leads to must not be writable.

pub(super) mod command;
pub(super) mod devices;
pub(super) mod files;
pub(super) mod mounts;
mod own;
pub(super) mod privileges;
pub(super) mod reaper;
mod seal;
mod single;
pub(super) mod step;
mod terminal;

use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, fcntl_dupfd_cloexec, retry_on_intr};
use rustix::process::{
    DumpableBehavior, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getpid,
    getrlimit, pidfd_open, pidfd_send_signal, set_dumpable_behavior, setrlimit, setsid, waitid,
};
use rustix::thread::set_name;

use super::cgroup::{Cgroups, Leaf};
use super::failure::{During, Failure};
use super::seccomp;
use super::sys::{Cloned, SingleThreaded, clone_process};
use super::wire::{self, Report, Request, Streams};
use super::{chroot, ladder};
use step::Means;

/// Runs the helper until its builder is gone.
///
/// To be called by `main` before anything else when the program was executed as an
/// [`InitCommand`](super::InitCommand) says: standard input is the builder's socket, and no
/// thread may exist yet. May execute the same program, with the same arguments, once more.
#[must_use]
pub fn main() -> ExitCode {
    match std::env::args_os().nth(2) {
        Some(role) if role == chroot::ROLE => return chroot::helper::main(),
        Some(role) if role == ladder::ROLE => return ladder::probe::main(),
        _ => {}
    }
    let stdin = rustix::stdio::stdin();
    match Helper::start() {
        Ok(helper) => helper.run(),
        Err(failure) => {
            // If even this fails, the builder sees the socket's end and reports that.
            let _ = wire::send(stdin, &Report::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

/// Each step takes descriptors of ours; a step's own limit is set for it later.
pub(super) fn raise_open_files() {
    let most = getrlimit(Resource::Nofile).maximum;
    // What we have suffices for hundreds of steps.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
}

/// A service may be set to outlive the rest when memory runs out; what it builds must not.
fn be_killable() {
    const ADJUSTMENT: &str = "/proc/self/oom_score_adj";
    let protected = |text: String| text.starts_with('-');
    if fs_err::read_to_string(ADJUSTMENT).is_ok_and(protected) {
        // Anybody may make himself more likely to be killed.
        let _ = fs_err::write(ADJUSTMENT, "0");
    }
}

struct Helper {
    single: SingleThreaded,
    builder: OwnedFd,
    /// This process, for a step to see whether it is still there.
    own: OwnedFd,
    /// What every sandboxed step loads, made once.
    filter: seccomp::Program,
    cgroups: Cgroups,
    steps: Vec<Step>,
}

/// A step that runs.
struct Step {
    first_process: OwnedFd,
    socket: OwnedFd,
    leaf: Option<Leaf>,
    /// Of its network: open until it is gone, also when the builder is gone before.
    _guard: Option<OwnedFd>,
    /// Open until it is gone, likewise.
    _held: Vec<OwnedFd>,
    killed: bool,
}

impl Helper {
    fn start() -> Result<Helper, Failure> {
        let single = SingleThreaded::check()
            .during("count the threads in", "/proc/self/task")?
            .ok_or(Failure::Threads)?;
        seal::seal()?;
        // Else it is the number of the descriptor that it was executed by.
        set_name(c"boatyard-init").during("name", "the helper")?;
        raise_open_files();
        be_killable();
        // Away from the terminal's process group: Ctrl-C is for the builder to act upon.
        // It fails only if we lead a group already, which is as good.
        let _ = setsid();
        // A step must not trace its first process, nor read its memory or its descriptors.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).during("protect", "the helper")?;
        let builder =
            fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).during("keep", "the socket")?;
        let own = pidfd_open(getpid(), PidfdFlags::empty()).during("watch", "the helper")?;
        let null = openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .during("open", "/dev/null")?;
        wire::send(&builder, &Report::Ready).during("answer on", "the socket")?;
        rustix::stdio::dup2_stdin(&null).during("close", "the socket")?;
        let filter = seccomp::filter(privileges::DEFAULT);
        let cgroups = Cgroups::find();
        cgroups.sweep();
        Ok(Helper { single, builder, own, filter, cgroups, steps: Vec::new() })
    }

    fn run(mut self) -> ExitCode {
        let code = loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => break ExitCode::SUCCESS,
                Err(_) => break ExitCode::FAILURE,
            }
        };
        // The kernel would kill what still runs when this process ends, but leave its cgroups.
        self.steps.iter_mut().for_each(Step::kill);
        self.steps.drain(..).for_each(Step::end);
        code
    }

    /// Waits for something to happen and acts on it; `false` when the builder is gone.
    fn turn(&mut self) -> Result<bool, Errno> {
        let (builder, steps) = self.wait()?;
        let mut ended = Vec::new();
        for (index, (gone, shut)) in steps.into_iter().enumerate() {
            if gone {
                ended.push(index);
            } else if shut {
                self.steps[index].kill();
            }
        }
        for index in ended.into_iter().rev() {
            self.steps.remove(index).end();
        }
        if !builder {
            return Ok(true);
        }
        match wire::receive_request(&self.builder) {
            Ok(Some(request)) => self.begin(&request),
            Ok(None) => return Ok(false),
            // A request that cannot be understood: its step's socket closes, its caller learns it.
            Err(_) => {}
        }
        Ok(true)
    }

    /// Waits; tells whether the builder said something, and for each step whether its first
    /// process ended and whether its socket was shut.
    fn wait(&self) -> Result<(bool, Vec<(bool, bool)>), Errno> {
        let mut watched = vec![PollFd::new(&self.builder, PollFlags::IN)];
        for step in &self.steps {
            watched.push(PollFd::new(&step.first_process, PollFlags::IN));
            // Once killed, only its end is of interest; a shut socket would never let us sleep.
            watched.push(match step.killed {
                true => PollFd::new(&step.first_process, PollFlags::IN),
                false => PollFd::new(&step.socket, PollFlags::RDHUP),
            });
        }
        retry_on_intr(|| poll(&mut watched, None))?;
        let happened = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let steps = watched[1..].chunks(2).map(|pair| (happened(&pair[0]), happened(&pair[1])));
        Ok((happened(&watched[0]), steps.collect()))
    }

    fn begin(&mut self, request: &Request) {
        if let Err(failure) = self.start_step(request) {
            let _ = wire::send(&request.socket, &Report::Failed(failure));
            let _ = wire::send(&request.socket, &Report::Gone);
        }
    }

    fn start_step(&mut self, request: &Request) -> Result<(), Failure> {
        let socket = request.socket.try_clone().map_err(|_| Errno::MFILE);
        let socket = socket.during("keep", "the socket")?;
        let guard = request.guard.as_ref().map(OwnedFd::try_clone).transpose();
        let guard = guard.map_err(|_| Errno::MFILE).during("keep", "the firewall's socket")?;
        let held = request.held.iter().map(OwnedFd::try_clone).collect::<Result<_, _>>();
        let held = held.map_err(|_| Errno::MFILE).during("keep", "the locks of caches")?;
        let leaf = self.limit(request)?;
        let namespaces = step::namespaces(request.heading.network, leaf.as_ref());
        match clone_process(self.single, namespaces) {
            Ok(Cloned::Child) => {
                let means = Means { helper: &self.own, filter: &self.filter, leaf: leaf.as_ref() };
                step::run(self.single, request, &means)
            }
            Ok(Cloned::Parent { pidfd: first_process, .. }) => {
                if request.heading.console != Streams::Outputs {
                    // It fails only if the builder is gone, and then the step is killed.
                    let first = [first_process.as_fd()];
                    let _ = wire::send_with(&socket, &Report::Started, &first);
                }
                let (_guard, _held) = (guard, held);
                let step = Step { first_process, socket, leaf, _guard, _held, killed: false };
                self.steps.push(step);
                Ok(())
            }
            Err(errno) => {
                leaf.into_iter().for_each(Leaf::remove);
                Err(errno).during("make namespaces for", "the step")
            }
        }
    }

    /// Makes the step's cgroups, if it has limits; says which of them are not in force.
    fn limit(&mut self, request: &Request) -> Result<Option<Leaf>, Failure> {
        if request.heading.limits.is_empty() {
            return Ok(None);
        }
        let limited = self.cgroups.leaf(&request.heading.limits)?;
        for (what, why) in limited.missing {
            let _ = wire::send(&request.socket, &Report::Unlimited(what.to_owned(), why));
        }
        Ok(limited.leaf)
    }
}

impl Step {
    fn kill(&mut self) {
        // It may have ended by itself meanwhile.
        let _ = pidfd_send_signal(&self.first_process, Signal::KILL);
        self.killed = true;
    }

    /// Takes the ended first process off the process table.
    ///
    /// The kernel reports the end of the first process of a PID namespace only when all others
    /// in it are gone, and its namespaces and mounts with them.
    fn end(self) {
        let process = WaitId::PidFd(self.first_process.as_fd());
        let _ = retry_on_intr(|| waitid(process.clone(), WaitIdOptions::EXITED));
        if let Some(leaf) = self.leaf {
            if leaf.ran_out_of_memory() {
                let _ = wire::send(&self.socket, &Report::OutOfMemory);
            }
            leaf.remove();
        }
        let _ = wire::send(&self.socket, &Report::Gone);
    }
}
