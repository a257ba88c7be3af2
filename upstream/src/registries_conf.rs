//! Podman's `registries.conf`, version 2: which registries are insecure, moved, mirrored, blocked.
//!
//! Read are `[[registry]]` tables with `prefix`, `location`, `insecure`, `blocked`,
//! `mirror-by-digest-only` and `[[registry.mirror]]` tables with `location`, `insecure`,
//! `pull-from-mirror`. A directory (`registries.conf.d`) stands for its `*.conf` files in the
//! order of their names; a table in a later file replaces one with the same prefix in an earlier
//! one. Short names and search registries are not used: a name without a registry is on docker.io.

use std::path::{Path, PathBuf};

use boatyard_oci::{Reference, RegistryHost, RepositoryName};
use serde::Deserialize;

/// What the files say.
#[derive(Clone, Debug, Default)]
pub struct RegistriesConf {
    registries: Vec<Registry>,
}

/// One place that an image may be fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The registry.
    pub registry: RegistryHost,
    /// The repository there.
    pub repository: RepositoryName,
    /// Whether its certificate is not to be checked, and plain HTTP will do.
    pub insecure: bool,
    /// Whether it only stands in for the registry that was named.
    pub mirror: bool,
}

/// A file that cannot be used, or forbids what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesConfError {
    /// A file cannot be read.
    #[error("cannot read the configuration of registries")]
    Read(#[source] std::io::Error),
    /// A file is not TOML of the expected form.
    #[error("`{path}` is not a registries.conf of version 2")]
    Form {
        /// The file.
        path: PathBuf,
        /// Where it fails.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A file has the tables of version 1.
    #[error(
        "`{path}` has tables of version 1 (`[registries.search]`, ...), which are not supported: \
         write `[[registry]]` tables"
    )]
    VersionOne {
        /// The file.
        path: PathBuf,
    },
    /// The registry is blocked.
    #[error("`{name}` is blocked by `{prefix}` in `{path}`")]
    Blocked {
        /// What was asked for.
        name: String,
        /// The table's prefix.
        prefix: String,
        /// The file.
        path: PathBuf,
    },
    /// A rewritten name is not one.
    #[error("`{path}` rewrites `{name}` to `{rewritten}`, which is not a valid name")]
    Rewrite {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        name: String,
        /// What came of it.
        rewritten: String,
        /// What is wrong with it.
        #[source]
        source: Box<boatyard_oci::name::NameError>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    registry: Vec<Table>,
    registries: Option<toml::Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Table {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: PullFromMirror,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum PullFromMirror {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

#[derive(Clone, Debug)]
struct Registry {
    path: PathBuf,
    prefix: String,
    table: Table,
}

impl RegistriesConf {
    /// Reads files and directories of files. What does not exist says nothing.
    ///
    /// # Errors
    /// Where one exists and cannot be read or understood.
    pub fn load(paths: &[PathBuf]) -> Result<RegistriesConf, RegistriesConfError> {
        let mut conf = RegistriesConf::default();
        for path in paths {
            for file in files_of(path)? {
                conf.add(&file)?;
            }
        }
        Ok(conf)
    }

    fn add(&mut self, path: &Path) -> Result<(), RegistriesConfError> {
        let text = match fs_err::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(RegistriesConfError::Read(error)),
        };
        let file: File = toml::from_str(&text).map_err(|source| RegistriesConfError::Form {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        if file.registries.is_some() {
            return Err(RegistriesConfError::VersionOne { path: path.to_owned() });
        }
        for table in file.registry {
            let Some(prefix) = table.prefix.clone().or_else(|| table.location.clone()) else {
                continue;
            };
            self.registries.retain(|earlier| earlier.prefix != prefix);
            self.registries.push(Registry { path: path.to_owned(), prefix, table });
        }
        Ok(())
    }

    /// Returns the places to fetch from, the best first: mirrors, then the registry itself.
    ///
    /// # Errors
    /// Where the registry is blocked, or a rewritten name is not valid.
    pub fn sources(
        &self,
        registry: &RegistryHost,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Vec<Source>, RegistriesConfError> {
        let name = format!("{registry}/{repository}");
        let Some(found) = self.find(&name) else {
            return Ok(vec![primary(registry, repository)]);
        };
        if found.table.blocked {
            return Err(RegistriesConfError::Blocked {
                name,
                prefix: found.prefix.clone(),
                path: found.path.clone(),
            });
        }
        let by_digest = matches!(reference, Reference::Digest(_));
        let mut sources = Vec::new();
        for mirror in &found.table.mirror {
            let fits = match mirror.pull_from_mirror {
                PullFromMirror::All => by_digest || !found.table.mirror_by_digest_only,
                PullFromMirror::DigestOnly => by_digest,
                PullFromMirror::TagOnly => !by_digest,
            };
            if fits {
                let (registry, repository) = found.rewrite(&name, &mirror.location)?;
                sources.push(Source {
                    registry,
                    repository,
                    insecure: mirror.insecure,
                    mirror: true,
                });
            }
        }
        sources.push(found.own_source(&name, registry, repository)?);
        Ok(sources)
    }

    /// Returns where a push goes: the registry itself, moved where its table says so.
    ///
    /// # Errors
    /// As [`RegistriesConf::sources`].
    pub fn destination(
        &self,
        registry: &RegistryHost,
        repository: &RepositoryName,
    ) -> Result<Source, RegistriesConfError> {
        let any = Reference::Tag(boatyard_oci::Tag::latest());
        let sources = self.sources(registry, repository, &any)?;
        Ok(sources.into_iter().last().unwrap_or_else(|| primary(registry, repository)))
    }

    /// Says whether a registry as a whole is marked insecure.
    pub fn is_insecure(&self, registry: &RegistryHost) -> bool {
        self.find(registry.as_str()).is_some_and(|found| found.table.insecure)
    }

    /// Returns the table with the longest prefix that fits.
    fn find(&self, name: &str) -> Option<&Registry> {
        self.registries
            .iter()
            .filter(|registry| matched_len(&registry.prefix, name).is_some())
            .max_by_key(|registry| registry.prefix.len())
    }
}

impl Registry {
    fn own_source(
        &self,
        name: &str,
        registry: &RegistryHost,
        repository: &RepositoryName,
    ) -> Result<Source, RegistriesConfError> {
        let (registry, repository) = match &self.table.location {
            Some(location) if *location != self.prefix => self.rewrite(name, location)?,
            _ => (registry.clone(), repository.clone()),
        };
        Ok(Source { registry, repository, insecure: self.table.insecure, mirror: false })
    }

    /// Puts `location` where the prefix stands in `name`.
    fn rewrite(
        &self,
        name: &str,
        location: &str,
    ) -> Result<(RegistryHost, RepositoryName), RegistriesConfError> {
        let matched = matched_len(&self.prefix, name).unwrap_or(0);
        let rewritten = format!("{}{}", location.trim_end_matches('/'), &name[matched..]);
        let refuse = |source| RegistriesConfError::Rewrite {
            path: self.path.clone(),
            name: name.to_owned(),
            rewritten: rewritten.clone(),
            source: Box::new(source),
        };
        let (registry, repository) = rewritten.split_once('/').unwrap_or((&rewritten, ""));
        Ok((registry.parse().map_err(refuse)?, repository.parse().map_err(refuse)?))
    }
}

fn primary(registry: &RegistryHost, repository: &RepositoryName) -> Source {
    Source {
        registry: registry.clone(),
        repository: repository.clone(),
        insecure: false,
        mirror: false,
    }
}

/// Returns how much of `name` a prefix stands for, where it fits.
///
/// > "prefix ... host[:port][/namespace[/_namespace_...]] ... or *.host: wildcarded subdomain
/// > matching" (containers-registries.conf(5))
fn matched_len(prefix: &str, name: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix('*') {
        let host_len = name.find('/').unwrap_or(name.len());
        return name[..host_len].ends_with(domain).then_some(host_len);
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, RegistriesConfError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files: Vec<PathBuf> = fs_err::read_dir(path)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(RegistriesConfError::Read)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> RegistriesConf {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), text).unwrap();
        RegistriesConf::load(&[file.path().to_owned()]).unwrap()
    }

    fn sources(conf: &RegistriesConf, image: &str) -> Vec<String> {
        let image: boatyard_oci::ImageName = image.parse().unwrap();
        conf.sources(&image.registry, &image.repository, &image.reference)
            .unwrap()
            .iter()
            .map(|source| {
                let mark = if source.insecure { " insecure" } else { "" };
                format!("{}/{}{mark}", source.registry, source.repository)
            })
            .collect()
    }

    #[test]
    fn mirrors_come_first_and_the_longest_prefix_counts() {
        let conf = conf(
            r#"
            [[registry]]
            location = "docker.io"
            [[registry.mirror]]
            location = "mirror.lan:5000/docker.io"
            insecure = true
            [[registry.mirror]]
            location = "digests.example"
            pull-from-mirror = "digest-only"

            [[registry]]
            prefix = "docker.io/me"
            location = "registry.example/moved"

            [[registry]]
            prefix = "*.lan"
            location = "plain.example"
            insecure = true
            "#,
        );
        assert_eq!(
            sources(&conf, "alpine"),
            ["mirror.lan:5000/docker.io/library/alpine insecure", "docker.io/library/alpine"]
        );
        let digest = boatyard_oci::Digest::sha256(b"");
        assert_eq!(
            sources(&conf, &format!("alpine@{digest}"))[1],
            "digests.example/library/alpine"
        );
        assert_eq!(sources(&conf, "me/app"), ["registry.example/moved/app"]);
        assert_eq!(sources(&conf, "meme/app").last().unwrap(), "docker.io/meme/app");
        assert_eq!(sources(&conf, "a.lan/x"), ["plain.example/x insecure"]);
        assert_eq!(sources(&conf, "ghcr.io/x"), ["ghcr.io/x"]);
    }

    #[test]
    fn directories_are_read_in_order_and_later_tables_replace() {
        let directory = tempfile::tempdir().unwrap();
        let table =
            |blocked| format!("[[registry]]\nlocation = \"x.example\"\nblocked = {blocked}");
        fs_err::write(directory.path().join("2.conf"), table(true)).unwrap();
        fs_err::write(directory.path().join("1.conf"), table(false)).unwrap();
        fs_err::write(directory.path().join("3.txt"), "not toml").unwrap();
        let conf = RegistriesConf::load(&[directory.path().to_owned()]).unwrap();
        let image: boatyard_oci::ImageName = "x.example/a".parse().unwrap();
        let error = conf.sources(&image.registry, &image.repository, &image.reference).unwrap_err();
        assert!(error.to_string().contains("2.conf"), "{error}");
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        for text in ["[[registry", "[registries.search]\nregistries = ['a']"] {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs_err::write(file.path(), text).unwrap();
            let error = RegistriesConf::load(&[file.path().to_owned()]).unwrap_err();
            assert!(error.to_string().contains(file.path().to_str().unwrap()), "{error}");
        }
        assert!(RegistriesConf::load(&["/nowhere/registries.conf".into()]).is_ok());
    }
}
