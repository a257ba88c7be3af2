//! Names: registries, repositories, tags, and the image names that are made of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};

/// The registry that a name without one means.
const DEFAULT_REGISTRY: &str = "docker.io";

/// A text that is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a repository name.
    #[error(
        "`{text}` is not a repository name: use lower-case letters and digits, separated by \
         `.`, `_`, `__` or dashes, in parts divided by `/`"
    )]
    Repository {
        /// What was given, shortened.
        text: String,
    },
    /// A repository name that is too long.
    #[error("a repository name has at most {most} characters, not {got}")]
    RepositoryLength {
        /// The limit.
        most: usize,
        /// How many there were.
        got: usize,
    },
    /// Not a tag.
    #[error(
        "`{text}` is not a tag: use up to 128 letters, digits, `_`, `.` and `-`, the first of \
         them not `.` or `-`"
    )]
    Tag {
        /// What was given, shortened.
        text: String,
    },
    /// Not a registry's host.
    #[error("`{text}` is not a registry: write it as host or host:port")]
    Registry {
        /// What was given, shortened.
        text: String,
    },
    /// What stands behind the `@` is not a digest.
    #[error("the digest of image name `{text}` is not valid")]
    Digest {
        /// The whole image name, shortened.
        text: String,
        /// What is wrong with the digest.
        #[source]
        source: DigestError,
    },
}

fn shorten(text: &str) -> String {
    text.chars().take(300).collect::<String>().escape_debug().to_string()
}

/// A repository's name within its registry, such as `library/debian`.
///
/// - Matches the specification's `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/...)*` (distribution-spec,
///   "Pulling manifests"), so no part starts with `_` or is `.` or `..`: it is a safe relative
///   path, and no file of ours that starts with `_` can collide with it.
/// - Has at most 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct RepositoryName(Box<str>);

impl RepositoryName {
    /// The most bytes a name may have.
    pub const LEN_MAX: usize = 255;

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Says whether `part` matches `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_path_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    let separators = bytes.split(|&byte| alphanumeric(byte)).filter(|run| !run.is_empty());
    separators
        .into_iter()
        .all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|&byte| byte == b'-'))
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > RepositoryName::LEN_MAX {
            return Err(NameError::RepositoryLength {
                most: RepositoryName::LEN_MAX,
                got: text.len(),
            });
        }
        if !text.split('/').all(is_path_component) {
            return Err(NameError::Repository { text: shorten(text) });
        }
        Ok(RepositoryName(text.into()))
    }
}

/// A tag: a movable pointer to a manifest.
///
/// - Matches `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` (distribution-spec, "Pulling manifests"), so it
///   is a safe file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Tag(Box<str>);

impl Tag {
    /// Returns `latest`: the tag of an image name that has none.
    pub fn latest() -> Tag {
        Tag("latest".into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let rest = |byte: &u8| word(*byte) || *byte == b'.' || *byte == b'-';
        let fits = (1..=128).contains(&text.len());
        if !fits || !word(text.as_bytes()[0]) || !text.as_bytes()[1..].iter().all(rest) {
            return Err(NameError::Tag { text: shorten(text) });
        }
        Ok(Tag(text.into()))
    }
}

/// A tag or a digest: what follows `/manifests/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    /// A movable pointer.
    Tag(Tag),
    /// The manifest itself.
    Digest(Digest),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => tag.fmt(f),
            Reference::Digest(digest) => digest.fmt(f),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// Reads a digest where there is a colon (no tag has one), a tag otherwise.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') {
            Ok(Reference::Digest(text.parse()?))
        } else {
            Ok(Reference::Tag(text.parse()?))
        }
    }
}

/// A text that is neither a tag nor a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It has a colon, but is not a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// It has none, and is not a tag.
    #[error(transparent)]
    Tag(#[from] NameError),
}

/// A registry's host, with its port where it is not the usual one.
///
/// - Lower case; a DNS name, an IPv4 address or an IPv6 address in brackets; then perhaps
///   `:port`.
/// - `index.docker.io` and `registry-1.docker.io` are `docker.io`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct RegistryHost(Box<str>);

impl RegistryHost {
    /// Returns Docker Hub, which names without a registry mean.
    pub fn docker_hub() -> RegistryHost {
        RegistryHost(DEFAULT_REGISTRY.into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the host without the port and without an IPv6 address's brackets.
    pub fn host(&self) -> &str {
        let host = match self.split_port() {
            Some((host, _)) => host,
            None => &self.0,
        };
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns the port where one was given.
    pub fn port(&self) -> Option<u16> {
        self.split_port().and_then(|(_, port)| port.parse().ok())
    }

    fn split_port(&self) -> Option<(&str, &str)> {
        let (host, port) = self.0.rsplit_once(':')?;
        (!port.ends_with(']')).then_some((host, port))
    }

    /// Says whether this is Docker Hub, whose official images live under `library/`.
    pub fn is_docker_hub(&self) -> bool {
        *self.0 == *DEFAULT_REGISTRY
    }

    /// Says whether the host is this machine itself, where plain HTTP is the rule.
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for RegistryHost {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = || NameError::Registry { text: shorten(text) };
        let lower = text.to_ascii_lowercase();
        let (host, port) = match lower.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (lower.as_str(), None),
        };
        let port_valid = port.is_none_or(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit())
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if !port_valid || !is_host(host) || lower.len() > 255 {
            return Err(refuse());
        }
        Ok(match lower.as_str() {
            "index.docker.io" | "registry-1.docker.io" => RegistryHost::docker_hub(),
            _ => RegistryHost(lower.into()),
        })
    }
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label)
}

/// Where an image is: registry, repository, and a tag or a digest.
///
/// - Parsed as docker does: what stands before the first `/` is a registry if it has a `.` or a
///   `:`, is `localhost`, or has an upper-case letter; else the registry is `docker.io`.
/// - On `docker.io`, a repository without `/` is one of `library/`.
/// - Without a tag or digest the tag is `latest`; with both, the digest decides and the tag is
///   only kept for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName {
    /// The registry.
    pub registry: RegistryHost,
    /// The repository within it.
    pub repository: RepositoryName,
    /// The tag or digest.
    pub reference: Reference,
}

