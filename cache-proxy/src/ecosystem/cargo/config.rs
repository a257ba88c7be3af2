//! `config.json`: where a registry's crates and its own interface are. Pure.

use boatyard_oci::Digest;
use serde_json::{Map, Value};

use super::address::{Version, directory};
use crate::request::Request;

/// The longest one that is read.
pub(super) const SIZE_MAX: usize = 64 * 1024;

/// The words of a recipe.
const OPEN: &str = "open";
const CLOSED: &str = "closed";
const HOSTS: &str = "hosts";

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

/// What is changed in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Where clients see us: both addresses lead there.
    pub(super) base: String,
    /// Clients show no token: we show the upstream one.
    pub(super) is_open: bool,
    /// Clients show a token: private crates are for those who log in.
    pub(super) is_closed: bool,
    /// Crates are published here, whatever the upstream has for an interface.
    pub(super) hosts: bool,
}

impl Changes {
    /// Returns what is changed for a request; `None` for a client of the forward proxy.
    pub(super) fn of(request: &Request) -> Option<Changes> {
        let upstream = request.upstream.as_ref()?;
        let hosts = upstream.hosted.is_some();
        let is_open = upstream.credential.is_some();
        let (base, is_closed) = (request.base.clone()?, hosts && is_closed(request));
        Some(Changes { base, is_open, is_closed, hosts })
    }

    /// Returns the recipe of it.
    pub(super) fn recipe(&self) -> String {
        let flags = [(self.is_open, OPEN), (self.is_closed, CLOSED), (self.hosts, HOSTS)];
        let flags = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| *flag);
        flags.chain([self.base.as_str()]).collect::<Vec<_>>().join(" ")
    }

    fn of_recipe(recipe: &str) -> Changes {
        let (flags, base) = recipe.rsplit_once(' ').unwrap_or(("", recipe));
        let has = |flag: &str| flags.split(' ').any(|word| word == flag);
        let base = base.to_owned();
        Changes { base, is_open: has(OPEN), is_closed: has(CLOSED), hosts: has(HOSTS) }
    }

    fn apply(&self, map: &mut Map<String, Value>) {
        let base = &self.base;
        let dl = format!("{base}/-/crates/{{crate}}/{{version}}/{{sha256-checksum}}.crate");
        map.insert("dl".to_owned(), Value::String(dl));
        if self.hosts || map.contains_key("api") {
            map.insert("api".to_owned(), Value::String(format!("{base}/-")));
        }
        if self.is_open {
            map.remove("auth-required");
        }
        if self.is_closed {
            map.insert("auth-required".to_owned(), Value::Bool(true));
        }
    }
}

/// Says whether a client has to show a token to see private crates: it showed one, or sees none.
/// cargo shows a token with each request or with none, as this says.
pub(super) fn is_closed(request: &Request) -> bool {
    let caller = request.admitted.caller.as_ref();
    !request.admitted.reads || caller.is_some_and(|caller| !caller.identity().is_anonymous())
}

/// Rewrites it by a recipe: both addresses lead through us, and what else it says stays.
pub(super) fn rewrite(recipe: &str, bytes: &[u8]) -> Result<Vec<u8>, ConfigError> {
    let mut map = object(bytes)?;
    if !map.get("dl").is_some_and(Value::is_string) {
        return Err(ConfigError::NoDownload);
    }
    Changes::of_recipe(recipe).apply(&mut map);
    serde_json::to_vec(&map).map_err(ConfigError::Json)
}

/// Returns the one of a registry of private crates.
pub(super) fn of_private(request: &Request) -> Option<Value> {
    let base = request.base.clone()?;
    let is_closed = is_closed(request);
    let mut map = Map::new();
    Changes { base, is_closed, hosts: true, ..Changes::default() }.apply(&mut map);
    Some(Value::Object(map))
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, ConfigError> {
    if bytes.len() > SIZE_MAX {
        return Err(ConfigError::TooLong);
    }
    serde_json::from_slice(bytes).map_err(ConfigError::Json)
}
