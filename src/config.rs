//! The configuration file: TOML, in which an unknown key is an error with its line.
//!
//! What a key means stands at its field: [`reference`] makes the manual's page of it.

pub mod limits;
pub mod policies;
pub mod reference;
pub mod webhooks;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use boatyard_access::{Groups, Network, Rule};
use boatyard_builder::cache::{self, Amount};
use boatyard_builder::execute::Isolation;
use boatyard_registry::mirror::FreshnessOptions;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::quantity;
use crate::report::{Failure, Result};

/// All that can be configured. What the command line says wins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where everything is kept.
    pub root: Option<PathBuf>,
    /// The server.
    pub serve: Serve,
    /// What clients may take, and make the server wait for.
    pub limits: limits::Limits,
    /// Who sees the metrics.
    pub metrics: Metrics,
    /// What is told on standard error.
    pub log: Log,
    /// Where spans of requests and builds are sent.
    pub traces: Traces,
    /// Other registries: how to reach them.
    pub registry: Vec<Registry>,
    /// Builds.
    pub build: Build,
    /// The upstreams that `boatyard serve` mirrors.
    pub mirror: Vec<Mirror>,
    /// Who may log in, and how.
    pub access: Access,
    /// Names for several who may do the same.
    #[schemars(with = "BTreeMap<String, Vec<String>>")]
    pub groups: Groups,
    /// Who may do what in which repositories; without any: see docs/access.md.
    #[serde(rename = "rule")]
    #[schemars(with = "Vec<RuleTable>")]
    pub rules: Vec<Rule>,
    /// Tags and manifests that go by themselves.
    pub retention: Vec<policies::Retention>,
    /// Tags that cannot be moved.
    pub immutable: Vec<policies::Immutable>,
    /// How much repositories may hold.
    pub quota: Vec<policies::Quota>,
    /// Who is told what happens.
    pub webhook: Vec<webhooks::Webhook>,
    /// The collector.
    pub gc: Gc,
    /// The integrity check.
    pub fsck: Fsck,
    /// What builds keep.
    pub cache: Cache,
    /// The cache proxy of `boatyard serve`.
    pub proxy: Proxy,
}

/// `[proxy]`: the [cache proxy](proxy.md) of `boatyard serve`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Proxy {
    /// The addresses to listen on; 127.0.0.1:3142 if there are none.
    #[schemars(with = "Vec<String>", extend("x-kind" = "list of ADDRESS:PORT"))]
    pub listen: Vec<SocketAddr>,
    /// It does not listen at all.
    pub off: bool,
    /// Who may use it besides this machine: addresses, or networks such as `10.0.0.0/8`.
    pub allow_clients: Vec<String>,
    /// Addresses that are not public may be fetched from.
    pub allow_private: bool,
    /// The ports that may be fetched from, besides 80 and 443.
    pub allow_ports: Vec<u16>,
    /// The ports that CONNECT may lead to; 443 if there are none.
    pub connect_ports: Vec<u16>,
    /// The hosts that CONNECT may lead to, and with them all below them; any if there are none.
    pub connect_hosts: Vec<String>,
    /// How many bytes are kept: `50GB`. What was not used for longest goes first.
    #[serde(with = "quantity::optional_size")]
    #[schemars(with = "Option<String>", extend("x-kind" = "size"))]
    pub max_size: Option<u64>,
    /// The proxy that is asked instead of upstreams themselves, by tunnels too; it resolves their
    /// names.
    pub parent: Option<String>,
    /// Writes no line to the log for each answer.
    pub quiet: bool,
    /// How old a public version must be before it is shown: `3d`; nothing is held back without it.
    #[serde(with = "quantity::optional_duration")]
    #[schemars(with = "Option<String>", extend("x-kind" = "duration"))]
    pub minimum_release_age: Option<Duration>,
    /// The packages of which every version is shown at once: `acme-*`.
    pub minimum_release_age_exclude: Vec<String>,
    /// What becomes of what its author withdrew: it is served as the upstream serves it, each time
    /// with a line in the log, or refused.
    pub withdrawn: Option<Withdrawn>,
    /// How many bytes a client may publish at once; 2GB otherwise.
    #[serde(with = "quantity::optional_size")]
    #[schemars(with = "Option<String>", extend("x-kind" = "size"))]
    pub upload_max: Option<u64>,
    /// What URLs are that no ecosystem knows: each a table with `url`, `is` and `for`, as
    /// `[[proxy.rule]]`. The first that names a URL decides; `rules` of its upstream come first.
    #[serde(rename = "rule")]
    pub rules: Vec<ProxyRule>,
    /// The upstreams that have a name, several servers, or want credentials.
    pub upstream: Vec<ProxyUpstream>,
}

