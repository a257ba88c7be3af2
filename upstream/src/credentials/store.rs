//! Looking credentials up, in their order, and keeping our own.

use std::path::PathBuf;
use std::time::Duration;

use boatyard_oci::{RegistryHost, RepositoryName};

use super::auth_file::{AuthFile, Entry, server_of};
use super::helper::Helper;
use super::{Credential, CredentialError, Found, Origin};

/// Where to look. Paths and directories come in as arguments: what `$HOME`, `$REGISTRY_AUTH_FILE`
/// and `$XDG_RUNTIME_DIR` make of them is the command's business.
#[derive(Clone, Debug)]
pub struct CredentialSources {
    /// Credentials for this run only; they go before all files.
    pub given: Vec<(RegistryHost, Credential)>,
    /// Our own `auth.json`, the only file that is written.
    pub own: Option<PathBuf>,
    /// Docker's `config.json`, the first of several that knows a registry counts.
    pub docker: Vec<PathBuf>,
    /// Podman's `auth.json` files, in the order in which to look.
    pub podman: Vec<PathBuf>,
    /// Where `docker-credential-*` programs are; `None` is where the system looks for programs.
    pub helper_directory: Option<PathBuf>,
    /// How long a helper may take. It may ask a person for a password.
    pub helper_timeout: Duration,
}

impl Default for CredentialSources {
    fn default() -> CredentialSources {
        CredentialSources {
            given: Vec::new(),
            own: None,
            docker: Vec::new(),
            podman: Vec::new(),
            helper_directory: None,
            helper_timeout: Duration::from_secs(60),
        }
    }
}

/// All credentials that can be found. Its methods block: they read files and run programs.
#[derive(Clone, Debug)]
pub struct Credentials {
    sources: CredentialSources,
}

impl Credentials {
    /// Returns a store that looks at these sources, each time it is asked.
    pub fn new(sources: CredentialSources) -> Credentials {
        Credentials { sources }
    }

