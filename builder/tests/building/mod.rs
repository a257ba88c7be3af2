//! Builds without a machine around them: no command runs, and the disk is whatever a test wants.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use boatyard_builder::attest::Attest;
use boatyard_builder::build::{BuildError, BuildRequest, MountSources, Tools, build};
use boatyard_builder::context::directory::Directory;
use boatyard_builder::dockerfile::parse;
use boatyard_builder::execute::emulation::Emulators;
use boatyard_builder::execute::{
    CancelHandle, Execute, ExecuteError, Limits, Network, Outcome, Output, Spec,
};
use boatyard_builder::form::Form;
use boatyard_builder::import;
use boatyard_builder::plan::{Allow, Contexts, PlanOptions};
use boatyard_builder::progress::{Progress, StepEnd, StepId, Stream};
use boatyard_builder::snapshot::Layers;
use boatyard_builder::snapshot::view::{View, ViewKind};
use boatyard_builder::solve::Reuse;
use boatyard_content::Root;
use boatyard_content::local::RootOptions;
use boatyard_content::local::disk::Disk;
use boatyard_oci::{Digest, ImageName, Platform};

const DOCKERFILE: &str = "FROM scratch AS one\n\
    COPY a /a\n\
    COPY b /b\n\
    FROM scratch\n\
    COPY --from=one /a /x/\n\
    COPY c /c\n\
    LABEL made=yes\n";

struct Nothing;

impl Execute for Nothing {
    fn run(
        &self,
        _rootfs: OwnedFd,
        _spec: &Spec,
        _output: &mut dyn Output,
        _cancel: &CancelHandle,
    ) -> Result<Outcome, ExecuteError> {
        unreachable!("no instruction of the Dockerfile runs a command")
    }
}

impl Progress for Nothing {
    fn begin(&self, _step: StepId, _name: &str) {}
    fn output(&self, _step: StepId, _stream: Stream, _bytes: &[u8]) {}
    fn status(&self, _step: StepId, _text: &str) {}
    fn end(&self, _step: StepId, _end: &StepEnd, _took: Duration) {}
    fn warning(&self, _text: &str) {}
}

fn request(context: &Path) -> BuildRequest {
    let platform = Platform::host();
    BuildRequest {
        attest: Attest::default(),
        dockerfile: parse(DOCKERFILE).unwrap(),
        file_name: "Dockerfile".to_owned(),
        dockerfile_path: "Dockerfile".to_owned(),
        context: Some(Arc::new(Directory::open(context, None).unwrap())),
        plan: PlanOptions {
            target: None,
            build_args: BTreeMap::from([("SOURCE_DATE_EPOCH".to_owned(), "1700000000".to_owned())]),
            contexts: Contexts::default(),
            platform: platform.clone(),
            build_platform: platform.clone(),
            allow: Allow::default(),
        },
        given: Vec::new(),
        labels: BTreeMap::new(),
        network: Network::None,
        network_may_fall_back: false,
        hosts: Vec::new(),
        shm_size: 0,
        rlimits: Vec::new(),
        limits: Limits::default(),
        timeout: None,
        platforms: vec![platform],
        index: false,
        forms: vec![Form::default()],
        rewrite_timestamp: true,
        emulators: Emulators::default(),
        always_pull: false,
        reuse: Reuse::All,
        mounts: MountSources::default(),
    }
}

/// Builds, and keeps what was built under a name.
pub fn build_on(root: &Path, disk: Arc<dyn Disk>, context: &Path) -> Result<Digest, String> {
    let told = |error: &dyn std::error::Error| {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(deeper) = cause {
            text.push_str(&format!(": {deeper}"));
            cause = deeper.source();
        }
        text
    };
    let options = RootOptions { disk, ..RootOptions::default() };
    let root = Root::open(root, options).map_err(|error| told(&error))?;
    let lease = root.lease().map_err(|error| told(&error))?;
    let view = View::new(ViewKind::Root);
    let layers = Layers::open(root.path(), lease.clone(), view).map_err(|error| told(&error))?;
    let tools = Tools {
        root: Arc::clone(&root),
        lease: lease.clone(),
        layers,
        executor: &Nothing,
        networks: None,
        pull: &|_, _, _| Err("there are no images".into()),
        fetch: None,
        progress: &Nothing,
        cancel: CancelHandle::new().unwrap(),
        now: &|| "2026-01-02T03:04:05Z".parse().unwrap(),
        threads: 2,
        explain: None,
        imports: Arc::default(),
        tells: None,
        inline: false,
        dry: false,
        keeps_scene: false,
    };
    let built = build(&request(context), &tools).map_err(|error| match &error {
        BuildError::Step(step) => match &step.source {
            Some(source) => format!("{error}: {}", told(&**source)),
            None => error.to_string(),
        },
        error => told(error),
    })?;
    let name: ImageName = "app".parse().unwrap();
    let top = &built.main().top;
    import::name(&root, &lease, top, &[name]).map_err(|error| told(&error))?;
    Ok(top.digest.clone())
}

/// Makes the files of the build.
pub fn context(directory: &Path) -> std::path::PathBuf {
    let context = directory.join("context");
    fs_err::create_dir(&context).unwrap();
    for (name, length) in [("a", 70_000), ("b", 10), ("c", 300_000)] {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut bytes);
        fs_err::write(context.join(name), bytes).unwrap();
    }
    context
}
