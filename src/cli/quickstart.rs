//! `boatyard quickstart`

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boatyard_builder::build::{BuildRequest, MountSources};
use boatyard_builder::context::directory::Directory;
use boatyard_builder::dockerfile::parse;
use boatyard_builder::execute::emulation::Emulators;
use boatyard_builder::execute::{
    CancelHandle, DEFAULT_SHM_SIZE, Isolation, Limits, Network, NetworkOptions, Networks, Outcome,
    Output, Rung, Spec, stubs,
};
use boatyard_builder::export;
use boatyard_builder::form::Form;
use boatyard_builder::image::Image;
use boatyard_builder::import::{self, RootfsOptions};
use boatyard_builder::plan::{Allow, Contexts, PlanOptions};
use boatyard_builder::solve::Reuse;
use boatyard_content::Root;
use boatyard_front::health::Health;
use boatyard_front::server::ServerOptions;
use boatyard_oci::{Digest, ImageName, Platform, Reference};
use boatyard_registry::{Mirrors, Policies};
use boatyard_upstream::{NoProgress, Platforms};

use crate::access;
use crate::cli::{build, runtime, serve};
use crate::isolation;
use crate::output;
use crate::progress::{self, ProgressMode};
use crate::remote::{self, Mover};
use crate::report::{Context as _, Failure, Result};
use crate::serving;
use crate::world::World;

mod base;

/// Show all of it in a minute: a base image made from this machine's own tools, a registry, an
/// image built in two stages, pushed, pulled back by digest, and run.
///
/// Needs nothing: no network, no image, no other program. It keeps what it makes
/// in a directory of its own, and goes on serving until Ctrl-C.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave at once, and serve no longer
    #[arg(long)]
    exit: bool,
    /// How the build's progress is shown
    #[arg(long, value_name = "KIND", default_value = "auto")]
    progress: ProgressMode,
}

const DOCKERFILE: &str = "\
FROM quickstart/base AS build
WORKDIR /src
COPY . .
RUN sh make.sh /out

