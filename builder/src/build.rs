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

mod findings;
mod scene;

pub use scene::Scene;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use boatyard_content::{Lease, Root, StoreError};
use boatyard_oci::{Descriptor, Digest, ImageConfig, ImageName, Platform, Raw};
use jiff::Timestamp;

use crate::assemble::{self, AssembleError};
use crate::base::{BaseError, Bases, Pull};
use crate::cache::{Cache, Key, TimePolicy};
use crate::context::directory::Directory;
use crate::context::load::{LoadError, Loader};
use crate::context::opened::OpenContexts;
use crate::dockerfile::{
    Diagnostic, Dockerfile, Instruction, Source, Span, parse_trigger, render, render_step,
};
use crate::execute::emulation::{self, Emulators};
use crate::execute::{
    CancelHandle, Execute, ExecuteError, HostAddress, Limits, Network, Networks, Outcome, Rlimit,
    stubs,
};
use crate::form::Form;
use crate::ids;
use crate::layer::ContentId;
use crate::once::OnceFor;
use crate::pack::Packer;
use crate::plan::{Base, CopyFrom, NamedContext, Plan, PlanOptions, PlannedStage, plan};
use crate::progress::{Ending, FailedCommand, Progress, StepEnd, Steps};
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
    /// The platforms that the image is for, each once: [`PlanOptions::platform`] is of no account.
    pub platforms: Vec<Platform>,
    /// There is an index, even of one image.
    pub index: bool,
    /// The forms in which the image is wanted, the main one first: steps pack their layers for it.
    pub forms: Vec<Form>,
    /// The times of layers, too, are at most `SOURCE_DATE_EPOCH`, if there is one.
    pub rewrite_timestamp: bool,
    /// What runs programs of other machines here.
    pub emulators: Emulators,
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
    /// Keeps what a command that fails saw and left, in [`StepFailure::scene`].
    pub keeps_scene: bool,
}

/// Takes why a step ran; called from several threads.
pub type Explain<'a> = dyn Fn(Explanation) + Sync + 'a;

/// What was built. Its blobs are in the store, held by the lease.
#[derive(Debug)]
pub struct Built {
    /// The image in each of the forms that were asked for; there is one at least.
    pub forms: Vec<BuiltForm>,
    /// `SOURCE_DATE_EPOCH`, if there is one.
    pub epoch: Option<Timestamp>,
}

/// An image in one form.
#[derive(Clone, Debug)]
pub struct BuiltForm {
    /// Its manifest; of several images their index.
    pub top: Descriptor,
    /// The image of each platform.
    pub images: Vec<BuiltImage>,
}

/// The image of a platform.
#[derive(Clone, Debug)]
pub struct BuiltImage {
    /// The platform.
    pub platform: Platform,
    /// Its manifest.
    pub descriptor: Descriptor,
    /// The configuration; its digest is the image ID.
    pub config: Raw<ImageConfig>,
    /// The base image of the target, if it has one.
    pub base: Option<(ImageName, Digest)>,
}

impl Built {
    /// Returns the main form.
    pub fn main(&self) -> &BuiltForm {
        self.forms.first().expect("a build has one form at least")
    }
}

