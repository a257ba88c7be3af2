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
        Some(from) => {
            let named = from.parse::<RepositoryName>().ok();
            named.filter(|source| call.allows(Action::Pull, source)).into_iter().collect()
        }
        None => search(call, name, digest).await?,
    };
    if sources.is_empty() {
        return Ok(false);
    }
    let (registry, name, digest) = (Arc::clone(&call.registry), name.clone(), digest.clone());
    blocking(move || link_from(&registry, &sources, &name, &digest)).await
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

/// Returns a repository that has a blob, of those that the caller may read.
///
/// > "The registry MAY treat the from parameter as optional, and it MAY cross-mount the blob if it
/// > can be found." (distribution-spec, "Mounting a blob")
///
/// The others are not even looked at: whether one of them has the blob must not be seen from the
/// time that this takes, either.
async fn search(
    call: &Call,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Vec<RepositoryName>, ApiError> {
    let likely = [Some(name.clone()), call.registry.sources.get(digest)];
    let (registry, digest) = (Arc::clone(&call.registry), digest.clone());
    let (access, caller) = (Arc::clone(&registry.access), call.caller.clone());
    blocking(move || {
        let first_of = |sources: Vec<RepositoryName>| {
            for source in sources {
                let may_read =
                    access.decide(&caller, Action::Pull, Some(&source)) == Verdict::Allowed;
                if may_read && registry.repository(&source).has_blob(&digest)? {
                    return Ok::<_, ApiError>(vec![source]);
                }
            }
            Ok(Vec::new())
        };
        let found = first_of(likely.into_iter().flatten().collect())?;
        if !found.is_empty() {
            return Ok(found);
        }
        first_of(registry.repositories.names(&Space::Hosted, None, SEARCHED_MAX)?)
    })
    .await
}
