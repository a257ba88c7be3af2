//! What a build is asked, and what it works with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use boatyard_content::{Lease, Root};
use boatyard_oci::{Descriptor, Platform};
use jiff::Timestamp;

use crate::attest::Attest;
use crate::base::Pull;
use crate::cache::shared::{Imports, Mode};
use crate::context::directory::Directory;
use crate::dockerfile::Dockerfile;
use crate::execute::emulation::Emulators;
use crate::execute::{CancelHandle, Execute, HostAddress, Limits, Network, Networks, Rlimit};
use crate::form::Form;
use crate::plan::PlanOptions;
use crate::progress::Progress;
use crate::secrets::Secrets;
use crate::snapshot::Layers;
use crate::solve::{Explanation, Reuse};
use crate::source::Fetch;
use crate::ssh::Agents;

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
    /// What is said of the image beside it.
    pub attest: Attest,
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
    /// What other machines' caches hold.
    pub imports: Arc<Imports>,
    /// Which steps are told in [`Built::steps`](super::Built::steps), if any.
    pub tells: Option<Mode>,
    /// Whether the image's configuration says what its steps were.
    pub inline: bool,
    /// Nothing runs, and only `imports` are looked into: a stage ends at the first step that is not
    /// found, and what is built is nothing.
    pub dry: bool,
    /// Keeps what a command that fails saw and left, in [`StepFailure::scene`].
    pub keeps_scene: bool,
}

/// Takes why a step ran; called from several threads.
pub type Explain<'a> = dyn Fn(Explanation) + Sync + 'a;

impl BuildRequest {
    /// Returns the main form.
    pub(crate) fn form(&self) -> &Form {
        self.forms.first().expect("a build has one form at least")
    }
}
