//! A build: the stages that the target needs, one after the other, into an image.
//!
//! ```text
//! plan ── stages ──▶ each instruction changes the stage's state ([`crate::stage`]):
//!                    configuration at once, files as a new layer on its stack
//!        layers ──▶ packed beside ([`crate::pack`])
//! target's state + blobs ──▶ configuration, manifest ([`crate::assemble`])
//! ```
//!
//! All of it is blocking code.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use boatyard_content::{Lease, Root, StoreError};
use boatyard_oci::{Digest, ImageConfig, ImageName, Manifest, Raw};
use jiff::Timestamp;

use crate::assemble::{self, AssembleError};
use crate::base::{BaseError, Bases, Pull};
use crate::context::directory::Directory;
use crate::dockerfile::{Diagnostic, Dockerfile, Instruction, Source, parse_trigger, render};
use crate::execute::{
    CancelHandle, Execute, ExecuteError, HostAddress, Limits, Network, Networks, Outcome, Rlimit,
    stubs,
};
use crate::layer::compress::Compression;
use crate::pack::{PackOptions, Packer};
use crate::plan::{Base, Plan, PlanOptions, PlannedStage, plan};
use crate::progress::{Progress, Steps};
use crate::snapshot::{LayerDir, Layers, LayersError};
use crate::stage::{LayerBlob, StageState};

/// What is to be built, and how.
#[derive(Debug)]
pub struct BuildRequest {
    /// The Dockerfile.
    pub dockerfile: Dockerfile,
    /// What it is called in messages.
    pub file_name: String,
    /// The files of the build; `None` where there are none, as with a Dockerfile on stdin alone.
    pub context: Option<Directory>,
    /// Target, arguments, platforms.
    pub plan: PlanOptions,
    /// `--label`: these come last.
    pub labels: BTreeMap<String, String>,
    /// What a RUN reaches that does not say.
    pub network: Network,
    /// Whether steps get the host's network, with a warning, where they cannot have one of their
    /// own. Only for builds whose user did not ask for one.
    pub network_may_fall_back: bool,
    /// `--add-host`.
    pub hosts: Vec<(String, HostAddress)>,
    /// `--shm-size`, in bytes.
    pub shm_size: u64,
    /// `--ulimit`.
    pub rlimits: Vec<Rlimit>,
    /// `--memory` and its kin.
    pub limits: Limits,
    /// `--timeout`: how long one step may run.
    pub timeout: Option<Duration>,
    /// How layers are compressed.
    pub compression: Compression,
    /// Looks upstream for newer base images.
    pub always_pull: bool,
}

/// What a build works with.
pub struct Tools<'a> {
    /// Where images, layers and blobs are kept.
    pub root: Arc<Root>,
    /// Holds what the build makes until the caller has put it somewhere.
    pub lease: Lease,
    /// The root's unpacked layers, in the view that steps get.
    pub layers: Layers,
    /// Runs commands.
    pub executor: &'a dyn Execute,
    /// The networks that the executor gives to steps, if it can.
    pub networks: Option<&'a Networks>,
    /// Fetches base images.
    pub pull: &'a Pull<'a>,
    /// Is told what happens.
    pub progress: &'a dyn Progress,
    /// Ends the build.
    pub cancel: CancelHandle,
    /// Tells the time.
    pub now: &'a (dyn Fn() -> Timestamp + Sync),
    /// How many threads compress and unpack.
    pub threads: usize,
}

