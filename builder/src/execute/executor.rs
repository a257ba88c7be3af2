//! The builder's side: it starts the helper, hands it steps, and waits for them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::net::{Shutdown, shutdown};
use rustix::pipe::{PipeFlags, pipe_with};

use super::failure::ExecuteError;
use super::network::{Lent, NetworkError, Networks};
use super::outcome::Outcome;
use super::rootfs::{self, Made};
use super::spec::{Console, MountKind, Network, Source, Spec, StepMount};
use super::wire::{self, Heading, MOUNTS_MAX, Report, Streams};

/// How much output is taken at once: what a pipe holds.
const OUTPUT_BYTES: usize = 64 << 10;

/// Runs steps.
///
/// The contract: `run` blocks until no process of the step is left. It may be called from
/// several threads at once. `rootfs` is a mount that is attached nowhere (fsmount(2)) and not
/// used by another step; when `run` returns, nothing of the executor's is in it. Output is
/// delivered as it comes, in order, whole, on the calling thread. Cancelling ends the step
/// promptly, with [`Outcome::Cancelled`].
pub trait Execute: Send + Sync {
    /// Runs one step in `rootfs` and tells how its command ended.
    ///
    /// # Errors
    ///
    /// If the command could not be started, or the executor itself fails; a command that starts
    /// and fails is no error.
    fn run(
        &self,
        rootfs: OwnedFd,
        spec: &Spec,
        output: &mut dyn Output,
        cancel: &CancelHandle,
    ) -> Result<Outcome, ExecuteError>;
}

/// Takes what a step writes.
pub trait Output: Send {
    /// Takes bytes of the standard output.
    fn stdout(&mut self, bytes: &[u8]);
    /// Takes bytes of the standard error.
    fn stderr(&mut self, bytes: &[u8]);
    /// Takes what should be known but stops nothing: one line. An executor says each line once.
    fn warning(&mut self, text: &str);
    /// Takes the step's first process, unless its console is that of a build: the signals that it
    /// is sent reach the command.
    fn started(&mut self, _first_process: OwnedFd) {}
    /// Takes the other end of the command's terminal, if that has one.
    fn terminal(&mut self, _terminal: OwnedFd) {}
}

/// Cancels steps; clones cancel the same ones.
#[derive(Debug, Clone)]
pub struct CancelHandle(Arc<OwnedFd>);

impl CancelHandle {
    /// Returns a handle that nobody has used yet.
    ///
    /// # Errors
    ///
    /// If the process has no descriptor left.
    pub fn new() -> Result<CancelHandle, ExecuteError> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(ExecuteError::builder("make a cancel handle"))?;
        Ok(CancelHandle(Arc::new(event)))
    }

    /// Cancels all steps that run, or will run, with this handle.
    pub fn cancel(&self) {
        // It fails only if the counter is full: then it is cancelled already.
        let _ = write(&*self.0, &1_u64.to_ne_bytes());
    }

    /// Says whether somebody did.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        let mut watched = [PollFd::new(&*self.0, PollFlags::IN)];
        retry_on_intr(|| poll(&mut watched, Some(&Timespec::default())))
            .is_ok_and(|ready| ready > 0)
    }
}

/// How to execute this program as the helper: the program must call
/// [`init::main`](super::init::main) first thing when it is given these arguments.
#[derive(Debug, Clone)]
pub struct InitCommand {
    /// The program, usually `/proc/self/exe`.
    pub program: PathBuf,
    /// Its arguments, usually `init`.
    pub args: Vec<OsString>,
}

impl InitCommand {
    /// Returns how the command `boatyard` executes itself.
    #[must_use]
    pub fn of_this_program() -> InitCommand {
        InitCommand { program: PathBuf::from("/proc/self/exe"), args: vec!["init".into()] }
    }
}

/// What is said where steps ask for names, and nobody can be asked.
const NO_SERVERS: &str = "steps cannot resolve names: /etc/resolv.conf names no server, and this \
    machine is none itself";

/// The executor of a build: a helper process, ended when this is dropped, and its steps with it.
#[derive(Debug)]
pub struct Executor {
    helper: Child,
    /// `None` only while being dropped.
    socket: Option<OwnedFd>,
    networks: Option<Networks>,
    /// What was said, and need not be said again.
    warnings: Mutex<BTreeSet<String>>,
}

