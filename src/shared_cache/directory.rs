//! A cache in a directory: an OCI layout, as buildx's `type=local` is one.
//!
//! ```text
//! DIR/oci-layout  index.json          the manifest of each tag, by `org.opencontainers.image.ref.name`
//!     blobs/sha256/<hex>              what they refer to, and nothing else once an export ended
//!     .boatyard.lock                  held by who writes
//! ```

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boatyard_builder::cache::shared::{ARTIFACT, Depot, Ledger};
use boatyard_content::{Expected, IngestKey, Lease, Root};
use boatyard_oci::{Descriptor, Digest, Index, Manifest, MediaType};
use fs_err as fs;
use rustix::fs::{FlockOperation, flock};

use super::{Exchange, Keeper, Kept, Writing, Written};
use crate::report::{Context as _, Failure, Result};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX: &str = "index.json";
const LOCK: &str = ".boatyard.lock";
const BUFFER_BYTES: usize = 256 << 10;

/// A cache in a directory.
pub(super) struct DirectoryKeeper<'a> {
    exchange: &'a Exchange<'a>,
    path: &'a Path,
    tag: &'a str,
    depot: Arc<Layout>,
}

/// The directory that its blobs are in.
struct Layout {
    path: PathBuf,
    root: Arc<Root>,
    lease: Lease,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl Layout {
    fn blob(&self, digest: &Digest) -> PathBuf {
        let directory = self.path.join("blobs").join(digest.algorithm().to_string());
        directory.join(digest.hex())
    }

    /// Reads a blob that is small.
    fn bytes(&self, blob: &Descriptor, most: u64) -> Result<Vec<u8>> {
        let path = self.blob(&blob.digest);
        let failed = || format!("cannot read the cache in {}", self.path.display());
        let file = fs::File::open(&path).context(failed())?;
        let mut bytes = Vec::new();
        file.take(blob.size.min(most) + 1).read_to_end(&mut bytes).context(failed())?;
        if bytes.len() as u64 != blob.size || Digest::sha256(&bytes) != blob.digest {
            return Err(Failure::new(failed())
                .because(format!("{} is not what its name says", path.display())));
        }
        Ok(bytes)
    }
}

impl Depot for Layout {
    fn fetch(&self, blob: &Descriptor) -> std::result::Result<(), Box<dyn Error + Send + Sync>> {
        let store = self.root.store();
        if store.hold_blocking(&blob.digest, Some(&self.lease))?.is_some() {
            return Ok(());
        }
        let file = fs::File::open(self.blob(&blob.digest))?;
        let mut ingest = store.ingest_blocking(&IngestKey::fleeting(), &self.lease)?;
        // One byte more than it should have is enough to see that it is another one.
        io::copy(&mut file.take(blob.size.saturating_add(1)), &mut ingest)?;
        ingest.commit_blocking(&Expected::exactly(&blob.digest, blob.size))?;
        Ok(())
    }
}

impl<'a> DirectoryKeeper<'a> {
    pub(super) fn new(
        exchange: &'a Exchange<'a>,
        path: &'a Path,
        tag: &'a str,
    ) -> DirectoryKeeper<'a> {
        let (root, lease) = (Arc::clone(exchange.root), exchange.lease.clone());
        let depot = Arc::new(Layout { path: path.to_owned(), root, lease });
        DirectoryKeeper { exchange, path, tag, depot }
    }

    fn failed(&self) -> String {
        format!("cannot write the cache in {}", self.path.display())
    }