    /// Returns the credential for a repository of a registry, or for the registry as a whole.
    ///
    /// # Errors
    /// Where a file exists and cannot be used, or a helper that it names fails. What comes later
    /// in the order is not asked then: a wrong identity is worse than an error.
    pub fn find(
        &self,
        host: &RegistryHost,
        repository: Option<&RepositoryName>,
    ) -> Result<Option<Found>, CredentialError> {
        if let Some((_, credential)) = self.sources.given.iter().find(|(given, _)| given == host) {
            return Ok(Some(Found { credential: credential.clone(), origin: Origin::Given }));
        }
        let others = self.sources.docker.iter().chain(&self.sources.podman);
        for path in self.sources.own.iter().chain(others) {
            let file = AuthFile::read(path).map_err(CredentialError::File)?;
            if self.sources.own.as_ref() == Some(path) && file.is_exposed() {
                tracing::warn!(path = %path.display(), "others may read this file: chmod 600 it");
            }
            for entry in file.find(host, repository).map_err(CredentialError::File)? {
                if let Some(found) = self.take(path, entry)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Keeps a credential in our file, or in the helper that our file names for the registry, and
    /// returns where.
    ///
    /// # Errors
    /// Where there is no file of ours, or it or the helper cannot be used.
    pub fn keep(
        &self,
        host: &RegistryHost,
        credential: &Credential,
    ) -> Result<Origin, CredentialError> {
        let path = self.sources.own.as_ref().ok_or(CredentialError::Nowhere)?;
        if let Some((helper, server)) = self.own_helper(host)? {
            helper
                .store(&server, credential)
                .map_err(|source| CredentialError::Helper { file: path.clone(), source })?;
            return Ok(Origin::Helper { program: helper.program().to_owned(), file: path.clone() });
        }
        AuthFile::update(path, |file| file.set(host, credential)).map_err(CredentialError::File)?;
        Ok(Origin::File(path.clone()))
    }

    /// Forgets what our file, or the helper that it names, has for the registry; says whether our
    /// file had something.
    ///
    /// # Errors
    /// As [`Credentials::keep`].
    pub fn forget(&self, host: &RegistryHost) -> Result<bool, CredentialError> {
        let path = self.sources.own.as_ref().ok_or(CredentialError::Nowhere)?;
        let helper = self.own_helper(host)?;
        if let Some((helper, server)) = &helper {
            helper
                .erase(server)
                .map_err(|source| CredentialError::Helper { file: path.clone(), source })?;
        }
        if !path.exists() {
            return Ok(helper.is_some());
        }
        let removed =
            AuthFile::update(path, |file| file.remove(host)).map_err(CredentialError::File)?;
        Ok(removed || helper.is_some())
    }

    fn own_helper(&self, host: &RegistryHost) -> Result<Option<(Helper, String)>, CredentialError> {
        let Some(path) = &self.sources.own else {
            return Ok(None);
        };
        let file = AuthFile::read(path).map_err(CredentialError::File)?;
        for entry in file.find(host, None).map_err(CredentialError::File)? {
            if let Entry::Helper { name, .. } = entry {
                return Ok(Some((self.helper(path, &name)?, server_of(host))));
            }
        }
        Ok(None)
    }

    fn take(&self, path: &std::path::Path, entry: Entry) -> Result<Option<Found>, CredentialError> {
        match entry {
            Entry::Credential(credential) => {
                Ok(Some(Found { credential, origin: Origin::File(path.to_owned()) }))
            }
            Entry::Helper { name, server } => {
                let helper = self.helper(path, &name)?;
                let credential = helper
                    .get(&server)
                    .map_err(|source| CredentialError::Helper { file: path.to_owned(), source })?;
                let program = helper.program().to_owned();
                Ok(credential.map(|credential| Found {
                    credential,
                    origin: Origin::Helper { program, file: path.to_owned() },
                }))
            }
        }
    }

    fn helper(&self, file: &std::path::Path, name: &str) -> Result<Helper, CredentialError> {
        Helper::new(name, self.sources.helper_directory.as_deref(), self.sources.helper_timeout)
            .map_err(|source| CredentialError::Helper { file: file.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::helper::tests::script;
    use crate::redact::Secret;

    fn user_of(found: Option<Found>) -> Option<(String, Origin)> {
        match found? {
            Found { credential: Credential::Password { user, .. }, origin } => Some((user, origin)),
            _ => None,
        }
    }

    #[test]
    fn looks_in_order() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs_err::write(&path, text).unwrap();
            path
        };
        let podman = write(
            "podman.json",
            r#"{"auths": {"a.example": {"auth": "cG9kbWFuOnA="}, "h.example": {"auth": "eDp5"}}}"#,
        );
        let docker = write(
            "config.json",
            r#"{"auths": {"a.example": {"auth": "ZG9ja2VyOnA="}}, "credHelpers": {"h.example": "h"}}"#,
        );
        let own = root.path().join("own/auth.json");
        script(root.path(), "h", r#"echo '{"ServerURL":"x","Username":"helped","Secret":"p"}'"#);
        let mut sources = CredentialSources {
            own: Some(own.clone()),
            podman: vec![podman.clone()],
            helper_directory: Some(root.path().to_owned()),
            ..CredentialSources::default()
        };
        let host: RegistryHost = "a.example".parse().unwrap();
        let find = |sources: &CredentialSources| {
            user_of(Credentials::new(sources.clone()).find(&host, None).unwrap()).unwrap()
        };
        assert_eq!(find(&sources), ("podman".to_owned(), Origin::File(podman)));
        sources.docker = vec![docker.clone()];
        assert_eq!(find(&sources), ("docker".to_owned(), Origin::File(docker.clone())));
        let mine = Credential::Password { user: "mine".to_owned(), password: Secret::new("p") };
        Credentials::new(sources.clone()).keep(&host, &mine).unwrap();
        assert_eq!(find(&sources), ("mine".to_owned(), Origin::File(own)));
        sources.given = vec![(
            host.clone(),
            Credential::Password { user: "given".to_owned(), password: Secret::new("p") },
        )];
        assert_eq!(find(&sources), ("given".to_owned(), Origin::Given));

        let helped = Credentials::new(sources).find(&"h.example".parse().unwrap(), None).unwrap();
        let program = "docker-credential-h".to_owned();
        assert_eq!(
            user_of(helped),
            Some(("helped".to_owned(), Origin::Helper { program, file: docker }))
        );
    }
}
