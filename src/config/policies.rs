//! What the owner of a registry decides about tags and space: `[[retention]]`, `[[immutable]]`,
//! `[[quota]]`.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use boatyard_access::RepositoryPattern;
use boatyard_registry::{ImmutableRule, QuotaRule, RetentionRule, TagPattern};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::quantity;

/// `[[retention]]`: tags and manifests that go by themselves; [retention](retention.md) has examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// What it is called in messages; otherwise its number.
    pub name: Option<String>,
    /// Patterns of repositories: `team/**`, or a list of them.
    #[serde(deserialize_with = "one_or_more")]
    #[schemars(with = "Vec<String>")]
    pub repositories: Vec<RepositoryPattern>,
    /// Patterns of the tags that it covers: `pr-*`, or a regular expression between slashes.
    #[serde(default = "all_tags", deserialize_with = "one_or_more")]
    #[schemars(with = "Vec<String>")]
    pub tags: Vec<TagPattern>,
    /// So many of them stay in each repository, those that were pushed last.
    pub keep_last: Option<usize>,
    /// Those stay that were pushed within this time: `30d`.
    #[serde(default, with = "quantity::optional_duration")]
    #[schemars(with = "Option<String>", extend("x-kind" = "duration"))]
    pub keep_within: Option<Duration>,
    /// Those stay that were pulled within this time.
    #[serde(default, with = "quantity::optional_duration")]
    #[schemars(with = "Option<String>", extend("x-kind" = "duration"))]
    pub keep_pulled_within: Option<Duration>,
    /// Patterns of tags that stay whatever else holds: `["v*", "latest"]`.
    #[serde(default, deserialize_with = "one_or_more")]
    #[schemars(with = "Vec<String>")]
    pub keep: Vec<TagPattern>,
    /// How long a manifest stays to which no tag leads, from its last push or pull on.
    #[serde(default, with = "quantity::optional_duration")]
    #[schemars(with = "Option<String>", extend("x-kind" = "duration"))]
    pub untagged_after: Option<Duration>,
    /// Immutable tags go as others do.
    #[serde(default)]
    pub include_immutable: bool,
}

/// `[[immutable]]`: tags that cannot be pointed at another manifest, whoever asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Immutable {
    /// Patterns of repositories: `team/**`, or a list of them.
    #[serde(deserialize_with = "one_or_more")]
    #[schemars(with = "Vec<String>")]
    pub repositories: Vec<RepositoryPattern>,
    /// Patterns of their tags: `v*`, or a regular expression between slashes.
    #[serde(default = "all_tags", deserialize_with = "one_or_more")]
    #[schemars(with = "Vec<String>")]
    pub tags: Vec<TagPattern>,
    /// Patterns of tags among them that can be moved all the same: `["latest"]`.
    #[serde(default, deserialize_with = "one_or_more")]
    #[schemars(with = "Vec<String>")]
    pub except: Vec<TagPattern>,
}

/// `[[quota]]`: how much some repositories may hold together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// What it is called in messages; otherwise its patterns.
    pub name: Option<String>,
    /// Patterns of repositories: `team/**`, or a list of them.
    #[serde(deserialize_with = "one_or_more")]
    #[schemars(with = "Vec<String>")]
    pub repositories: Vec<RepositoryPattern>,
    /// How many bytes their blobs may have, each counted once: `50GB`.
    #[serde(default, with = "quantity::optional_size")]
    #[schemars(with = "Option<String>", extend("x-kind" = "size"))]
    pub max_size: Option<u64>,
    /// How many tags they may have.
    pub max_tags: Option<u64>,
}

fn all_tags() -> Vec<TagPattern> {
    "*".parse().into_iter().collect()
}

/// Reads one pattern or a list of them.
pub(super) fn one_or_more<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Texts {
        One(String),
        More(Vec<String>),
    }
    let texts = match Texts::deserialize(deserializer)? {
        Texts::One(text) => vec![text],
        Texts::More(texts) => texts,
    };
    let parse = |text: String| text.parse().map_err(serde::de::Error::custom);
    texts.into_iter().map(parse).collect()
}

impl From<&Retention> for RetentionRule {
    fn from(rule: &Retention) -> RetentionRule {
        let rule = rule.clone();
        RetentionRule {
            name: rule.name,
            repositories: rule.repositories,
            tags: rule.tags,
            keep_last: rule.keep_last,
            keep_within: rule.keep_within,
            keep_pulled_within: rule.keep_pulled_within,
            keep: rule.keep,
            untagged_after: rule.untagged_after,
            include_immutable: rule.include_immutable,
        }
    }
}

impl From<&Immutable> for ImmutableRule {
    fn from(rule: &Immutable) -> ImmutableRule {
        let Immutable { repositories, tags, except } = rule.clone();
        ImmutableRule { repositories, tags, except }
    }
}

impl From<&Quota> for QuotaRule {
    fn from(quota: &Quota) -> QuotaRule {
        let Quota { name, repositories, max_size, max_tags } = quota.clone();
        QuotaRule { name, repositories, bytes_max: max_size, tags_max: max_tags }
    }
}
