//! Referrers: manifests that say something about another one.

use std::path::PathBuf;

use boatyard_oci::{Descriptor, Digest};

use super::{Repository, RepositoryError};
use crate::local::{entries, read_if_there};

impl Repository {
    pub(super) fn referrer_path(&self, subject: &Digest, referrer: &Digest) -> PathBuf {
        self.directory.join("_referrers").join(subject.to_string()).join(referrer.to_string())
    }

    /// Returns the descriptors of the manifests whose subject this is, in the order of their
    /// digests. The subject itself need not be there.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, RepositoryError> {
        let mut descriptors: Vec<Descriptor> = Vec::new();
        for entry in entries(&self.directory.join("_referrers").join(subject.to_string())) {
            let path = entry?.path();
            let temporary =
                path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if temporary {
                continue;
            }
            let bytes = read_if_there(&path)?.unwrap_or_default();
            descriptors.extend(serde_json::from_slice::<Descriptor>(&bytes));
        }
        descriptors.sort_by(|a, b| a.digest.cmp(&b.digest));
        Ok(descriptors)
    }
}
