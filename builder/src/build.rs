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

mod builder;
mod built;
mod failure;
mod findings;
mod plans;
mod request;
mod scene;
mod told;

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;

use crate::assemble;
use crate::attest::attestor::Attestor;
use crate::base::Bases;
use crate::cache::shared::Solved;
use crate::cache::{Cache, TimePolicy};
use crate::context::load::Loader;
use crate::context::opened::OpenContexts;
use crate::execute::emulation;
use crate::ids;
use crate::pack::Packer;
use crate::plan::{Base, NamedContext, Plan, PlannedStage};
use crate::progress::{Progress, Steps};
use crate::solve::{Cores, Reuse, Trees, reuse, scheduler};
use crate::stage::StageState;

pub use built::{Built, BuiltForm, BuiltImage};
pub use failure::{BuildError, StepFailure};
pub use request::{BuildRequest, Explain, MountSources, Tools};
pub use scene::Scene;

pub(crate) use builder::{Builder, Shared};
pub(crate) use failure::{DAMAGED_BASE, base_failure};

/// Builds the target.
///
/// # Errors
/// Where the plan, a step, or the assembly fails. What was built until then is found by later
/// builds, or is garbage that the collector finds; nothing stays mounted and no process is left.
pub fn build(request: &BuildRequest, tools: &Tools<'_>) -> Result<Built, BuildError> {
    let began = (tools.now)();
    let layers = tools.layers.clone();
    layers.sweep_active()?;
    let bases =
        Bases::new(Arc::clone(&tools.root), tools.lease.clone(), tools.pull, request.always_pull)
            .with_given(&request.given);
    let steps = Steps::new(tools.progress);
    let plans = plans::of(request, &bases, &steps)?;
    let shared = Shared::default();
    let later = findings::tell(request, &bases, tools.progress)?;
    check_reuse(request)?;
    emulation::check(request, &plans)
        .map_err(|problem| BuildError::Emulation(Box::new(problem)))?;
    let contexts = open_contexts(request, tools, &plans, &steps)?;
    let cache = Cache::open(&tools.root);
    let imports = Arc::clone(&tools.imports);
    let trees = Trees::new(Arc::clone(&tools.root), layers.clone(), imports, tools.threads);
    let trees = Arc::new(trees);
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
    if tools.dry {
        return Err(BuildError::Cancelled);
    }
    if let Some(networks) = tools.networks {
        networks.close();
    }
    let stacks: Vec<_> = states.iter().map(|state| state.stack.clone()).collect();
    let steps = told::steps(&builders)?;
    let built = assemble(&builders, states, began, steps)?;
    later.tell(&tools.root, &stacks, tools.progress);
    Ok(built)
}

/// Builds the stages of all platforms at once. What they have in common is one step, since it has
/// one key: who comes second finds what the first one made.
fn run(builders: &[Builder<'_>]) -> Result<Vec<StageState>, BuildError> {
    let run = |builder: &Builder<'_>| {
        let build = |stage: &PlannedStage, stages: &_| builder.stage(stage, stages);
        let tools = builder.tools;
        scheduler::run(builder.plan, &tools.cancel, tools.dry, build)
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
fn assemble(
    builders: &[Builder<'_>],
    states: Vec<StageState>,
    began: Timestamp,
    steps: Vec<Solved>,
) -> Result<Built, BuildError> {
    let Some(first) = builders.first() else { return Err(BuildError::Cancelled) };
    let (request, tools) = (first.request, first.tools);
    let attestor = request.attest.is_any().then(|| Attestor {
        request,
        tools,
        bases: first.bases.all(),
        steps: &first.shared.seen,
        began,
        epoch: first.epoch,
        sboms: Mutex::default(),
    });
    first.steps.run("exporting to image", |_| {
        std::thread::scope(|scope| {
            // Layers of the image have blobs: whatever happens, they can be unpacked again.
            let needs_sync = first.shared.keeps_trees.load(Ordering::Relaxed);
            let synced = needs_sync.then(|| scope.spawn(|| first.layers.make_durable()));
            let mut images = Vec::with_capacity(states.len());
            for (builder, state) in builders.iter().zip(states) {
                let inline = told::inline(builder, &state, &steps)?;
                let labels = &request.labels;
                images.push(assemble::configure(tools, labels, state, builder.epoch, inline)?);
            }
            let mut forms = Vec::with_capacity(request.forms.len());
            for form in &request.forms {
                let pair = (form, request.form());
                let wants_index = request.index || images.len() > 1;
                let attestor = attestor.as_ref();
                let packer = first.packer;
                forms.push(assemble::form(tools, packer, &images, pair, wants_index, attestor)?);
            }
            if let Some(synced) = synced {
                synced.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            let mounts = told::mounts(first);
            Ok(Built { forms, epoch: first.epoch, steps, mounts })
        })
    })
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
