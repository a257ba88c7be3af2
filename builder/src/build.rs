//! A build: the stages that the target needs, at once where they can be, into an image.
//!
//! ```text
//! plan ── stages ──▶ each instruction changes the stage's state ([`crate::stage`]):
//!                    configuration at once, files as a new layer on its stack,
//!                    which an earlier build may have made ([`crate::solve`])
//!        layers ──▶ packed beside ([`crate::pack`])
//! target's state + blobs ──▶ configuration, manifest ([`crate::assemble`])
//! ```
//!
//! All of it is blocking code.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use boatyard_content::{Lease, Root, StoreError};
use boatyard_oci::{Descriptor, Digest, ImageConfig, ImageName, Manifest, Platform, Raw};
use jiff::Timestamp;

use crate::assemble::{self, AssembleError};
use crate::base::{BaseError, Bases, Pull};
use crate::cache::{Cache, Key, TimePolicy};
use crate::context::directory::Directory;
use crate::context::load::{LoadError, Loader};
use crate::context::opened::OpenContexts;
use crate::dockerfile::{Diagnostic, Dockerfile, Instruction, Source, Span, parse_trigger, render};
use crate::execute::{
    CancelHandle, Execute, ExecuteError, HostAddress, Limits, Network, Networks, Outcome, Rlimit,
    stubs,
};
use crate::ids;
use crate::layer::ContentId;
use crate::layer::compress::Compression;
use crate::once::OnceFor;
use crate::pack::{PackOptions, Packer};
use crate::plan::{Base, CopyFrom, NamedContext, Plan, PlanOptions, PlannedStage, plan};
use crate::progress::{Ending, Progress, StepEnd, Steps};
use crate::secrets::Secrets;
use crate::snapshot::layers::Temporary;
use crate::snapshot::{Layers, LayersError};
use crate::solve::{
    Cores, Explanation, LayerBlob, LayerStack, Reuse, StackedLayer, Trees, reuse, scheduler,
};
use crate::source::Fetch;
use crate::ssh::{Agents, KeyAgent};
use crate::stage::StageState;

/// How many base images are looked for at once.
const IMAGES_AT_ONCE: usize = 4;

/// What helps where an image's blobs are not what they should be.
pub(crate) const DAMAGED_BASE: &str =
    "fetch it again with --pull, or look for more with `boatyard fsck`";

/// What is to be built, and how.
#[derive(Debug)]
pub struct BuildRequest {
    /// The Dockerfile.
    pub dockerfile: Dockerfile,
    /// What it is called in messages.
    pub file_name: String,
    /// Its path below the context: how records name it, the same in two checkouts.
    pub dockerfile_path: String,
    /// The files of the build; `None` where there are none, as with a Dockerfile on stdin alone.
    pub context: Option<Arc<Directory>>,
    /// Target, arguments, platforms.
    pub plan: PlanOptions,
    /// Images that are in the store and come with the build: of OCI layouts.
    pub given: Vec<Descriptor>,
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
    /// Which earlier results may be used.
    pub reuse: Reuse,
    /// What mounts of steps may show of whoever builds.
    pub mounts: MountSources,
}

/// What mounts of steps show beside the files of the build.
#[derive(Debug, Default)]
pub struct MountSources {
    /// `--secret`.
    pub secrets: Secrets,
    /// `--ssh`.
    pub agents: Agents,
    /// What tells builds apart whose caches have the same target and no `id`: the same for every
    /// build of a project. Builds of the same text share them.
    pub project: String,
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
    /// Fetches what ADD and contexts name, if that may be.
    pub fetch: Option<&'a dyn Fetch>,
    /// Is told what happens.
    pub progress: &'a dyn Progress,
    /// Ends the build. A build that fails uses it up: what still runs is cancelled.
    pub cancel: CancelHandle,
    /// Tells the time.
    pub now: &'a (dyn Fn() -> Timestamp + Sync),
    /// How many threads compress and unpack, and how many steps work at once.
    pub threads: usize,
    /// Is told why each step ran.
    pub explain: Option<&'a Explain<'a>>,
}

