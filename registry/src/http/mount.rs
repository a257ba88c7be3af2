//! Mounting: a repository takes a blob from another one without a byte being sent.

use std::sync::Arc;

use axum::response::Response;
use boatyard_access::{Action, Verdict};
use boatyard_content::repository::Space;
use boatyard_oci::{Digest, RepositoryName};
use tracing::debug;

use super::answer::{blob_location, created};
use super::error::ApiError;
use super::{Call, blocking};
use crate::registry::Registry;

/// How many repositories are looked through for a blob when the client names none.
const SEARCHED_MAX: usize = 10_000;

/// Says whether a repository may be read.
type Reads = Box<dyn Fn(&RepositoryName) -> bool + Send>;

/// Mounts a blob; `None` where that is not possible, for whatever reason.
///
/// The reasons are not told apart: that a blob exists in a repository that the caller may not
/// read must not be seen from the answer.
pub(super) async fn mount(call: &Call, name: &RepositoryName, digest: &str) -> Option<Response> {
    let digest: Digest = digest.parse().ok()?;
    match try_mount(call, name, &digest).await {
        Ok(true) => created(&blob_location(name, &digest), &digest).ok(),
        Ok(false) => None,
        Err(error) => {
            debug!(?error, %digest, "cannot mount a blob; the client will push it");
            None
        }
    }
}

async fn try_mount(call: &Call, name: &RepositoryName, digest: &Digest) -> Result<bool, ApiError> {
    let sources = match call.query.first("from") {
        Some(from) => from.parse().into_iter().collect(),
        None => search(call, name, digest).await?,
    };
    let readable: Vec<RepositoryName> =
        sources.into_iter().filter(|source| call.allows(Action::Pull, source)).collect();
    if readable.is_empty() {
        return Ok(false);
    }
    let (registry, name, digest) = (Arc::clone(&call.registry), name.clone(), digest.clone());
    blocking(move || link_from(&registry, &readable, &name, &digest)).await
}

/// Links the blob if one of `sources` has it.
fn link_from(
    registry: &Registry,
    sources: &[RepositoryName],
    name: &RepositoryName,
    digest: &Digest,
) -> Result<bool, ApiError> {
    let lease = registry.root.lease()?;
    for source in sources {
        if registry.repository(source).hold_blob(digest)?
            && registry.store.hold_blocking(digest, Some(&lease))?.is_some()
        {
            registry.repository(name).link_blob(digest)?;
            registry.sources.put(digest.clone(), source.clone(), 1);
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns repositories that may have a blob: where it was seen last, and all that have it.
///
/// > "The registry MAY treat the from parameter as optional, and it MAY cross-mount the blob if it
/// > can be found." (distribution-spec, "Mounting a blob")
async fn search(
    call: &Call,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Vec<RepositoryName>, ApiError> {
    let mut sources = vec![name.clone()];
    sources.extend(call.registry.sources.get(digest));
    // What one may not read is not looked at: how long a search takes tells nothing about it.
    let may_read: Reads = {
        let (access, caller) = (Arc::clone(&call.registry.access), call.caller.clone());
        Box::new(move |name| access.decide(&caller, Action::Pull, Some(name)) == Verdict::Allowed)
    };
    sources.retain(|source| may_read(source));
    let (registry, digest) = (Arc::clone(&call.registry), digest.clone());
    blocking(move || {
        let known = |source: &RepositoryName| registry.repository(source).has_blob(&digest);
        for source in &sources {
            if known(source)? {
                return Ok(sources);
            }
        }
        let names = registry.repositories.names(&Space::Hosted, None, SEARCHED_MAX)?;
        let mut found = Vec::new();
        for name in names {
            if may_read(&name) && known(&name)? {
                found.push(name);
            }
        }
        Ok(found)
    })
    .await
}
