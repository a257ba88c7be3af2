//! `config.json`: where a registry's crates and its own interface are. Pure.

use boatyard_oci::Digest;
use serde_json::{Map, Value};

use super::address::{Version, directory};

/// The longest one that is read.
pub(super) const SIZE_MAX: usize = 64 * 1024;

/// The mark of a recipe that has clients show no token: we show one.
const OPEN: &str = "open ";

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    dl: String,
    api: Option<String>,
}

/// What is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigError {
    #[error("it is no JSON object")]
    Json(#[source] serde_json::Error),
    #[error("it has no `dl`")]
    NoDownload,
    #[error("it is too long")]
    TooLong,
}

impl Config {
    /// Reads it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Config, ConfigError> {
        let map = object(bytes)?;
        let text = |name: &str| map.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(Config { dl: text("dl").ok_or(ConfigError::NoDownload)?, api: text("api") })
    }

    /// Returns where a crate is.
    ///
    /// > "If none of the markers are present, then the value `/{crate}/{version}/download` is
    /// > appended to the end." (The Cargo Book, Registry Index)
    pub(super) fn download(&self, version: &Version, sum: &Digest) -> String {
        let (name, lower) = (&version.name, version.name.to_lowercase());
        let marks = [
            ("{crate}", name.clone()),
            ("{version}", version.number.clone()),
            ("{prefix}", directory(name)),
            ("{lowerprefix}", directory(&lower)),
            ("{sha256-checksum}", sum.hex().to_owned()),
        ];
        let is_template = marks.iter().any(|(mark, _)| self.dl.contains(mark));
        let whole = format!("{}/{name}/{}/download", self.dl, version.number);
        let expanded = || marks.iter().fold(self.dl.clone(), |dl, (mark, is)| dl.replace(mark, is));
        if is_template { expanded() } else { whole }
    }

    /// Returns where a part of the registry's own interface is.
    pub(super) fn api(&self, below: &str) -> Option<String> {
        Some(format!("{}/{below}", self.api.as_ref()?.trim_end_matches('/')))
    }
}

/// Returns the recipe for clients who see us at a base; `shows` where we show the upstream a token.
pub(super) fn recipe(base: &str, shows: bool) -> String {
    format!("{}{base}", if shows { OPEN } else { "" })
}

/// Rewrites it by a recipe: both addresses lead through us, and what else it says stays.
pub(super) fn rewrite(recipe: &str, bytes: &[u8]) -> Result<Vec<u8>, ConfigError> {
    let (base, is_open) = match recipe.strip_prefix(OPEN) {
        Some(base) => (base, true),
        None => (recipe, false),
    };
    let mut map = object(bytes)?;
    if !map.get("dl").is_some_and(Value::is_string) {
        return Err(ConfigError::NoDownload);
    }
    let dl = format!("{base}/-/crates/{{crate}}/{{version}}/{{sha256-checksum}}.crate");
    map.insert("dl".to_owned(), Value::String(dl));
    if map.contains_key("api") {
        map.insert("api".to_owned(), Value::String(format!("{base}/-")));
    }
    if is_open {
        map.remove("auth-required");
    }
    serde_json::to_vec(&map).map_err(ConfigError::Json)
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, ConfigError> {
    if bytes.len() > SIZE_MAX {
        return Err(ConfigError::TooLong);
    }
    serde_json::from_slice(bytes).map_err(ConfigError::Json)
}