/// What was built. Its blobs are in the store, held by the lease.
#[derive(Debug)]
pub struct Built {
    /// The manifest.
    pub manifest: Raw<Manifest>,
    /// The configuration; its digest is the image ID.
    pub config: Raw<ImageConfig>,
    /// The base image of the target, if it has one.
    pub base: Option<(ImageName, Digest)>,
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile cannot be built; each points at its word.
    #[error("the Dockerfile cannot be built")]
    Plan(Vec<Diagnostic>),
    /// A step failed.
    #[error("{}", .0.diagnostic.message)]
    Step(Box<StepFailure>),
    /// The image could not be put together.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The root's unpacked layers cannot be used.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The mount points of steps cannot be made.
    #[error("cannot prepare the mount points of steps")]
    Stubs(#[source] io::Error),
    /// `# check=error=true`, and the linter found something.
    #[error("the Dockerfile asks for warnings to be errors, and there is `{}`", .0.join("`, `"))]
    Lint(Vec<&'static str>),
    /// `SOURCE_DATE_EPOCH` is no number.
    #[error("SOURCE_DATE_EPOCH is `{0}`, and must be a number of seconds since 1970")]
    Epoch(String),
    /// Somebody cancelled it.
    #[error("the build was cancelled")]
    Cancelled,
}

/// A step that failed.
#[derive(Debug)]
pub struct StepFailure {
    /// What is wrong, and where.
    pub diagnostic: Box<Diagnostic>,
    /// Why.
    pub source: Option<Box<dyn Error + Send + Sync>>,
    /// How the command ended, if it was a command that failed.
    pub outcome: Option<Outcome>,
}

impl std::fmt::Display for StepFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl StepFailure {
    /// Returns the failure without a deeper reason.
    pub(crate) fn new(diagnostic: Diagnostic) -> StepFailure {
        StepFailure { diagnostic: Box::new(diagnostic), source: None, outcome: None }
    }

    /// Adds the reason.
    #[must_use]
    pub(crate) fn because(
        mut self,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> StepFailure {
        self.source = Some(source.into());
        self
    }
}

impl BuildError {
    /// Draws the failure with the lines it is about, its causes and what may help; `None` where it
    /// is not about the Dockerfile.
    pub fn render(&self, source: &Source, file_name: &str) -> Option<String> {
        match self {
            BuildError::Plan(problems) => {
                let drawn = problems.iter().map(|problem| render(source, file_name, problem));
                Some(drawn.collect::<Vec<_>>().join("\n"))
            }
            BuildError::Step(failure) => {
                let mut bare = failure.diagnostic.clone();
                let hint = bare.hint.take();
                let mut text = render(source, file_name, &bare);
                let mut cause = failure.source.as_deref().map(|cause| cause as &dyn Error);
                let mut last = String::new();
                while let Some(error) = cause {
                    let own = error.to_string();
                    if own != last {
                        text.push_str(&format!("  cause: {own}\n"));
                    }
                    last = own;
                    cause = error.source();
                }
                if let Some(hint) = hint {
                    text.push_str(&format!("hint: {hint}\n"));
                }
                Some(text)
            }
            _ => None,
        }
    }
}

/// What all stages of a build share.
pub(crate) struct Builder<'a> {
    pub(crate) request: &'a BuildRequest,
    pub(crate) tools: &'a Tools<'a>,
    pub(crate) plan: &'a Plan,
    pub(crate) layers: Layers,
    pub(crate) bases: &'a Bases<'a>,
    packer: &'a Packer,
    /// The stages whose layers are in the image: the target, and the stages that it began with.
    in_image: HashSet<usize>,
    pub(crate) stubs: PathBuf,
    pub(crate) epoch: Option<Timestamp>,
    pub(crate) steps: &'a Steps<'a>,
    /// What [`Network::Default`] turned out to be; `None` until a step asks.
    default_network: OnceLock<Network>,
}

/// Builds the target.
///
/// # Errors
/// Where the plan, a step, or the assembly fails. What was built until then is garbage that the
/// collector finds; nothing stays mounted and no process is left.
pub fn build(request: &BuildRequest, tools: &Tools<'_>) -> Result<Built, BuildError> {
    let layers = tools.layers.clone();
    layers.sweep_active()?;
    let bases = Bases::new(
        Arc::clone(&tools.root),
        layers.clone(),
        tools.lease.clone(),
        tools.pull,
        request.always_pull,
        tools.threads,
    );
    let steps = Steps::new(tools.progress);
    let plan = plan_with_triggers(request, &bases, &steps)?;
    warn(request, &plan, tools.progress)?;
    let epoch = epoch(&plan)?;
    let packer = Packer::start(
        Arc::clone(&tools.root),
        tools.lease.clone(),
        PackOptions {
            compression: request.compression,
            threads: tools.threads,
            epoch: epoch.map(Timestamp::as_second),
        },
    );
    if request.network == Network::Default
        && plan.runs_commands()
        && let Some(networks) = tools.networks
    {
        networks.prepare();
    }
    let stubs = layers.stubs();
    prepare_stubs(&stubs).map_err(BuildError::Stubs)?;
    let builder = Builder {
        request,
        tools,
        plan: &plan,
        layers,
        bases: &bases,
        packer: &packer,
        in_image: in_image(&plan),
        stubs,
        epoch,
        steps: &steps,
        default_network: OnceLock::new(),
    };
    let state = builder.stages()?;
    if let Some(networks) = tools.networks {
        networks.close();
    }
    builder.assemble(state)
}

/// Tells what the linter found; with `# check=error=true` that ends the build.
fn warn(request: &BuildRequest, plan: &Plan, progress: &dyn Progress) -> Result<(), BuildError> {
    let dockerfile = &request.dockerfile;
    let planned = plan.warnings.iter().filter(|warning| dockerfile.checks.allows(warning.rule));
    let mut rules = Vec::new();
    for warning in dockerfile.warnings.iter().chain(planned) {
        progress.warning(&render(&dockerfile.source, &request.file_name, &warning.diagnostic()));
        rules.push(warning.rule.name());
    }
    rules.sort_unstable();
    rules.dedup();
    if dockerfile.checks.error && !rules.is_empty() {
        return Err(BuildError::Lint(rules));
    }
    Ok(())
}

/// Returns the stages whose layers are in the image.
fn in_image(plan: &Plan) -> HashSet<usize> {
    let mut found = HashSet::new();
    let mut next = plan.stages.last();
    while let Some(stage) = next {
        found.insert(stage.index);
        next = match stage.base {
            Base::Stage(index) => plan.stages.iter().find(|stage| stage.index == index),
            Base::Scratch | Base::Image(_) => None,
        };
    }
    found
}

/// Makes the directory of mount points that lies beneath every step.
fn prepare_stubs(directory: &std::path::Path) -> io::Result<()> {
    fs_err::create_dir_all(directory)?;
    stubs::create(directory, &stubs::STANDARD)
}

/// Plans, reads the ONBUILD triggers of the base images that the plan needs, and plans again,
/// until nothing new is needed.
fn plan_with_triggers(
    request: &BuildRequest,
    bases: &Bases<'_>,
    steps: &Steps<'_>,
) -> Result<Plan, BuildError> {
    let mut known: HashMap<ImageName, Vec<Instruction>> = HashMap::new();
    loop {
        let triggers = |name: &ImageName| known.get(name).cloned();
        let plan = plan(&request.dockerfile, &request.plan, &triggers).map_err(BuildError::Plan)?;
        let mut learned = HashMap::new();
        for stage in &plan.stages {
            if let Base::Image(name) = &stage.base
                && !known.contains_key(name)
            {
                let found = triggers_of(bases, name, stage, steps)?;
                learned.insert(name.clone(), found);
            }
        }
        if learned.is_empty() {
            return Ok(plan);
        }
        known.extend(learned);
    }
}

/// Finds a base image and returns its triggers.
fn triggers_of(
    bases: &Bases<'_>,
    name: &ImageName,
    stage: &PlannedStage,
    steps: &Steps<'_>,
) -> Result<Vec<Instruction>, BuildError> {
    let at = |message: String| crate::plan::error(message, stage.from);
    let base = steps
        .run(&format!("[internal] load {name}"), |step| {
            let say = |text: &str| steps.progress().status(step, text);
            bases.resolve(name, &stage.platform, &say)
        })
        .map_err(|error| BuildError::Step(Box::new(base_failure(error, stage))))?;
    let mut triggers = Vec::new();
    for text in &base.config.config.on_build {
        let parsed = parse_trigger(text).map_err(|problems| {
            let problem = problems.render("ONBUILD");
            let message = format!("{} has a trigger that cannot be read", name.familiar());
            BuildError::Step(Box::new(StepFailure::new(at(message)).because(problem)))
        })?;
        triggers.push(parsed);
    }
    Ok(triggers)
}

/// Returns the failure of a stage whose base cannot be had.
pub(crate) fn base_failure(error: BaseError, stage: &PlannedStage) -> StepFailure {
    let mut diagnostic = crate::plan::error("cannot begin this stage", stage.from);
    diagnostic.hint = match &error {
        BaseError::Image { .. } | BaseError::Unpack { .. } => {
            Some("fetch it again with --pull, or look for more with `boatyard fsck`".to_owned())
        }
        BaseError::Platform { .. } => {
            Some("choose another image, or another --platform".to_owned())
        }
        _ => None,
    };
    StepFailure::new(diagnostic).because(error)
}

/// Returns `SOURCE_DATE_EPOCH`, if it was given.
fn epoch(plan: &Plan) -> Result<Option<Timestamp>, BuildError> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let given = plan.arguments.given(NAME).or_else(|| plan.arguments.global(NAME));
    let Some(text) = given.filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse()
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map(Some)
        .ok_or_else(|| BuildError::Epoch(text.to_owned()))
}

impl Builder<'_> {
    /// Builds the stages in order, and returns the target's state.
    fn stages(&self) -> Result<StageState, BuildError> {
        let mut states: HashMap<usize, StageState> = HashMap::new();
        let mut last = None;
        for stage in &self.plan.stages {
            let state = self.stage(stage, &states)?;
            states.insert(stage.index, state);
            last = Some(stage.index);
        }
        last.and_then(|index| states.remove(&index)).ok_or(BuildError::Cancelled)
    }

