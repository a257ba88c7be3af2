//! One rule of retention.

use std::time::Duration;

use boatyard_access::RepositoryPattern;
use boatyard_oci::{RepositoryName, Tag};

use crate::pattern::TagPattern;

/// What a rule covers, and what of it stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetentionRule {
    /// What it is called in messages; otherwise its number.
    pub name: Option<String>,
    /// The repositories that it covers.
    pub repositories: Vec<RepositoryPattern>,
    /// The tags that it covers.
    pub tags: Vec<TagPattern>,
    /// So many of them stay, those that were pushed last.
    pub keep_last: Option<usize>,
    /// Those stay that were pushed within this time.
    pub keep_within: Option<Duration>,
    /// Those stay that were pulled within this time.
    pub keep_pulled_within: Option<Duration>,
    /// These stay whatever else holds.
    pub keep: Vec<TagPattern>,
    /// How long a manifest stays to which no tag leads, from its last push or pull on.
    pub untagged_after: Option<Duration>,
    /// Tags that cannot be moved go as others do.
    pub include_immutable: bool,
}

/// A rule that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It would remove everything.
    #[error(
        "it keeps nothing: say keep_last, keep_within, keep_pulled_within or keep, or only \
         untagged_after"
    )]
    KeepsNothing,
    /// It covers nothing.
    #[error("it covers nothing: `{key}` is an empty list")]
    Empty {
        /// Which list.
        key: &'static str,
    },
}

impl RetentionRule {
    /// Says whether the rule can be used.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), RuleError> {
        if self.repositories.is_empty() {
            return Err(RuleError::Empty { key: "repositories" });
        }
        if self.tags.is_empty() {
            return Err(RuleError::Empty { key: "tags" });
        }
        if !self.judges_tags() && self.untagged_after.is_none() {
            return Err(RuleError::KeepsNothing);
        }
        Ok(())
    }

    /// Returns what it is called; `at` is its place among the rules.
    pub fn title(&self, at: usize) -> String {
        self.name.clone().unwrap_or_else(|| (at + 1).to_string())
    }

    /// Says whether a repository is covered.
    pub fn covers(&self, repository: &RepositoryName) -> bool {
        self.repositories.iter().any(|pattern| pattern.matches(repository))
    }

    /// Says whether it decides about tags at all, and not only about what has none.
    pub(super) fn judges_tags(&self) -> bool {
        self.keep_last.is_some()
            || self.keep_within.is_some()
            || self.keep_pulled_within.is_some()
            || !self.keep.is_empty()
    }

    /// Says whether it decides about a tag of a repository that it covers.
    pub(super) fn judges(&self, tag: &Tag) -> bool {
        self.judges_tags() && self.tags.iter().any(|pattern| pattern.matches(tag))
    }

    /// Says whether a tag stays whatever else holds.
    pub(super) fn always_keeps(&self, tag: &Tag) -> bool {
        self.keep.iter().any(|pattern| pattern.matches(tag))
    }
}
