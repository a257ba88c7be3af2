//! What a registry could not, or would not, do for us.

use std::fmt;
use std::ops::Deref;

use boatyard_oci::manifest::ManifestError;
use boatyard_oci::{Digest, RegistryHost, RepositoryName};
use http::StatusCode;

use crate::answer::Answer;
use crate::credentials::{CredentialError, Origin};
use crate::registries_conf::{RegistriesConfError, Source};
use crate::token::TokenError;
use crate::transport::TransportError;

/// What was being done, to what: "fetch blob sha256:... of registry.example/app".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed(Box<Parts>);

/// What a [`Deed`] consists of; boxed, for it is a part of every error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The verb and its kind of object: `fetch manifest`, `push blob`.
    pub verb: &'static str,
    /// Which one: a tag, a digest, or nothing.
    pub object: String,
    /// Where.
    pub registry: RegistryHost,
    /// In which repository.
    pub repository: Option<RepositoryName>,
}

impl Deed {
    pub(crate) fn new(verb: &'static str, object: impl fmt::Display, source: &Source) -> Deed {
        Deed(Box::new(Parts {
            verb,
            object: object.to_string(),
            registry: source.registry.clone(),
            repository: Some(source.repository.clone()),
        }))
    }

    /// Returns what is done to a registry as a whole.
    pub(crate) fn of_registry(verb: &'static str, registry: &RegistryHost) -> Deed {
        let (object, registry) = (String::new(), registry.clone());
        Deed(Box::new(Parts { verb, object, registry, repository: None }))
    }

    /// Returns the same with another verb.
    pub(crate) fn with_verb(mut self, verb: &'static str) -> Deed {
        self.0.verb = verb;
        self
    }
}

impl Deref for Deed {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb)?;
        if !self.object.is_empty() {
            write!(f, " {}", self.object)?;
        }
        match &self.repository {
            Some(repository) => write!(f, " of {}/{repository}", self.registry),
            None => write!(f, " to {}", self.registry),
        }
    }
}

/// A request to a registry that failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It was not answered.
    #[error("cannot {deed}: there is no answer")]
    Transport {
        /// What was being done.
        deed: Deed,
        /// Why not.
        #[source]
        source: TransportError,
    },
    /// The registry does not have it.
    #[error("cannot {deed}: it is not there")]
    NotFound {
        /// What was being done.
        deed: Deed,
        /// The registry's words.
        #[source]
        source: Answer,
    },
    /// The registry wants credentials and we have none.
    #[error(
        "cannot {deed}: it does not exist, or needs credentials; there are none for {registry}: \
         run `boatyard login {registry}`", registry = deed.registry
    )]
    NoCredentials {
        /// What was being done.
        deed: Deed,
        /// The registry's words.
        #[source]
        source: Answer,
    },
    /// The registry refused the credentials.
    #[error(
        "cannot {deed}: the credentials from {origin} were not accepted; run `boatyard login \
         {registry}` to replace them", registry = deed.registry
    )]
    WrongCredentials {
        /// What was being done.
        deed: Deed,
        /// Where the credentials were found.
        origin: Origin,
        /// The registry's words.
        #[source]
        source: Answer,
    },
    /// The registry knows who we are and does not let us.
    #[error("cannot {deed}: {} may not do this", who(origin.as_ref()))]
    Denied {
        /// What was being done.
        deed: Deed,
        /// Where the credentials that were shown were found.
        origin: Option<Origin>,
        /// The registry's words.
        #[source]
        source: Answer,
    },
    /// Too many requests, and the wait it asks for is too long.
    #[error("cannot {deed}: too many requests; {}", advice(origin.as_ref(), &deed.registry))]
    RateLimited {
        /// What was being done.
        deed: Deed,
        /// Where the credentials that were shown were found.
        origin: Option<Origin>,
        /// The registry's words.
        #[source]
        source: Answer,
    },
    /// Any other status than the expected ones.
    #[error("cannot {deed}")]
    Status {
        /// What was being done.
        deed: Deed,
        /// The registry's words.
        #[source]
        source: Answer,
    },
    /// The token service gave no token.
    #[error("cannot {deed}: there is no token for it")]
    Token {
        /// What was being done.
        deed: Deed,
        /// Why not.
        #[source]
        source: TokenError,
    },
    /// The registry's token service may not see credentials.
    #[error(
        "cannot {deed}: its token service `{realm}` does not belong to the registry's domain, so \
         it is not shown the password; list its host as trusted if it should be"
    )]
    RealmNotTrusted {
        /// What was being done.
        deed: Deed,
        /// The token service.
        realm: String,
    },
    /// The credentials cannot be looked up.
    #[error("cannot {deed}: its credentials cannot be looked up")]
    Credential {
        /// What was being done.
        deed: Deed,
        /// Why not.
        #[source]
        source: CredentialError,
    },
    /// The configuration of registries forbids it.
    #[error(transparent)]
    Registries(Box<RegistriesConfError>),
    /// A manifest is not what it is said to be.
    #[error("cannot {deed}: what came is not that manifest")]
    Manifest {
        /// What was being done.
        deed: Deed,
        /// Why not.
        #[source]
        source: ManifestError,
    },
    /// The answer breaks the protocol.
    #[error("cannot {deed}: the registry's answer has {problem}")]
    Protocol {
        /// What was being done.
        deed: Deed,
        /// What is wrong with it.
        problem: String,
    },
    /// The registry says that it stored something else than was sent.
    #[error("cannot {deed}: the registry stored it as {got}")]
    StoredOtherwise {
        /// What was being done.
        deed: Deed,
        /// Its name for it.
        got: Digest,
    },
}