    fn assemble(&self, state: StageState) -> Result<Built, BuildError> {
        let labels = &self.request.labels;
        let built = self.steps.run("exporting to image", |_| {
            assemble::assemble(self.tools, labels, state, self.epoch)
        })?;
        self.layers.make_durable()?;
        Ok(built)
    }

    /// Begins to pack a layer, if its stage's layers are in the image.
    pub(crate) fn pack(&self, stage: usize, layer: &LayerDir) -> LayerBlob {
        if self.in_image.contains(&stage) {
            return LayerBlob::Packing(self.packer.pack(layer.clone()));
        }
        LayerBlob::Inside
    }

    /// Returns what a step that asked for `network` gets.
    pub(crate) fn network(&self, network: Network) -> Network {
        if network != Network::Default || !self.request.network_may_fall_back {
            return network;
        }
        // Whoever chose an executor without networks was told what that means.
        let Some(networks) = self.tools.networks else { return Network::Host };
        *self.default_network.get_or_init(|| match networks.check() {
            Ok(()) => Network::Default,
            Err(error) => {
                self.tools.progress.warning(&format!(
                    "RUN steps share this machine's network, because they cannot have one of \
                     their own: {}",
                    error.told()
                ));
                Network::Host
            }
        })
    }

    /// Returns the time that a step's result is given.
    pub(crate) fn time(&self) -> Timestamp {
        self.epoch.unwrap_or_else(|| (self.tools.now)())
    }
}