/// `[[proxy.upstream]]`: an upstream of the cache proxy that has a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyUpstream {
    /// What it is called in paths (`/NAME/...`), messages and statistics.
    pub name: String,
    /// Its URL; without one there are only private packages.
    pub url: Option<String>,
    /// Others that have the same, asked where the first gives a wrong answer or none.
    #[serde(default)]
    pub also: Vec<String>,
    /// The user to log in as. What these credentials open is given to every client.
    pub username: Option<String>,
    /// The file that holds the password, or, without a user, a token.
    pub password_file: Option<PathBuf>,
    /// The kind of archive it is, where that is not to be guessed: `apt`, `rpm`, `apk`, `gem`, `pypi`,
    /// `npm`, `cargo`, `go`, `maven`. `generic` is none of those.
    pub ecosystem: Option<String>,
    /// The names of [private packages](packages.md): never looked up at the upstream, and published
    /// here. `acme-*`, `@acme/*`.
    #[serde(default)]
    pub private: Vec<String>,
    /// As in `[proxy]`, for this upstream; `0s` holds nothing back.
    #[serde(default, with = "quantity::optional_duration")]
    #[schemars(with = "Option<String>", extend("x-kind" = "duration"))]
    pub minimum_release_age: Option<Duration>,
    /// As in `[proxy]`, besides those.
    #[serde(default)]
    pub minimum_release_age_exclude: Vec<String>,
    /// As in `[proxy]`, for this upstream.
    pub withdrawn: Option<Withdrawn>,
    /// As `[[proxy.rule]]`, for URLs below this upstream: a `url` may begin with `/`, below it.
    #[serde(default)]
    pub rules: Vec<ProxyRule>,
}

/// What becomes of what its author withdrew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Withdrawn {
    /// It is served as the upstream serves it.
    Serve,
    /// It is served, and the log has a line each time.
    Warn,
    /// It is refused.
    Refuse,
}

/// What URLs that a pattern names are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyRule {
    /// The pattern: `*` is any number of characters but `/`, `**` any number of all.
    pub url: String,
    /// What they are.
    pub is: UrlIs,
    /// How long what is kept serves before it is revalidated, with `revalidate`: `10m`; each use
    /// asks otherwise.
    #[serde(default, with = "quantity::optional_duration")]
    #[schemars(with = "Option<String>", extend("x-kind" = "duration"))]
    pub r#for: Option<Duration>,
}

/// What a URL is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum UrlIs {
    /// Its bytes never change.
    Immutable,
    /// It changes.
    Revalidate,
    /// It passes through and is never kept.
    Pass,
}

/// `[serve]`: the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Serve {
    /// The addresses to listen on.
    #[schemars(with = "Vec<String>", extend("x-kind" = "list of ADDRESS:PORT"))]
    pub listen: Vec<SocketAddr>,
    /// The certificate to serve HTTPS with, and those that vouch for it, PEM; read again when the
    /// file changes.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// The authorities that sign certificates of clients, PEM.
    pub tls_client_ca: Option<PathBuf>,
    /// Whether clients must show a certificate.
    pub tls_client: TlsClient,
    /// How clients reach this server, where a proxy stands before it: `https://registry.example`.
    pub public_url: Option<String>,
    /// The proxies whose `X-Forwarded-*` are believed: addresses, or ranges of them.
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<Network>,
    /// How many seconds a stop waits for what is under way.
    pub stop_seconds: u64,
}

impl Default for Serve {
    fn default() -> Serve {
        Serve {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 5000))],
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            tls_client: TlsClient::Optional,
            public_url: None,
            trusted_proxies: Vec::new(),
            stop_seconds: boatyard_front::Limits::default().stop_timeout.as_secs(),
        }
    }
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum TlsClient {
    /// They may; who shows none is not known by it.
    #[default]
    Optional,
    /// Who shows none is not let in.
    Required,
}

/// `[access]`: who may log in, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// A file of users that others keep, as `htpasswd -B` writes it: bcrypt or argon2.
    pub htpasswd: Option<PathBuf>,
    /// How many seconds a token of the token service is good, from 60 on; 300 otherwise.
    pub token_seconds: Option<u32>,
}