impl From<RegistriesConfError> for ClientError {
    fn from(error: RegistriesConfError) -> ClientError {
        ClientError::Registries(Box::new(error))
    }
}

impl ClientError {
    /// Returns the error that an answer with an error's status is. `origin` says whose credentials
    /// were shown.
    pub(crate) fn of(deed: Deed, answer: Answer, origin: Option<Origin>) -> ClientError {
        let source = answer;
        match (source.status, origin) {
            (StatusCode::NOT_FOUND, _) => ClientError::NotFound { deed, source },
            (StatusCode::UNAUTHORIZED, None) => ClientError::NoCredentials { deed, source },
            (StatusCode::UNAUTHORIZED, Some(origin)) => {
                ClientError::WrongCredentials { deed, origin, source }
            }
            (StatusCode::FORBIDDEN, origin) => ClientError::Denied { deed, origin, source },
            (StatusCode::TOO_MANY_REQUESTS, origin) => {
                ClientError::RateLimited { deed, origin, source }
            }
            _ => ClientError::Status { deed, source },
        }
    }

    /// Says whether the registry answered that it does not have what was asked for.
    pub fn is_not_found(&self) -> bool {
        matches!(self, ClientError::NotFound { .. })
    }

    /// Returns the status that the registry answered with, where it did.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            ClientError::NotFound { source, .. }
            | ClientError::NoCredentials { source, .. }
            | ClientError::WrongCredentials { source, .. }
            | ClientError::Denied { source, .. }
            | ClientError::RateLimited { source, .. }
            | ClientError::Status { source, .. } => Some(source.status),
            _ => None,
        }
    }

    /// Says whether only the connection failed, so that the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            ClientError::Transport { source, .. } => source.is_retryable(),
            other => other.status().is_some_and(crate::retry::is_retryable),
        }
    }
}

fn who(origin: Option<&Origin>) -> String {
    match origin {
        Some(origin) => format!("the user whose credentials are from {origin}"),
        None => "whoever shows no credentials".to_owned(),
    }
}

fn advice(origin: Option<&Origin>, registry: &RegistryHost) -> String {
    match origin {
        Some(origin) => format!("the credentials from {origin} have used up their share for now"),
        None => format!("`boatyard login {registry}` may allow more"),
    }
}
