//! Referrers: manifests that say something about another one.

use std::ops::ControlFlow;
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
        let mut descriptors = Vec::new();
        self.each_referrer(subject, None, |descriptor| {
            descriptors.push(descriptor);
            ControlFlow::Continue(())
        })?;
        Ok(descriptors)
    }

    /// Visits those descriptors one by one, from behind `after`, until `visit` has seen enough. A
    /// descriptor has the annotations of its manifest, which can be megabytes: one is in memory at
    /// a time.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn each_referrer(
        &self,
        subject: &Digest,
        after: Option<&Digest>,
        mut visit: impl FnMut(Descriptor) -> ControlFlow<()>,
    ) -> Result<(), RepositoryError> {
        let mut referrers: Vec<Digest> = Vec::new();
        for entry in entries(&self.directory.join("_referrers").join(subject.to_string())) {
            let name = entry?.file_name();
            let referrer = name.to_str().and_then(|name| name.parse::<Digest>().ok());
            referrers
                .extend(referrer.filter(|referrer| after.is_none_or(|after| referrer > after)));
        }
        referrers.sort_unstable();
        for referrer in referrers {
            let bytes = read_if_there(&self.referrer_path(subject, &referrer))?.unwrap_or_default();
            let Ok(descriptor) = serde_json::from_slice(&bytes) else { continue };
            if visit(descriptor).is_break() {
                break;
            }
        }
        Ok(())
    }
}
