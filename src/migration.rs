//! Taking over what another registry has: digests stay, and what is here already is not brought again.

pub mod directory;
pub mod registry;

use boatyard_access::RepositoryPattern;
use boatyard_content::repository::{Repository, Space};
use boatyard_content::{Lease, Root};
use boatyard_oci::manifest::ManifestError;
use boatyard_oci::{Digest, Manifest, MediaType, Raw, RepositoryName, Tag};

use crate::report::{Context as _, Result};

/// What to take over.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The repositories, by patterns; all where there are none.
    pub repositories: Vec<RepositoryPattern>,
    /// The tags, by a pattern in which `*` is any number of characters; all where there is none.
    pub tags: Option<String>,
    /// Also manifests without a tag.
    pub untagged: bool,
    /// Moves tags that point elsewhere here.
    pub overwrite: bool,
}

impl Selection {
    /// Says whether a repository is meant.
    pub fn takes(&self, repository: &RepositoryName) -> bool {
        self.repositories.is_empty()
            || self.repositories.iter().any(|pattern| pattern.matches(repository))
    }

    /// Says whether a tag is meant.
    pub fn takes_tag(&self, tag: &Tag) -> bool {
        self.tags
            .as_ref()
            .is_none_or(|pattern| matches(pattern.as_bytes(), tag.as_str().as_bytes()))
    }
}

/// Compares a text with a pattern in which `*` is any number of bytes.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Where the last `*` was, and how much of the text it stood for.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, stood)) = star {
            star = Some((at, stood + 1));
            (p, t) = (at + 1, stood + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The repositories that were looked at.
    pub repositories: u64,
    /// The tags that are here now and were not before.
    pub tags: u64,
    /// The tags that were here.
    pub already: u64,
    /// The manifests that came, those without a tag among them.
    pub manifests: u64,
    /// The blobs that came.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is not taken over, and why: that is not going to change.
    pub skipped: Vec<Skipped>,
    /// What could not be taken over: run again.
    pub failed: Vec<Skipped>,
}

/// Something that was not taken over.
#[derive(Clone, Debug)]
pub struct Skipped {
    /// What: `repository:tag`, or `repository@digest`.
    pub what: String,
    /// Why.
    pub why: String,
}

impl Summary {
    fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.skipped.push(Skipped { what: what.into(), why: why.into() });
    }

    fn fail(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.failed.push(Skipped { what: what.into(), why: why.into() });
    }
}

/// Where it goes.
pub struct Target<'a> {
    /// The root.
    pub root: &'a Root,
    /// Holds what has come until something names it.
    pub lease: &'a Lease,
}

impl Target<'_> {
    /// Returns the repository of a name.
    pub fn repository(&self, name: &RepositoryName) -> Repository {
        self.root.repositories().repository(&Space::Hosted, name)
    }

    /// Puts a manifest, whose blobs are here, and says that the repository has these.
    pub fn put(
        &self,
        repository: &Repository,
        manifest: &Raw<Manifest>,
        media_type: &MediaType,
        tags: &[Tag],
    ) -> Result<()> {
        let failed = || format!("cannot keep {}", manifest.digest());
        for blob in manifest.value().blobs() {
            repository.link_blob(&blob.digest).context(failed())?;
        }
        repository.put_manifest(manifest, media_type, tags).context(failed())
    }

    /// Looks where a tag points here.
    pub fn tag(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> Result<Here> {
        let failed = || format!("cannot look for {}:{tag}", repository.name());
        let there = repository.tag(tag).context(failed())?;
        let is_kept = repository.manifest(digest).context(failed())?.is_some();
        Ok(match there {
            Some(there) if there == *digest && is_kept => Here::Same,
            Some(there) if there != *digest => Here::Elsewhere(there),
            _ => Here::Not,
        })
    }
}

/// Where a tag points here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Here {
    /// It is not here, or what it points at is not.
    Not,
    /// At the same manifest.
    Same,
    /// At another one.
    Elsewhere(Digest),
}

/// Returns why a manifest of a kind that nobody uses any more is not taken over; `None` where it
/// is something else that is wrong.
pub fn outdated(error: &ManifestError) -> Option<String> {
    let is_old = match error {
        ManifestError::SchemaVersion { version } => *version == 1,
        ManifestError::Unsupported { media_type } => media_type.as_str().contains(".v1+"),
        ManifestError::Json { media_type, .. } => media_type.as_str().contains(".v1+"),
        _ => false,
    };
    let why = "it is of schema 1, the format before Docker 1.10, whose digests no client of today \
               checks: pull it with an old client and push it again, or build it anew";
    is_old.then(|| why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_tags() {
        let table = [
            ("*", "", true),
            ("v*", "v1.2", true),
            ("v*", "1.2", false),
            ("*-rc*", "1.0-rc1", true),
            ("*.0", "1.0.0", true),
            ("1.*.0", "1.0", false),
            ("latest", "latest", true),
            ("latest", "latest2", false),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
