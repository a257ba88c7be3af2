//! A snapshot: a line of JSON for each thing.
//!
//! ```text
//! {"Head":{"Format":1,"Taken":"...","Root":"/var/lib/boatyard",...}}
//! {"Repository":{"Key":"hosted/team/app","Tags":{"1.0":{"Digest":"sha256:..."}},"Manifests":{...}}}
//! {"File":{"Path":"access/users","Mode":384,"Bytes":"<base64>"}}
//! {"Blob":{"Digest":"sha256:...","Size":1234}}
//! {"End":{"Repositories":1,"Files":1,"Blobs":1,"Bytes":1234}}
//! ```
//!
//! One that does not begin with `Head` and end with a true `End` is damaged.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead as _};
use std::path::PathBuf;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boatyard_oci::{Digest, MediaType, Tag};
use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Backup, BackupError};
use crate::store::Doing as _;

/// The name of a snapshot: when it was taken, in UTC, as `20261121T235959Z`, with `-2` and so on where
/// several were taken in a second. Names sort as they were taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotName(String);

impl SnapshotName {
    pub(super) fn of(taken: Timestamp, number: u32) -> SnapshotName {
        let name = taken.strftime("%Y%m%dT%H%M%SZ").to_string();
        SnapshotName(if number == 1 { name } else { format!("{name}-{number}") })
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SnapshotName {
    type Err = ();

    fn from_str(text: &str) -> Result<SnapshotName, ()> {
        let is_plain = |byte: u8| byte.is_ascii_digit() || b"TZ-".contains(&byte);
        let is_name = text.len() >= 16 && text.len() < 32 && text.bytes().all(is_plain);
        if is_name { Ok(SnapshotName(text.to_owned())) } else { Err(()) }
    }
}

/// A line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Line {
    Head(Head),
    Repository(RepositoryLine),
    File(FileLine),
    Blob(BlobLine),
    End(End),
}

/// What stands first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Head {
    /// The version of the lines that follow.
    pub format: u32,
    /// When it was taken.
    pub taken: Timestamp,
    /// Of which root.
    pub root: PathBuf,
    /// Whether it has what can be fetched again, too.
    pub with_cache: bool,
}

/// A repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RepositoryLine {
    /// Its directory below the root.
    pub(super) key: String,
    /// Its manifests, with the types that they were pushed with.
    pub(super) manifests: BTreeMap<Digest, MediaType>,
    pub(super) tags: BTreeMap<Tag, TagLine>,
    /// The blobs that were pushed to it.
    pub(super) blobs: Vec<Digest>,
    /// When tags and manifests were used last, in seconds since 1970.
    #[serde(default)]
    pub(super) used: BTreeMap<String, i64>,
    #[serde(default)]
    pub(super) is_public: bool,
}

/// A tag.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TagLine {
    pub(super) digest: Digest,
    /// When it was written or confirmed, in seconds since 1970.
    pub(super) written: Option<i64>,
}

/// A small file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct FileLine {
    /// Below the root.
    pub(super) path: String,
    pub(super) mode: u32,
    /// In seconds since 1970.
    pub(super) modified: Option<i64>,
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub(super) bytes: Vec<u8>,
}

fn to_base64<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(from)?).map_err(serde::de::Error::custom)
}

/// A blob that the snapshot needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct BlobLine {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// What stands last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct End {
    pub(super) repositories: u64,
    pub(super) files: u64,
    pub(super) blobs: u64,
    pub(super) bytes: u64,
}

/// What a snapshot has.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its name.
    pub name: SnapshotName,
    /// When it was taken, and of what.
    pub head: Head,
    /// How many repositories it has.
    pub repositories: u64,
    /// How many tags these have.
    pub tags: u64,
    /// How many blobs it needs.
    pub blobs: u64,
    /// How many bytes these have.
    pub bytes: u64,
}

impl Backup {
    /// Reads what a snapshot has.
    ///
    /// # Errors
    /// Where it cannot be read whole.
    pub fn describe(&self, name: &SnapshotName) -> Result<Snapshot, BackupError> {
        let mut tags = 0;
        let (head, end) = self.read(name, &mut |line| {
            if let Line::Repository(repository) = line {
                tags += repository.tags.len() as u64;
            }
            Ok(())
        })?;
        let End { repositories, blobs, bytes, .. } = end;
        Ok(Snapshot { name: name.clone(), head, repositories, tags, blobs, bytes })
    }

    /// Reads a snapshot line by line; `Head` and `End` are returned.
    pub(super) fn read(
        &self,
        name: &SnapshotName,
        visit: &mut dyn FnMut(Line) -> Result<(), BackupError>,
    ) -> Result<(Head, End), BackupError> {
        let path = self.snapshot_path(name);
        let damaged = |problem: String| BackupError::Snapshot { path: path.clone(), problem };
        let file = match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = self.path.clone();
                return Err(BackupError::NoSnapshot { path, name: name.to_string() });
            }
            file => file.doing("open a snapshot")?,
        };
        let (mut head, mut counted, mut end) = (None, End::default(), None);
        for line in io::BufReader::new(file).lines() {
            let line = line.doing("read a snapshot")?;
            let line = serde_json::from_str(&line).map_err(|error| damaged(error.to_string()))?;
            match &line {
                Line::Head(of) if head.is_none() && of.format == 1 => {
                    head = Some(of.clone());
                    continue;
                }
                _ if head.is_none() => return Err(damaged("it is of another version".to_owned())),
                _ if end.is_some() => return Err(damaged("it goes on behind its end".to_owned())),
                Line::End(of) => {
                    end = Some(*of);
                    continue;
                }
                Line::Head(_) => return Err(damaged("it begins twice".to_owned())),
                Line::Repository(_) => counted.repositories += 1,
                Line::File(_) => counted.files += 1,
                Line::Blob(blob) => {
                    counted.blobs += 1;
                    counted.bytes += blob.size;
                }
            }
            visit(line)?;
        }
        match (head, end) {
            (Some(head), Some(end)) if end == counted => Ok((head, end)),
            _ => Err(damaged("it is not whole".to_owned())),
        }
    }
}
