//! The shared caches of a build: what it looks into, and what it adds to them.

use std::sync::Arc;

use boatyard_builder::build::{BuildRequest, Built};
use boatyard_builder::cache::shared::mount::{Gathered, Gathering};
use boatyard_builder::cache::shared::{Depot, Imports, Ledger, Source};
use boatyard_builder::cache::{Cache, CacheId};
use boatyard_builder::progress::Progress;
use boatyard_builder::solve::Reuse;
use boatyard_content::{Lease, Root};
use boatyard_oci::{RegistryHost, RepositoryName};
use jiff::Timestamp;

use crate::output;
use crate::report::{self, Context as _, Failure, Result, note};
use crate::shared_cache::Exchange;
use crate::shared_cache::options::{Caches, Export, Place};

/// Reads the caches that a build looks into. What cannot be read is a warning: the build goes on
/// without it.
pub fn import(
    exchange: &Exchange<'_>,
    caches: &Caches,
    reuse: &Reuse,
    offline: bool,
    progress: &dyn Progress,
) -> Arc<Imports> {
    let mut sources: Vec<Source> = Vec::new();
    let wanted = caches.from.iter().filter(|_| *reuse != Reuse::Nothing);
    for place in wanted {
        if offline && matches!(place, Place::Registry(_)) {
            progress.warning(&format!("warning: the cache {place} is left out: --offline"));
            continue;
        }
        match exchange.import(place) {
            Ok(Some(source)) => sources.push(source),
            // The first build of all finds nothing, and that is how it should be.
            Ok(None) if caches.to.iter().any(|export| export.place == *place) => {}
            Ok(None) => progress.warning(&format!("warning: there is no cache {place} yet")),
            Err(failure) => progress.warning(&told(&failure)),
        }
    }
    Arc::new(Imports::new(sources))
}

/// Returns a failure as a warning.
fn told(failure: &Failure) -> String {
    format!("warning: {}", failure.to_string().trim_start_matches("error: "))
}

/// What a build adds to its caches.
pub struct Telling<'a> {
    pub exchange: &'a Exchange<'a>,
    pub caches: &'a Caches,
    pub imports: &'a Imports,
    pub request: &'a BuildRequest,
    pub built: &'a Built,
    pub root: &'a Arc<Root>,
    pub lease: &'a Lease,
    pub quiet: bool,
}

impl Telling<'_> {
    /// Adds the build's steps to each of the caches.
    pub fn tell(&self) -> Result<()> {
        for export in self.caches.outside() {
            match self.export(export) {
                Err(failure) if export.ignore_error => {
                    report::warn(told(&failure).trim_start_matches("warning: "));
                }
                exported => exported?,
            }
        }
        Ok(())
    }

    fn export(&self, export: &Export) -> Result<()> {
        let cache = Cache::open(self.root);
        let now = Timestamp::now();
        let mut added = |here: &Ledger, depot: &dyn Depot| {
            let steps = &self.built.steps;
            let told = Ledger::of_steps(steps, export.mode, &cache, self.imports, Some(now));
            let mut told = told.context("cannot read the build cache")?;
            if export.mounts {
                for id in &self.built.mounts {
                    let gathered = self.gather(&cache, id, here, depot, now)?;
                    told.mounts.extend(gathered.map(|gathered| gathered.mount));
                }
            }
            Ok(told)
        };
        let from = self.repositories(&export.place);
        let exported = self.exchange.export(export, self.imports, &from, &mut added)?;
        if !self.quiet {
            let (place, bytes) = (&export.place, output::size(exported.bytes));
            note(&format!("cache  {place}: {} steps, {bytes} sent", exported.records));
        }
        Ok(())
    }

    /// Reads a cache mount, if nobody else has it alone just now.
    fn gather(
        &self,
        cache: &Cache,
        id: &CacheId,
        here: &Ledger,
        depot: &dyn Depot,
        now: Timestamp,
    ) -> Result<Option<Gathered>> {
        let failed = || format!("cannot read the cache mount `{}`", id.id);
        let Some(taken) = cache.mounts().read(id, self.lease).context(failed())? else {
            report::warn(&format!("the cache mount `{}` is in use: it stays here", id.id));
            return Ok(None);
        };
        let earlier = here.mounts.iter().find(|mount| mount.id == *id);
        let earlier =
            earlier.and_then(|mount| self.exchange.files(mount, depot).map(|files| (mount, files)));
        let secrets = self.request.mounts.secrets.values();
        let gathering = Gathering {
            root: self.root,
            lease: self.lease,
            earlier: earlier.as_ref().map(|(mount, files)| (*mount, files)),
            secrets: &secrets,
            now,
        };
        let gathered = gathering.gather(id, taken.path()).context(failed())?;
        if let Some(gathered) = &gathered
            && let Some(first) = gathered.left_out.first()
        {
            let (many, name) = (gathered.left_out.len(), &id.id);
            report::warn(&format!(
                "a secret of this build stands in {many} files of the cache mount `{name}`, such as \
                 `{first}`: they stay here"
            ));
        }
        Ok(gathered)
    }

    /// Returns the repositories of the same registry that this build took blobs from, or put them
    /// into.
    fn repositories(&self, place: &Place) -> Vec<RepositoryName> {
        let Place::Registry(to) = place else { return Vec::new() };
        repositories(self.caches, &to.registry)
    }
}

/// Returns the repositories of a registry that a build's caches lie in.
pub fn repositories(caches: &Caches, registry: &RegistryHost) -> Vec<RepositoryName> {
    let places = caches.from.iter().chain(caches.to.iter().map(|export| &export.place));
    let mut found: Vec<RepositoryName> = Vec::new();
    for place in places {
        if let Place::Registry(image) = place
            && image.registry == *registry
            && !found.contains(&image.repository)
        {
            found.push(image.repository.clone());
        }
    }
    found
}
