//! What is known of a step that ran: what its key was made of, and the layer that came of it.
//!
//! A record is a file of JSON, `{"version":1,"check":"<BLAKE3 of the record>","record":{...}}`.
//! Records are not synced, so a power cut can leave one torn: then the check fails, and the record
//! is damaged. One of another version is none of ours: a miss.

use std::fmt;
use std::str::FromStr;

use boatyard_oci::{ChainId, DiffId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use super::key::{Key, Parts};
use crate::layer::ContentId;

const VERSION: u32 = 1;

/// What a step was and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What its key was made of: the content key where there is one, else the definition key.
    pub parts: Parts,
    /// The Dockerfile: its path below the context, so that two checkouts have the same.
    pub dockerfile: String,
    /// The stage, by name or else by number.
    pub stage: String,
    /// Which of the stage's instructions it is, counted from 1.
    pub ordinal: u32,
    /// The instruction as the Dockerfile has it.
    pub text: String,
    /// The line on which it begins.
    pub line: u32,
    /// What lies below it.
    pub ground: Ground,
    /// What it copied or mounted.
    pub inputs: Vec<Input>,
    /// The layer that came of it.
    pub layer: RecordedLayer,
    /// When it ran.
    pub created: Timestamp,
    /// How long it ran.
    pub took_ms: u64,
}

/// What lies below a step: what the part `parent` of its key is a hash of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ground {
    /// What the stage begins with, as the Dockerfile means it: an image's name, or `scratch`.
    pub base: String,
    /// What identifies it: the image's chain ID; nothing for `scratch`.
    pub base_id: String,
    /// The steps above it that made layers, those of earlier stages too, the first one first.
    pub steps: Vec<Below>,
}

/// A step below another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Below {
    /// The step as people know it, such as `Dockerfile:7 RUN make`.
    pub step: String,
    /// What its layer changes.
    #[serde(with = "as_text")]
    pub content: ContentId,
}

/// Something that a step copied or mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// As in the name of the key's part: `src/`, `--from=build /out`.
    pub name: String,
    /// What was selected.
    #[serde(with = "as_text")]
    pub content: ContentId,
    /// The stack that it was taken from; none for the context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
}

/// The layer of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedLayer {
    /// What it changes.
    #[serde(with = "as_text")]
    pub content: ContentId,
    /// The digest of its archive.
    pub diff_id: DiffId,
    /// The stack with this layer on top: an unpacked layer may lie under this name.
    pub chain_id: ChainId,
    /// How many bytes its archive has.
    pub size: u64,
}

/// Why bytes are no record.
#[derive(Debug, Error)]
pub(super) enum RecordError {
    #[error("it is not JSON of the form of a record")]
    Form(#[source] serde_json::Error),
    #[error("its check does not agree")]
    Check,
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    version: u32,
    check: String,
    #[serde(borrow)]
    record: &'a RawValue,
}

impl Record {
    /// Returns what identifies the record for people: the key of its parts.
    pub fn key(&self) -> Key {
        self.parts.key()
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let record = serde_json::value::to_raw_value(self).expect("texts always serialise");
        let check = check(&record);
        let envelope = Envelope { version: VERSION, check, record: &record };
        serde_json::to_vec(&envelope).expect("texts always serialise")
    }

    /// Reads a record; `None` where another version of Boatyard wrote it.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Option<Record>, RecordError> {
        let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(RecordError::Form)?;
        if envelope.version != VERSION {
            return Ok(None);
        }
        if envelope.check != check(envelope.record) {
            return Err(RecordError::Check);
        }
        serde_json::from_str(envelope.record.get()).map(Some).map_err(RecordError::Form)
    }
}

fn check(record: &RawValue) -> String {
    blake3::hash(record.get().as_bytes()).to_hex().to_string()
}

/// Content IDs as text.
mod as_text {
    use super::{Deserialize, FromStr, fmt};

    pub(super) fn serialize<T, S>(value: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: fmt::Display,
        S: serde::Serializer,
    {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: serde::Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
