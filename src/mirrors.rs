//! The mirrors that the configuration asks for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use boatyard_content::Root;
use boatyard_oci::{RegistryHost, RepositoryName};
use boatyard_registry::mirror::{Answers, FreshnessOptions};
use boatyard_registry::{Mirror, MirrorOptions, Mirrors};
use boatyard_upstream::transfer::Limits;
use boatyard_upstream::{
    Client, ClientOptions, Credential, CredentialSources, PlainHttp, RetryPolicy, Secret,
    SystemClock, Timeouts, Transfers, Trust,
};

use crate::config;
use crate::remote;
use crate::report::{Context as _, Failure, Result};
use crate::world::World;

/// How long an upstream may take to be connected to. A client waits that long, so it is short.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may take to answer, further tries included.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a blob may wait for others that are fetched from the same upstream.
const QUEUE: Duration = Duration::from_secs(60);
/// How long an upstream may pause within an answer.
const IDLE: Duration = Duration::from_secs(30);

/// Where an upstream is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    host: RegistryHost,
    prefix: Option<RepositoryName>,
    plain_http: bool,
}

/// Returns what brings the blobs of all mirrors.
pub fn transfers(root: &Root) -> Transfers {
    let limits = Limits { first_byte: ANSWER, queue: QUEUE, idle: IDLE, ..Limits::default() };
    Transfers::new(Arc::new(root.store()), limits, Arc::new(SystemClock))
}

/// Returns all mirrors of the configuration.
pub fn open(world: &World, root: &Arc<Root>, transfers: &Transfers) -> Result<Mirrors> {
    let mut mirrors = Vec::new();
    let mut answers = Vec::new();
    for configured in &world.config.mirror {
        let at = |failure: Failure| {
            Failure::usage(format!("[[mirror]] `{}` cannot be used", configured.name))
                .because(failure.to_string().trim_start_matches("error: ").trim_end().to_owned())
        };
        let (mirror, its) = one(world, root, transfers, configured).map_err(at)?;
        mirrors.push(mirror);
        answers.push(its);
    }
    Mirrors::new(mirrors, answers).context("the mirrors of the configuration cannot be used")
}

fn one(
    world: &World,
    root: &Arc<Root>,
    transfers: &Transfers,
    configured: &config::Mirror,
) -> Result<(Arc<Mirror>, Answers)> {
    check_name(&configured.name)?;
    let place = Place::parse(&configured.url)?;
    let also = configured.also.iter().map(|url| Place::parse(url)).collect::<Result<Vec<_>>>()?;
    if also.iter().any(|other| other.prefix != place.prefix) {
        return Err(Failure::usage("all of `url` and `also` need the same path")
            .hint("make another [[mirror]] of the other one"));
    }
    let places: Vec<&Place> = std::iter::once(&place).chain(&also).collect();
    let credential = credential(configured)?;
    let client = |credential: Option<&Credential>| client(world, &places, credential);
    let names = [configured.name.clone(), place.host.to_string()];
    let answers = Answers {
        names: names.into_iter().collect::<BTreeSet<_>>().into_iter().collect(),
        default: configured.default,
        default_for: configured.default_for.clone(),
    };
    let options = MirrorOptions {
        name: configured.name.clone(),
        host: place.host.clone(),
        also: also.iter().map(|place| place.host.clone()).collect(),
        prefix: place.prefix.clone(),
        client: client(credential.as_ref())?,
        anonymous: credential.as_ref().map(|_| client(None)).transpose()?,
        shares_private: configured.share_private,
        freshness: FreshnessOptions {
            tag_ttl: configured.tag_ttl,
            offline: configured.offline,
            ..FreshnessOptions::default()
        },
        transfers: transfers.clone(),
        bytes_max: configured.max_size,
        clock: Arc::new(SystemClock),
    };
    Ok((Mirror::new(Arc::clone(root), options), answers))
}

/// A name is a part of paths, so it must be able to stand in one.
fn check_name(name: &str) -> Result<()> {
    let is_part = name.parse::<RepositoryName>().is_ok() && !name.contains('/');
    if is_part && !["v2", "livez", "readyz", "metrics"].contains(&name) {
        return Ok(());
    }
    Err(Failure::usage(format!("`{name}` cannot be a part of a path"))
        .hint("use lower-case letters, digits, `.`, `_` and `-`; not `v2`, `livez` or `readyz`"))
}

