//! The caches that a step mounts.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::furnish::Furnishing;
use super::{CACHE_MODE, Wanted};
use boatyard_oci::Descriptor;

use crate::build::StepFailure;
use crate::cache::CacheId;
use crate::cache::mounts::{CONTENT, Taken, Use};
use crate::cache::shared::imports::one_line;
use crate::cache::shared::mount::MountError;
use crate::dockerfile::mount::{MountKind, Sharing};
use crate::execute::{MountKind as Made, Source};
use crate::progress::StepId;
use crate::stage::{Step, StepResult};

/// The namespace of all caches of a build, as in BuildKit.
const NAMESPACE: &str = "BUILDKIT_CACHE_MOUNT_NS";

/// A cache that a step wants.
struct Asked<'a> {
    id: CacheId,
    by: Use,
    /// The mounts that show it.
    mounts: Vec<usize>,
    wanted: &'a Wanted<'a>,
}

impl Step<'_> {
    /// Returns which cache a mount asks for.
    ///
    /// One with an `id` is for everybody who names it. One without belongs to the project, and to
    /// the platform, for what it holds may be programs.
    fn cache_id(&self, wanted: &Wanted<'_>) -> Option<(CacheId, Use)> {
        let MountKind::Cache { id, sharing, owner, .. } = &wanted.kind else { return None };
        let project = || format!("{} {}", self.builder.request.mounts.project, self.stage.platform);
        let namespace = self.builder.plan.arguments.given(NAMESPACE).unwrap_or_default();
        let by = match sharing {
            // It lies in the tree of one step, which nobody else can see.
            Sharing::Shared if !self.builder.mounts() => Use::Alone,
            Sharing::Shared => Use::Together,
            Sharing::Private => Use::AnyAlone,
            Sharing::Locked => Use::Alone,
        };
        let cache = CacheId {
            namespace: namespace.to_owned(),
            project: id.is_none().then(project),
            id: id.clone().or_else(|| wanted.target.clone()).unwrap_or_default(),
            owner: (owner.uid.unwrap_or_default(), owner.gid.unwrap_or_default()),
            mode: owner.mode.unwrap_or(CACHE_MODE),
            seed: None,
        };
        Some((cache, by))
    }

    /// Takes the caches of a step, in the order of their names: whoever takes several does.
    pub(super) fn take_caches(
        &self,
        furnishing: &Furnishing<'_>,
    ) -> StepResult<BTreeMap<usize, Arc<Taken>>> {
        let mut asked: BTreeMap<String, Asked<'_>> = BTreeMap::new();
        for (mount, wanted) in furnishing.wanted.iter().enumerate() {
            let Some((mut id, by)) = self.cache_id(wanted) else { continue };
            if let Some(seed) = furnishing.selected.of(furnishing.shown, mount) {
                id.set_seed(&seed.content_id());
            }
            let new = Asked { id, by, mounts: Vec::new(), wanted };
            let known = asked.entry(new.id.name()).or_insert(new);
            known.by = known.by.max(by);
            known.mounts.push(mount);
            if known.mounts.len() > 1 && !self.builder.mounts() {
                let text = "without mounts, a step cannot see one cache at two places";
                return Err(StepFailure::new(self.error(text, wanted.span)));
            }
        }
        let mut taken = BTreeMap::new();
        for asked in asked.into_values() {
            self.builder.note_mount(&asked.id);
            let cache = Arc::new(self.take_cache(furnishing, &asked)?);
            taken.extend(asked.mounts.into_iter().map(|mount| (mount, Arc::clone(&cache))));
        }
        Ok(taken)
    }

    fn take_cache(&self, furnishing: &Furnishing<'_>, asked: &Asked<'_>) -> StepResult<Taken> {
        let tools = self.builder.tools;
        let mut is_told = false;
        let mut waiting = || {
            if !is_told {
                let text = format!("waiting: another step uses the cache `{}`", asked.id.id);
                tools.progress.status(furnishing.id, &text);
                is_told = true;
            }
            match self.stages.is_stopped() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let mut failed = None;
        let mut fill = |into: &Path| {
            if self.restore_cache(&asked.id, into, furnishing.id) {
                return Ok(());
            }
            let seed = asked.mounts.first();
            let seed = seed.and_then(|mount| furnishing.selected.of(furnishing.shown, *mount));
            let Some(seed) = seed else { return Ok(()) };
            self.lay_out(seed, "/", into, asked.wanted).map_err(|failure| {
                failed = Some(failure);
                std::io::Error::other("what it begins with cannot be copied")
            })
        };
        let mounts = self.builder.cache.mounts();
        let taken = mounts.take(&asked.id, asked.by, &tools.lease, &mut fill, &mut waiting);
        match taken {
            Ok(Some(taken)) => Ok(taken),
            Ok(None) => Err(self.cancelled()),
            Err(error) => Err(failed.unwrap_or_else(|| {
                let text = format!("cannot use the cache `{}`", asked.id.id);
                StepFailure::new(self.error(text, asked.wanted.span)).because(error)
            })),
        }
    }

    /// Lays out what another machine left of a cache, if that was imported. It is only a cache: what
    /// cannot be had is a warning.
    fn restore_cache(&self, id: &CacheId, into: &Path, step: StepId) -> bool {
        let tools = self.builder.tools;
        let Some(mount) = tools.imports.mount(id) else { return false };
        tools.progress.status(step, &format!("restoring the cache `{}`", id.id));
        let mut open = |blob: &Descriptor| {
            let opened = self
                .builder
                .trees
                .open(blob, &|_| {})
                .map_err(|error| MountError::Bring(Box::new(error)))?;
            Ok(opened.into_parts().0)
        };
        let laid = mount.lay_out(into, &mut open);
        if let Err(error) = &laid {
            let text = format!("the cache `{}` begins empty: {}", id.id, one_line(error));
            tools.progress.warning(&text);
        }
        laid.is_ok()
    }

    /// Returns the mount of a cache that was taken, and what keeps its lock.
    pub(super) fn cache_mount(
        &self,
        wanted: &Wanted<'_>,
        taken: &Taken,
    ) -> StepResult<(Made, Source)> {
        let failed = |error: std::io::Error| {
            StepFailure::new(self.error("cannot use this cache", wanted.span)).because(error)
        };
        let read_only = matches!(wanted.kind, MountKind::Cache { read_only: true, .. });
        let within = Source::new(super::furnish::open(taken.path()).map_err(failed)?);
        let lock = Source::new(taken.lock().map_err(failed)?);
        Ok((Made::Kept { within, name: CONTENT.to_owned(), read_only }, lock))
    }
}
