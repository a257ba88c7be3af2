//! What a build would find in a shared cache: all of a build but what takes time.

use std::sync::Arc;

use boatyard_builder::build::Explain;
use boatyard_builder::cache::shared::Imports;
use boatyard_builder::progress::Progress;

use super::options::{Args, Options};
use super::{INTERRUPTED, Session, SharedTerms, Terms, build_with, request};
use crate::isolation;
use crate::report::{Context as _, Failure, Result};
use crate::shared_cache::Exchange;
use crate::shared_cache::options::Place;
use crate::world::World;

/// Looks for the steps of a build in a cache. Nothing runs.
pub fn dry(
    world: &World,
    args: &Args,
    place: &Place,
    progress: &dyn Progress,
    explain: &Explain<'_>,
) -> Result<()> {
    let options = Options::new(args)?;
    let world = &world.with_rung(isolation::isolate(world.config.build.isolation)?);
    let root = world.open_root()?;
    let lease = root.lease().context("cannot begin a lease")?;
    let session = Session::begin()?;
    let request = request(world, &session, (&root, &lease), args, &options)?;
    let exchange = Exchange::new(world, session.runtime.handle(), &root, &lease);
    let source = exchange.import(place)?;
    let source = source.ok_or_else(|| Failure::new(format!("there is no cache {place}")))?;
    let imports = Arc::new(Imports::new(vec![source]));
    let shared = SharedTerms { imports, dry: true, ..SharedTerms::default() };
    let explain = Some(explain);
    let terms = Terms { progress, offline: false, explain, debug: None, shared };
    match build_with(world, &session, &root, &lease, &request, &terms) {
        // That is how it ends, also where everything is found.
        Err(failure) if failure.exit_code() == INTERRUPTED => Ok(()),
        ended => ended.map(drop),
    }
}
