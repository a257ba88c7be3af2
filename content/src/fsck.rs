//! The integrity check: every blob is read and hashed, every reference followed.
//!
//! It runs beside everything else, in any process: it takes a lock only to move a wrong blob away,
//! looks a second time before it says that something is missing, and takes what vanishes meanwhile
//! for collected. [`report`] has what it finds; a [`Refill`] brings lost blobs again from where they
//! came from.

mod reading;
mod report;
mod repositories;
mod strays;

use std::collections::{BTreeMap, HashSet};

use boatyard_oci::{Algorithm, Digest};

use crate::local::{Root, entries};
use crate::quarantine;
use crate::repository::{Repository, RepositoryError};
use crate::store::{BlobInfo, StoreError};
use reading::Reading;

pub use report::{Broken, Finding, FsckReport, How, Loss, Wrong};

/// How to check.
#[derive(Default)]
pub struct FsckOptions<'a> {
    /// Reads the bytes of manifests only; of blobs, only those whose size is not what a manifest says.
    pub quick: bool,
    /// Leaves wrong blobs where they are.
    pub leave: bool,
    /// Checks only these repositories, and what they need.
    pub only: Option<&'a dyn Fn(&Repository) -> bool>,
    /// Mends what can be mended: lost blobs come from here.
    pub repair: Option<&'a dyn Refill>,
    /// Reads only the blobs behind this shard: [`Onlooker::through`] named it, in a check that did
    /// not come to its end.
    pub after: Option<String>,
}

/// Is told how a check goes, and may take its time: a check in the background sleeps here.
pub trait Onlooker {
    /// So many bytes were read.
    fn read(&mut self, bytes: u64) {
        let _ = bytes;
    }
    /// A blob was looked at.
    fn seen(&mut self, blob: &BlobInfo) {
        let _ = blob;
    }
    /// Says whether to go on: where not, the check ends with [`FsckError::Stopped`].
    fn goes_on(&self) -> bool {
        true
    }
    /// All blobs up to this shard were read.
    fn through(&mut self, shard: &str) {
        let _ = shard;
    }
}

/// Nobody looks on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Onlooker for Nobody {}

/// Brings lost blobs again.
///
/// The check has moved a wrong blob away before it asks, so that whoever writes the right bytes lands
/// them under the name; it looks afterwards whether they are there, and asks no more than once for
/// a blob. Whoever fills this asks only upstreams that the configuration names for what the loss
/// breaks: a digest alone says nothing of who may be asked.
pub trait Refill {
    /// Brings a blob, and says from where it came.
    ///
    /// # Errors
    /// Where nobody has it who may be asked.
    fn refill(&self, loss: &Loss) -> Result<String, RefillError>;
}

