//! The registry's other role: a mirror of any number of upstreams, beside what is hosted.
//!
//! [`address`] says which upstream a request means; [`upstream`] is one of them, and what is here
//! of it; [`freshness`] decides when a tag is asked for again; [`flight`] lets many callers share
//! one question; [`evict`] keeps within a limit.
//!
//! What was mirrored lies in a space of its own (`ROOT/mirror/<upstream>/`), so it never mixes
//! with what was pushed. Manifests are fetched whole, as bytes, and answered once they are kept;
//! blobs are answered while they arrive. No request ever chooses a host: names are looked up among
//! the configured upstreams and nowhere else.

pub mod address;
pub mod evict;
pub mod freshness;
pub mod upstream;

mod flight;

use std::sync::Arc;

use boatyard_oci::RepositoryName;

pub use address::{Address, AddressError, Addressing, Answers};
pub use freshness::{Freshness, FreshnessOptions};
pub use upstream::{Mirror, MirrorError, MirrorOptions};

/// The mirrors of a server: none, one, or many.
#[derive(Debug, Default)]
pub struct Mirrors {
    addressing: Addressing,
    mirrors: Vec<Arc<Mirror>>,
}

impl Mirrors {
    /// Returns the mirrors of a configuration, in its order.
    ///
    /// # Errors
    /// Where two have the same name or address.
    pub fn new(mirrors: Vec<Arc<Mirror>>, answers: Vec<Answers>) -> Result<Mirrors, AddressError> {
        let addressing = Addressing::new(answers)?;
        Ok(Mirrors { addressing, mirrors })
    }

    /// Returns the mirrors.
    pub fn all(&self) -> &[Arc<Mirror>] {
        &self.mirrors
    }

    /// Says whether something is called so.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), AddressError> {
        self.addressing.named(name).map(drop)
    }

    /// Finds the mirror that a request means and the repository there; `None` where it means what
    /// is hosted.
    pub(crate) fn find(&self, address: &Address<'_>) -> Result<Option<Meant>, AddressError> {
        let Some(found) = self.addressing.find(address)? else { return Ok(None) };
        let mirror = Arc::clone(&self.mirrors[found.index]);
        let repository = mirror.canonical(found.repository);
        Ok(Some(Meant { mirror, repository, by_default: found.by_default }))
    }
}

/// What a request means.
#[derive(Clone, Debug)]
pub(crate) struct Meant {
    /// Whose.
    pub(crate) mirror: Arc<Mirror>,
    /// The repository, as the upstream calls it.
    pub(crate) repository: RepositoryName,
    /// The request named no upstream: what is hosted under its name wins.
    pub(crate) by_default: bool,
}

impl Meant {
    /// Returns how rules and messages name the repository: with the mirror before it.
    pub(crate) fn titled(&self) -> RepositoryName {
        let titled = format!("{}/{}", self.mirror.name(), self.repository);
        titled.parse().unwrap_or_else(|_| self.repository.clone())
    }
}