impl ImageName {
    /// Returns the same repository with another reference.
    #[must_use]
    pub fn with_reference(&self, reference: Reference) -> ImageName {
        ImageName { reference, ..self.clone() }
    }

    /// Returns the name as people write it: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        let separator = self.separator();
        let repository = self.repository.as_str();
        if !self.registry.is_docker_hub() {
            return self.to_string();
        }
        let repository = match repository.strip_prefix("library/") {
            Some(official) if !official.contains('/') => official,
            _ => repository,
        };
        format!("{repository}{separator}{}", self.reference)
    }

    fn separator(&self) -> char {
        match self.reference {
            Reference::Tag(_) => ':',
            Reference::Digest(_) => '@',
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = self.separator();
        let (registry, repository) = (self.registry.as_str(), self.repository.as_str());
        // A host of one word is told from a repository by its capitals alone.
        match registry.contains(['.', ':']) || registry == "localhost" {
            true => write!(f, "{registry}")?,
            false => write!(f, "{}", registry.to_ascii_uppercase())?,
        }
        write!(f, "/{repository}{separator}{}", self.reference)
    }
}

impl FromStr for ImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let (name, tag) = split_tag(name);
        let (registry, repository) = split_registry(name);
        let registry: RegistryHost = registry.parse()?;
        let repository: RepositoryName = if registry.is_docker_hub() && !repository.contains('/') {
            format!("library/{repository}").parse()
        } else {
            repository.parse()
        }
        .map_err(|error| match error {
            NameError::Repository { .. } => NameError::Repository { text: shorten(text) },
            other => other,
        })?;
        let tag = tag.map(Tag::from_str).transpose()?;
        let reference = match digest {
            Some(digest) => Reference::Digest(
                digest
                    .parse()
                    .map_err(|source| NameError::Digest { text: shorten(text), source })?,
            ),
            None => Reference::Tag(tag.unwrap_or_else(Tag::latest)),
        };
        Ok(ImageName { registry, repository, reference })
    }
}

/// Splits a tag off: a colon behind the last slash.
fn split_tag(name: &str) -> (&str, Option<&str>) {
    let path_start = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[path_start..].find(':') {
        Some(colon) => (&name[..path_start + colon], Some(&name[path_start + colon + 1..])),
        None => (name, None),
    }
}

fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((head, rest))
            if head.contains(['.', ':'])
                || head == "localhost"
                || head.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (head, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

macro_rules! displays_as_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

displays_as_text!(RepositoryName, Tag, RegistryHost);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_of_one_word_stays_a_host() {
        for text in ["B/b/c", "Reg/app:1", "localhost/b/c", "b/c"] {
            let name: ImageName = text.parse().unwrap();
            assert_eq!(name.to_string().parse::<ImageName>().unwrap(), name, "{name}");
        }
        assert_eq!("Reg/app".parse::<ImageName>().unwrap().to_string(), "REG/app:latest");
    }

    #[test]
    fn repository_names() {
        for good in ["a", "library/debian", "a.b/c_d/e__f/g--h", "0", "a-b.c"] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        for bad in
            ["", "/", "a/", "/a", "A", "a..b", "a___b", "_a", "a_", ".", "..", "a/../b", "a b", "é"]
        {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad}");
        }
        assert!("a".repeat(256).parse::<RepositoryName>().is_err());
    }

    #[test]
    fn tags() {
        for good in ["latest", "1.0", "_x", "A-b", &"a".repeat(128)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".", "-a", "a/b", "a:b", "ü", &"a".repeat(129)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }

    #[test]
    fn image_names_as_docker_reads_them() {
        let digest = Digest::sha256(b"x");
        let table = [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("me/app", "docker.io/me/app:latest", "me/app:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
            ("ghcr.io/a/b/c:x", "ghcr.io/a/b/c:x", "ghcr.io/a/b/c:x"),
            ("index.docker.io/app", "docker.io/library/app:latest", "app:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ];
        for (text, full, familiar) in table {
            let name: ImageName = text.parse().unwrap();
            assert_eq!(name.to_string(), full, "{text}");
            assert_eq!(name.familiar(), familiar, "{text}");
        }
        let both: ImageName = format!("app:1@{digest}").parse().unwrap();
        assert_eq!(both.to_string(), format!("docker.io/library/app@{digest}"));
        for bad in ["", ":", "App", "a/B", "a:", "a@sha256:1", "host:0/a", "host:99999/a", "a//b"] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts() {
        let host: RegistryHost = "[::1]:5000".parse().unwrap();
        assert_eq!((host.host(), host.port()), ("::1", Some(5000)));
        assert!(host.is_loopback());
        let plain: RegistryHost = "Example.com".parse().unwrap();
        assert_eq!(
            (plain.host(), plain.port(), plain.as_str()),
            ("example.com", None, "example.com")
        );
        assert!(!plain.is_loopback());
    }
}