/// An executor whose helper is started when the first command is to be run.
#[derive(Debug)]
pub struct LazyExecutor {
    init: crate::execute::InitCommand,
    networks: Option<Networks>,
    started: OnceLock<Result<crate::execute::Executor, String>>,
}

impl LazyExecutor {
    /// Returns an executor that is not started yet.
    pub fn new(init: crate::execute::InitCommand) -> LazyExecutor {
        LazyExecutor { init, networks: None, started: OnceLock::new() }
    }

    /// Gives steps with [`Network::Default`] networks of `networks`.
    #[must_use]
    pub fn with_networks(self, networks: Networks) -> LazyExecutor {
        LazyExecutor { networks: Some(networks), ..self }
    }
}

impl Execute for LazyExecutor {
    fn run(
        &self,
        rootfs: std::os::fd::OwnedFd,
        spec: &crate::execute::Spec,
        output: &mut dyn crate::execute::Output,
        cancel: &CancelHandle,
    ) -> Result<Outcome, ExecuteError> {
        let mut failure = None;
        let started = self.started.get_or_init(|| {
            let started = crate::execute::Executor::start(&self.init);
            started.map(|executor| executor.with_networks(self.networks.clone())).map_err(|error| {
                let text = error.to_string();
                failure = Some(error);
                text
            })
        });
        match started {
            Ok(executor) => executor.run(rootfs, spec, output, cancel),
            Err(_) => Err(failure.unwrap_or(ExecuteError::HelperDied)),
        }
    }
}