/// Why a blob did not come again.
#[derive(Debug, thiserror::Error)]
pub enum RefillError {
    /// Nobody is known who may have it.
    #[error("no upstream is known that has it: push it again")]
    Nowhere,
    /// Who should have it does not give it.
    #[error("{from} does not give it")]
    Refused {
        /// Who was asked.
        from: String,
        /// What came of it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why a check could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FsckError {
    /// A repository cannot be read.
    #[error("cannot read repository {repository}")]
    Repository {
        /// Which, by its directory below the root.
        repository: String,
        /// Why.
        #[source]
        source: RepositoryError,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The onlooker had enough.
    #[error("the check was stopped")]
    Stopped,
}

/// Checks a root.
///
/// # Errors
/// Where directories cannot be listed. A blob that cannot be read is lost, not an error.
pub fn check(
    root: &Root,
    options: &FsckOptions<'_>,
    onlooker: &mut dyn Onlooker,
) -> Result<FsckReport, FsckError> {
    let mut check = Check {
        root,
        options,
        onlooker,
        whole: HashSet::new(),
        losses: BTreeMap::new(),
        findings: Vec::new(),
        blobs: 0,
        bytes: 0,
    };
    let mut repositories = root.repositories().all()?;
    if let Some(only) = options.only {
        repositories.retain(|repository| only(repository));
        check.blobs_of(&repositories)?;
    } else {
        check.all_blobs()?;
        check.strays()?;
    }
    for repository in &repositories {
        check.repository(repository)?;
    }
    if options.only.is_none() {
        check.caches()?;
    }
    check.mend()?;
    Ok(check.into_report())
}

/// A check under way.
struct Check<'a, 'o> {
    root: &'a Root,
    options: &'a FsckOptions<'o>,
    onlooker: &'a mut dyn Onlooker,
    /// The blobs that were read one by one, and are what their names say.
    whole: HashSet<Digest>,
    losses: BTreeMap<Digest, Loss>,
    findings: Vec<Finding>,
    blobs: u64,
    bytes: u64,
}

impl Check<'_, '_> {
    fn repairs(&self) -> bool {
        self.options.repair.is_some()
    }

    /// Reads every blob, shard by shard, always in the same order.
    fn all_blobs(&mut self) -> Result<(), FsckError> {
        for algorithm in Algorithm::ALL {
            let mut shards = Vec::new();
            for shard in entries(&self.root.layout().algorithm(algorithm)) {
                shards.push(shard?.path());
            }
            shards.sort_unstable();
            for shard in shards {
                let name = shard.file_name().unwrap_or_default().to_string_lossy();
                let place = format!("{algorithm}/{name}");
                let is_done = self.options.after.as_ref().is_some_and(|after| place <= *after);
                let mut blobs = Vec::new();
                let store = self.root.store();
                store.each_in_shard(algorithm, &shard, &mut |blob| blobs.push(blob))?;
                for blob in blobs {
                    self.blob(&blob, is_done || self.options.quick)?;
                }
                self.onlooker.through(&place);
            }
        }
        Ok(())
    }

    /// Reads the blobs that some repositories need.
    fn blobs_of(&mut self, repositories: &[Repository]) -> Result<(), FsckError> {
        let mut needed = HashSet::new();
        for repository in repositories {
            let mut add = || {
                needed.extend(repository.blobs()?);
                for manifest in repository.manifests()? {
                    needed.extend(repository.refs(&manifest)?);
                    needed.insert(manifest);
                }
                Ok(())
            };
            add().map_err(|source| FsckError::Repository {
                repository: repository.key().to_owned(),
                source,
            })?;
        }
        for digest in needed {
            if let Some(blob) = self.root.store().stat_blocking(&digest)? {
                self.blob(&blob, self.options.quick)?;
            }
        }
        Ok(())
    }

    fn blob(&mut self, blob: &BlobInfo, is_glance: bool) -> Result<(), FsckError> {
        if !self.onlooker.goes_on() {
            return Err(FsckError::Stopped);
        }
        self.blobs += 1;
        self.onlooker.seen(blob);
        if is_glance {
            return Ok(());
        }
        self.bytes += blob.size;
        Ok(self.read_blob(&blob.digest)?)
    }

    /// Reads a blob; a wrong one is lost from then on.
    fn read_blob(&mut self, digest: &Digest) -> Result<(), StoreError> {
        match reading::read(self.root, digest, self.onlooker) {
            Reading::Whole => {
                // Where every blob is read, those that are not lost are whole.
                if self.options.quick || self.options.after.is_some() {
                    self.whole.insert(digest.clone());
                }
            }
            Reading::Gone | Reading::Stopped => {}
            Reading::Closed => self.lose(digest, How::Unreadable),
            Reading::Wrong { got, file, size } => {
                let how = got.map_or(How::Unreadable, |got| How::Wrong { got, size });
                if self.options.leave {
                    self.lose(digest, how);
                } else if let Some(place) = quarantine::put_aside(self.root, digest, file)? {
                    self.lose(digest, how);
                    if let Some(loss) = self.losses.get_mut(digest) {
                        loss.quarantined = Some(place);
                    }
                }
            }
        }
        Ok(())
    }

    fn lose(&mut self, digest: &Digest, how: How) {
        self.losses.entry(digest.clone()).or_insert_with(|| Loss::new(digest.clone(), how));
    }

    /// Looks for what caches hold: it can be made or fetched again, but somebody has to know.
    fn caches(&mut self) -> Result<(), FsckError> {
        for encoding in self.root.encodings().all()? {
            if self.is_lost(&encoding.blob)? {
                let holder = format!("the build cache: layer {}", encoding.diff_id);
                self.loss(&encoding.blob).holders.push(holder);
            }
        }
        let kept = self.root.entries();
        for key in kept.keys()? {
            for blob in kept.blobs(&key) {
                if self.is_lost(&blob)? {
                    self.loss(&blob).entries.push(key.clone());
                }
            }
        }
        let mut held = Vec::new();
        self.root.generations().each(&mut |set, blob| held.push((set.to_owned(), blob.clone())))?;
        for (set, blob) in held {
            if self.is_lost(&blob)? {
                let holder = format!("the cache proxy: a generation of {set}");
                self.loss(&blob).holders.push(holder);
            }
        }
        Ok(())
    }

    fn is_lost(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.losses.contains_key(digest) || self.root.store().stat_blocking(digest)?.is_none())
    }

    fn loss(&mut self, digest: &Digest) -> &mut Loss {
        let new = || Loss::new(digest.clone(), How::Missing);
        self.losses.entry(digest.clone()).or_insert_with(new)
    }

    /// Has lost blobs brought again; what only caches had is forgotten where that fails.
    fn mend(&mut self) -> Result<(), FsckError> {
        let Some(refill) = self.options.repair else { return Ok(()) };
        let mut losses = std::mem::take(&mut self.losses);
        for loss in losses.values_mut() {
            let came = match refill.refill(loss) {
                Ok(from) => Ok(from),
                Err(error) => Err(said(&error)),
            };
            match came {
                Ok(from) if self.root.store().stat_blocking(&loss.digest)?.is_some() => {
                    loss.mended = Some(format!("it came again from {from}"));
                }
                _ if loss.is_cached_only() => self.forget(loss)?,
                Ok(from) => loss.trouble = Some(format!("{from} has other bytes now")),
                Err(trouble) => loss.trouble = Some(trouble),
            }
        }
        self.losses = losses;
        Ok(())
    }

    /// Has caches forget a blob: what they hold is made or fetched again when it is needed.
    fn forget(&self, loss: &mut Loss) -> Result<(), StoreError> {
        let encodings = self.root.encodings();
        let all = encodings.all()?.into_iter().filter(|encoding| encoding.blob == loss.digest);
        encodings.remove(&all.collect::<Vec<_>>())?;
        let entries = self.root.entries();
        for key in &loss.entries {
            for variant in entries.get(key)?.variants {
                if variant.blob == loss.digest {
                    entries.remove_variant(key, &variant.key)?;
                }
            }
        }
        // A generation is a whole or nothing: it is not ours to take from it.
        if !loss.holders.iter().any(|holder| holder.contains("a generation of")) {
            let done = "no image needs it, and caches have forgotten it";
            loss.mended = Some(done.to_owned());
        }
        Ok(())
    }

    fn into_report(self) -> FsckReport {
        FsckReport {
            blobs: self.blobs,
            bytes: self.bytes,
            losses: self.losses.into_values().collect(),
            findings: self.findings,
        }
    }
}

/// Returns what an error says, with its sources.
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ingest::{Expected, IngestKey};
    use crate::local::RootOptions;
    use crate::repository::Space;
    use crate::testing;
    use boatyard_oci::{Descriptor, Manifest, MediaType, Tag};
    use fs_err as fs;
    use std::io::Write as _;

