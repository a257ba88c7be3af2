//! What a client sent, on disk.

use std::io::{self, Read};
use std::sync::Arc;

use boatyard_content::packages::NewFile;
use boatyard_content::{Blob, BlobInfo, Expected, IngestKey, Lease, Root, StoreError};
use boatyard_oci::Digest;
use bytes::Bytes;

/// The body of a request that changes private packages: a blob of the store, which stays as long as
/// this does. What is published of it, all or a part, stays for good.
#[derive(Debug)]
pub struct Upload {
    root: Arc<Root>,
    lease: Lease,
    body: BlobInfo,
}

impl Upload {
    pub(crate) fn new(root: &Arc<Root>, lease: Lease, body: BlobInfo) -> Upload {
        Upload { root: Arc::clone(root), lease, body }
    }

    /// Returns the digest of the body, SHA-256.
    pub fn digest(&self) -> &Digest {
        &self.body.digest
    }

    /// Returns how many bytes it has.
    pub fn size(&self) -> u64 {
        self.body.size
    }

    /// Opens it to be read. Blocking.
    ///
    /// # Errors
    /// Where the file cannot be opened.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        let opened =
            self.root.store().open_blocking(&self.body.digest).map_err(io::Error::other)?;
        let opened = opened.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Blob::File(opened).into_reader())
    }

    /// Reads all of it, where it has no more than `most` bytes. Blocking.
    ///
    /// # Errors
    /// Where it has more, or cannot be read.
    pub fn bytes(&self, most: u64) -> io::Result<Bytes> {
        if self.size() > most {
            let error = format!("more than {most} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
        }
        let mut bytes = Vec::new();
        self.open()?.read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    /// Makes a blob of a part of it, or of what was made of it, such as the file of a form. It stays
    /// as long as this upload. Blocking.
    ///
    /// # Errors
    /// Where it could not be read or written: [`StoreError::is_no_space`] tells a full disk.
    pub fn keep(&self, mut part: impl Read) -> Result<BlobInfo, StoreError> {
        let mut ingest = self.root.store().ingest_blocking(&IngestKey::random(), &self.lease)?;
        io::copy(&mut part, &mut ingest)
            .map_err(|source| StoreError::Io { doing: "keep a part of what was sent", source })?;
        Ok(ingest.commit_blocking(&Expected::any())?.info().clone())
    }

    /// Returns the body as the file of a version, to be published as it is.
    pub fn as_file(&self, package: &str, version: &str, file: &str) -> NewFile {
        NewFile {
            package: package.to_owned(),
            version: version.to_owned(),
            file: file.to_owned(),
            blob: self.body.digest.clone(),
            size: self.body.size,
            metadata: serde_json::Value::Null,
            by: String::new(),
            at: jiff::Timestamp::now(),
        }
    }
}