impl Executor {
    /// Starts the helper and waits until it is ready.
    ///
    /// # Errors
    ///
    /// If the program cannot be executed, or is not able to be a helper.
    pub fn start(init: &InitCommand) -> Result<Executor, ExecuteError> {
        let (ours, theirs) = wire::pair().map_err(ExecuteError::builder("make a socket"))?;
        let helper = Command::new(&init.program)
            .args(&init.args)
            // A step must not find our secrets in the environment of its first process.
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|source| ExecuteError::Start { program: init.program.clone(), source })?;
        let socket = Some(ours);
        let executor = Executor { helper, socket, networks: None, warnings: Mutex::default() };
        match wire::receive(executor.socket()?) {
            Ok(Some(Report::Ready)) => Ok(executor),
            Ok(Some(Report::Failed(failure))) => Err(failure.into()),
            _ => Err(ExecuteError::HelperDied),
        }
    }

    /// Gives steps with [`Network::Default`] networks of `networks`.
    #[must_use]
    pub fn with_networks(mut self, networks: impl Into<Option<Networks>>) -> Executor {
        self.networks = networks.into();
        self
    }

    /// Lends a step the network that it asks for, if that has to be made.
    fn network(&self, spec: &Spec) -> Result<Option<Lent>, ExecuteError> {
        if spec.network != Network::Default {
            return Ok(None);
        }
        let networks = self.networks.as_ref().ok_or_else(|| {
            ExecuteError::Network(NetworkError::Before("this executor has none".to_owned()))
        })?;
        networks.lend().map(Some).map_err(ExecuteError::Network)
    }

    /// Returns the process id of the helper.
    #[must_use]
    pub fn helper_id(&self) -> u32 {
        self.helper.id()
    }

    fn socket(&self) -> Result<BorrowedFd<'_>, ExecuteError> {
        self.socket.as_ref().map(AsFd::as_fd).ok_or(ExecuteError::HelperDied)
    }
}

impl Execute for Executor {
    fn run(
        &self,
        rootfs: OwnedFd,
        spec: &Spec,
        output: &mut dyn Output,
        cancel: &CancelHandle,
    ) -> Result<Outcome, ExecuteError> {
        let sources = sources(spec)?;
        let network = self.network(spec)?;
        let mut running =
            Running::start(self.socket()?, rootfs.as_fd(), network.as_ref(), spec, &sources)?;
        let waited = running.wait(output, cancel, spec.timeout);
        rootfs::remove(rootfs.as_fd(), &running.made);
        if network.as_ref().is_some_and(Lent::has_missed_servers) {
            running.warnings.push(NO_SERVERS.to_owned());
        }
        for warning in std::mem::take(&mut running.warnings) {
            if self.warnings.lock().is_ok_and(|mut said| said.insert(warning.clone())) {
                output.warning(&warning);
            }
        }
        waited.and_then(|()| running.outcome(spec.limits.memory))
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.socket = None;
        // It ends when it sees the socket's end; there is nobody to tell if it does not.
        let _ = self.helper.wait();
    }
}

/// A step in the helper's hands.
pub(super) struct Running<'a> {
    network: Option<&'a Lent>,
    socket: OwnedFd,
    stdout: Stream,
    stderr: Stream,
    made: Vec<Made>,
    /// How the command ended, or why it could not start.
    ending: Option<Result<Outcome, ExecuteError>>,
    /// Why the step is being killed, if it is.
    killed: Option<Outcome>,
    warnings: Vec<String>,
    out_of_memory: bool,
    gone: bool,
}

