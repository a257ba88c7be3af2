//! The records of a shared cache, and which blobs their layers are.
//!
//! JSON, packed with zstd. It comes from strangers: everything in it is bounded, and what does not hold
//! together is left out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read as _};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use boatyard_oci::manifest::ManifestError;
use boatyard_oci::media_type::LayerCompression;
use boatyard_oci::{Descriptor, DiffId, ImageManifest, Manifest, MediaType, Raw};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ARTIFACT, LEDGER, SharedMount};
use crate::cache::{Key, Record, TimePolicy};
use crate::layer::Chosen;

/// The largest ledger that is read, in bytes, as it is sent.
pub const LEDGER_BYTES_MAX: u64 = 16 << 20;
/// The same, unpacked.
pub const UNPACKED_BYTES_MAX: u64 = 64 << 20;
/// The most records of one ledger.
pub const RECORDS_MAX: usize = 20_000;
/// The most blobs that one manifest refers to: it stays well below the 4 MiB that registries take.
pub const BLOBS_MAX: usize = 10_000;
/// The most keys of one record.
const KEYS_MAX: usize = 16;
/// The most blobs of one layer.
const ENCODINGS_MAX: usize = 8;
const VERSION: u32 = 1;
/// How exact the time of use is.
const USED_GRAIN: SignedDuration = SignedDuration::from_hours(1);
/// The annotation that says under which tag a manifest is.
const TAG: &str = "org.opencontainers.image.ref.name";
const ZSTD_LEVEL: i32 = 9;

/// What a shared cache knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    version: u32,
    /// What steps made.
    pub records: Vec<SharedRecord>,
    /// The layers of these records.
    pub layers: Vec<SharedLayer>,
    /// What steps keep for themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<SharedMount>,
}

/// A record, and when somebody used it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedRecord {
    /// What it is found by; the key of its parts is among them.
    pub keys: Vec<Key>,
    /// When a build that was exported used it; none where that is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Timestamp>,
    /// The record.
    pub record: Record,
}

/// A layer, and the blobs that it is had from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedLayer {
    /// The layer.
    pub diff_id: DiffId,
    /// What its times are.
    pub times: TimePolicy,
    /// Which of its times its step chose.
    pub chosen: Chosen,
    /// Its blobs, each packed in another way.
    pub blobs: Vec<SharedBlob>,
}

/// A blob of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedBlob {
    /// How it is packed, in the words of the cache.
    pub encoding: String,
    /// The blob.
    pub blob: Descriptor,
}

/// Why bytes are no ledger.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// They are too many.
    #[error("the records take more than {most} bytes")]
    TooLarge {
        /// How many are read.
        most: u64,
    },
    /// They are not base64.
    #[error("the records are not base64")]
    Text(#[source] base64::DecodeError),
    /// They are not zstd's.
    #[error("the records cannot be unpacked")]
    Unpack(#[source] io::Error),
    /// They are not what they are said to be.
    #[error("the records are not of the form of a shared cache")]
    Form(#[source] serde_json::Error),
    /// A later Boatyard wrote them.
    #[error("the records are of version {0}, and this Boatyard knows version {VERSION}")]
    Version(u32),
    /// There are too many of something.
    #[error("it lists {count} {what}, and {most} are the most that is believed")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many may be.
        most: usize,
    },
    /// The manifest is not one of a cache.
    #[error("`{0}` is not the type of a cache of Boatyard")]
    Type(String),
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger { version: VERSION, records: Vec::new(), layers: Vec::new(), mounts: Vec::new() }
    }
}

