//! What a build takes from elsewhere, and what its steps make, seen while it happens.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use boatyard_oci::{Algorithm, DiffId, Hasher, Platform};

use super::Attest;
use crate::base::Say;
use crate::source::git::GitAddress;
use crate::source::{Checksum, Fetch, FetchError, FetchedFile};
use crate::stage::without_secrets;

const READ_BYTES: usize = 256 << 10;

/// Files and commits that were fetched: their digests by address.
#[derive(Debug, Default)]
pub struct Materials(Mutex<BTreeMap<String, (&'static str, String)>>);

impl Materials {
    /// Returns what was fetched: the address, the kind of digest, the digest.
    pub(crate) fn all(&self) -> Vec<(String, &'static str, String)> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = seen.iter().map(|(uri, (kind, digest))| (uri.clone(), *kind, digest.clone()));
        all.collect()
    }

    fn add(&self, uri: String, kind: &'static str, digest: String) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(uri, (kind, digest));
    }
}

/// Fetches, and notes what was fetched.
pub struct Witness<'a> {
    inner: &'a dyn Fetch,
    /// Where it is noted, if anybody wants to know.
    materials: Option<&'a Materials>,
}

impl<'a> Witness<'a> {
    /// Returns what fetches as `inner` does.
    pub fn new(inner: &'a dyn Fetch, attest: &'a Attest) -> Witness<'a> {
        let materials = attest.provenance.is_some().then_some(&*attest.materials);
        Witness { inner, materials }
    }
}

impl Fetch for Witness<'_> {
    fn file(
        &self,
        url: &str,
        checksum: Option<&Checksum>,
        say: &Say<'_>,
    ) -> Result<FetchedFile, FetchError> {
        let file = self.inner.file(url, checksum, say)?;
        if let Some(materials) = self.materials {
            materials.add(without_secrets(url), "sha256", sha256(&file.file)?);
        }
        Ok(file)
    }

    fn commit(&self, address: &GitAddress, say: &Say<'_>) -> Result<String, FetchError> {
        let commit = self.inner.commit(address, say)?;
        if let Some(materials) = self.materials {
            let kind = if commit.len() == 64 { "sha256" } else { "sha1" };
            materials.add(format!("git+{address}"), kind, commit.clone());
        }
        Ok(commit)
    }

    fn checkout(
        &self,
        address: &GitAddress,
        commit: &str,
        keep_git_dir: bool,
        into: &Path,
        say: &Say<'_>,
    ) -> Result<(), FetchError> {
        self.inner.checkout(address, commit, keep_git_dir, into, say)
    }
}

/// Hashes a file, wherever its position is.
fn sha256(file: &File) -> std::io::Result<String> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let (mut buffer, mut offset) = (vec![0; READ_BYTES], 0);
    loop {
        match file.read_at(&mut buffer, offset)? {
            0 => return Ok(hasher.finish().hex().to_owned()),
            read => {
                hasher.update(&buffer[..read]);
                offset += read as u64;
            }
        }
    }
}

/// Returns the address of a context as a provenance names it, without a password or a signature;
/// `None` for what is on this machine.
pub fn address(context: &str) -> Option<String> {
    match GitAddress::parse(context) {
        Ok(Some(address)) => Some(format!("git+{address}")),
        _ if context.starts_with("http://") || context.starts_with("https://") => {
            Some(without_secrets(context))
        }
        _ => None,
    }
}

/// The steps of a build, as they are done.
#[derive(Debug, Default)]
pub(crate) struct Steps(Mutex<Vec<StepSeen>>);

/// A step that made a layer, or found one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StepSeen {
    pub(crate) platform: String,
    pub(crate) stage: usize,
    pub(crate) ordinal: u32,
    pub(crate) stage_name: String,
    pub(crate) line: u32,
    pub(crate) text: String,
    pub(crate) layer: String,
}

impl Steps {
    pub(crate) fn add(&self, step: StepSeen) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(step);
    }

    /// Returns the steps for a platform, in the Dockerfile's order.
    pub(crate) fn of(&self, platform: &Platform) -> Vec<StepSeen> {
        let platform = platform.to_string();
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own: Vec<_> =
            steps.iter().filter(|step| step.platform == platform).cloned().collect();
        own.sort();
        own.dedup();
        own
    }
}

impl StepSeen {
    pub(crate) fn layer(diff_id: Option<&DiffId>) -> String {
        diff_id.map(ToString::to_string).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::attest::Detail;

    /// Has one file and one commit.
    struct Upstream;

    impl Fetch for Upstream {
        fn file(
            &self,
            _url: &str,
            _checksum: Option<&Checksum>,
            _say: &Say<'_>,
        ) -> Result<FetchedFile, FetchError> {
            let mut file = tempfile::tempfile()?;
            file.write_all(b"hello")?;
            let (size, content) = (5, *blake3::hash(b"hello").as_bytes());
            Ok(FetchedFile { file, size, content, modified: None, name: None, was_here: true })
        }

        fn commit(&self, _address: &GitAddress, _say: &Say<'_>) -> Result<String, FetchError> {
            Ok("0123456789abcdef0123456789abcdef01234567".to_owned())
        }

        fn checkout(
            &self,
            _address: &GitAddress,
            _commit: &str,
            _keep_git_dir: bool,
            _into: &Path,
            _say: &Say<'_>,
        ) -> Result<(), FetchError> {
            Ok(())
        }
    }

    #[test]
    fn what_is_fetched_is_noted_without_secrets() {
        let attest = Attest { provenance: Some(Detail::Min), ..Attest::default() };
        let witness = Witness::new(&Upstream, &attest);
        let url = "https://user:word@files.example/tool?signature=1";
        witness.file(url, None, &|_| {}).unwrap();
        let repository = "https://git.example/team/app.git#main";
        let address = GitAddress::parse(repository).unwrap().unwrap();
        witness.commit(&address, &|_| {}).unwrap();
        let hello = boatyard_oci::Digest::sha256(b"hello").hex().to_owned();
        let commit = "0123456789abcdef0123456789abcdef01234567".to_owned();
        assert_eq!(
            attest.materials.all(),
            [
                (super::address(repository).unwrap(), "sha1", commit),
                ("https://files.example/tool".to_owned(), "sha256", hello),
            ]
        );
        let nobody = Attest::default();
        Witness::new(&Upstream, &nobody).file(url, None, &|_| {}).unwrap();
        assert!(nobody.materials.all().is_empty(), "nobody asked");
    }
}
