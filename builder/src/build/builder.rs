//! What builds the stages of one platform, and what the builders of all platforms share.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use boatyard_oci::Platform;
use jiff::Timestamp;

use super::{BuildRequest, Tools};
use crate::attest::witness;
use crate::base::Bases;
use crate::cache::{Cache, CacheId, Key, TimePolicy};
use crate::context::opened::OpenContexts;
use crate::execute::{Network, stubs};
use crate::layer::ContentId;
use crate::once::OnceFor;
use crate::pack::Packer;
use crate::plan::Plan;
use crate::progress::Steps;
use crate::snapshot::Layers;
use crate::snapshot::layers::Temporary;
use crate::solve::{Cores, LayerBlob, LayerStack, Noted, StackedLayer, Trees};
use crate::ssh::KeyAgent;

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
    pub(super) in_image: HashSet<usize>,
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
    pub(super) keeps_trees: AtomicBool,
    /// The cache failed, and that was told.
    has_warned: AtomicBool,
    /// The warnings that were told.
    told: Mutex<HashSet<String>>,
    /// What its steps made.
    pub(crate) seen: witness::Steps,
    /// What this build recorded: it may be used whatever else may not.
    made: Mutex<HashSet<Key>>,
    /// What was solved, for other machines.
    pub(crate) noted: Mutex<Vec<Noted>>,
    /// The caches that steps mounted, by name.
    pub(crate) mounted: Mutex<BTreeMap<String, CacheId>>,
    /// Files of contexts that steps mount, by their content.
    pub(crate) copies: OnceFor<ContentId, Temporary>,
    /// Agents for keys in files, by their ids.
    pub(crate) key_agents: OnceFor<String, KeyAgent>,
    stubs: OnceLock<PathBuf>,
    /// What [`Network::Default`] turned out to be; `None` until a step asks.
    default_network: OnceLock<Network>,
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
        if !self.in_image.contains(&stage) || self.tools.dry {
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

    fn made(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.shared.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the directory of mount points that lies beneath every step.
    pub(crate) fn stubs(&self) -> io::Result<&Path> {
        if let Some(made) = self.shared.stubs.get() {
            return Ok(made);
        }
        let directory = self.layers.stubs();
        fs_err::create_dir_all(&directory)?;
        stubs::create(&directory, &stubs::STANDARD)?;
        Ok(self.shared.stubs.get_or_init(|| directory))
    }
}
