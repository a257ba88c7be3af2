//! Bringing children: the bytes that the root lists, or none.

use std::fmt;
use std::sync::Arc;

use boatyard_content::Store as _;
use futures_util::stream::{self, StreamExt as _};
use http::{HeaderMap, Method};

use super::check;
use super::held::{Candidate, Generation};
use super::listing::{Child, Listing};
use super::set::{Asking, Set};
use crate::class::Class;
use crate::ecosystem::{Ask, Obtain, ObtainError, Obtained};
use crate::hosted::Admitted;
use crate::request::Request;

/// How many children are brought at once.
const AT_ONCE: usize = 4;

/// A child that could not be brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub path: Box<str>,
    /// Why.
    pub why: String,
    /// The upstream says that there is none.
    pub is_absent: bool,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}

impl Set {
    /// Brings all children of a candidate that clients want. Returns those that could not be.
    pub(super) async fn complete(
        self: &Arc<Set>,
        asking: Asking<'_>,
        candidate: &Candidate,
    ) -> Vec<Missing> {
        let now = asking.fetcher.now();
        let wanted = self.state().wanted.within(self.options.wanted_for, now);
        let listing = &candidate.listing;
        let listed = |path: Box<str>| {
            let child = listing.children.get(&path)?.clone();
            Some((path, child))
        };
        let mut missing =
            self.bring_all(asking, listing, wanted.iter().cloned().filter_map(listed)).await;
        // What the children list that is new: clients follow from the one to the other.
        let was = self.state().shown().map(Arc::clone);
        let becomes = Generation::new(0, candidate, now);
        let mut indexes: Vec<String> =
            wanted.iter().filter_map(|path| self.format.index_of(path)).collect();
        indexes.sort();
        indexes.dedup();
        let new = self.blocking(move |set| {
            let mut new = Vec::new();
            for index in indexes {
                let further = |of: &Generation| of.further(&index, &*set.format, &set.root);
                let before = was.as_deref().and_then(further).unwrap_or_default();
                let after = further(&becomes).unwrap_or_default();
                let added = after.iter().filter(|(path, _)| !before.contains_key(*path));
                new.extend(added.map(|(path, child)| (path.clone(), child.clone())));
            }
            new
        });
        if let Some(new) = new.await {
            missing.extend(self.bring_all(asking, listing, new.into_iter()).await);
        }
        missing
    }

    async fn bring_all(
        &self,
        asking: Asking<'_>,
        listing: &Listing,
        children: impl Iterator<Item = (Box<str>, Child)>,
    ) -> Vec<Missing> {
        let children: Vec<_> = children.collect();
        let bring = |(path, child): (Box<str>, Child)| async move {
            self.bring(asking, listing, &path, &child).await.err()
        };
        let brought = stream::iter(children.into_iter().map(bring)).buffer_unordered(AT_ONCE);
        brought.filter_map(|missing| async { missing }).collect().await
    }

    /// Brings a child: the bytes that the root lists, or none.
    pub(super) async fn bring(
        &self,
        asking: Asking<'_>,
        listing: &Listing,
        path: &str,
        child: &Child,
    ) -> Result<(), Missing> {
        if matches!(self.root.store().stat(&child.digest).await, Ok(Some(_))) {
            return Ok(());
        }
        let (mut why, mut is_absent) = (String::new(), true);
        for place in self.format.places(path, child, listing.by_digest) {
            let class = Class::promised(self.promise(child));
            match self.obtain(asking, &place, class, Ask::IfAbsent).await {
                Ok(obtained) if obtained.entry.blob == child.digest => return Ok(()),
                Ok(_) => (is_absent, why) = (false, "the upstream has other bytes".to_owned()),
                Err(error) => {
                    is_absent &= matches!(
                        &error,
                        ObtainError::Answered { status, .. } if check::is_absent(*status)
                    );
                    why = error.to_string();
                }
            }
        }
        Err(Missing { path: path.into(), why, is_absent })
    }

    pub(super) async fn obtain(
        &self,
        asking: Asking<'_>,
        place: &str,
        class: Class,
        ask: Ask,
    ) -> Result<Obtained, ObtainError> {
        let path = format!("{}{place}", self.address.path());
        let target = self.address.at(&path).map_err(|error| ObtainError::Forbidden {
            target: self.address.clone(),
            reason: format!("{place}: {error}"),
        })?;
        let request = Request {
            method: Method::GET,
            target,
            headers: HeaderMap::new(),
            upstream: asking.request.upstream.clone(),
            base: None,
            client: asking.request.client,
            admitted: Admitted::default(),
        };
        asking.fetcher.obtain(&Obtain { request, class, ask }).await
    }
}
