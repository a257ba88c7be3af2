//! What is known of a published file.

use boatyard_oci::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::NewFile;

/// A file of a version that is published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PackageFile {
    /// The package.
    pub package: String,
    /// The version.
    pub version: String,
    /// The file.
    pub file: String,
    /// Its bytes.
    #[serde(with = "text")]
    pub blob: Digest,
    /// How many.
    pub size: u64,
    /// When it was published.
    pub published: Timestamp,
    /// By whom: `user:alice`.
    pub by: String,
    /// What the ecosystem wants to know of it.
    pub metadata: Value,
    /// Why it was withdrawn, if it was.
    #[serde(skip)]
    pub withdrawn: Option<String>,
}

impl PackageFile {
    pub(super) fn of(new: &NewFile) -> PackageFile {
        PackageFile {
            package: new.package.clone(),
            version: new.version.clone(),
            file: new.file.clone(),
            blob: new.blob.clone(),
            size: new.size,
            published: new.at,
            by: new.by.clone(),
            metadata: new.metadata.clone(),
            withdrawn: None,
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers can be written as JSON")
    }

    /// Reads a record; `None` where it makes no sense, or is not of the blob that its name holds.
    pub(super) fn read(
        bytes: &[u8],
        blob: &Digest,
        withdrawn: Option<String>,
    ) -> Option<PackageFile> {
        let record = serde_json::from_slice::<PackageFile>(bytes).ok()?;
        (record.blob == *blob).then_some(PackageFile { withdrawn, ..record })
    }
}

/// What is known of a file that was removed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Removed {
    /// The package: its name stays taken.
    pub(super) package: String,
    version: String,
    file: String,
    #[serde(with = "text")]
    blob: Digest,
    by: String,
    at: Timestamp,
}

impl Removed {
    pub(super) fn of(record: &PackageFile, by: &str, at: Timestamp) -> Removed {
        Removed {
            package: record.package.clone(),
            version: record.version.clone(),
            file: record.file.clone(),
            blob: record.blob.clone(),
            by: by.to_owned(),
            at,
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts can be written as JSON")
    }
}

/// A digest as its text.
mod text {
    use boatyard_oci::Digest;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(digest)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}
