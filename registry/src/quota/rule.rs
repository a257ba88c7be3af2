//! What a quota limits, how much of it is used, and what it says where something does not fit.

use std::fmt;

use boatyard_access::RepositoryPattern;
use boatyard_oci::RepositoryName;

/// A limit for some repositories together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuotaRule {
    /// What it is called in messages; otherwise its patterns.
    pub name: Option<String>,
    /// The repositories.
    pub repositories: Vec<RepositoryPattern>,
    /// How many bytes their blobs may have, each counted once.
    pub bytes_max: Option<u64>,
    /// How many tags they may have.
    pub tags_max: Option<u64>,
}

impl QuotaRule {
    /// Returns what it is called.
    pub fn title(&self) -> String {
        let patterns = || self.repositories.iter().map(ToString::to_string).collect::<Vec<_>>();
        self.name.clone().unwrap_or_else(|| patterns().join(" "))
    }

    pub(super) fn covers(&self, repository: &RepositoryName) -> bool {
        self.repositories.iter().any(|pattern| pattern.matches(repository))
    }
}

/// How much of a quota is used.
#[derive(Clone, Debug, PartialEq)]
pub struct QuotaUse {
    /// The quota.
    pub rule: QuotaRule,
    /// The bytes of the blobs that its repositories hold.
    pub bytes: u64,
    /// The bytes that are being uploaded to them.
    pub bytes_reserved: u64,
    /// Their tags.
    pub tags: u64,
}

/// Why something is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Exceeded {
    /// The quota.
    pub quota: String,
    /// What it limits.
    pub what: Limited,
    /// How much is used and reserved.
    pub used: u64,
    /// How much more was wanted.
    pub wanted: u64,
    /// How much there may be.
    pub most: u64,
}

/// What a quota limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Bytes of blobs.
    Bytes,
    /// Tags.
    Tags,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.what {
            Limited::Bytes => "bytes",
            Limited::Tags => "tags",
        };
        let Exceeded { quota, used, wanted, most, .. } = self;
        write!(f, "the quota `{quota}` is {most} {unit}, {used} are in use")?;
        match wanted {
            0 => Ok(()),
            wanted => write!(f, ", {wanted} more do not fit"),
        }
    }
}
