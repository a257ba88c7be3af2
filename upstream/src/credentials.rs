//! Credentials: where they are kept, and what is shown to which registry.
//!
//! [`Credentials`] looks, in this order, at what was given for this run, our own `auth.json`,
//! docker's `config.json`, podman's `auth.json`. The last two are only ever read.

pub mod auth_file;
pub mod helper;
pub mod store;

use std::fmt;
use std::path::PathBuf;

use crate::redact::Secret;

pub use auth_file::AuthFileError;
pub use helper::HelperError;
pub use store::{CredentialSources, Credentials};

/// What proves to a registry who we are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    /// A user and a password (or an access token in its place).
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token, which docker calls identity token: exchanged for access tokens by POST.
    IdentityToken {
        /// The token.
        token: Secret,
    },
    /// An access token, sent as it is.
    RegistryToken {
        /// The token.
        token: Secret,
    },
}

/// A credential and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The credential.
    pub credential: Credential,
    /// Where it was found: what a message names when a registry refuses it.
    pub origin: Origin,
}

/// Where a credential was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Given for this run.
    Given,
    /// In a file.
    File(PathBuf),
    /// From a helper that a file names.
    Helper {
        /// The helper's program.
        program: String,
        /// The file that names it.
        file: PathBuf,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Given => f.write_str("the options of this run"),
            Origin::File(path) => write!(f, "`{}`", path.display()),
            Origin::Helper { program, file } => {
                write!(f, "`{program}` (named in `{}`)", file.display())
            }
        }
    }
}

/// A credential that cannot be looked up, kept or removed.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file of credentials cannot be used.
    #[error("the file of credentials cannot be used")]
    File(#[source] AuthFileError),
    /// A helper failed.
    #[error("the credential helper named in `{file}` failed")]
    Helper {
        /// The file that names it.
        file: PathBuf,
        /// What went wrong.
        #[source]
        source: HelperError,
    },
    /// There is no file of our own to write to.
    #[error("there is no file to keep credentials in: set HOME or name one")]
    Nowhere,
}