impl BuiltForm {
    /// Returns what people know the image by: the digest of its configuration, of several that of
    /// their index.
    pub fn id(&self) -> &Digest {
        match &self.images[..] {
            [only] => only.config.digest(),
            _ => &self.top.digest,
        }
    }
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
    #[error(
        "SOURCE_DATE_EPOCH is `{0}`, and must be a number of seconds since 1970, or `context` for \
         the time of a context from elsewhere"
    )]
    Epoch(String),
    /// A step needs an emulator that is not here.
    #[error("{}", .0.message)]
    Emulation(Box<Diagnostic>),
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
    /// What else is known of a command that failed.
    pub command: Option<FailedCommand>,
    /// What it saw and left, if that was asked for.
    pub scene: Option<Box<Scene>>,
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
        StepFailure {
            diagnostic: Box::new(diagnostic),
            source: None,
            outcome: None,
            command: None,
            scene: None,
        }
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
            BuildError::Emulation(problem) => Some(render(source, file_name, problem)),
            BuildError::Step(failure) => {
                let mut bare = failure.diagnostic.clone();
                let hint = bare.hint.take();
                let mut text = match &failure.command {
                    Some(_) => render_step(source, file_name, &bare),
                    None => render(source, file_name, &bare),
                };
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
                let log = failure.command.as_ref().and_then(|command| command.log.as_ref());
                if let Some(log) = log {
                    text.push_str(&format!("note: all that it wrote is in {}\n", log.display()));
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

/// What builds the stages of one platform.
pub(crate) struct Builder<'a> {
    pub(crate) request: &'a BuildRequest,
    pub(crate) tools: &'a Tools<'a>,
    pub(crate) plan: &'a Plan,
    pub(crate) layers: Layers,
    pub(crate) trees: Arc<Trees>,
    pub(crate) bases: &'a Bases<'a>,
    pub(crate) cache: Cache,
    pub(crate) cores: &'a Cores,
    pub(crate) packer: &'a Packer,
    /// The files that steps copy from.
    pub(crate) contexts: &'a OpenContexts,
    /// The stages whose layers are in the image: the target, and the stages that it began with.
    in_image: HashSet<usize>,
    pub(crate) shared: &'a Shared,
    /// What its image is for.
    pub(crate) platform: &'a Platform,
    pub(crate) epoch: Option<Timestamp>,
    /// What times its layers have.
    pub(crate) times: TimePolicy,
    pub(crate) steps: &'a Steps<'a>,
    /// Files cannot be given to others than root.
    pub(crate) single_id: bool,
}

/// What the builders of all platforms know of one another.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// It made trees of layers that have no blob.
    keeps_trees: AtomicBool,
    /// The cache failed, and that was told.
    has_warned: AtomicBool,
    /// The warnings that were told.
    told: Mutex<HashSet<String>>,
    /// What this build recorded: it may be used whatever else may not.
    made: Mutex<HashSet<Key>>,
    /// Files of contexts that steps mount, by their content.
    pub(crate) copies: OnceFor<ContentId, Temporary>,
    /// Agents for keys in files, by their ids.
    pub(crate) key_agents: OnceFor<String, KeyAgent>,
    stubs: OnceLock<PathBuf>,
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
    let plans = plans(request, &bases, &steps)?;
    let shared = Shared::default();
    let later = findings::tell(request, &bases, tools.progress)?;
    check_reuse(request)?;
    emulation::check(request, &plans)
        .map_err(|problem| BuildError::Emulation(Box::new(problem)))?;
    let contexts = open_contexts(request, tools, &plans, &steps)?;
    let cache = Cache::open(&tools.root);
    let trees = Arc::new(Trees::new(Arc::clone(&tools.root), layers.clone(), tools.threads));
    let (root, lease) = (Arc::clone(&tools.root), tools.lease.clone());
    let packer = Packer::new(root, lease, Arc::clone(&trees), cache.clone(), tools.threads);
    // Steps often wait for something else: on one core, too, two are better than one.
    let cores = Cores::new(tools.threads.max(2));
    let mut builders = Vec::with_capacity(plans.len());
    for (plan, platform) in plans.iter().zip(&request.platforms) {
        let epoch = epoch(request, plan, tools.progress)?;
        let seconds = epoch.map(Timestamp::as_second).filter(|_| request.rewrite_timestamp);
        builders.push(Builder {
            request,
            tools,
            plan,
            layers: layers.clone(),
            trees: Arc::clone(&trees),
            bases: &bases,
            cache: cache.clone(),
            cores: &cores,
            packer: &packer,
            contexts: &contexts,
            in_image: in_image(plan),
            shared: &shared,
            platform,
            epoch,
            times: seconds.map_or(TimePolicy::AsMade, TimePolicy::Epoch),
            steps: &steps,
            single_id: ids::is_single(),
        });
    }
    let states = run(&builders);
    contexts.save();
    let states = states?;
    if let Some(networks) = tools.networks {
        networks.close();
    }
    let stacks: Vec<_> = states.iter().map(|state| state.stack.clone()).collect();
    let built = assemble(&builders, states)?;
    later.tell(&tools.root, &stacks, tools.progress);
    Ok(built)
}

/// Plans the build of each platform.
fn plans(
    request: &BuildRequest,
    bases: &Bases<'_>,
    steps: &Steps<'_>,
) -> Result<Vec<Plan>, BuildError> {
    let plan = |platform: &Platform| {
        let options = PlanOptions { platform: platform.clone(), ..request.plan.clone() };
        plan_with_triggers(request, &options, bases, steps)
    };
    request.platforms.iter().map(plan).collect()
}

/// Builds the stages of all platforms at once. What they have in common is one step, since it has
/// one key: who comes second finds what the first one made.
fn run(builders: &[Builder<'_>]) -> Result<Vec<StageState>, BuildError> {
    let run = |builder: &Builder<'_>| {
        let build = |stage: &PlannedStage, stages: &_| builder.stage(stage, stages);
        scheduler::run(builder.plan, &builder.tools.cancel, build)
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            builders.iter().map(|builder| scope.spawn(move || run(builder))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    });
    let (mut states, mut failures) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(state) => states.push(state),
            Err(failure) => failures.push(failure),
        }
    }
    // A failure for one platform cancels the others: that is not why the build failed.
    failures.sort_by_key(BuildError::is_cancellation);
    failures.into_iter().next().map_or(Ok(states), Err)
}

