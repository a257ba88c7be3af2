//! The file format that docker, podman and we share: `config.json`, `auth.json`.
//!
//! ```text
//! {"auths": {"registry.example": {"auth": "<base64 of user:password>",
//!                                 "identitytoken": "...", "registrytoken": "..."}},
//!  "credHelpers": {"registry.example": "pass"}, "credsStore": "secretservice"}
//! ```
//!
//! Only our own file is written: whole, under a lock, into a new file of mode 0600 that is then
//! renamed. Properties that we do not know are kept.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boatyard_oci::{RegistryHost, RepositoryName};
use serde_json::{Map, Value};

use super::Credential;
use crate::redact::Secret;

/// What docker writes as the name of Docker Hub.
pub(super) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// A file of credentials that cannot be used. No variant shows its content.
#[derive(Debug, thiserror::Error)]
pub enum AuthFileError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
    /// It cannot be written.
    #[error("`{path}` cannot be written")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not a JSON object. Where in it is said, what stands there is not: it may be secret.
    #[error("`{path}` is not JSON: line {line}, column {column}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// A property has another type than it must have.
    #[error("`{path}`: `{property}` is not {expected}")]
    Property {
        /// The file.
        path: PathBuf,
        /// The property.
        property: String,
        /// What it must be.
        expected: &'static str,
    },
}

/// A file of credentials, as it was read.
#[derive(Debug, Default)]
pub struct AuthFile {
    path: PathBuf,
    properties: Map<String, Value>,
}

/// What a file says about a registry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Credential(Credential),
    /// The helper that has it, and the name under which to ask.
    Helper {
        name: String,
        server: String,
    },
}

