//! `boatyard build`

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boatyard_builder::attest::Witness;
use boatyard_builder::base::Say;
use boatyard_builder::build::{BuildError, BuildRequest, Built, Explain, Tools, build};
use boatyard_builder::cache::shared::{Imports, Mode};
use boatyard_builder::context::load::Loader;
use boatyard_builder::context::location::Location;
use boatyard_builder::execute::emulation::Emulators;
use boatyard_builder::execute::{CancelHandle, Network, NetworkOptions, Networks};
use boatyard_builder::form::Form;
use boatyard_builder::import;
use boatyard_builder::plan::PlanOptions;
use boatyard_builder::progress::Progress;
use boatyard_content::{Lease, Root};
use boatyard_oci::{Descriptor, Digest, ImageName, Platform};
use boatyard_upstream::{Outcome as Transferred, Platforms, TransferProgress};
use tokio::runtime::Runtime;

use crate::cli::{cache, runtime};
use crate::isolation;
use crate::lazy_base;
use crate::progress::{self, Ending, Reporter, Summary};
use crate::remote::{self, Mover};
use crate::report::{Context as _, Failure, Result, advice, note};
use crate::shared_cache::Exchange;
use crate::shared_cache::options::Place;
use crate::sources::{Lent, Sources};
use crate::world::World;

mod attest;
mod call;
mod compatibility;
mod context;
mod debug;
mod deliver;
mod dry;
mod explain;
mod mounts;
mod options;
mod output;
mod project;
mod shared;

use context::Opened;
pub use debug::Debug;
pub use dry::dry;
use options::Options;
pub use options::{Args, host, rlimit};
use output::Output;

/// Tells a step what of its base image has come.
struct Telling<'a> {
    say: &'a Say<'a>,
}

impl TransferProgress for Telling<'_> {
    fn started(&self, blob: &Descriptor) {
        (self.say)(&format!("fetching {} ({})", blob.digest, crate::output::size(blob.size)));
    }
    fn advanced(&self, _digest: &Digest, _bytes: u64) {}
    fn finished(&self, _digest: &Digest, _outcome: Transferred) {}
}

/// Arguments that BuildKit takes for itself, and that we do not.
const WITHOUT_EFFECT: [&str; 1] = ["BUILDKIT_INLINE_CACHE"];

/// Where the kernel tells which emulators it knows.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// The exit code after Ctrl-C, as shells have it: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// Builds.
pub fn run(world: &World, args: &Args) -> Result<ExitCode> {
    let options = Options::new(args)?;
    if let Some(call) = call::Call::read(args)? {
        return call::run(world, args, &options, call);
    }
    let isolation = args.isolation.unwrap_or(world.config.build.isolation);
    let world = &world.with_rung(isolation::isolate(isolation)?);
    let root = world.open_root()?;
    let outcome = build_and_deliver(world, &root, args, &options);
    // Its leases are given up by now; a build that failed has left results of its steps, too.
    cache::enforce(world, &root);
    outcome
}

