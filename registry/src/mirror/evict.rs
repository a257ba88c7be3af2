//! Keeping a mirror within its limit: what was not pulled for longest is forgotten first.
//!
//! Only blobs are counted and forgotten, they are nearly all of the bytes; manifests and tags stay,
//! so that what is asked for again costs one transfer and no question. A blob that is forgotten
//! here is the collector's to delete: it stays while anything else on the root needs it, and while
//! somebody reads it.

use std::collections::HashMap;
use std::time::SystemTime;

use boatyard_content::Root;
use boatyard_content::repository::{Repository, RepositoryError, Space};
use boatyard_oci::{Digest, Reference};

/// A blob that a mirror keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptBlob {
    /// Which.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last pulled, give or take an hour.
    pub used: SystemTime,
}

/// What a mirror keeps, or kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// The bytes of all blobs before.
    pub bytes: u64,
    /// The blobs that were forgotten.
    pub forgotten: Vec<KeptBlob>,
}

/// Forgets what was not pulled for longest, until the blobs that a mirror keeps are within a limit.
/// Whoever reads one of them meanwhile reads on: its file is open.
///
/// # Errors
/// Where what is kept cannot be listed or changed.
pub fn evict(
    root: &Root,
    space: &Space,
    bytes_max: u64,
    now: SystemTime,
) -> Result<Evicted, RepositoryError> {
    let (blobs, holders) = kept(root, space, now)?;
    let bytes = blobs.iter().map(|blob| blob.size).sum();
    let forgotten = choose(blobs, bytes_max);
    for blob in &forgotten {
        for repository in holders.get(&blob.digest).into_iter().flatten() {
            repository.forget_blob(&blob.digest)?;
        }
    }
    Ok(Evicted { bytes, forgotten })
}

/// The blobs of a space, and in which repositories they are.
type Kept = (Vec<KeptBlob>, HashMap<Digest, Vec<Repository>>);

/// Lists what a mirror keeps.
///
/// # Errors
/// Where a directory cannot be listed.
pub fn kept(root: &Root, space: &Space, now: SystemTime) -> Result<Kept, RepositoryError> {
    let (repositories, store) = (root.repositories(), root.store());
    let mut blobs: HashMap<Digest, KeptBlob> = HashMap::new();
    let mut holders: HashMap<Digest, Vec<Repository>> = HashMap::new();
    for name in repositories.names(space, None, usize::MAX)? {
        let repository = repositories.repository(space, &name);
        for digest in repository.blobs()? {
            let Some(info) = store.stat_blocking(&digest)? else { continue };
            let used = repository.last_used(&Reference::Digest(digest.clone()))?.unwrap_or(now);
            let blob = KeptBlob { digest: digest.clone(), size: info.size, used };
            let known = blobs.entry(digest.clone()).or_insert(blob);
            known.used = known.used.max(used);
            holders.entry(digest).or_default().push(repository.clone());
        }
    }
    Ok((blobs.into_values().collect(), holders))
}

/// Chooses what to forget: the longest unused first, and of two the larger one.
fn choose(mut blobs: Vec<KeptBlob>, bytes_max: u64) -> Vec<KeptBlob> {
    let mut left: u64 = blobs.iter().map(|blob| blob.size).sum();
    blobs.sort_by(|one, other| {
        let by_use = one.used.cmp(&other.used).then(other.size.cmp(&one.size));
        by_use.then_with(|| one.digest.cmp(&other.digest))
    });
    blobs.retain(|blob| {
        let goes = left > bytes_max;
        left -= if goes { blob.size } else { 0 };
        goes
    });
    blobs
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn blob(name: &str, size: u64, used: u64) -> KeptBlob {
        let used = SystemTime::UNIX_EPOCH + Duration::from_secs(used);
        KeptBlob { digest: Digest::sha256(name.as_bytes()), size, used }
    }

    #[test]
    fn the_longest_unused_go_first() {
        let blobs = vec![blob("new", 10, 30), blob("old", 10, 10), blob("mid", 10, 20)];
        let chosen = |most| choose(blobs.clone(), most);
        assert_eq!(chosen(30), []);
        assert_eq!(chosen(29), [blob("old", 10, 10)]);
        assert_eq!(chosen(10), [blob("old", 10, 10), blob("mid", 10, 20)]);
        assert_eq!(chosen(0).len(), 3);
    }
}
