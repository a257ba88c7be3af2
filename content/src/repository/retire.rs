//! Taking away what somebody decided on a while ago: only what is still as they saw it goes.
//!
//! Between a decision and the deed a tag may be pushed again, or pulled. So what was seen is
//! compared once more under the repository's lock, which every push takes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::SystemTime;

use boatyard_oci::{Digest, Reference, Tag};

use super::{Repository, RepositoryError};
use crate::store::{Doing as _, StoreError};

/// A tag, as it was when somebody looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenTag {
    /// The tag.
    pub tag: Tag,
    /// What it pointed at.
    pub digest: Digest,
    /// When it was pushed last, also with what it pointed at before.
    pub pushed: SystemTime,
    /// When it was last used; `None` where nobody noted it.
    pub used: Option<SystemTime>,
}

/// A manifest, as it was when somebody looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenManifest {
    /// When it was pushed last, or came back after a deletion.
    pub pushed: SystemTime,
    /// When it was last used by its digest; `None` where nobody noted it.
    pub used: Option<SystemTime>,
    /// The manifests that it lists.
    pub children: Vec<Digest>,
    /// The manifests that it says something about.
    pub subjects: Vec<Digest>,
}

impl Repository {
    /// Looks at a tag; `None` where it is not there, or points at nothing.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn see_tag(&self, tag: &Tag) -> Result<Option<SeenTag>, RepositoryError> {
        let digest = match self.tag(tag) {
            Err(RepositoryError::Store(StoreError::Damaged { .. })) => None,
            digest => digest?,
        };
        let (Some(digest), Some(pushed)) = (digest, self.tag_confirmed(tag)?) else {
            return Ok(None);
        };
        let used = self.last_used(&Reference::Tag(tag.clone()))?;
        Ok(Some(SeenTag { tag: tag.clone(), digest, pushed, used }))
    }

    /// Looks at all tags, in ASCII order.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn see_tags(&self) -> Result<Vec<SeenTag>, RepositoryError> {
        let mut seen = Vec::new();
        self.each_tag(|tag| {
            seen.extend(self.see_tag(&tag)?);
            Ok(())
        })?;
        seen.sort_unstable_by(|one, other| one.tag.cmp(&other.tag));
        Ok(seen)
    }

    /// Looks at all manifests.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn see_manifests(&self) -> Result<BTreeMap<Digest, SeenManifest>, RepositoryError> {
        let mut seen = BTreeMap::new();
        for digest in self.manifests()? {
            if let Some(manifest) = self.see_manifest(&digest)? {
                seen.insert(digest, manifest);
            }
        }
        Ok(seen)
    }

    fn see_manifest(&self, digest: &Digest) -> Result<Option<SeenManifest>, RepositoryError> {
        let pushed = match fs_err::metadata(self.manifest_directory(digest).join("type")) {
            Ok(metadata) => metadata.modified().doing("look at a manifest")?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error).doing("look at a manifest")?,
        };
        Ok(Some(SeenManifest {
            pushed,
            used: self.last_used(&Reference::Digest(digest.clone()))?,
            children: self.manifest_refs(digest)?,
            subjects: self.subjects(digest)?,
        }))
    }

    /// Deletes a tag if it is still as it was seen: neither pushed nor used since. `is_used` says
    /// whether somebody uses it of whom the files do not know yet. Its manifest stays.
    ///
    /// # Errors
    /// Where a file cannot be read or deleted.
    pub fn retire_tag(
        &self,
        seen: &SeenTag,
        is_used: impl FnOnce() -> bool,
    ) -> Result<bool, RepositoryError> {
        let _lock = self.lock()?;
        if self.see_tag(&seen.tag)?.as_ref() != Some(seen) || is_used() {
            return Ok(false);
        }
        Ok(self.remove_tag(&seen.tag)?)
    }

    /// Deletes those of some manifests that are still as they were seen, and that nothing needs
    /// now: no tag points at them, no manifest that stays lists them, and what they say something
    /// about goes, too. Returns those that were deleted.
    ///
    /// # Errors
    /// Where a file cannot be read or deleted.
    pub fn retire_manifests(
        &self,
        seen: &BTreeMap<Digest, SeenManifest>,
        is_used: impl Fn(&Digest) -> bool,
    ) -> Result<Vec<Digest>, RepositoryError> {
        if seen.is_empty() {
            return Ok(Vec::new());
        }
        let _lock = self.lock()?;
        let now = self.see_manifests()?;
        let mut stay: BTreeSet<&Digest> = now
            .iter()
            .filter(|(digest, manifest)| seen.get(*digest) != Some(*manifest) || is_used(digest))
            .map(|(digest, _)| digest)
            .collect();
        let tagged: HashSet<Digest> = self.see_tags()?.into_iter().map(|tag| tag.digest).collect();
        stay.extend(now.keys().filter(|digest| tagged.contains(*digest)));
        let stay = SeenManifest::needed(&now, stay);
        let gone: Vec<&Digest> = now.keys().filter(|digest| !stay.contains(*digest)).collect();
        for digest in &gone {
            self.remove_manifest(digest, &[])?;
        }
        Ok(gone.into_iter().cloned().collect())
    }
}

impl SeenManifest {
    /// Returns all that must stay where some manifests do: what they list, and what says something
    /// about any of it.
    pub fn needed<'a>(
        manifests: &'a BTreeMap<Digest, SeenManifest>,
        stay: BTreeSet<&'a Digest>,
    ) -> BTreeSet<&'a Digest> {
        let mut referrers: BTreeMap<&Digest, Vec<&Digest>> = BTreeMap::new();
        for (digest, manifest) in manifests {
            for subject in &manifest.subjects {
                referrers.entry(subject).or_default().push(digest);
            }
        }
        let mut waiting: Vec<&Digest> = stay.iter().copied().collect();
        let mut all = stay;
        while let Some(digest) = waiting.pop() {
            let children =
                manifests.get(digest).into_iter().flat_map(|manifest| &manifest.children);
            let referrers = referrers.get(digest).into_iter().flatten().copied();
            for next in children.chain(referrers) {
                if manifests.contains_key(next) && all.insert(next) {
                    waiting.push(next);
                }
            }
        }
        all
    }
}