/// Takes why a step ran; called from several threads.
pub type Explain<'a> = dyn Fn(Explanation) + Sync + 'a;

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
    /// `# check=error=true`, and the linter found something.
    #[error("the Dockerfile asks for warnings to be errors, and there is `{}`", .0.join("`, `"))]
    Lint(Vec<&'static str>),
    /// A named context cannot be had.
    #[error("cannot use the context `{name}`")]
    Context {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: LoadError,
    },
    /// `--no-cache-filter` names no stage.
    #[error("there is no stage `{0}` whose cache could be left out")]
    NoSuchStage(String),
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

impl Ending for StepFailure {
    fn ending(&self) -> StepEnd {
        match self.outcome {
            Some(Outcome::Cancelled) => StepEnd::Cancelled,
            _ => StepEnd::Failed(self.to_string()),
        }
    }
}

impl Ending for BaseError {}

impl Ending for BuildError {}

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
    pub(crate) trees: Arc<Trees>,
    pub(crate) bases: &'a Bases<'a>,
    pub(crate) cache: Cache,
    pub(crate) cores: Cores,
    pub(crate) packer: Packer,
    /// The files that steps copy from.
    pub(crate) contexts: OpenContexts,
    /// The stages whose layers are in the image: the target, and the stages that it began with.
    in_image: HashSet<usize>,
    /// It made trees of layers that have no blob.
    keeps_trees: AtomicBool,
    /// The cache failed, and that was told.
    pub(crate) has_warned: AtomicBool,
    /// What this build recorded: it may be used whatever else may not.
    made: Mutex<HashSet<Key>>,
    /// Files of contexts that steps mount, by their content.
    pub(crate) copies: OnceFor<ContentId, Temporary>,
    /// Agents for keys in files, by their ids.
    pub(crate) key_agents: OnceFor<String, KeyAgent>,
    stubs: OnceLock<PathBuf>,
    pub(crate) epoch: Option<Timestamp>,
    /// What times its layers have.
    pub(crate) times: TimePolicy,
    pub(crate) steps: &'a Steps<'a>,
    /// Files cannot be given to others than root.
    pub(crate) single_id: bool,
    /// What [`Network::Default`] turned out to be; `None` until a step asks.
    default_network: OnceLock<Network>,
}

/// Builds the target.
///
/// # Errors
/// Where the plan, a step, or the assembly fails. What was built until then is found by later
/// builds, or is garbage that the collector finds; nothing stays mounted and no process is left.
pub fn build(request: &BuildRequest, tools: &Tools<'_>) -> Result<Built, BuildError> {
    let layers = tools.layers.clone();
    layers.sweep_active()?;
    let bases =
        Bases::new(Arc::clone(&tools.root), tools.lease.clone(), tools.pull, request.always_pull)
            .with_given(&request.given);
    let steps = Steps::new(tools.progress);
    let plan = plan_with_triggers(request, &bases, &steps)?;
    warn(request, &plan, tools.progress)?;
    check_reuse(request)?;
    let contexts = open_contexts(request, tools, &plan, &steps)?;
    let builder = Builder::new(request, tools, &plan, layers, &bases, &steps)?;
    let builder = Builder { contexts, ..builder };
    let state = scheduler::run(&plan, &tools.cancel, |stage, stages| builder.stage(stage, stages));
    builder.contexts.save();
    let state = state?;
    if let Some(networks) = tools.networks {
        networks.close();
    }
    builder.assemble(state)
}

/// Opens the contexts that the plan needs.
fn open_contexts(
    request: &BuildRequest,
    tools: &Tools<'_>,
    plan: &Plan,
    steps: &Steps<'_>,
) -> Result<OpenContexts, BuildError> {
    let mut contexts = OpenContexts::new(request.context.clone());
    let wanted = plan.contexts();
    for (name, context) in request.plan.contexts.iter() {
        let NamedContext::Files(location) = context else { continue };
        if !wanted.contains(name) {
            continue;
        }
        let directory = steps.run(&format!("[context {name}] load"), |step| {
            let say = |text: &str| steps.progress().status(step, text);
            let loader = Loader { layers: &tools.layers, fetch: tools.fetch, say: &say };
            let named = loader.named(location);
            named.map_err(|source| BuildError::Context { name: name.to_owned(), source })
        })?;
        contexts.add(name, directory);
    }
    Ok(contexts)
}

