//! Who is told what happens: `[[webhook]]`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use boatyard_access::RepositoryPattern;
use boatyard_registry::webhooks::Action;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policies::one_or_more;
use crate::quantity;

/// `[[webhook]]`: who is told what is pushed, pulled, deleted and mounted, in the form of docker's
/// notifications; [webhooks](webhooks.md) has examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// What it is called in messages: lower-case letters, digits and `-`.
    pub name: String,
    /// Where envelopes are sent, by POST.
    pub url: String,
    /// What it is told of: `push`, `pull`, `delete`, `mount`.
    #[serde(default = "all_events")]
    #[schemars(with = "Vec<String>")]
    pub events: Vec<Action>,
    /// Patterns of the repositories that it is told of: `team/**`, or a list of them.
    #[serde(default = "all_repositories", deserialize_with = "one_or_more")]
    #[schemars(with = "Vec<String>")]
    pub repositories: Vec<RepositoryPattern>,
    /// Headers of each request. Those that are secret belong into `authorization_file`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The file that holds the value of the header `Authorization`, such as `Bearer ...`.
    pub authorization_file: Option<PathBuf>,
    /// The file that holds the key by which envelopes are signed: `X-Boatyard-Signature-256`.
    pub secret_file: Option<PathBuf>,
    /// How long it may take to answer.
    #[serde(default = "timeout", with = "quantity::duration")]
    #[schemars(with = "String", extend("x-kind" = "duration"))]
    pub timeout: Duration,
    /// How many failures in a row are tried again within seconds.
    #[serde(default = "threshold")]
    pub threshold: u32,
    /// How long to wait after more of them.
    #[serde(default = "backoff", with = "quantity::duration")]
    #[schemars(with = "String", extend("x-kind" = "duration"))]
    pub backoff: Duration,
}

fn all_events() -> Vec<Action> {
    Action::ALL.to_vec()
}

fn all_repositories() -> Vec<RepositoryPattern> {
    "**".parse().into_iter().collect()
}

fn timeout() -> Duration {
    Duration::from_secs(5)
}

fn threshold() -> u32 {
    5
}

fn backoff() -> Duration {
    Duration::from_secs(30)
}