impl<'a> Running<'a> {
    /// Hands a step to a helper.
    pub(super) fn start(
        helper: BorrowedFd<'_>,
        rootfs: BorrowedFd<'_>,
        network: Option<&'a Lent>,
        spec: &Spec,
        sources: &[OwnedFd],
    ) -> Result<Running<'a>, ExecuteError> {
        let failed = ExecuteError::builder;
        let memory = wire::to_memory(spec).map_err(failed("hand over the step"))?;
        let (socket, theirs) = wire::pair().map_err(failed("make a socket"))?;
        let (stdout, stdout_end) = Stream::open().map_err(failed("make a pipe"))?;
        let (stderr, stderr_end) = Stream::open().map_err(failed("make a pipe"))?;
        let mut descriptors = vec![memory.as_fd(), theirs.as_fd(), rootfs];
        descriptors.extend([stdout_end.as_fd(), stderr_end.as_fd()]);
        let guard = network.and_then(Lent::guard);
        descriptors.extend(network.and_then(Lent::namespace).into_iter().chain(guard));
        let held: Vec<_> = spec.held.iter().filter_map(Source::descriptor).collect();
        descriptors.extend(&held);
        if let Console::Input(input) = &spec.console {
            descriptors.push(input.descriptor().ok_or(ExecuteError::NoInput)?);
        }
        descriptors.extend(sources.iter().map(AsFd::as_fd));
        let heading = Heading {
            network: spec.network,
            guarded: guard.is_some(),
            held: held.len(),
            limits: spec.limits.clone(),
            console: Streams::from(&spec.console),
        };
        wire::send_request(helper, &heading, &descriptors).map_err(|errno| match errno {
            Errno::PIPE | Errno::CONNRESET => ExecuteError::HelperDied,
            errno => failed("hand over the step")(errno),
        })?;
        Ok(Running {
            network,
            socket,
            stdout,
            stderr,
            made: Vec::new(),
            ending: None,
            killed: None,
            warnings: Vec::new(),
            out_of_memory: false,
            gone: false,
        })
    }

    /// Waits until the step is gone, and passes on what it writes.
    pub(super) fn wait(
        &mut self,
        output: &mut dyn Output,
        cancel: &CancelHandle,
        timeout: Option<Duration>,
    ) -> Result<(), ExecuteError> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut buffer = vec![0; OUTPUT_BYTES];
        while !self.gone {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let ready =
                self.poll(cancel, left).map_err(ExecuteError::builder("wait for a step"))?;
            self.stdout.pass(&mut buffer, &mut |bytes| output.stdout(bytes))?;
            self.stderr.pass(&mut buffer, &mut |bytes| output.stderr(bytes))?;
            if ready.report {
                self.receive(output)?;
            }
            if ready.cancelled {
                self.kill(Outcome::Cancelled);
            } else if ready.lost {
                self.lose_network();
            } else if left == Some(Duration::ZERO) {
                self.kill(Outcome::TimedOut);
            }
        }
        // All writers are gone: what is in the pipes now is the rest.
        while self.stdout.pass(&mut buffer, &mut |bytes| output.stdout(bytes))? {}
        while self.stderr.pass(&mut buffer, &mut |bytes| output.stderr(bytes))? {}
        Ok(())
    }

    fn poll(&self, cancel: &CancelHandle, left: Option<Duration>) -> Result<Ready, Errno> {
        let mut watched = vec![PollFd::new(&self.socket, PollFlags::IN)];
        let streams = [&self.stdout, &self.stderr].into_iter().filter_map(|s| s.0.as_ref());
        watched.extend(streams.map(|fd| PollFd::new(fd, PollFlags::IN)));
        let mut left = left;
        // Once it is being killed, nothing else matters any more.
        let (mut cancelling, mut losing) = (None, None);
        if self.killed.is_some() {
            left = None;
        } else {
            cancelling = Some(watched.len());
            watched.push(PollFd::new(&*cancel.0, PollFlags::IN));
            if let Some(end) = self.network.and_then(Lent::end) {
                losing = Some(watched.len());
                watched.push(PollFd::from_borrowed_fd(end, PollFlags::IN));
            }
        }
        // A time too long for the kernel is as good as none.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        retry_on_intr(|| poll(&mut watched, left.as_ref()))?;
        let happened = |at: Option<usize>| at.is_some_and(|at| !watched[at].revents().is_empty());
        Ok(Ready {
            report: happened(Some(0)),
            cancelled: happened(cancelling),
            lost: happened(losing),
        })
    }

    /// Ends a step that would wait for answers that cannot come any more.
    fn lose_network(&mut self) {
        if let Some(network) = self.network {
            let lost = ExecuteError::NetworkLost(network.failure());
            self.ending.get_or_insert(Err(lost));
        }
        self.kill(Outcome::Cancelled);
    }

    fn receive(&mut self, output: &mut dyn Output) -> Result<(), ExecuteError> {
        let received =
            wire::receive_with(&self.socket).map_err(ExecuteError::builder("wait for a step"))?;
        let (report, descriptor) = received.ok_or(ExecuteError::HelperDied)?;
        match report {
            Report::Made(made) => self.made.push(made),
            Report::Failed(failure) => self.ending = Some(Err(failure.into())),
            // A program that cannot be executed ends too, after its failure was reported.
            Report::Exited(code) => {
                self.ending.get_or_insert(Ok(Outcome::Exited(code)));
            }
            Report::Signaled(signal) => {
                self.ending.get_or_insert(Ok(Outcome::Signaled(signal)));
            }
            Report::Unlimited(what, why) => {
                self.warnings.push(format!("the {what} of steps is not limited: {why}"));
            }
            Report::OutOfMemory => self.out_of_memory = true,
            Report::Gone => self.gone = true,
            Report::Started => descriptor.into_iter().for_each(|first| output.started(first)),
            Report::Terminal => descriptor.into_iter().for_each(|end| output.terminal(end)),
            Report::Ready => return Err(ExecuteError::HelperDied),
        }
        Ok(())
    }

    fn kill(&mut self, why: Outcome) {
        if self.killed.is_none() {
            self.killed = Some(why);
            // It fails only if the helper is gone, and then so is the step.
            let _ = shutdown(&self.socket, Shutdown::Write);
        }
    }

    /// Tells how the command ended, or why it could not start. `memory` is its limit, in bytes.
    pub(super) fn outcome(self, memory: Option<u64>) -> Result<Outcome, ExecuteError> {
        let failed = !matches!(self.ending, Some(Ok(Outcome::Exited(0)) | Err(_)));
        if let (true, true, None, Some(limit)) = (failed, self.out_of_memory, self.killed, memory) {
            return Ok(Outcome::OutOfMemory { limit });
        }
        match (self.ending, self.killed) {
            (Some(ending), _) => ending,
            (None, Some(outcome)) => Ok(outcome),
            // Its first process ended first: somebody killed it, such as the kernel short of memory.
            (None, None) => Ok(Outcome::Signaled(libc::SIGKILL)),
        }
    }
}

