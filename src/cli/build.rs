//! `boatyard build`

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boatyard_builder::base::Say;
use boatyard_builder::build::{BuildError, BuildRequest, Built, Explain, Tools, build};
use boatyard_builder::context::directory::Directory;
use boatyard_builder::dockerfile::lint::Checks;
use boatyard_builder::dockerfile::{Dockerfile, parse_bytes_with};
use boatyard_builder::execute::{CancelHandle, Network, NetworkOptions, Networks, Outcome};
use boatyard_builder::plan::PlanOptions;
use boatyard_builder::progress::Progress;
use boatyard_content::{Lease, Root};
use boatyard_oci::{Descriptor, Digest, ImageName, MediaType, Platform, Reference};
use boatyard_upstream::{Outcome as Transferred, Platforms, TransferProgress};
use tokio::runtime::Runtime;

use crate::cli::{cache, lint, runtime};
use crate::isolation;
use crate::output;
use crate::progress::{self, Ending, Reporter, Summary};
use crate::remote::{self, Mover};
use crate::report::{Context as _, Failure, Result, advice};
use crate::world::World;

mod call;
mod debug;
mod deliver;
mod explain;
mod options;

pub use debug::Debug;
use options::Options;
pub use options::{Args, host, rlimit};

/// Tells a step what of its base image has come.
struct Telling<'a> {
    say: &'a Say<'a>,
}

impl TransferProgress for Telling<'_> {
    fn started(&self, blob: &Descriptor) {
        (self.say)(&format!("fetching {} ({})", blob.digest, output::size(blob.size)));
    }
    fn advanced(&self, _digest: &Digest, _bytes: u64) {}
    fn finished(&self, _digest: &Digest, _outcome: Transferred) {}
}

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
    let checks = lint::checks(&options.build_args)?;
    let (dockerfile, file_name, path) = read_dockerfile(args, checks)?;
    let context = open_context(args, path.as_deref())?;
    let request = BuildRequest {
        dockerfile,
        dockerfile_path: below(&args.context, path.as_deref()),
        file_name,
        context,
        plan: PlanOptions {
            target: args.target.clone(),
            build_args: options.build_args.clone(),
            platform: options.platform.clone(),
            build_platform: Platform::host(),
        },
        labels: options.labels.clone(),
        network: options.network.unwrap_or(Network::Default),
        network_may_fall_back: options.network.is_none(),
        hosts: options.hosts.clone(),
        shm_size: options.shm_size,
        rlimits: options.rlimits.clone(),
        limits: options.limits.clone(),
        timeout: options.timeout,
        compression: options.compression,
        always_pull: args.pull,
        reuse: options.reuse.clone(),
    };
    let reporter = progress::open(options.progress, progress::Environment::read());
    // Kept until the result is where it goes: a push can be interrupted too.
    let session = Session::begin()?;
    let explanations = Mutex::new(Vec::new());
    let explain = |why| explanations.lock().unwrap_or_else(PoisonError::into_inner).push(why);
    let terms = Terms {
        progress: &reporter,
        offline: args.offline,
        explain: options.explain.map(|_| &explain as &Explain<'_>),
        debug: Debug::of(args, &reporter),
    };
    let built = build_with(world, &session, root, &lease, &request, &terms);
    finish(&reporter, &built);
    if let Some(format) = options.explain {
        let explanations = explanations.into_inner().unwrap_or_else(PoisonError::into_inner);
        explain::tell(&explanations, format)?;
    }
    let built = built?;
    keep(root, &options.tags, &built)?;
    deliver::deliver(world, root, &lease, args, options, &built)?;
    Ok(ExitCode::SUCCESS)
}

/// The sockets of a build, and Ctrl-C as the way to cancel it, as long as this lives: the process
/// no longer dies of the signal by itself once somebody has waited for it.
pub struct Session {
    runtime: Runtime,
    cancel: CancelHandle,
}