/// Returns the credential that was configured. Nothing that this machine's users keep is used for
/// everybody's requests.
fn credential(configured: &config::Mirror) -> Result<Option<Credential>> {
    match (&configured.username, &configured.password_file) {
        (Some(user), Some(file)) => {
            let text = fs_err::read_to_string(file).context("cannot read the password")?;
            let password = Secret::new(text.trim_end_matches(['\r', '\n']));
            Ok(Some(Credential::Password { user: user.clone(), password }))
        }
        (None, None) => Ok(None),
        _ => Err(Failure::usage("`username` and `password_file` need each other")),
    }
}

fn client(world: &World, places: &[&Place], credential: Option<&Credential>) -> Result<Client> {
    let given = credential.map(|credential| {
        places.iter().map(|place| (place.host.clone(), credential.clone())).collect()
    });
    let mut plain: BTreeSet<_> =
        places.iter().filter(|place| place.plain_http).map(|place| place.host.clone()).collect();
    if let PlainHttp::Hosts(hosts) = remote::plain_http(world)? {
        plain.extend(hosts);
    }
    let options = ClientOptions {
        credentials: CredentialSources {
            given: given.unwrap_or_default(),
            ..CredentialSources::default()
        },
        // The machine's own registries.conf may name this very mirror.
        trust: Trust { registries_conf: Vec::new(), ..remote::trust(world)? },
        plain_http: if plain.is_empty() { PlainHttp::Loopback } else { PlainHttp::Hosts(plain) },
        timeouts: Timeouts { connect: CONNECT, idle: IDLE },
        retry: RetryPolicy {
            attempts_max: 2,
            retry_after_max: Duration::from_secs(2),
            ..RetryPolicy::default()
        },
        ..ClientOptions::default()
    };
    Client::new(options).context("cannot set up the client of the upstream")
}

impl Place {
    /// Reads `docker.io`, `https://registry.example:5000/team` or `http://registry.lan`.
    fn parse(url: &str) -> Result<Place> {
        let (plain_http, rest) = match url.split_once("://") {
            Some(("http", rest)) => (true, rest),
            Some(("https", rest)) => (false, rest),
            None => (false, url),
            Some((scheme, _)) => {
                return Err(Failure::usage(format!("`{scheme}://` is not how registries speak"))
                    .hint("write https://HOST or http://HOST"));
            }
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.contains('@') {
            return Err(Failure::usage("credentials do not belong into the URL")
                .hint("use `username` and `password_file`"));
        }
        let wrong = |error: boatyard_oci::name::NameError| {
            Failure::usage(format!("`{url}` is no registry")).because(error)
        };
        let path = path.trim_matches('/');
        let path = path.strip_suffix("/v2").unwrap_or(if path == "v2" { "" } else { path });
        let prefix = if path.is_empty() { None } else { Some(path.parse().map_err(wrong)?) };
        let host = match host {
            // Where Docker Hub really is: it has one name here.
            "registry-1.docker.io" | "index.docker.io" => RegistryHost::docker_hub(),
            host => host.parse().map_err(wrong)?,
        };
        Ok(Place { host, prefix, plain_http })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let place = |url: &str| {
            let place = Place::parse(url).unwrap();
            let prefix = place.prefix.map(|prefix| prefix.to_string());
            (place.host.to_string(), prefix.unwrap_or_default(), place.plain_http)
        };
        let of = |host: &str, prefix: &str, plain| (host.to_owned(), prefix.to_owned(), plain);
        assert_eq!(place("docker.io"), of("docker.io", "", false));
        assert_eq!(place("https://registry-1.docker.io/"), of("docker.io", "", false));
        assert_eq!(place("http://a.example:5000/v2/"), of("a.example:5000", "", true));
        assert_eq!(place("https://a.example/team/x"), of("a.example", "team/x", false));
        for bad in ["ftp://a.example", "https://me:secret@a.example", "https://", "a b"] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_parts_of_paths() {
        assert!(check_name("hub").is_ok() && check_name("my-mirror.example").is_ok());
        for bad in ["", "v2", "a/b", "A", "..", "livez"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