/// Puts the image together in each of its forms.
fn assemble(builders: &[Builder<'_>], states: Vec<StageState>) -> Result<Built, BuildError> {
    let Some(first) = builders.first() else { return Err(BuildError::Cancelled) };
    let (request, tools) = (first.request, first.tools);
    first.steps.run("exporting to image", |_| {
        std::thread::scope(|scope| {
            // Layers of the image have blobs: whatever happens, they can be unpacked again.
            let needs_sync = first.shared.keeps_trees.load(Ordering::Relaxed);
            let synced = needs_sync.then(|| scope.spawn(|| first.layers.make_durable()));
            let mut images = Vec::with_capacity(states.len());
            for (builder, state) in builders.iter().zip(states) {
                images.push(assemble::configure(tools, &request.labels, state, builder.epoch)?);
            }
            let mut forms = Vec::with_capacity(request.forms.len());
            for form in &request.forms {
                let pair = (form, request.form());
                let wants_index = request.index || images.len() > 1;
                forms.push(assemble::form(tools, first.packer, &images, pair, wants_index)?);
            }
            if let Some(synced) = synced {
                synced.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            Ok(Built { forms, epoch: first.epoch })
        })
    })
}

impl BuildRequest {
    /// Returns the main form.
    pub(crate) fn form(&self) -> &Form {
        self.forms.first().expect("a build has one form at least")
    }
}

impl BuildError {
    /// Says whether it only tells that the build was ended.
    pub fn is_cancellation(&self) -> bool {
        match self {
            BuildError::Step(step) => step.outcome == Some(Outcome::Cancelled),
            BuildError::Cancelled => true,
            _ => false,
        }
    }
}

/// Opens the contexts that the plan needs.
fn open_contexts(
    request: &BuildRequest,
    tools: &Tools<'_>,
    plans: &[Plan],
    steps: &Steps<'_>,
) -> Result<OpenContexts, BuildError> {
    let mut contexts = OpenContexts::new(request.context.clone());
    let wanted: HashSet<&str> = plans.iter().flat_map(Plan::contexts).collect();
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
    options: &PlanOptions,
    bases: &Bases<'_>,
    steps: &Steps<'_>,
) -> Result<Plan, BuildError> {
    let mut known: HashMap<Wanted, Vec<Instruction>> = HashMap::new();
    loop {
        let triggers = |name: &ImageName, platform: &Platform| {
            known.get(&(name.clone(), platform.clone())).cloned()
        };
        let plan = plan(&request.dockerfile, options, &triggers).map_err(BuildError::Plan)?;
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
fn epoch(
    request: &BuildRequest,
    plan: &Plan,
    progress: &dyn Progress,
) -> Result<Option<Timestamp>, BuildError> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let given = plan.arguments.given(NAME).or_else(|| plan.arguments.global(NAME));
    let Some(text) = given.filter(|text| !text.is_empty()) else { return Ok(None) };
    if text == "context" {
        let time = request.context.as_ref().and_then(|context| context.time());
        if time.is_none() {
            progress.warning(
                "SOURCE_DATE_EPOCH=context has no effect: this build context says no time of its own",
            );
        }
        return Ok(time);
    }
    text.parse()
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map(Some)
        .ok_or_else(|| BuildError::Epoch(text.to_owned()))
}

impl Builder<'_> {
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
                LayerBlob::Packing(self.packer.pack(stack, self.request.form().compression))
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
        *self.shared.default_network.get_or_init(|| match networks.check() {
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

    /// Says whether the layers of a stage are in the image.
    pub(crate) fn is_in_image(&self, stage: usize) -> bool {
        self.in_image.contains(&stage)
    }

    /// Says whether the layer of an instruction is best written as a blob: it is in the image, and
    /// no RUN sees it.
    pub(crate) fn wants_blob(&self, stage: usize, ordinal: u32) -> bool {
        self.in_image.contains(&stage) && !self.plan.runs_after(stage, ordinal)
    }

    /// Tells a warning, once whatever number of platforms it is about.
    pub(crate) fn warn_once(&self, text: &str) {
        let mut told = self.shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(text.to_owned()) {
            self.tools.progress.warning(text);
        }
    }

    /// Says whether this is the first failure of the cache that is told.
    pub(crate) fn is_first_cache_failure(&self) -> bool {
        !self.shared.has_warned.swap(true, Ordering::Relaxed)
    }

    /// Notes that a layer was made that has a tree and no blob.
    pub(crate) fn keeps_tree(&self, stage: usize) {
        if !self.in_image.contains(&stage) {
            self.shared.keeps_trees.store(true, Ordering::Relaxed);
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
        self.shared.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the directory of mount points that lies beneath every step.
    pub(crate) fn stubs(&self) -> io::Result<&std::path::Path> {
        if let Some(made) = self.shared.stubs.get() {
            return Ok(made);
        }
        let directory = self.layers.stubs();
        fs_err::create_dir_all(&directory)?;
        stubs::create(&directory, &stubs::STANDARD)?;
        Ok(self.shared.stubs.get_or_init(|| directory))
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
