//! RUN: a command on a snapshot, and the layer that it leaves.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;

use rustix::fs::{Mode, OFlags, open};

use super::mounts::furnish::Furnishing;
use super::mounts::shown::Needed;
use super::{StageState, Step, StepResult};
use crate::build::{Scene, StepFailure};
use crate::cache::Parts;
use crate::dockerfile::instruction::{
    Network as RunNetwork, Run, RunCommand, Security as RunSecurity,
};
use crate::execute::{
    MountKind, Network, Outcome, Output, Security, Source, Spec, StepMount, User, rootfs, user,
};
use crate::layer::ContentTimes;
use crate::logs::{self, StepLog};
use crate::progress::{FailedCommand, Progress, StepEnd, StepId, Stream};
use crate::snapshot::layers::Temporary;
use crate::solve::{Made, Recalled, keys};

/// The name of a heredoc's script in its directory.
const SCRIPT: &str = "script";

impl Step<'_> {
    pub(super) fn run(
        &self,
        state: &mut StageState,
        run: &Run,
        needed: &Needed,
        id: StepId,
    ) -> StepResult<StepEnd> {
        self.warn_of_devices(run);
        let wanted = self.wanted(state, run)?;
        let shown = self.shown(&wanted, needed)?;
        let mut parts = self.key(state, run);
        wanted.iter().for_each(|wanted| wanted.describe(&mut parts));
        let mut selected = self.select_contexts(&wanted, &shown)?;
        let definition = selected.definition(&parts, &wanted, &shown);
        let known = definition.filter(|_| self.builder.request.reuse.allows(self.stage));
        let solved = match known.map(|key| self.recall(&key, state, id)) {
            Some(Recalled::Hit(record, layer)) => self.reuse_defined(state, known, &record, layer),
            _ => {
                let readers = self.readers(&shown, id)?;
                self.select_stacks(&wanted, &shown, &readers, &mut selected)?;
                let question = selected.question(parts, definition, &wanted, &shown);
                let selected = &selected;
                self.solve(state, id, &question, |state| {
                    self.keep_inputs(selected.all());
                    let furnishing = Furnishing { wanted: &wanted, shown: &shown, selected, id };
                    self.execute(state, run, &furnishing)
                })?
            }
        };
        let args = arguments(state, &run.command).join(" ");
        let text = format!("RUN {}{args} # buildkit", state.environment.history_prefix());
        state.tell(text, true, self.time(&solved));
        Ok(solved.end)
    }

    fn key(&self, state: &StageState, run: &Run) -> Parts {
        let single_id = self.builder.single_id;
        let mut parts = keys::run(state, run, self.network(run), &self.stage.platform, single_id);
        if let Some(hostname) = self.hostname() {
            parts.push("sandbox-hostname", hostname);
        }
        parts
    }

    /// Returns the host name that the build gives to its steps, if it gives one, in the way in which
    /// BuildKit is told.
    fn hostname(&self) -> Option<&str> {
        let given = self.builder.plan.arguments.given("BUILDKIT_SANDBOX_HOSTNAME");
        given.filter(|hostname| !hostname.is_empty())
    }

    /// Runs the command.
    fn execute(
        &self,
        state: &StageState,
        run: &Run,
        furnishing: &Furnishing<'_>,
    ) -> StepResult<Made<'_>> {
        let id = furnishing.id;
        let args = arguments(state, &run.command);
        let cannot_begin = || self.whole("cannot begin this step");
        if self.network(run) == Network::Default
            && let Some(networks) = self.builder.tools.networks
        {
            // It is made while the layers are unpacked.
            networks.prepare();
        }
        let trees = self.trees(&state.stack, id)?;
        let stubs = self.builder.stubs();
        let stubs = stubs.map_err(|error| StepFailure::new(cannot_begin()).because(error))?;
        let active = self
            .builder
            .layers
            .prepare(&trees)
            .map_err(|error| StepFailure::new(cannot_begin()).because(error))?;
        let mount = active
            .mount(Some(stubs))
            .map_err(|error| StepFailure::new(cannot_begin()).because(error))?;
        let user = self.user(state, &mount)?;
        // Lives as long as the step: the script of a heredoc.
        let script = self.script(&run.command)?;
        let mut spec = self.spec(state, run, args.clone(), user, script.as_ref())?;
        let furnished = self.furnish(furnishing, &mut spec)?;
        let space = furnished.has_caches().then(|| self.builder.cache.free_bytes()).flatten();
        let began = (self.builder.tools.now)().as_second();
        let tools = self.builder.tools;
        let log = StepLog::new(&tools.root, began, id.0);
        let mut told = Told { progress: tools.progress, id, log };
        let ran = tools.executor.run(mount, &spec, &mut told, &tools.cancel);
        let is_failure =
            |outcome: &Outcome| !matches!(outcome, Outcome::Exited(0) | Outcome::Cancelled);
        let has_scene = tools.keeps_scene && ran.as_ref().is_ok_and(is_failure);
        // What is mounted goes before what it is made of.
        let scene = has_scene.then_some((spec, furnished));
        if let Some(before) = space {
            self.builder.or_warn(self.builder.cache.note_taken_since(before));
        }
        let outcome = ran.map_err(|error| {
            StepFailure::new(self.whole("cannot run this command")).because(error)
        })?;
        if outcome != Outcome::Exited(0) {
            let mut failure = self.failed(args, outcome, told);
            failure.scene = scene.map(|(spec, furnished)| {
                let (shell, stubs) = (state.shell(), stubs.to_path_buf());
                Box::new(Scene::new(active, spec, furnished, stubs, shell, script))
            });
            return Err(failure);
        }
        let ended = (tools.now)().as_second();
        // The clock of files may run a moment behind.
        let times = ContentTimes::Outside(began - 1..=ended + 1);
        let base_layers = state.stack.layers().iter().filter(|layer| layer.is_base()).count();
        self.layer(active, times, base_layers, Some(stubs))
    }

    /// Returns the failure of a command, and tells of it.
    fn failed(&self, args: Vec<String>, outcome: Outcome, told: Told<'_>) -> StepFailure {
        let mut failure = StepFailure::new(self.whole(format!(
            "process \"{}\" did not complete successfully: {outcome}",
            args.join(" ")
        )));
        failure.outcome = Some(outcome);
        if outcome == Outcome::Cancelled {
            return failure;
        }
        let Told { progress, id, log } = told;
        let logs::Kept { path: log, last_lines } = log.keep();
        let line = self.line() as usize;
        let command = FailedCommand { line, command: args, outcome, last_lines, log };
        progress.failed(id, &command);
        failure.command = Some(command);
        failure
    }

    /// Says which devices the step does without.
    fn warn_of_devices(&self, run: &Run) {
        for device in &run.devices {
            let name = &device.value.name;
            self.builder.warn_once(&format!(
                "a step runs without the device `{name}`: devices of the container device \
                 interface are not supported"
            ));
        }
    }

    /// Returns what the command reaches.
    fn network(&self, run: &Run) -> Network {
        match run.network.as_ref().map(|network| network.value) {
            Some(RunNetwork::None) => Network::None,
            Some(RunNetwork::Host) => Network::Host,
            Some(RunNetwork::Default) | None => self.builder.request.network,
        }
    }

    /// Finds the user of the stage in the files of its tree.
    pub(super) fn user(&self, state: &StageState, root: &OwnedFd) -> StepResult<User> {
        let read = |path: &str| {
            rootfs::read_file(root, path, user::FILE_BYTES_MAX).map_err(|error| {
                StepFailure::new(self.whole("cannot tell who the user is")).because(error)
            })
        };
        let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
        user::resolve(&state.config.config.user, passwd.as_deref(), group.as_deref())
            .map_err(|error| StepFailure::new(self.whole("cannot run as this user")).because(error))
    }

    fn spec(
        &self,
        state: &StageState,
        run: &Run,
        args: Vec<String>,
        user: User,
        script: Option<&Temporary>,
    ) -> StepResult<Spec> {
        let request = self.builder.request;
        let mut spec = Spec::new(args);
        spec.env = self
            .builder
            .plan
            .arguments
            .proxies()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .chain(state.environment.variables().iter().cloned())
            .collect();
        state.directory().clone_into(&mut spec.cwd);
        spec.user = user;
        if let Some(hostname) = self.hostname() {
            hostname.clone_into(&mut spec.hostname);
        }
        spec.shm_size = request.shm_size;
        spec.rlimits.clone_from(&request.rlimits);
        spec.limits.clone_from(&request.limits);
        spec.timeout = request.timeout;
        spec.network = self.builder.network(self.network(run));
        spec.security = match run.security.as_ref().map(|security| security.value) {
            Some(RunSecurity::Insecure) => Security::Insecure,
            Some(RunSecurity::Sandbox) | None => Security::Sandboxed,
        };
        spec.hosts = self.hosts(spec.network)?;
        if let (Some(script), RunCommand::Script { name, .. }) = (script, &run.command) {
            let source =
                open(script.path().join(SCRIPT), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                    .map_err(|errno| self.cannot_write(errno.into()))?;
            spec.mounts.push(StepMount {
                target: format!("/dev/pipes/{name}"),
                kind: MountKind::Bind {
                    source: Source::new(source),
                    directory: false,
                    read_only: true,
                },
            });
        }
        Ok(spec)
    }

    /// Returns the names that the build adds, with the addresses that they have in `network`.
    fn hosts(&self, network: Network) -> StepResult<Vec<(String, IpAddr)>> {
        let hosts = self.builder.request.hosts.iter();
        hosts
            .map(|(name, address)| match address.within(network) {
                Some(address) => Ok((name.clone(), address)),
                None => {
                    let mut failure = self.whole(format!(
                        "`{name}` is to be the host, which the network of this step does not reach"
                    ));
                    failure.hint = Some("--network=host reaches it".to_owned());
                    Err(StepFailure::new(failure))
                }
            })
            .collect()
    }

    /// Writes the script of a heredoc that begins with `#!`, in a directory that is removed with
    /// its guard.
    fn script(&self, command: &RunCommand) -> StepResult<Option<Temporary>> {
        let RunCommand::Script { content, .. } = command else { return Ok(None) };
        let directory = self.builder.layers.temporary("script-").map_err(|error| {
            StepFailure::new(self.whole("cannot write the script of this step")).because(error)
        })?;
        let path = directory.path().join(SCRIPT);
        let write = || {
            fs_err::write(&path, content)?;
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
        };
        write().map_err(|error| self.cannot_write(error))?;
        Ok(Some(directory))
    }

    fn cannot_write(&self, error: std::io::Error) -> StepFailure {
        StepFailure::new(self.whole("cannot write the script of this step")).because(error)
    }
}

/// Returns what is executed.
fn arguments(state: &StageState, command: &RunCommand) -> Vec<String> {
    match command {
        RunCommand::Exec(args) => args.clone(),
        RunCommand::Script { name, .. } => vec![format!("/dev/pipes/{name}")],
        RunCommand::Shell(text) => {
            let mut args = state.shell();
            args.push(text.clone());
            args
        }
    }
}

/// Hands a command's output on.
struct Told<'a> {
    progress: &'a dyn Progress,
    id: StepId,
    log: StepLog,
}

impl Output for Told<'_> {
    fn stdout(&mut self, bytes: &[u8]) {
        self.log.push(bytes);
        self.progress.output(self.id, Stream::Stdout, bytes);
    }

    fn stderr(&mut self, bytes: &[u8]) {
        self.log.push(bytes);
        self.progress.output(self.id, Stream::Stderr, bytes);
    }

    fn warning(&mut self, text: &str) {
        self.progress.warning(text);
    }
}