/// Says where a stage is named that is not there.
fn check_reuse(request: &BuildRequest) -> Result<(), BuildError> {
    let Reuse::AllBut(names) = &request.reuse else { return Ok(()) };
    let stages = &request.dockerfile.stages;
    let is_there = |given: &String| {
        stages.iter().enumerate().any(|(index, stage)| {
            let name = stage.name.as_ref().map_or("", |name| name.value.as_str());
            reuse::is_of(given, name, index)
        })
    };
    match names.iter().find(|name| !is_there(name)) {
        Some(name) => Err(BuildError::NoSuchStage(name.clone())),
        None => Ok(()),
    }
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

/// Plans, reads the ONBUILD triggers of the base images that the plan needs, and plans again,
/// until nothing new is needed. All images that a plan names are looked for at once.
fn plan_with_triggers(
    request: &BuildRequest,
    bases: &Bases<'_>,
    steps: &Steps<'_>,
) -> Result<Plan, BuildError> {
    let mut known: HashMap<Wanted, Vec<Instruction>> = HashMap::new();
    loop {
        let triggers = |name: &ImageName| {
            known.iter().find(|((known, _), _)| known == name).map(|(_, found)| found.clone())
        };
        let plan = plan(&request.dockerfile, &request.plan, &triggers).map_err(BuildError::Plan)?;
        let learned = learn(&plan, &known, bases, steps)?;
        if learned.is_empty() {
            return Ok(plan);
        }
        known.extend(learned);
    }
}

/// An image that a plan needs.
type Wanted = (ImageName, Platform);

/// Where a plan needs an image first.
struct Need<'a> {
    image: Wanted,
    /// The word that names it.
    span: Span,
    /// A stage begins with it: its triggers count.
    base_of: Option<&'a PlannedStage>,
}

/// Looks for the images of a plan that are not known yet, several at once.
fn learn(
    plan: &Plan,
    known: &HashMap<Wanted, Vec<Instruction>>,
    bases: &Bases<'_>,
    steps: &Steps<'_>,
) -> Result<Vec<(Wanted, Vec<Instruction>)>, BuildError> {
    let mut needs: Vec<Need<'_>> = Vec::new();
    for need in images(plan).filter(|need| !known.contains_key(&need.image)) {
        match needs.iter_mut().find(|other| other.image == need.image) {
            Some(other) => other.base_of = other.base_of.or(need.base_of),
            None => needs.push(need),
        }
    }
    let mut learned = Vec::with_capacity(needs.len());
    for some in needs.chunks(IMAGES_AT_ONCE) {
        let found: Vec<_> = std::thread::scope(|scope| {
            let load = |need| scope.spawn(move || load(bases, need, steps));
            let (first, rest) = some.split_first().expect("a chunk has one at least");
            let rest: Vec<_> = rest.iter().map(load).collect();
            let first = self::load(bases, first, steps);
            let rest = rest.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            std::iter::once(first).chain(rest).collect()
        });
        for (need, triggers) in some.iter().zip(found) {
            learned.push((need.image.clone(), triggers?));
        }
    }
    Ok(learned)
}

/// Returns the images that stages begin with, or copy from.
fn images(plan: &Plan) -> impl Iterator<Item = Need<'_>> {
    plan.stages.iter().flat_map(|stage| {
        let of = |name: &ImageName| (name.clone(), stage.platform.clone());
        let base = match &stage.base {
            Base::Image(name) => {
                Some(Need { image: of(name), span: stage.from, base_of: Some(stage) })
            }
            Base::Scratch | Base::Stage(_) => None,
        };
        let copies = stage.instructions.iter().flat_map(move |planned| {
            let span = match planned.is_trigger {
                true => stage.from,
                false => planned.instruction.span,
            };
            planned.sources().filter_map(move |from| {
                let CopyFrom::Image(name) = from else { return None };
                Some(Need { image: of(name), span, base_of: None })
            })
        });
        base.into_iter().chain(copies)
    })
}

/// Finds an image and returns its triggers, if a stage begins with it.
fn load(
    bases: &Bases<'_>,
    need: &Need<'_>,
    steps: &Steps<'_>,
) -> Result<Vec<Instruction>, BuildError> {
    let (name, platform) = &need.image;
    let what = match need.base_of {
        Some(_) => "cannot begin this stage",
        None => "cannot read what this step copies from",
    };
    let at = |message: &str| crate::plan::error(message, need.span);
    let base = steps
        .run(&format!("[internal] load {name}"), |step| {
            let say = |text: &str| steps.progress().status(step, text);
            bases.resolve(name, platform, &say)
        })
        .map_err(|error| BuildError::Step(Box::new(base_failure(error, at(what)))))?
        .image;
    let mut triggers = Vec::new();
    if need.base_of.is_none() {
        return Ok(triggers);
    }
    for text in &base.config.config.on_build {
        let parsed = parse_trigger(text).map_err(|problems| {
            let problem = problems.render("ONBUILD");
            let message = format!("{} has a trigger that cannot be read", name.familiar());
            BuildError::Step(Box::new(StepFailure::new(at(&message)).because(problem)))
        })?;
        triggers.push(parsed);
    }
    Ok(triggers)
}