    #[test]
    fn finds_a_flipped_bit_says_which_image_it_breaks_and_heals_by_writing_again() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let lease = root.lease().unwrap();
        let put = |bytes: &[u8]| testing::put(&root, &lease, bytes);
        let config = put(b"{}");
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"{config}","size":2}}}}"#,
            MediaType::OCI_CONFIG
        );
        let manifest = Manifest::parse(text.clone().into(), &MediaType::OCI_MANIFEST).unwrap();
        put(text.as_bytes());
        let app = root.repositories().repository(&Space::Hosted, &"app".parse().unwrap());
        let tag: Tag = "v1".parse().unwrap();
        app.put_manifest(&manifest, &MediaType::OCI_MANIFEST, std::slice::from_ref(&tag)).unwrap();
        assert!(check(&root, &FsckOptions::default(), &mut Nobody).unwrap().is_clean());

        let path = root.layout().blob(&config);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "{!").unwrap();
        let report = check(&root, &FsckOptions::default(), &mut Nobody).unwrap();
        let [loss] = &report.losses[..] else { panic!("{report:?}") };
        assert_eq!(loss.digest, config);
        assert_eq!(loss.how, How::Wrong { got: Digest::sha256(b"{!"), size: 2 });
        assert_eq!(loss.breaks[0].repository.key(), "hosted/app");
        assert_eq!(loss.breaks[0].tags, [tag]);
        assert!(!path.exists() && loss.quarantined.as_ref().unwrap().exists());
        put(b"{}");
        assert!(check(&root, &FsckOptions::default(), &mut Nobody).unwrap().is_clean());
    }

    #[test]
    fn an_index_lacks_nothing_where_only_one_of_its_images_was_pulled() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let lease = root.lease().unwrap();
        let elsewhere = Descriptor::of(MediaType::OCI_MANIFEST, b"elsewhere");
        let bytes = boatyard_oci::Index::new(vec![elsewhere.clone()]).to_bytes();
        let mut ingest = root.store().ingest_blocking(&IngestKey::random(), &lease).unwrap();
        ingest.write_all(&bytes).unwrap();
        ingest.commit_blocking(&Expected::any()).unwrap();
        let index = Manifest::parse(bytes, &MediaType::OCI_INDEX).unwrap();
        let put = |space| {
            let repository = root.repositories().repository(&space, &"app".parse().unwrap());
            repository.put_manifest(&index, &MediaType::OCI_INDEX, &[]).unwrap();
        };
        put(Space::Images("docker.io".parse().unwrap()));
        assert!(check(&root, &FsckOptions::default(), &mut Nobody).unwrap().is_clean());
        put(Space::Hosted);
        let losses = check(&root, &FsckOptions::default(), &mut Nobody).unwrap().losses;
        assert_eq!((losses.len(), &losses[0].digest), (1, &elsewhere.digest));
        assert_eq!(losses[0].how, How::Missing);
    }

    /// Puts an image of one configuration under `app:v1` and returns its manifest and configuration.
    fn image(root: &Root, config: &[u8]) -> (Digest, Digest) {
        let lease = root.lease().unwrap();
        let config_digest = testing::put(root, &lease, config);
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"{config_digest}","size":{}}}}}"#,
            MediaType::OCI_CONFIG,
            config.len()
        );
        let manifest = testing::put(root, &lease, text.as_bytes());
        let parsed = Manifest::parse(text.into(), &MediaType::OCI_MANIFEST).unwrap();
        let app = root.repositories().repository(&Space::Hosted, &"app".parse().unwrap());
        let tag: Tag = "v1".parse().unwrap();
        app.link_blob(&config_digest).unwrap();
        app.put_manifest(&parsed, &MediaType::OCI_MANIFEST, &[tag]).unwrap();
        (manifest, config_digest)
    }

    /// An upstream that has some bytes.
    struct Has(Vec<u8>, Arc<Root>);

    impl Refill for Has {
        fn refill(&self, loss: &Loss) -> Result<String, RefillError> {
            if Digest::sha256(&self.0) != loss.digest {
                return Err(RefillError::Nowhere);
            }
            testing::put(&self.1, &self.1.lease().unwrap(), &self.0);
            Ok("registry.example".to_owned())
        }
    }

    #[test]
    fn a_glance_sees_what_is_cut_and_what_is_gone_and_repair_brings_it_again() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let (manifest, config) = image(&root, b"{\"a\":1}");
        let upstream = Has(b"{\"a\":1}".to_vec(), Arc::clone(&root));
        let quick = FsckOptions { quick: true, ..FsckOptions::default() };
        let mend = FsckOptions { repair: Some(&upstream), ..FsckOptions::default() };
        let path = root.layout().blob(&config);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "{").unwrap();
        let report = check(&root, &quick, &mut Nobody).unwrap();
        assert!(matches!(report.losses[0].how, How::Wrong { size: 1, .. }), "{report:?}");
        // It is gone now, and that is what the next check finds, until it comes again.
        let report = check(&root, &quick, &mut Nobody).unwrap();
        assert_eq!(report.losses[0].how, How::Missing);
        let report = check(&root, &mend, &mut Nobody).unwrap();
        assert!(report.is_well() && !report.is_clean(), "{report:?}");
        let mended = report.losses[0].mended.as_deref();
        assert_eq!(mended, Some("it came again from registry.example"));
        assert!(check(&root, &mend, &mut Nobody).unwrap().is_clean());
        // A manifest is looked at byte by byte even at a glance; nobody has this one.
        let path = root.layout().blob(&manifest);
        let mut bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let quick = FsckOptions { quick: true, repair: Some(&upstream), ..FsckOptions::default() };
        let report = check(&root, &quick, &mut Nobody).unwrap();
        assert_eq!(report.losses[0].breaks[0].tags.len(), 1);
        assert!(!report.is_well() && report.losses[0].trouble.is_some(), "{report:?}");
        assert_eq!(quarantine::list(&root).unwrap().len(), 2);
    }

    #[test]
    fn what_lies_beside_manifests_is_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let (manifest, _) = image(&root, b"{}");
        let nobody = Has(Vec::new(), Arc::clone(&root));
        let mend = FsckOptions { repair: Some(&nobody), ..FsckOptions::default() };
        let app = root.path().join("hosted/app");
        let beside = app.join("_manifests").join(manifest.to_string());
        fs::remove_file(beside.join("refs")).unwrap();
        fs::write(app.join("_tags/gone"), format!("{}\n", Digest::sha256(b"gone"))).unwrap();
        fs::write(app.join("_tags/torn"), "sha").unwrap();
        fs::write(root.layout().blobs().join("sha256/notes.txt"), "x").unwrap();
        let kinds = |report: &FsckReport| -> Vec<(&str, bool)> {
            let mut kinds: Vec<_> = report
                .findings
                .iter()
                .map(|finding| (finding.what.kind(), finding.mended.is_some()))
                .collect();
            kinds.sort_unstable();
            kinds
        };
        let report = check(&root, &FsckOptions::default(), &mut Nobody).unwrap();
        let found = ["dangling-tag", "refs", "stray", "torn-tag"].map(|kind| (kind, false));
        assert_eq!(kinds(&report), found);
        let report = check(&root, &mend, &mut Nobody).unwrap();
        assert!(kinds(&report).contains(&("refs", true)), "{report:?}");
        assert!(kinds(&report).contains(&("stray", true)), "{report:?}");
        let report = check(&root, &mend, &mut Nobody).unwrap();
        // Where a tag belongs, only a person knows.
        assert_eq!(kinds(&report), [("dangling-tag", false), ("torn-tag", false)]);
    }
}
