//! Files among the blobs that are none.

use std::path::Path;

use boatyard_oci::{Algorithm, Digest};

use super::report::{Finding, Wrong};
use super::{Check, FsckError};
use crate::local::entries;
use crate::local::layout::shard_name;
use crate::quarantine;

impl Check<'_, '_> {
    /// Looks for files whose names are no digests, or that lie in the wrong place. Blobs come there
    /// by one rename, so nothing of ours is ever on its way there.
    pub(super) fn strays(&mut self) -> Result<(), FsckError> {
        for algorithm in entries(&self.root.layout().blobs()) {
            let path = algorithm?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            match name.and_then(|name| name.parse::<Algorithm>().ok()) {
                Some(known) if path.is_dir() => {
                    for shard in entries(&path) {
                        self.shard(known, &shard?.path())?;
                    }
                }
                _ => self.stray(&path)?,
            }
        }
        Ok(())
    }

    fn shard(&mut self, algorithm: Algorithm, shard: &Path) -> Result<(), FsckError> {
        if !shard.is_dir() {
            return self.stray(shard);
        }
        for file in entries(shard) {
            let file = file?;
            let hex = file.file_name();
            let digest = hex.to_str().and_then(|hex| Digest::from_parts(algorithm, hex).ok());
            let is_here = |digest: &Digest| shard.ends_with(shard_name(digest));
            let is_file = file.file_type().is_ok_and(|kind| kind.is_file());
            if !is_file || !digest.as_ref().is_some_and(is_here) {
                self.stray(&file.path())?;
            }
        }
        Ok(())
    }

    fn stray(&mut self, path: &Path) -> Result<(), FsckError> {
        let mut finding = Finding::new(Wrong::Stray { path: path.to_path_buf() });
        if self.repairs() {
            let place = quarantine::put_stray_aside(self.root, path)?;
            finding.mended = Some(format!("it was moved to {}", place.display()));
        }
        self.findings.push(finding);
        Ok(())
    }
}
