//! Mounting: a repository takes a blob from another one without a byte being sent.

use std::sync::Arc;

use axum::response::Response;
use boatyard_access::{Action, Verdict};
use boatyard_content::repository::{Repository, Space};
use boatyard_oci::{Digest, RepositoryName};
use tracing::debug;

use super::answer::{blob_location, created};
use super::error::ApiError;
use super::{Call, blocking, room};
use crate::registry::Registry;

/// How many repositories are looked through for a blob when the client names none.
const SEARCHED_MAX: usize = 10_000;

/// Mounts a blob; `None` where that is not possible, for whatever reason.
///
/// The reasons are not told apart: that a blob exists in a repository that the caller may not
/// read must not be seen from the answer.
///
/// One is told: that the repository's quota has no room for it. It has none for the blob pushed,
/// either.
pub(super) async fn mount(
    call: &Call,
    name: &RepositoryName,
    digest: &str,
) -> Result<Option<Response>, ApiError> {
    let Ok(digest) = digest.parse::<Digest>() else { return Ok(None) };
    match try_mount(call, name, &digest).await {
        Ok(true) => created(&blob_location(name, &digest), &digest).map(Some),
        Ok(false) => Ok(None),
        Err(error) if error.is_over_quota() => Err(error),
        Err(error) => {
            debug!(?error, %digest, "cannot mount a blob; the client will push it");
            Ok(None)
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
    let targets: Vec<Repository> =
        sources.iter().map(|source| call.changing_from(name, Some(source))).collect();
    let (registry, digest) = (Arc::clone(&call.registry), digest.clone());
    let mounted = blocking(move || link_from(&registry, &sources, &targets, &digest)).await;
    call.changed();
    mounted
}

/// Links the blob if one of `sources` has it; for each the target is told from where it comes.
fn link_from(
    registry: &Registry,
    sources: &[RepositoryName],
    targets: &[Repository],
    digest: &Digest,
) -> Result<bool, ApiError> {
    let lease = registry.root.lease()?;
    for (source, target) in sources.iter().zip(targets) {
        if registry.repository(source).hold_blob(digest)?
            && let Some(blob) = registry.store.hold_blocking(digest, Some(&lease))?
        {
            let room = room::for_mount(registry, target.name(), &blob)?;
            target.link_blob(digest)?;
            room.land(&blob, &[]);
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
