//! Why a blob stays.

use std::time::{Duration, SystemTime};

use boatyard_oci::{Digest, Tag};

use super::GcError;
use crate::holders::{self, Holder};
use crate::lease::Holding;
use crate::local::{Member, Root, changed, who_holds};
use crate::store::BlobInfo;

/// All that keeps a blob.
#[derive(Clone, Debug, Default)]
pub struct Why {
    /// The blob; `None` where it is not there.
    pub blob: Option<BlobInfo>,
    /// The files that hold it, as a person would say it.
    pub holders: Vec<String>,
    /// The processes that rely on it.
    pub leased: Vec<Member>,
    /// Until when it stays because somebody was told of it.
    pub young_until: Option<SystemTime>,
}

impl Why {
    /// Says whether nothing keeps it.
    pub fn is_garbage(&self) -> bool {
        self.holders.is_empty() && self.leased.is_empty() && self.young_until.is_none()
    }
}

/// Finds out why a blob stays, with the grace period that collections have.
///
/// # Errors
/// Where the holders cannot be listed.
pub fn why(root: &Root, digest: &Digest, grace: Duration) -> Result<Why, GcError> {
    let mut found = Vec::new();
    holders::each(root, &mut |blob, holder| {
        if blob == digest {
            found.push(describe(holder, digest));
        }
    })?;
    found.sort();
    found.dedup();
    let told = changed(&root.layout().blob(digest))?;
    let until = told.and_then(|told| told.checked_add(grace));
    Ok(Why {
        blob: root.store().stat_blocking(digest)?,
        holders: found,
        leased: who_holds(root.layout(), &Holding::Blob(digest.clone()))?,
        young_until: until.filter(|until| *until > SystemTime::now()),
    })
}

/// Says who holds a blob, with the tags by which people know a manifest.
fn describe(holder: &Holder<'_>, digest: &Digest) -> String {
    let manifest = match holder {
        Holder::Needed { repository, by } => Some((repository, *by)),
        Holder::Manifest(repository) => Some((repository, digest)),
        _ => None,
    };
    let tags: Vec<Tag> = manifest
        .and_then(|(repository, manifest)| repository.tags_of(manifest).ok())
        .unwrap_or_default();
    if tags.is_empty() {
        return holder.to_string();
    }
    let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
    format!("{holder} (tagged {})", tags.join(", "))
}