impl AuthFile {
    /// Reads a file; one that does not exist, or is empty, says nothing.
    ///
    /// # Errors
    /// Where it cannot be read or is not a JSON object.
    pub fn read(path: &Path) -> Result<AuthFile, AuthFileError> {
        let text = match fs_err::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(AuthFileError::Read(error)),
        };
        if text.trim_ascii().is_empty() {
            return Ok(AuthFile { path: path.to_owned(), properties: Map::new() });
        }
        let value: Value = serde_json::from_slice(&text).map_err(|error| AuthFileError::Json {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
        })?;
        match value {
            Value::Object(properties) => Ok(AuthFile { path: path.to_owned(), properties }),
            _ => Err(AuthFileError::Property {
                path: path.to_owned(),
                property: "(the whole file)".to_owned(),
                expected: "a JSON object",
            }),
        }
    }

    /// Returns what the file says about a registry, a helper's word before its own: the longest
    /// key that fits counts, for podman's keys may go on with a namespace.
    pub(super) fn find(
        &self,
        host: &RegistryHost,
        repository: Option<&RepositoryName>,
    ) -> Result<Vec<Entry>, AuthFileError> {
        let mut entries = Vec::new();
        let helpers = self.object("credHelpers")?;
        if let Some((key, name)) = helpers.and_then(|helpers| best(helpers, host, repository)) {
            let name = self.text(name, &format!("credHelpers.{key}"))?;
            entries.push(Entry::Helper { name, server: server_of(host) });
        } else if let Some(name) = self.properties.get("credsStore") {
            let name = self.text(name, "credsStore")?;
            if !name.is_empty() {
                entries.push(Entry::Helper { name, server: server_of(host) });
            }
        }
        if let Some((key, value)) =
            self.object("auths")?.and_then(|all| best(all, host, repository))
            && let Some(credential) = self.credential(key, value)?
        {
            entries.push(Entry::Credential(credential));
        }
        Ok(entries)
    }

    /// Keeps a credential for a registry.
    pub(super) fn set(&mut self, host: &RegistryHost, credential: &Credential) {
        let mut entry = Map::new();
        match credential {
            Credential::Password { user, password } => {
                let joined = format!("{user}:{}", password.expose());
                entry.insert("auth".to_owned(), STANDARD.encode(joined).into());
            }
            Credential::IdentityToken { token } => {
                entry.insert("identitytoken".to_owned(), token.expose().into());
            }
            Credential::RegistryToken { token } => {
                entry.insert("registrytoken".to_owned(), token.expose().into());
            }
        }
        let auths = self.properties.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        if !auths.is_object() {
            *auths = Value::Object(Map::new());
        }
        if let Value::Object(auths) = auths {
            auths.retain(|key, _| scope_of(key) != (host.as_str(), ""));
            auths.insert(host.to_string(), Value::Object(entry));
        }
    }

    /// Forgets a registry's credential; says whether there was one.
    pub(super) fn remove(&mut self, host: &RegistryHost) -> bool {
        let Some(Value::Object(auths)) = self.properties.get_mut("auths") else {
            return false;
        };
        let before = auths.len();
        auths.retain(|key, _| scope_of(key) != (host.as_str(), ""));
        auths.len() < before
    }

    /// Reads our file under its lock, changes it, and writes it whole.
    pub(super) fn update<T>(
        path: &Path,
        change: impl FnOnce(&mut AuthFile) -> T,
    ) -> Result<T, AuthFileError> {
        let write = |source| AuthFileError::Write { path: path.to_owned(), source };
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(write)?;
        let lock = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.with_extension("lock"))
            .map_err(write)?;
        lock.lock().map_err(write)?;
        let mut file = AuthFile::read(path)?;
        let result = change(&mut file);
        file.write().map_err(write)?;
        Ok(result)
    }

    fn write(&self) -> std::io::Result<()> {
        let partial = self.path.with_extension(format!("{}.partial", std::process::id()));
        let _ = fs_err::remove_file(&partial);
        let mut file =
            std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&partial)?;
        file.write_all(&serde_json::to_vec_pretty(&self.properties)?)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs_err::rename(&partial, &self.path)
    }

    /// Says whether others than its owner may read the file.
    pub(super) fn is_exposed(&self) -> bool {
        fs_err::metadata(&self.path)
            .is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
    }

    fn object(&self, property: &str) -> Result<Option<&Map<String, Value>>, AuthFileError> {
        match self.properties.get(property) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(self.refuse(property, "a JSON object")),
        }
    }

    fn text(&self, value: &Value, property: &str) -> Result<String, AuthFileError> {
        value.as_str().map(str::to_owned).ok_or_else(|| self.refuse(property, "a text"))
    }

    fn credential(&self, key: &str, value: &Value) -> Result<Option<Credential>, AuthFileError> {
        let property = |name: &str| {
            let text = value.get(name).and_then(Value::as_str).unwrap_or_default();
            (!text.is_empty()).then(|| text.to_owned())
        };
        if let Some(token) = property("registrytoken") {
            return Ok(Some(Credential::RegistryToken { token: Secret::new(token) }));
        }
        if let Some(token) = property("identitytoken") {
            return Ok(Some(Credential::IdentityToken { token: Secret::new(token) }));
        }
        if let Some(encoded) = property("auth") {
            return match decode(&encoded) {
                Some(credential) => Ok(Some(credential)),
                None => Err(self.refuse(&format!("auths.{key}.auth"), "base64 of user:password")),
            };
        }
        Ok(property("username")
            .zip(property("password"))
            .map(|(user, password)| Credential::Password { user, password: Secret::new(password) }))
    }

    fn refuse(&self, property: &str, expected: &'static str) -> AuthFileError {
        let property = property.chars().take(200).collect();
        AuthFileError::Property { path: self.path.clone(), property, expected }
    }
}

fn decode(encoded: &str) -> Option<Credential> {
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    // Old dockers padded the text with NULs.
    let (user, password) = decoded.trim_end_matches('\0').split_once(':')?;
    // What `az acr login` and others write beside an identity token.
    Some(Credential::Password { user: user.to_owned(), password: Secret::new(password) })
}

/// Returns under which name helpers and docker know a registry.
pub(super) fn server_of(host: &RegistryHost) -> String {
    if host.is_docker_hub() { DOCKER_HUB_KEY.to_owned() } else { host.to_string() }
}

/// Returns the host and the namespace that a key stands for.
fn scope_of(key: &str) -> (&str, &str) {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let had_scheme = bare.is_some();
    let (host, namespace) =
        bare.unwrap_or(key).split_once('/').unwrap_or((bare.unwrap_or(key), ""));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    };
    let namespace = namespace.trim_end_matches('/');
    // docker wrote whole URLs once: their path is the API's version, not a namespace.
    if had_scheme || matches!(namespace, "v1" | "v2") { (host, "") } else { (host, namespace) }
}