FROM quickstart/base
COPY --from=build /out /app
RUN /app/hello > /app/said && echo \"the second stage has $(ls /app | wc -l) files in /app\"
CMD [\"/app/hello\"]
";

const MAKE: &str = "\
# What a compiler would do: sources in, a program out.
mkdir -p \"$1\"
{ echo '#!/bin/sh'; echo \"echo '$(cat greeting)'\"; } > \"$1/hello\"
chmod 755 \"$1/hello\"
echo \"made $1/hello from $(ls | wc -l) files\"
";

const GREETING: &str = "Hello from an image that Boatyard built, kept and ran.\n";

/// Shows the main job.
pub fn run(world: &World, args: &Args, given_root: bool) -> Result<ExitCode> {
    let began = Instant::now();
    let world = &world.with_rung(isolation::isolate(Isolation::Auto)?);
    let scratch = tempfile::Builder::new()
        .prefix("boatyard-quickstart-")
        .tempdir()
        .context("cannot make a directory to work in")?;
    let world =
        if given_root { world.clone() } else { world.with_root(scratch.path().join("root")) };
    let root = world.open_root()?;

    title("1. A base image, from this machine's own tools")?;
    let base = make_base(&root)?;
    output::line(&format!("   quickstart/base  {base}"))?;

    title("2. A registry")?;
    let runtime = runtime()?;
    let health = Health::new();
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let options =
        ServerOptions { addresses: vec![address], health: health.clone(), ..Default::default() };
    let server = {
        let _guard = runtime.enter();
        serve::bind(options)?
    };
    let address = *server
        .local_addrs()
        .first()
        .ok_or_else(|| Failure::new("the registry listens nowhere"))?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let limits = boatyard_registry::Limits::default();
    let authority = access::open_local(&root)?;
    let registry =
        serving::registry(&root, Mirrors::default(), &authority, limits, Policies::none(&root));
    let router = health.router().merge(boatyard_registry::guarded_router(registry, authority));
    let serving = runtime.spawn(server.serve(router, async move {
        let _ = stopped.await;
    }));
    output::line(&format!("   listens on http://{address}"))?;

    title("3. An image, built in two stages")?;
    let context = scratch.path().join("example");
    write_example(&context)?;
    output::line(&format!(
        "   boatyard build -t {address}/quickstart/hello {}",
        context.display()
    ))?;
    let name: ImageName =
        format!("{address}/quickstart/hello:latest").parse().context("cannot name the image")?;
    let digest = build_example(&world, &root, &context, &name, args.progress)?;

    title("4. Pushed, and pulled back by digest")?;
    let client = remote::client(&world)?;
    let lease = root.lease().context("cannot begin a lease")?;
    let mover = Mover { client: &client, root: &root, lease: &lease, progress: &NoProgress };
    runtime.block_on(mover.send(&name, &digest, &name))?;
    output::line(&format!("   pushed {name}"))?;
    let elsewhere = world.with_root(scratch.path().join("another-machine")).open_root()?;
    let by_digest = name.with_reference(Reference::Digest(digest.clone()));
    let other_lease = elsewhere.lease().context("cannot begin a lease")?;
    let platform = Platform::host();
    let mover = Mover { root: &elsewhere, lease: &other_lease, ..mover };
    let pulled = runtime.block_on(mover.fetch(&by_digest, Platforms::One(&platform)))?;
    output::line(&format!("   pulled {by_digest}"))?;
    output::line("   into a root that had never seen it")?;

    title("5. Run")?;
    let said = run_image(&world, &elsewhere, &pulled.top)?;
    output::line(&format!("   {}", said.trim_end()))?;
    drop(other_lease);
    drop(elsewhere);

    title(&format!("That was all, in {:.1} s.", began.elapsed().as_secs_f64()))?;
    output::line(&format!("   sources and Dockerfile  {}", context.display()))?;
    output::line(&format!("   images and layers       {root}"))?;
    output::line(&format!("   what the registry has   curl http://{address}/v2/_catalog"))?;
    output::line(&format!(
        "   with another client     skopeo inspect --tls-verify=false docker://{name}"
    ))?;
    if args.exit {
        output::line("\n   It is gone now: without --exit the registry goes on serving.")?;
    } else {
        output::line("\n   The registry goes on serving. Ctrl-C ends it, and removes all of it.")?;
        let waiting = {
            let _guard = runtime.enter();
            serve::stop_signal()?
        };
        runtime.block_on(waiting);
    }
    let _ = stop.send(());
    let _ = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), serving).await });
    Ok(ExitCode::SUCCESS)
}

fn title(text: &str) -> Result<()> {
    output::line(&format!("\n{text}"))
}

/// Makes the base image and returns its digest.
fn make_base(root: &Arc<Root>) -> Result<Digest> {
    let lease = root.lease().context("cannot begin a lease")?;
    let archive = base::archive()?;
    let options = RootfsOptions {
        platform: Platform::host(),
        changes: vec!["CMD [\"/bin/sh\"]".to_owned()],
        message: "made by boatyard quickstart".to_owned(),
        created: jiff::Timestamp::now(),
        threads: 2,
    };
    let target = import::rootfs(archive.as_slice(), root, &lease, &options)
        .context("cannot make the base image")?;
    let name: ImageName = "quickstart/base".parse().context("cannot name the base image")?;
    import::name(root, &lease, &target, &[name]).context("cannot keep the base image")?;
    Ok(target.digest)
}

fn write_example(context: &Path) -> Result<()> {
    let write = || {
        fs_err::create_dir_all(context)?;
        fs_err::write(context.join("Dockerfile"), DOCKERFILE)?;
        fs_err::write(context.join("make.sh"), MAKE)?;
        fs_err::write(context.join("greeting"), GREETING)?;
        fs_err::write(context.join(".dockerignore"), "*.log\n.git\n")
    };
    write().context("cannot write the example")
}