    /// Reads the index; an empty one where there is none.
    fn index(&self) -> Result<Index> {
        let path = self.path.join(INDEX);
        let bytes = match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Index::new(Vec::new()));
            }
            file => {
                let mut bytes = Vec::new();
                let read = file.and_then(|file| {
                    file.take(Manifest::SIZE_MAX as u64 + 1).read_to_end(&mut bytes)
                });
                read.context(format!("cannot read the cache in {}", self.path.display()))?;
                bytes
            }
        };
        // Some layouts have an index without a media type.
        serde_json::from_slice(&bytes).context(format!("{} is no OCI layout", self.path.display()))
    }

    fn is_own(&self, entry: &Descriptor) -> bool {
        entry.annotations.get(REF_NAME).is_some_and(|tag| tag == self.tag)
    }

    /// Reads a manifest of a cache.
    fn manifest(&self, entry: &Descriptor) -> Result<Manifest> {
        let bytes = self.depot.bytes(entry, Manifest::SIZE_MAX as u64)?;
        let manifest = Manifest::parse(bytes.into(), &entry.media_type);
        let manifest =
            manifest.context(format!("cannot read the cache in {}", self.path.display()))?;
        Ok(manifest.into_value())
    }

    fn ledger(&self, entry: &Descriptor) -> Result<Option<Ledger>> {
        let what = || format!("cannot read the cache in {}", self.path.display());
        let Manifest::Image(image) = self.manifest(entry)? else { return Ok(None) };
        let Some(records) = Ledger::of_manifest(&image).context(what())? else { return Ok(None) };
        let bytes = self.depot.bytes(records, records.size)?;
        Ledger::from_bytes(&bytes).context(what()).map(Some)
    }

    fn lock(&self) -> Result<fs::File> {
        fs::create_dir_all(self.path.join("blobs/sha256")).context(self.failed())?;
        let mut options = fs::OpenOptions::new();
        let lock = options.create(true).append(true).open(self.path.join(LOCK));
        let lock = lock.context(self.failed())?;
        flock(&lock, FlockOperation::LockExclusive).context(self.failed())?;
        Ok(lock)
    }

    /// Copies a blob there, unless it is there.
    fn put(&self, blob: &Descriptor, writing: &Writing<'_>) -> Result<u64> {
        let path = self.depot.blob(&blob.digest);
        if fs::symlink_metadata(&path).is_ok_and(|there| there.len() == blob.size) {
            return Ok(0);
        }
        let open = || self.exchange.root.store().open_blocking(&blob.digest);
        let mut here = open().context(self.failed())?;
        if here.is_none() {
            (writing.lend)(blob)?;
            here = open().context(self.failed())?;
        }
        let gone = || Failure::new(self.failed()).because(format!("{} is gone", blob.digest));
        let mut from = here.ok_or_else(gone)?.into_file();
        self.whole(&path, &mut |into| io::copy(&mut from, into))
    }

    /// Writes a file so that it is there whole or not at all.
    fn whole(
        &self,
        path: &Path,
        write: &mut dyn FnMut(&mut dyn io::Write) -> io::Result<u64>,
    ) -> Result<u64> {
        let fresh = tempfile::Builder::new().prefix(".new-").tempfile_in(self.path);
        let fresh = fresh.context(self.failed())?;
        let mut buffered = io::BufWriter::with_capacity(BUFFER_BYTES, fresh);
        let written = write(&mut buffered).context(self.failed())?;
        buffered.flush().context(self.failed())?;
        let fresh = buffered.into_inner().map_err(io::IntoInnerError::into_error);
        let fresh = fresh.context(self.failed())?;
        fresh.as_file().sync_all().context(self.failed())?;
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fresh.as_file().set_permissions(readable).context(self.failed())?;
        fresh.persist(path).context(self.failed())?;
        Ok(written)
    }

    /// Removes blobs that nothing refers to, if all that is there is ours.
    fn tidy(&self, index: &Index) -> Result<()> {
        let mut needed = BTreeSet::new();
        for entry in &index.manifests {
            let is_ours = entry.artifact_type.as_ref().is_some_and(|it| it.as_str() == ARTIFACT);
            if !is_ours {
                return Ok(());
            }
            needed.insert(entry.digest.hex().to_owned());
            let manifest = self.manifest(entry)?;
            needed.extend(manifest.blobs().iter().map(|blob| blob.digest.hex().to_owned()));
        }
        let directory = self.path.join("blobs/sha256");
        for blob in fs::read_dir(&directory).context(self.failed())? {
            let blob = blob.context(self.failed())?;
            let name = blob.file_name().to_string_lossy().into_owned();
            if name.len() == 64 && !needed.contains(&name) {
                fs::remove_file(blob.path()).context(self.failed())?;
            }
        }
        Ok(())
    }
}

impl Keeper for DirectoryKeeper<'_> {
    fn depot(&self) -> Arc<dyn Depot> {
        Arc::clone(&self.depot) as Arc<dyn Depot>
    }

    fn read(&self) -> Result<Option<Kept>> {
        let index = self.index()?;
        let Some(entry) = index.manifests.iter().find(|entry| self.is_own(entry)) else {
            return Ok(None);
        };
        let ledger = self.ledger(entry)?;
        let (is_image, version) = (ledger.is_none(), Some(entry.digest.clone()));
        Ok(Some(Kept { ledger: ledger.unwrap_or_default(), version, is_image }))
    }

    fn write(&self, writing: &Writing<'_>) -> Result<Written> {
        let _lock = self.lock()?;
        let mut index = self.index()?;
        let there = index.manifests.iter().find(|entry| self.is_own(entry));
        if there.map(|entry| &entry.digest) != writing.over {
            return Ok(Written::Conflict);
        }
        let bytes = writing.ledger.to_bytes();
        let manifest = writing.ledger.manifest(&bytes, self.tag).context(self.failed())?;
        self.exchange.store(&bytes)?;
        self.exchange.store(manifest.bytes())?;
        let entry = Descriptor {
            artifact_type: Some(MediaType::new(ARTIFACT)),
            annotations: [(REF_NAME.to_owned(), self.tag.to_owned())].into(),
            ..Descriptor::of(MediaType::OCI_MANIFEST, manifest.bytes())
        };
        let mut sent = 0;
        for blob in manifest.value().blobs().into_iter().chain([&entry]) {
            sent += self.put(blob, writing)?;
        }
        index.manifests.retain(|entry| !self.is_own(entry));
        index.manifests.push(entry);
        let layout = self.path.join("oci-layout");
        let write = |bytes: &[u8], into: &mut dyn io::Write| {
            into.write_all(bytes).map(|()| bytes.len() as u64)
        };
        self.whole(&layout, &mut |into| write(LAYOUT, into))?;
        let text = index.to_bytes();
        self.whole(&self.path.join(INDEX), &mut |into| write(&text, into))?;
        self.tidy(&index)?;
        Ok(Written::Done(sent))
    }
}