fn best<'a>(
    entries: &'a Map<String, Value>,
    host: &RegistryHost,
    repository: Option<&RepositoryName>,
) -> Option<(&'a str, &'a Value)> {
    let covers = |namespace: &str| {
        namespace.is_empty()
            || repository.is_some_and(|repository| {
                repository
                    .as_str()
                    .strip_prefix(namespace)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
    };
    entries
        .iter()
        .map(|(key, value)| (key.as_str(), scope_of(key), value))
        .filter(|(_, (key_host, namespace), _)| {
            key_host.eq_ignore_ascii_case(host.as_str()) && covers(namespace)
        })
        .max_by_key(|(_, (_, namespace), _)| namespace.len())
        .map(|(key, _, value)| (key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> AuthFile {
        let named = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(named.path(), text).unwrap();
        AuthFile::read(named.path()).unwrap()
    }

    fn password(user: &str, password: &str) -> Entry {
        Entry::Credential(Credential::Password {
            user: user.to_owned(),
            password: Secret::new(password),
        })
    }

    fn find(file: &AuthFile, image: &str) -> Vec<Entry> {
        let image: boatyard_oci::ImageName = image.parse().unwrap();
        file.find(&image.registry, Some(&image.repository)).unwrap()
    }

    #[test]
    fn keys_as_docker_and_podman_write_them() {
        let auth = |text: &str| STANDARD.encode(text);
        let file = file(&format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{}"}},
                 "quay.io": {{"auth": "{}"}}, "quay.io/org": {{"auth": "{}"}},
                 "http://old.example/v2/": {{"username": "u", "password": "p"}},
                 "token.example": {{"auth": "", "identitytoken": "t"}}}}}}"#,
            auth("hub:a:b"),
            auth("wide:p"),
            auth("org:p\0\0")
        ));
        assert_eq!(find(&file, "alpine"), [password("hub", "a:b")]);
        assert_eq!(find(&file, "quay.io/other/x"), [password("wide", "p")]);
        assert_eq!(find(&file, "quay.io/org/x"), [password("org", "p")]);
        assert_eq!(find(&file, "quay.io/organ/x"), [password("wide", "p")]);
        assert_eq!(find(&file, "old.example/x"), [password("u", "p")]);
        let token = Credential::IdentityToken { token: Secret::new("t") };
        assert_eq!(find(&file, "token.example/x"), [Entry::Credential(token)]);
        assert_eq!(find(&file, "ghcr.io/x"), []);
    }

    #[test]
    fn a_registrys_helper_goes_before_the_common_one() {
        let file = file(r#"{"credsStore": "all", "credHelpers": {"gcr.io": "gcloud"}}"#);
        let helper = |name: &str, server: &str| Entry::Helper {
            name: name.to_owned(),
            server: server.to_owned(),
        };
        assert_eq!(find(&file, "gcr.io/a/b"), [helper("gcloud", "gcr.io")]);
        assert_eq!(find(&file, "alpine"), [helper("all", DOCKER_HUB_KEY)]);
    }

    #[test]
    fn corrupt_files_are_named_and_not_shown() {
        let named = tempfile::NamedTempFile::new().unwrap();
        for text in ["{\"auths\": {\"hunter2", "[]", "hunter2"] {
            fs_err::write(named.path(), text).unwrap();
            let error = AuthFile::read(named.path()).unwrap_err().to_string();
            assert!(error.contains(named.path().to_str().unwrap()), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        for text in [
            r#"{"auths": []}"#,
            r#"{"auths": {"r.example": {"auth": "hunter2!"}}}"#,
            r#"{"auths": {"r.example": {"auth": "aHVudGVyMg=="}}}"#,
            r#"{"credHelpers": {"r.example": 1}}"#,
        ] {
            fs_err::write(named.path(), text).unwrap();
            let file = AuthFile::read(named.path()).unwrap();
            let error = file.find(&"r.example".parse().unwrap(), None).unwrap_err().to_string();
            assert!(error.contains(named.path().to_str().unwrap()), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn ours_is_private_and_keeps_what_it_does_not_know() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("new/auth.json");
        let host: RegistryHost = "r.example:5000".parse().unwrap();
        let credential = Credential::Password { user: "me".to_owned(), password: Secret::new("p") };
        AuthFile::update(&path, |file| {
            file.properties.insert("other".to_owned(), 1.into());
            file.set(&host, &credential);
        })
        .unwrap();
        let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let read = AuthFile::read(&path).unwrap();
        assert_eq!(read.find(&host, None).unwrap(), [Entry::Credential(credential)]);
        assert!(AuthFile::update(&path, |file| file.remove(&host)).unwrap());
        assert!(!AuthFile::update(&path, |file| file.remove(&host)).unwrap());
        assert!(AuthFile::read(&path).unwrap().properties.contains_key("other"));
    }
}