fn build_and_deliver(
    world: &World,
    root: &Arc<Root>,
    args: &Args,
    options: &Options,
) -> Result<ExitCode> {
    let lease = root.lease().context("cannot begin a lease")?;
    // Kept until the result is where it goes: a push can be interrupted too.
    let session = Session::begin()?;
    let request = request(world, &session, (root, &lease), args, options)?;
    let reporter = progress::open(options.progress, progress::Environment::read());
    warn_of_arguments(options, &reporter);
    let explanations = Mutex::new(Vec::new());
    let explain = |why| explanations.lock().unwrap_or_else(PoisonError::into_inner).push(why);
    let caches = &options.caches;
    if args.offline && caches.outside().any(|to| matches!(to.place, Place::Registry(_))) {
        return Err(Failure::usage("--offline forbids to push a cache to a registry"));
    }
    let exchange = Exchange::new(world, session.runtime.handle(), root, &lease);
    let imports = shared::import(&exchange, caches, &options.reuse, args.offline, &reporter);
    let mut terms = Terms {
        progress: &reporter,
        offline: args.offline,
        explain: options.explain.map(|_| &explain as &Explain<'_>),
        debug: Debug::of(args, &reporter),
        shared: SharedTerms {
            imports,
            tells: caches.tells(),
            inline: caches.is_inline(),
            dry: false,
        },
    };
    let mut built = build_with(world, &session, root, &lease, &request, &terms);
    if let Some(broken) = broken(&built, &terms.shared.imports) {
        reporter.warning(&format!("warning: {broken}: building again without imported caches"));
        session.renew()?;
        terms.shared.imports = Arc::default();
        built = build_with(world, &session, root, &lease, &request, &terms);
    }
    finish(&reporter, &built);
    let imports = terms.shared.imports;
    if let Some(format) = options.explain {
        let explanations = explanations.into_inner().unwrap_or_else(PoisonError::into_inner);
        explain::tell(&explanations, format)?;
    }
    let built = built?;
    let imports = &*imports;
    let delivered = deliver::deliver(world, (root, &lease), args, options, &built, imports);
    let (exchange, request, quiet) = (&exchange, &request, args.quiet);
    let built = &built;
    let telling =
        shared::Telling { exchange, caches, imports, request, built, root, lease: &lease, quiet };
    // Where the image could not be delivered, its steps need not be done again.
    let told = telling.tell();
    delivered.and(told)?;
    Ok(ExitCode::SUCCESS)
}

/// Says why a build failed, where that was a cache that did not keep what it promised.
fn broken(built: &Result<Built>, imports: &Imports) -> Option<String> {
    let failure = built.as_ref().err()?;
    imports.failure().filter(|_| failure.exit_code() != INTERRUPTED)
}

/// Opens the context, reads the Dockerfile, and returns what the options ask for.
fn request(
    world: &World,
    session: &Session,
    (root, lease): (&Arc<Root>, &Lease),
    args: &Args,
    options: &Options,
) -> Result<BuildRequest> {
    let mut mounts = mounts::of(world, args)?;
    let lent = Lent { secrets: &mounts.secrets, agents: &mounts.agents };
    let Opened { dockerfile, file_name, dockerfile_path, context } =
        open_context(world, session, (root, lease), args, options, lent)?;
    mounts.project = project::of(&args.context, &dockerfile_path);
    let (contexts, given) = context::named(args, root, lease)?;
    Ok(BuildRequest {
        attest: options.attest.clone(),
        dockerfile,
        dockerfile_path,
        file_name,
        context: context.map(Arc::new),
        plan: PlanOptions {
            target: args.target.clone(),
            build_args: options.build_args.clone(),
            contexts,
            platform: Platform::host(),
            build_platform: Platform::host(),
            allow: options.allow,
        },
        given,
        labels: options.labels.clone(),
        network: options.network.unwrap_or(Network::Default),
        network_may_fall_back: options.network.is_none(),
        hosts: options.hosts.clone(),
        shm_size: options.shm_size,
        rlimits: options.rlimits.clone(),
        limits: options.limits.clone(),
        timeout: options.timeout,
        platforms: options.platforms.clone(),
        index: options.index,
        forms: forms(&options.outputs),
        rewrite_timestamp: options.rewrite_timestamp,
        emulators: Emulators::read(Path::new(BINFMT)),
        always_pull: args.pull,
        reuse: options.reuse.clone(),
        mounts,
    })
}

/// Opens the context and reads the Dockerfile.
fn open_context(
    world: &World,
    session: &Session,
    (root, lease): (&Arc<Root>, &Lease),
    args: &Args,
    options: &Options,
    lent: Lent<'_>,
) -> Result<Opened> {
    let location = context::location(args)?;
    if let Location::Directory(directory) = &location {
        return context::open_directory(args, options, directory);
    }
    let layers = world.open_layers(root, lease)?;
    let sources = Sources::new(world, &session.runtime, root, lease, args.offline, lent);
    let say = |text: &str| {
        if !args.quiet {
            note(text);
        }
    };
    let witness = Witness::new(&sources, &options.attest);
    let loader = Loader { layers: &layers, fetch: Some(&witness), say: &say };
    context::open_loaded(args, options, &location, loader)
}

/// Says which arguments mean something to BuildKit and nothing here.
fn warn_of_arguments(options: &Options, progress: &dyn Progress) {
    for name in options.build_args.keys().filter(|name| WITHOUT_EFFECT.contains(&name.as_str())) {
        progress.warning(&format!("warning: the build argument {name} has no effect here"));
    }
}

/// The sockets of a build, and Ctrl-C as the way to cancel it, as long as this lives: the process
/// no longer dies of the signal by itself once somebody has waited for it.
pub struct Session {
    runtime: Runtime,
    cancel: Arc<Mutex<CancelHandle>>,
}

impl Session {
    /// Begins to wait for Ctrl-C and SIGTERM.
    pub fn begin() -> Result<Session> {
        let runtime = runtime()?;
        let cancel = CancelHandle::new().context("cannot prepare to be cancelled")?;
        let cancel = Arc::new(Mutex::new(cancel));
        let cancelled = Arc::clone(&cancel);
        let stop = {
            let _guard = runtime.enter();
            super::serve::stop_signal()?
        };
        runtime.spawn(async move {
            stop.await;
            cancelled.lock().unwrap_or_else(PoisonError::into_inner).cancel();
            // Whatever is not a command (copying, unpacking, pushing) is not waited for: what was
            // written so far is found by the next build, or by the collector.
            tokio::time::sleep(Duration::from_secs(2)).await;
            std::process::exit(INTERRUPTED.into());
        });
        Ok(Session { runtime, cancel })
    }

    /// Returns what cancels the build.
    fn cancel(&self) -> CancelHandle {
        self.cancel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Prepares for another build: one that failed has used up what cancels it.
    fn renew(&self) -> Result<()> {
        let fresh = CancelHandle::new().context("cannot prepare to be cancelled")?;
        *self.cancel.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

/// What a build has of other machines, and what it tells them.
#[derive(Default)]
pub struct SharedTerms {
    /// What their caches hold.
    pub imports: Arc<Imports>,
    /// Which steps are told, if any.
    pub tells: Option<Mode>,
    /// The image's configuration says what its steps were.
    pub inline: bool,
    /// Nothing runs: it is only told what would.
    pub dry: bool,
}

/// On which terms a build runs.
pub struct Terms<'a> {
    /// Is told what happens.
    pub progress: &'a dyn Progress,
    /// It makes no network request of its own.
    pub offline: bool,
    /// Is told why each step ran.
    pub explain: Option<&'a Explain<'a>>,
    /// Whether and how one looks around where a step failed.
    pub debug: Option<Debug<'a>>,
    /// What it has of other machines.
    pub shared: SharedTerms,
}

/// Runs the build on this thread.
pub fn build_with(
    world: &World,
    session: &Session,
    root: &Arc<Root>,
    lease: &Lease,
    request: &BuildRequest,
    terms: &Terms<'_>,
) -> Result<Built> {
    let client = std::sync::OnceLock::new();
    let pull = |name: &ImageName, platform: &Platform, say: &Say<'_>| {
        if terms.offline {
            return Err(format!(
                "it is not on this machine, and --offline forbids to ask {}",
                name.registry
            )
            .into());
        }
        let failed = |failure: Failure| failure.to_string().replacen("error: ", "", 1);
        if client.get().is_none() {
            let _ = client.set(remote::client(world).map_err(failed)?);
        }
        let Some(client) = client.get() else { return Err("there is no client".into()) };
        let mover = Mover { client, root, lease, progress: &Telling { say } };
        let (runtime, imports) = (&session.runtime, &terms.shared.imports);
        let pulled = match imports.is_empty() {
            true => runtime.block_on(mover.fetch(name, Platforms::One(platform))).map(|_| None),
            // Where other machines did all steps, nobody needs its layers.
            false => lazy_base::fetch(mover, (runtime.handle(), root), name, platform, imports),
        };
        pulled.map_err(|failure| failed(failure).into())
    };
    let lent = Lent { secrets: &request.mounts.secrets, agents: &request.mounts.agents };
    let sources = Sources::new(world, &session.runtime, root, lease, terms.offline, lent);
    let witness = Witness::new(&sources, &request.attest);
    let networks = Networks::new(NetworkOptions {
        search: world.environment.path.clone(),
        ..NetworkOptions::default()
    });
    let executor = isolation::executor(world.rung(), &networks);
    let tools = Tools {
        root: Arc::clone(root),
        lease: lease.clone(),
        layers: world.open_layers(root, lease)?,
        executor: &*executor,
        networks: isolation::has_networks(world.rung()).then_some(&networks),
        pull: &pull,
        fetch: Some(&witness),
        progress: terms.progress,
        cancel: session.cancel(),
        now: &jiff::Timestamp::now,
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        explain: terms.explain,
        imports: Arc::clone(&terms.shared.imports),
        tells: terms.shared.tells,
        inline: terms.shared.inline,
        dry: terms.shared.dry,
        keeps_scene: terms.debug.is_some(),
    };
    build(request, &tools).map_err(|mut error| {
        if let (Some(debug), BuildError::Step(step)) = (&terms.debug, &mut error)
            && let Some(scene) = step.scene.take()
        {
            let failure = failure(&error, request);
            debug.look_around(&scene, &failure, &*executor, &session.runtime);
        }
        let failure = failure(&error, request);
        if error.is_cancellation() { failure.code(INTERRUPTED) } else { failure }
    })
}

/// Ends the show.
pub fn finish(reporter: &Reporter, built: &Result<Built>) {
    let ending = match built {
        Ok(_) => Ending::Done,
        Err(failure) if failure.exit_code() == INTERRUPTED => Ending::Cancelled,
        Err(_) => Ending::Failed,
    };
    reporter.finish(&Summary { ending, text: String::new() });
}

fn failure(error: &BuildError, request: &BuildRequest) -> Failure {
    if let Some(text) = error.render(&request.dockerfile.source, &request.file_name) {
        let failure = Failure::verbatim(text);
        let reason = match error {
            BuildError::Step(step) => step.source.as_deref(),
            _ => None,
        };
        return match reason.and_then(|reason| advice(reason)) {
            Some(advice) => failure.hint(advice),
            None => failure,
        };
    }
    let mut reasons = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(reason) = cause {
        reasons.push(reason.to_string());
        cause = reason.source();
    }
    reasons.dedup();
    let failure = Failure::new(error.to_string());
    if reasons.is_empty() { failure } else { failure.because(reasons.join(": ")) }
}

/// Other front ends are programs of their own, which we do not run. `how` is how it was asked for.
fn check_syntax(how: &str, syntax: &str) -> Result<()> {
    let name = syntax.split(['@', ' ']).next().unwrap_or_default();
    let name = ["docker.io/", "index.docker.io/"]
        .iter()
        .find_map(|registry| name.strip_prefix(registry))
        .unwrap_or(name);
    let known = ["docker/dockerfile", "docker/dockerfile-upstream"];
    let is_known = |known: &&str| {
        name.strip_prefix(*known).is_some_and(|tag| tag.is_empty() || tag.starts_with(':'))
    };
    // What BuildKit calls the front end that it has built in.
    if name == "dockerfile.v0" || known.iter().any(is_known) {
        return Ok(());
    }
    Err(Failure::new(format!("`{how}{syntax}` asks for a front end that is not supported"))
        .hint("Boatyard reads Dockerfiles itself; without this it will read this one"))
}

/// Returns the forms that outputs want, the main one first: that of the first image.
fn forms(outputs: &[Output]) -> Vec<Form> {
    let images = outputs.iter().filter(|output| output.is_image());
    let mut forms: Vec<Form> = Vec::new();
    for output in images.chain(outputs) {
        if (output.is_image() || forms.is_empty()) && !forms.contains(&output.form) {
            forms.push(output.form.clone());
        }
    }
    forms
}

/// Keeps an image under its names; without one, only its layers are cached.
pub fn keep(root: &Root, lease: &Lease, names: &[ImageName], top: &Descriptor) -> Result<()> {
    import::name(root, lease, top, names).context("cannot keep the image")
}