/// `[[rule]]`: who may do what in which repositories; [access](access.md) has examples, and says
/// what holds without any.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it stands for a rule in the reference")]
struct RuleTable {
    /// Patterns of repositories: `team/**`, or a list of them.
    repositories: Vec<String>,
    /// `anonymous`, `authenticated`, `user:NAME`, `token:NAME`, `cert:NAME`, `group:NAME`.
    who: Vec<String>,
    /// `pull`, `push`, `overwrite`, `delete`.
    allow: Vec<String>,
}

/// `[metrics]`: who sees the metrics. Clients on this machine see them at `/metrics` of the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// An address of their own, where everybody who reaches it sees them.
    #[schemars(with = "Option<String>", extend("x-kind" = "ADDRESS:PORT"))]
    pub listen: Option<SocketAddr>,
}

/// `[log]`: what is told on standard error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `text` for people, `json` for programs.
    pub format: LogFormat,
    /// What is told: `error`, `warn`, `info`, `debug`, or for parts of the program, such as
    /// `info,boatyard_registry=debug`. BOATYARD_LOG wins.
    pub level: Option<String>,
    /// Whether `serve` writes a line for each request.
    pub access: bool,
}

impl Default for Log {
    fn default() -> Log {
        Log { format: LogFormat::Text, level: None, access: true }
    }
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// `[traces]`: where spans of requests and builds are sent, by OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Traces {
    /// The collector's URL, such as `http://collector.example:4318`; none: nothing is sent.
    pub endpoint: Option<String>,
    /// Which part of all traces is sent, of 1.
    pub ratio: f64,
}

impl Default for Traces {
    fn default() -> Traces {
        Traces { endpoint: None, ratio: 1.0 }
    }
}

/// `[[registry]]`: another registry, and how to reach it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Its host, with the port where it is not the usual one.
    pub host: String,
    /// It speaks plain HTTP.
    #[serde(default)]
    pub plain_http: bool,
    /// The authority that signed its certificate, PEM.
    pub ca: Option<PathBuf>,
}

/// `[build]`: builds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Build {
    /// How steps are isolated: auto, full, userns or chroot.
    #[serde(deserialize_with = "isolation", serialize_with = "show")]
    #[schemars(with = "String")]
    pub isolation: Isolation,
}

fn isolation<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Isolation, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn show<T: Display, S: Serializer>(
    value: &T,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// `[[mirror]]`: an upstream that `boatyard serve` mirrors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// What it is called in paths (`/v2/NAME/...`, `/NAME/v2/...`), messages and rules.
    pub name: String,
    /// The upstream: a registry's host, or a URL with a path below which its repositories are.
    /// `http://` where it speaks plain HTTP.
    pub url: String,
    /// Others that have the same, asked where the first gives a wrong answer or none.
    #[serde(default)]
    pub also: Vec<String>,
    /// The user to log in as; none: only what everybody may read is mirrored.
    pub username: Option<String>,
    /// The file that holds the password, or an access token.
    pub password_file: Option<PathBuf>,
    /// Gives images to everybody that only these credentials open.
    #[serde(default)]
    pub share_private: bool,
    /// How long a tag is not asked for again: `5m`, `1h`, `0s`.
    #[serde(default = "tag_ttl", with = "quantity::duration")]
    #[schemars(with = "String", extend("x-kind" = "duration"))]
    pub tag_ttl: Duration,
    /// Requests that name no upstream mean this one.
    #[serde(default)]
    pub default: bool,
    /// The same, for requests to these host names (`hub.mirror.example`) or ports (`:5001`) alone.
    #[serde(default)]
    pub default_for: Vec<String>,
    /// The upstream is never asked: what is kept is what there is.
    #[serde(default)]
    pub offline: bool,
    /// How many bytes are kept: `50GB`. What was not pulled for longest goes first.
    #[serde(default, with = "quantity::optional_size")]
    #[schemars(with = "Option<String>", extend("x-kind" = "size"))]
    pub max_size: Option<u64>,
}

fn tag_ttl() -> Duration {
    FreshnessOptions::default().tag_ttl
}

/// `[gc]`: the collector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Gc {
    /// How often `serve` collects by itself, or `none`.
    #[serde(with = "quantity::duration_or_none")]
    #[schemars(with = "String", extend("x-kind" = "duration or none"))]
    pub every: Option<Duration>,
    /// How long a blob stays that nothing refers to, in seconds.
    pub grace_seconds: u64,
    /// How long an unpacked layer stays that no build uses, in seconds.
    pub layers_seconds: u64,
}