fn build_example(
    world: &World,
    root: &Arc<Root>,
    context: &Path,
    name: &ImageName,
    mode: ProgressMode,
) -> Result<Digest> {
    let lease = root.lease().context("cannot begin a lease")?;
    let dockerfile =
        parse(DOCKERFILE).map_err(|errors| Failure::verbatim(errors.render("Dockerfile")))?;
    let platform = Platform::host();
    let request = BuildRequest {
        dockerfile,
        file_name: "Dockerfile".to_owned(),
        dockerfile_path: "Dockerfile".to_owned(),
        context: Some(Directory::open(context, None).context("cannot use the example")?.into()),
        plan: PlanOptions {
            target: None,
            build_args: std::collections::BTreeMap::new(),
            contexts: Contexts::default(),
            platform: platform.clone(),
            build_platform: platform,
            allow: Allow::default(),
        },
        given: Vec::new(),
        labels: std::collections::BTreeMap::new(),
        network: network(world.rung()),
        network_may_fall_back: false,
        hosts: Vec::new(),
        shm_size: DEFAULT_SHM_SIZE,
        rlimits: Vec::new(),
        limits: Limits::default(),
        timeout: None,
        platforms: vec![Platform::host()],
        index: false,
        forms: vec![Form::default()],
        rewrite_timestamp: true,
        emulators: Emulators::default(),
        always_pull: false,
        reuse: Reuse::All,
        mounts: MountSources::default(),
    };
    let reporter = progress::open(mode, progress::Environment::read());
    let session = build::Session::begin()?;
    let terms = build::Terms { progress: &reporter, offline: false, explain: None, debug: None };
    let built = build::build_with(world, &session, root, &lease, &request, &terms);
    build::finish(&reporter, &built);
    let built = built?;
    let top = &built.main().top;
    build::keep(root, &lease, std::slice::from_ref(name), top)?;
    Ok(top.digest.clone())
}

/// It needs no network; but not every way to isolate steps can keep them from it.
fn network(rung: Rung) -> Network {
    match rung {
        Rung::Full | Rung::Userns => Network::None,
        Rung::Chroot => Network::Host,
    }
}

/// Runs an image's command and returns what it said.
fn run_image(world: &World, root: &Arc<Root>, target: &boatyard_oci::Descriptor) -> Result<String> {
    struct Said(Vec<u8>);
    impl Output for Said {
        fn stdout(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }
        fn stderr(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }
        fn warning(&mut self, _text: &str) {}
    }
    let failed = "cannot run the image";
    let lease = root.lease().context("cannot begin a lease")?;
    let image = Image::open(&root.store(), target, None).context(failed)?;
    let layers = world.open_layers(root, &lease)?;
    let dirs = export::unpack(&layers, &root.store(), &image, 2, &|_| {}).context(failed)?;
    let mount_points = layers.stubs();
    fs_err::create_dir_all(&mount_points).context(failed)?;
    stubs::create(&mount_points, &stubs::STANDARD).context(failed)?;
    let active = layers.prepare(&dirs).context(failed)?;
    let mount = active.mount(Some(&mount_points)).context(failed)?;
    let config = &image.config.value().config;
    let command = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten());
    let mut spec = Spec::new(command.cloned());
    spec.env = config
        .env
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    spec.cwd = if config.working_dir.is_empty() { "/".into() } else { config.working_dir.clone() };
    spec.network = network(world.rung());
    let networks = Networks::new(NetworkOptions::default());
    let executor = isolation::executor(world.rung(), &networks);
    let cancel = CancelHandle::new().context(failed)?;
    let mut said = Said(Vec::new());
    let outcome = executor.run(mount, &spec, &mut said, &cancel).context(failed)?;
    let text = String::from_utf8_lossy(&said.0).into_owned();
    if outcome != Outcome::Exited(0) {
        return Err(Failure::new(format!("the image's command failed: {outcome}")).because(text));
    }
    Ok(text)
}