/// What a wait ended with.
struct Ready {
    report: bool,
    cancelled: bool,
    lost: bool,
}

/// Our end of a pipe; `None` once nothing more will come.
struct Stream(Option<OwnedFd>);

impl Stream {
    /// Returns a stream and the end for the step, whose reads and writes block.
    fn open() -> Result<(Stream, OwnedFd), Errno> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&ours, OFlags::NONBLOCK)?;
        Ok((Stream(Some(ours)), theirs))
    }

    /// Passes on what is there, a buffer at most; tells whether there was anything.
    fn pass(
        &mut self,
        buffer: &mut [u8],
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, ExecuteError> {
        let Some(pipe) = &self.0 else { return Ok(false) };
        match retry_on_intr(|| read(pipe, &mut *buffer)) {
            Ok(0) => {
                self.0 = None;
                Ok(false)
            }
            Ok(length) => {
                take(&buffer[..length]);
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(ExecuteError::builder("read a step's output")(errno)),
        }
    }
}

/// Makes a mount of each bind mount's source, and returns what else the mounts need.
///
/// Here, not in the step: a mount can be copied only in the namespace that it is in.
fn sources(spec: &Spec) -> Result<Vec<OwnedFd>, ExecuteError> {
    check_count(spec)?;
    let mut sources = Vec::new();
    for StepMount { target, kind } in &spec.mounts {
        let Some(source) = kind.source() else { continue };
        let source = source.descriptor();
        let source = source.ok_or_else(|| ExecuteError::NoSource { target: target.clone() })?;
        let opened = match kind {
            MountKind::Bind { .. } => copy_mount(source, ""),
            MountKind::Kept { name, .. } => copy_mount(source, name),
            _ => source.try_clone_to_owned().map_err(|_| Errno::MFILE),
        };
        sources.push(opened.map_err(|errno| ExecuteError::Setup {
            operation: "open the source of the mount at".to_owned(),
            path: target.clone(),
            source: errno.into(),
        })?);
    }
    Ok(sources)
}

fn copy_mount(source: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    match name.is_empty() {
        true => open_tree(source, "", flags | OpenTreeFlags::AT_EMPTY_PATH),
        false => open_tree(source, name, flags),
    }
}

/// Refuses more mounts than one packet can hand over.
pub(super) fn check_count(spec: &Spec) -> Result<(), ExecuteError> {
    let count = spec.mounts.len() + spec.held.len();
    if count > MOUNTS_MAX {
        return Err(ExecuteError::TooManyMounts { count, limit: MOUNTS_MAX });
    }
    Ok(())
}
