//! Why a client may not do what it wants to do with private packages.

use boatyard_content::StoreError;
use boatyard_content::packages::PackagesError;
use http::StatusCode;

/// Why a client may not do what it wants to do.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Nobody knows who asks: 401.
    #[error(
        "this needs a login: a user with a password, or a token that `boatyard token create` makes"
    )]
    Login,
    /// They may not: 403.
    #[error("{who} may not do that: it needs `{right}` on {repository} (see docs/access.md)")]
    Denied {
        /// Who asks.
        who: String,
        /// The right that is missing.
        right: &'static str,
        /// Where.
        repository: String,
    },
    /// The name is not one of the private ones of the upstream: 403.
    #[error(
        "{package} is not among the private names of this upstream (see `private` in docs/packages.md)"
    )]
    Public {
        /// The name.
        package: String,
    },
    /// It cannot be done.
    #[error(transparent)]
    Failed(#[from] PackagesError),
}

impl Refused {
    /// Returns the status that says it.
    pub fn status(&self) -> StatusCode {
        match self {
            Refused::Login => StatusCode::UNAUTHORIZED,
            Refused::Denied { .. } | Refused::Public { .. } => StatusCode::FORBIDDEN,
            Refused::Failed(PackagesError::Name) => StatusCode::BAD_REQUEST,
            Refused::Failed(PackagesError::Store(error)) if error.is_no_space() => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            Refused::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Refused {
        Refused::Failed(PackagesError::Store(error))
    }
}