impl Ledger {
    /// Reads a ledger, and leaves out what does not hold together.
    ///
    /// # Errors
    /// Where it is too large, or none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Ledger, LedgerError> {
        if bytes.len() as u64 > LEDGER_BYTES_MAX {
            return Err(LedgerError::TooLarge { most: LEDGER_BYTES_MAX });
        }
        let plain = zstd::stream::read::Decoder::new(bytes).map_err(LedgerError::Unpack)?;
        let mut text = Vec::new();
        let read = plain.take(UNPACKED_BYTES_MAX + 1).read_to_end(&mut text);
        if read.map_err(LedgerError::Unpack)? as u64 > UNPACKED_BYTES_MAX {
            return Err(LedgerError::TooLarge { most: UNPACKED_BYTES_MAX });
        }
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let version: Version = serde_json::from_slice(&text).map_err(LedgerError::Form)?;
        if version.version != VERSION {
            return Err(LedgerError::Version(version.version));
        }
        let mut ledger: Ledger = serde_json::from_slice(&text).map_err(LedgerError::Form)?;
        let counts = [
            ("records", ledger.records.len(), RECORDS_MAX),
            ("layers", ledger.layers.len(), BLOBS_MAX),
            ("cache mounts", ledger.mounts.len(), BLOBS_MAX),
        ];
        for (what, count, most) in counts {
            if count > most {
                return Err(LedgerError::TooMany { what, count, most });
            }
        }
        ledger.layers.retain(SharedLayer::is_sound);
        ledger.mounts.retain(SharedMount::is_sound);
        let known: BTreeSet<&DiffId> = ledger.layers.iter().map(|layer| &layer.diff_id).collect();
        ledger.records.retain(|shared| {
            shared.keys.len() <= KEYS_MAX
                && shared.keys.contains(&shared.record.key())
                && known.contains(&shared.record.layer.diff_id)
        });
        Ok(ledger)
    }

    /// Returns its bytes: the same for the same records, in whatever order they were added.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut sorted = self.clone();
        sorted.records.sort_by_cached_key(|shared| shared.record.key());
        sorted.records.iter_mut().for_each(|shared| shared.keys.sort());
        sorted.layers.sort_by(|a, b| a.diff_id.cmp(&b.diff_id));
        sorted.mounts.sort_by_cached_key(|mount| mount.id.name());
        let text = serde_json::to_vec(&sorted).expect("texts and numbers always serialise");
        zstd::bulk::compress(&text, ZSTD_LEVEL).expect("memory takes all that is written to it")
    }

    /// Returns its bytes as text, for an image's configuration.
    pub fn to_text(&self) -> String {
        BASE64.encode(self.to_bytes())
    }

    /// Reads what an image's configuration says.
    ///
    /// # Errors
    /// Where that is no ledger.
    pub fn from_text(text: &str) -> Result<Ledger, LedgerError> {
        Ledger::from_bytes(&BASE64.decode(text).map_err(LedgerError::Text)?)
    }

    /// Says whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.mounts.is_empty()
    }

    /// Adds what another ledger has. Of two records of one key the later one is kept, of equally old
    /// ones that which is here: in whatever order two machines add theirs, the same comes of it.
    pub fn merge(&mut self, other: &Ledger) {
        let mut at: HashMap<Key, usize> =
            self.records.iter().enumerate().map(|(at, shared)| (shared.record.key(), at)).collect();
        for added in &other.records {
            let key = added.record.key();
            let Some(here) = at.get(&key).map(|at| &mut self.records[*at]) else {
                at.insert(key, self.records.len());
                self.records.push(added.clone());
                continue;
            };
            let used = later(here.used, added.used);
            let mut keys: BTreeSet<Key> = here.keys.iter().chain(&added.keys).copied().collect();
            if added.record.created > here.record.created {
                here.record = added.record.clone();
            }
            while keys.len() > KEYS_MAX {
                keys.pop_last();
            }
            keys.insert(key);
            (here.keys, here.used) = (keys.into_iter().collect(), used);
        }
        self.merge_layers(&other.layers);
        for added in &other.mounts {
            match self.mounts.iter_mut().find(|here| here.id == added.id) {
                Some(here) if here.used < added.used => *here = added.clone(),
                Some(_) => {}
                None => self.mounts.push(added.clone()),
            }
        }
    }

    pub(super) fn merge_layers(&mut self, layers: &[SharedLayer]) {
        let mut at: HashMap<DiffId, usize> =
            self.layers.iter().enumerate().map(|(at, it)| (it.diff_id.clone(), at)).collect();
        for added in layers {
            let Some(here) = at.get(&added.diff_id).map(|at| &mut self.layers[*at]) else {
                at.insert(added.diff_id.clone(), self.layers.len());
                self.layers.push(added.clone());
                continue;
            };
            for blob in &added.blobs {
                if here.blobs.iter().all(|known| known.encoding != blob.encoding) {
                    here.blobs.push(blob.clone());
                }
            }
        }
    }

    /// Leaves out what nobody used since `oldest`, and the least recently used where there is more than
    /// a cache may have.
    pub fn prune(&mut self, now: Timestamp, max_age: SignedDuration) {
        let is_young =
            |used: Option<Timestamp>| used.is_none_or(|used| now.duration_since(used) <= max_age);
        self.records.retain(|shared| is_young(shared.used));
        self.mounts.retain(|mount| is_young(Some(mount.used)));
        self.records.sort_by_key(|shared| std::cmp::Reverse(shared.used));
        self.records.truncate(RECORDS_MAX);
        self.forget_layers();
        while self.blobs().len() > BLOBS_MAX && !self.records.is_empty() {
            self.records.truncate(self.records.len() / 2);
            self.forget_layers();
        }
    }

    /// Forgets the layers that no record names.
    fn forget_layers(&mut self) {
        let named: BTreeSet<&DiffId> =
            self.records.iter().map(|shared| &shared.record.layer.diff_id).collect();
        self.layers.retain(|layer| named.contains(&layer.diff_id));
    }

    /// Returns the blobs that it refers to, each once, sorted by digest.
    pub fn blobs(&self) -> Vec<Descriptor> {
        let layers = self.layers.iter().flat_map(|layer| &layer.blobs).map(|blob| &blob.blob);
        let mounts = self.mounts.iter().flat_map(SharedMount::blobs);
        let blobs: BTreeMap<_, _> =
            layers.chain(mounts).map(|blob| (blob.digest.clone(), blob.clone())).collect();
        blobs.into_values().collect()
    }

    /// Returns the manifest that holds the blobs of this ledger, whose bytes these are, under a tag.
    /// The tag makes it one of its own: who replaces it may delete it, and takes it from no other tag.
    ///
    /// # Errors
    /// Where what was written cannot be read again: a bug.
    pub fn manifest(&self, bytes: &[u8], tag: &str) -> Result<Raw<Manifest>, ManifestError> {
        let manifest = ImageManifest {
            schema_version: 2,
            media_type: Some(MediaType::OCI_MANIFEST),
            artifact_type: Some(MediaType::new(ARTIFACT)),
            config: Descriptor::of(MediaType::new(LEDGER), bytes),
            layers: self.blobs(),
            subject: None,
            annotations: BTreeMap::from([(TAG.to_owned(), tag.to_owned())]),
        };
        Manifest::parse(manifest.to_bytes(), &MediaType::OCI_MANIFEST)
    }

    /// Returns where the ledger of a cache's manifest is; `None` where it is the manifest of an image,
    /// whose configuration may hold one.
    ///
    /// # Errors
    /// Where it is something else.
    pub fn of_manifest(manifest: &ImageManifest) -> Result<Option<&Descriptor>, LedgerError> {
        let config = &manifest.config;
        match config.media_type.as_str() {
            LEDGER if config.size <= LEDGER_BYTES_MAX => Ok(Some(config)),
            LEDGER => Err(LedgerError::TooLarge { most: LEDGER_BYTES_MAX }),
            "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json" => Ok(None),
            other => Err(LedgerError::Type(other.to_owned())),
        }
    }
}

