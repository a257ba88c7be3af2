//! What kind of resource a target is: how long its bytes hold, and what vouches for them.

use std::time::Duration;

use boatyard_content::Expected;
use boatyard_oci::Digest;
use http::HeaderName;

/// What an ecosystem says of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Its bytes never change under this name: what is kept is never asked for again.
    Immutable(Immutable),
    /// It changes: what is kept serves while it is fresh by HTTP's rules, and is revalidated
    /// otherwise, and whenever a client asks for that (`max-age=0`).
    Mutable(Mutable),
    /// It changes: what is kept serves for so long after the upstream was asked, whatever that says
    /// about freshness, and is revalidated then, and whenever a client asks for that.
    Revalidate(Duration),
    /// It passes through and is never kept.
    Pass,
    /// HTTP's own rules decide.
    Http,
}

/// A resource that does not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Immutable {
    /// What its bytes must be. Wrong ones are never kept, and never reach a client whole; what was
    /// kept before and is something else counts for nothing.
    pub promise: Option<Promise>,
}

/// A resource that changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mutable {
    /// The upstream is asked again on each use, whatever it says about freshness.
    pub always_ask: bool,
    /// Its bytes are what [`crate::Ecosystem::render`] makes of the upstream's, by this recipe:
    /// made once for each version of them, and then a file as any other.
    pub recipe: Option<String>,
    /// The request's headers that choose between variants, whether the upstream says so by `Vary`
    /// or not.
    pub varies: Vec<HeaderName>,
    /// A header of the answer with a number that only grows: an answer whose number is smaller than
    /// that of what is kept comes from a mirror that is behind, and counts as none.
    pub serial: Option<HeaderName>,
}

/// What was promised of bytes, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Their digest, of an algorithm that the store knows.
    pub digest: Digest,
    /// Their number.
    pub size: Option<u64>,
    /// What says so, for people: `main/binary-amd64/Packages of deb.example/debian sid`.
    pub by: String,
}

impl Promise {
    /// Returns what a transfer checks.
    pub fn expected(&self) -> Expected {
        Expected { digest: Some(self.digest.clone()), size: self.size }
    }
}

impl Class {
    /// Returns the class of what never changes and nobody vouches for.
    pub fn immutable() -> Class {
        Class::Immutable(Immutable::default())
    }

    /// Returns the class of what never changes and is these bytes.
    pub fn promised(promise: Promise) -> Class {
        Class::Immutable(Immutable { promise: Some(promise) })
    }

    /// Returns the class of what is asked for again on each use.
    pub fn index() -> Class {
        Class::Mutable(Mutable { always_ask: true, ..Mutable::default() })
    }

    /// Returns the promise, where there is one.
    pub fn promise(&self) -> Option<&Promise> {
        match self {
            Class::Immutable(immutable) => immutable.promise.as_ref(),
            _ => None,
        }
    }

    /// Returns what is to be known of a class that changes.
    pub fn mutable(&self) -> Option<&Mutable> {
        match self {
            Class::Mutable(mutable) => Some(mutable),
            _ => None,
        }
    }
}