/// Returns the failure of what needs an image that cannot be had.
pub(crate) fn base_failure(error: BaseError, mut diagnostic: Diagnostic) -> StepFailure {
    diagnostic.hint = match &error {
        BaseError::Image { .. } => Some(DAMAGED_BASE.to_owned()),
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

impl<'a> Builder<'a> {
    fn new(
        request: &'a BuildRequest,
        tools: &'a Tools<'a>,
        plan: &'a Plan,
        layers: Layers,
        bases: &'a Bases<'a>,
        steps: &'a Steps<'a>,
    ) -> Result<Builder<'a>, BuildError> {
        let epoch = epoch(plan)?;
        let (root, lease) = (&tools.root, &tools.lease);
        let cache = Cache::open(root);
        let trees = Arc::new(Trees::new(Arc::clone(root), layers.clone(), tools.threads));
        let epoch_seconds = epoch.map(Timestamp::as_second);
        let options = PackOptions {
            compression: request.compression,
            threads: tools.threads,
            epoch: epoch_seconds,
        };
        let packer = Packer::new(
            Arc::clone(root),
            lease.clone(),
            Arc::clone(&trees),
            cache.clone(),
            options,
        );
        Ok(Builder {
            request,
            tools,
            plan,
            layers,
            trees,
            bases,
            cache,
            // Steps often wait for something else: on one core, too, two are better than one.
            cores: Cores::new(tools.threads.max(2)),
            packer,
            contexts: OpenContexts::default(),
            in_image: in_image(plan),
            keeps_trees: AtomicBool::new(false),
            has_warned: AtomicBool::new(false),
            made: Mutex::default(),
            copies: OnceFor::default(),
            key_agents: OnceFor::default(),
            stubs: OnceLock::new(),
            default_network: OnceLock::new(),
            single_id: ids::is_single(),
            epoch,
            times: epoch_seconds.map_or(TimePolicy::AsMade, TimePolicy::Epoch),
            steps,
        })
    }

    fn assemble(&self, state: StageState) -> Result<Built, BuildError> {
        let labels = &self.request.labels;
        self.steps.run("exporting to image", |_| {
            std::thread::scope(|scope| {
                // Layers of the image have blobs: whatever happens, they can be unpacked again.
                let needs_sync = self.keeps_trees.load(Ordering::Relaxed);
                let synced = needs_sync.then(|| scope.spawn(|| self.layers.make_durable()));
                let built = assemble::assemble(self.tools, labels, state, self.epoch)?;
                if let Some(synced) = synced {
                    synced.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                }
                Ok(built)
            })
        })
    }

    /// Says what stands for a layer in the image, if its stage's layers are in it: a blob that is
    /// there, or else one that is packed from now on.
    pub(crate) fn put_in_image(
        &self,
        stage: usize,
        below: &LayerStack,
        layer: &StackedLayer,
        there: Option<LayerBlob>,
    ) {
        if !self.in_image.contains(&stage) {
            return;
        }
        layer.set_in_image(|| {
            there.unwrap_or_else(|| {
                let mut stack = below.layers().to_vec();
                stack.push(layer.clone());
                LayerBlob::Packing(self.packer.pack(stack))
            })
        });
    }

    /// Says whether steps can have mounts. Without them, what they are to see lies in their tree.
    pub(crate) fn mounts(&self) -> bool {
        self.layers.view().is_mounted()
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

    /// Says whether the layer of an instruction is best written as a blob: it is in the image, and
    /// no RUN sees it.
    pub(crate) fn wants_blob(&self, stage: usize, ordinal: u32) -> bool {
        self.in_image.contains(&stage) && !self.plan.runs_after(stage, ordinal)
    }

    /// Notes that a layer was made that has a tree and no blob.
    pub(crate) fn keeps_tree(&self, stage: usize) {
        if !self.in_image.contains(&stage) {
            self.keeps_trees.store(true, Ordering::Relaxed);
        }
    }

    /// Says whether this build recorded a step.
    pub(crate) fn has_made(&self, key: &Key) -> bool {
        self.made().contains(key)
    }

    /// Notes that this build recorded a step.
    pub(crate) fn note_made(&self, keys: &[Key]) {
        self.made().extend(keys);
    }

    fn made(&self) -> std::sync::MutexGuard<'_, HashSet<Key>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the directory of mount points that lies beneath every step.
    pub(crate) fn stubs(&self) -> io::Result<&std::path::Path> {
        if let Some(made) = self.stubs.get() {
            return Ok(made);
        }
        let directory = self.layers.stubs();
        fs_err::create_dir_all(&directory)?;
        stubs::create(&directory, &stubs::STANDARD)?;
        Ok(self.stubs.get_or_init(|| directory))
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