/// Returns the later time of use, unless it is hardly later: a build that found everything then
/// leaves the cache as it is.
fn later(here: Option<Timestamp>, added: Option<Timestamp>) -> Option<Timestamp> {
    match (here, added) {
        (Some(here), Some(added)) if added.duration_since(here) > USED_GRAIN => Some(added),
        (here, added) => here.or(added),
    }
}

impl SharedLayer {
    /// Says whether it is what this machine could have written.
    fn is_sound(&self) -> bool {
        !self.blobs.is_empty()
            && self.blobs.len() <= ENCODINGS_MAX
            && self.blobs.iter().all(SharedBlob::is_sound)
    }
}

impl SharedBlob {
    fn is_sound(&self) -> bool {
        // It becomes the name of a file.
        let level = match self.encoding.split_once('-') {
            None => return self.encoding == "none" && self.is(LayerCompression::None),
            Some(("gzip", level)) if self.is(LayerCompression::Gzip) => level,
            Some(("zstd", level)) if self.is(LayerCompression::Zstd) => level,
            Some(_) => return false,
        };
        level.len() <= 2 && level.parse::<u8>().is_ok_and(|number| number.to_string() == level)
    }

    fn is(&self, compression: LayerCompression) -> bool {
        let media_type = &self.blob.media_type;
        !media_type.is_nondistributable() && media_type.layer_compression() == Some(compression)
    }
}

#[cfg(test)]
mod tests;
