//! Who may do what, as the registry asks it.
//!
//! The registry decides nothing itself: it asks an [`Access`] before each thing that it does, once
//! for the repository of the request and once for each other repository that a mount reads.

use std::fmt::Debug;

use boatyard_oci::RepositoryName;

/// Who makes a request. A layer in front of the registry puts it into the request's extensions;
/// without one the caller is anonymous.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    name: Option<Box<str>>,
}

impl Identity {
    /// Returns the caller of whom nothing is known.
    pub fn anonymous() -> Identity {
        Identity::default()
    }

    /// Returns a caller who proved to have this name.
    pub fn named(name: &str) -> Identity {
        Identity { name: Some(name.into()) }
    }

    /// Returns the name, where one was proved.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

/// What a caller wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// To learn that this is a registry.
    Ping,
    /// To list the repositories.
    Catalog,
    /// To read blobs, manifests, tags and referrers.
    Pull,
    /// To write blobs, manifests and tags.
    Push,
    /// To delete blobs, manifests and tags.
    Delete,
}

/// What [`Access`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Allowed,
    /// Not without a proof of identity: this is the value of `WWW-Authenticate`.
    Unauthenticated {
        /// The challenge.
        challenge: String,
    },
    /// No.
    Denied,
}

/// The rules. Called for every request, so it must not block.
pub trait Access: Debug + Send + Sync {
    /// Says whether a caller may do something; `repository` is that of the request, if it has one.
    fn decide(
        &self,
        identity: &Identity,
        action: Action,
        repository: Option<&RepositoryName>,
    ) -> Verdict;
}

/// Everybody may do everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenAccess;

impl Access for OpenAccess {
    fn decide(&self, _: &Identity, _: Action, _: Option<&RepositoryName>) -> Verdict {
        Verdict::Allowed
    }
}