impl Default for Gc {
    fn default() -> Self {
        let hour = 3600;
        Gc {
            every: Some(Duration::from_secs(hour)),
            grace_seconds: hour,
            layers_seconds: 2 * 24 * hour,
        }
    }
}

impl Gc {
    /// Returns how long unpacked layers stay that no build uses.
    pub fn layers(&self) -> Duration {
        Duration::from_secs(self.layers_seconds)
    }

    /// Returns the grace period.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }
}

/// `[fsck]`: the integrity check that `serve` makes by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fsck {
    /// How often every blob is read again, or `none`.
    #[serde(with = "quantity::duration_or_none")]
    #[schemars(with = "String", extend("x-kind" = "duration or none"))]
    pub every: Option<Duration>,
    /// How many bytes are read in a second, or `none` for as many as the disk gives.
    #[serde(with = "quantity::size_or_none")]
    #[schemars(with = "String", extend("x-kind" = "size or none"))]
    pub rate: Option<u64>,
    /// Fetches what is lost again from the upstreams that it came from.
    pub repair: bool,
}

impl Default for Fsck {
    fn default() -> Self {
        let day = 24 * 3600;
        Fsck { every: Some(Duration::from_secs(30 * day)), rate: Some(20_000_000), repair: true }
    }
}

/// `[cache]`: what builds keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// The most that it may have.
    #[serde(with = "quantity::amount_or_none")]
    #[schemars(with = "String", extend("x-kind" = "size, N% or none"))]
    pub max_size: Option<Amount>,
    /// How long something stays that no build uses.
    #[serde(with = "quantity::duration_or_none")]
    #[schemars(with = "String", extend("x-kind" = "duration or none"))]
    pub max_age: Option<Duration>,
    /// What it leaves free on the disk.
    #[serde(with = "quantity::amount_or_none")]
    #[schemars(with = "String", extend("x-kind" = "size, N% or none"))]
    pub min_free: Option<Amount>,
}

impl Default for Cache {
    fn default() -> Self {
        let cache::Limits { max_size, max_age, min_free, .. } = cache::Limits::default();
        Cache { max_size, max_age, min_free }
    }
}

impl Config {
    /// Returns the file to read: the one that was asked for, which must be there, or else the first
    /// of the usual ones that is.
    pub fn find(asked: Option<&Path>, usual: &[PathBuf]) -> Option<PathBuf> {
        asked
            .or_else(|| usual.iter().map(PathBuf::as_path).find(|path| path.exists()))
            .map(Path::to_path_buf)
    }

    /// Reads a configuration.
    pub fn read(path: &Path) -> Result<Config> {
        let text = fs_err::read_to_string(path).map_err(|error| {
            Failure::usage(format!("cannot read the configuration {}", path.display()))
                .because(error)
        })?;
        Config::parse(&text)
            .map_err(|problem| Failure::usage(format!("{}: {problem}", path.display())))
    }

    fn parse(text: &str) -> std::result::Result<Config, String> {
        // The error of the parser shows the line and points at the word.
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_knows() {
        let config = Config::parse(
            "root = '/srv/boatyard'\n[serve]\nlisten = ['0.0.0.0:5000']\n[[registry]]\n\
             host = 'registry.example:5000'\nplain_http = true\n[gc]\ngrace_seconds = 60\n",
        )
        .unwrap();
        assert_eq!(config.serve.listen.len(), 1);
        assert!(config.registry[0].plain_http);
        assert_eq!(config.gc.grace(), Duration::from_secs(60));
    }

    #[test]
    fn limits_of_the_cache_have_units() {
        let parse = |text| Config::parse(text).map(|config| config.cache);
        let cache = parse("[cache]\nmax_size = '20GB'\nmax_age = 'none'\n").unwrap();
        assert_eq!(cache.max_size, Some(Amount::Bytes(20_000_000_000)));
        assert_eq!(cache.max_age, None);
        assert_eq!(cache.min_free, Cache::default().min_free);
        let error = parse("[cache]\nmin_free = 'much'\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("`much` is no size"), "{error}");
    }

    #[test]
    fn an_unknown_key_is_shown_with_its_line() {
        let error = Config::parse("[serve]\nlissten = 3\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("lissten"), "{error}");
        assert!(Config::parse("[serve]\nlisten = 'x'\n").is_err());
    }
}