impl Session {
    /// Begins to wait for Ctrl-C and SIGTERM.
    pub fn begin() -> Result<Session> {
        let runtime = runtime()?;
        let cancel = CancelHandle::new().context("cannot prepare to be cancelled")?;
        let cancelled = cancel.clone();
        let stop = {
            let _guard = runtime.enter();
            super::serve::stop_signal()?
        };
        runtime.spawn(async move {
            stop.await;
            cancelled.cancel();
            // Whatever is not a command (copying, unpacking, pushing) is not waited for: what was
            // written so far is found by the next build, or by the collector.
            tokio::time::sleep(Duration::from_secs(2)).await;
            std::process::exit(INTERRUPTED.into());
        });
        Ok(Session { runtime, cancel })
    }
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
        let platforms = Platforms::One(platform);
        let mover = Mover { client, root, lease, progress: &Telling { say } };
        session
            .runtime
            .block_on(mover.fetch(name, platforms))
            .map(|_| ())
            .map_err(|failure| failed(failure).into())
    };
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
        progress: terms.progress,
        cancel: session.cancel.clone(),
        now: &jiff::Timestamp::now,
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        explain: terms.explain,
        keeps_scene: terms.debug.is_some(),
    };
    build(request, &tools).map_err(|mut error| {
        if let (Some(debug), BuildError::Step(step)) = (&terms.debug, &mut error)
            && let Some(scene) = step.scene.take()
        {
            let failure = failure(&error, request);
            debug.look_around(&scene, &failure, &*executor, &session.runtime);
        }
        let was_cancelled = match &error {
            BuildError::Step(step) => step.outcome == Some(Outcome::Cancelled),
            BuildError::Cancelled => true,
            _ => false,
        };
        let failure = failure(&error, request);
        if was_cancelled { failure.code(INTERRUPTED) } else { failure }
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

/// Returns a Dockerfile's path below the context, or its name where it lies elsewhere: how records of
/// the build cache name it.
fn below(context: &Path, dockerfile: Option<&Path>) -> String {
    let Some(path) = dockerfile else { return "Dockerfile".to_owned() };
    let name = || path.file_name().map_or(path, Path::new);
    path.strip_prefix(context).unwrap_or_else(|_| name()).display().to_string()
}

/// Reads the Dockerfile: `-f`, or `Dockerfile` or `dockerfile` in the context, or stdin.
fn read_dockerfile(
    args: &Args,
    checks: Option<Checks>,
) -> Result<(Dockerfile, String, Option<PathBuf>)> {
    let from_stdin = args.file.as_deref() == Some(Path::new("-"))
        || (args.file.is_none() && args.context == Path::new("-"));
    let (bytes, name, path) = if from_stdin {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("cannot read stdin")?;
        if args.file.is_none() && is_archive(&bytes) {
            return Err(Failure::new("a build context from stdin is not supported yet")
                .hint("unpack it, and name the directory"));
        }
        (bytes, "Dockerfile".to_owned(), None)
    } else {
        let path = find_dockerfile(args)?;
        let bytes = fs_err::read(&path).map_err(|error| {
            Failure::new("cannot read the Dockerfile")
                .because(error)
                .hint("-f names another file; it is relative to here, not to the context")
        })?;
        (bytes, path.display().to_string(), Some(path))
    };
    let dockerfile = parse_bytes_with(&bytes, checks)
        .map_err(|errors| Failure::verbatim(errors.render(&name)))?;
    if let Some(syntax) = &dockerfile.directives.syntax {
        check_syntax(&syntax.value)?;
    }
    Ok((dockerfile, name, path))
}

/// Says whether stdin is a tar or a compressed one rather than a Dockerfile.
fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
        || bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || bytes.starts_with(b"BZh")
        || bytes.starts_with(&[0xfd, b'7', b'z', b'X', b'Z'])
        || bytes.get(257..262) == Some(b"ustar")
}

/// Other front ends are programs of their own, which we do not run.
fn check_syntax(syntax: &str) -> Result<()> {
    let name = syntax.split(['@', ' ']).next().unwrap_or_default();
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let known = ["docker/dockerfile", "docker/dockerfile-upstream"];
    if known.iter().any(|known| name == *known || name.starts_with(&format!("{known}:"))) {
        return Ok(());
    }
    Err(Failure::new(format!("`# syntax={syntax}` asks for a front end that is not supported"))
        .hint("Boatyard reads Dockerfiles itself; without this line it will read this one"))
}

fn find_dockerfile(args: &Args) -> Result<PathBuf> {
    if let Some(file) = &args.file {
        return Ok(file.clone());
    }
    let is_url = args.context.to_string_lossy().contains("://");
    if is_url {
        return Err(Failure::new("a build context from a URL is not supported yet")
            .hint("fetch it, and name the directory"));
    }
    if !args.context.is_dir() {
        let what = if args.context.exists() { "is no directory" } else { "does not exist" };
        return Err(Failure::new(format!("the build context {} {what}", args.context.display())));
    }
    for name in ["Dockerfile", "dockerfile"] {
        let path = args.context.join(name);
        if path.exists() {
            return Ok(path);
        }
    }
    Err(Failure::new(format!("there is no Dockerfile in {}", args.context.display()))
        .hint("-f names a file elsewhere"))
}

fn open_context(args: &Args, dockerfile: Option<&Path>) -> Result<Option<Directory>> {
    if args.context == Path::new("-") {
        return Ok(None);
    }
    Directory::open(&args.context, dockerfile).context("cannot use the build context").map(Some)
}

/// Keeps the image under its names; without one, only its layers are cached.
pub fn keep(root: &Arc<Root>, names: &[ImageName], built: &Built) -> Result<()> {
    for name in names {
        let Reference::Tag(tag) = &name.reference else { continue };
        root.images_of(name)
            .put_manifest(&built.manifest, &MediaType::OCI_MANIFEST, std::slice::from_ref(tag))
            .context(format!("cannot keep the image as {}", name.familiar()))?;
    }
    Ok(())
}
