//! Why a request would be answered as it would.

use std::sync::Arc;

use boatyard_upstream::freshness::{self, Decision};
use jiff::Timestamp;

use super::Engine;
use super::judge::keeps_promise;
use crate::class::Class;
use crate::ecosystem::Classified;
use crate::entry::Entry;
use crate::request::Request;

/// What is known of a target, as far as it decides about answers. Nobody was asked for it.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The ecosystem that knows it.
    pub ecosystem: Option<&'static str>,
    /// What it is; `None` where its ecosystem answers for it by itself.
    pub class: Option<Class>,
    /// What its ecosystem has to say, a line each.
    pub notes: Vec<String>,
    /// What is kept of it for such a request.
    pub kept: Option<Arc<Entry>>,
    /// What HTTP's rules say of that.
    pub freshness: Option<Decision>,
    /// The bytes that are kept are not those that were promised.
    pub is_refuted: bool,
    /// The bytes that were promised are in the store, under whatever name.
    pub is_at_hand: bool,
    /// When this was so.
    pub at: Timestamp,
}

impl Engine {
    /// Explains what would become of a request; no upstream is asked.
    pub async fn explain(&self, request: &Request) -> Explanation {
        let at = self.shared.options.clock.now();
        let (ecosystem, classified) = self.classify(request);
        let mut notes = Vec::new();
        let class = match (classified, ecosystem) {
            (Classified::As(class), _) => Some(class),
            (Classified::Resolve, None) => Some(Class::Http),
            (Classified::Resolve, Some(ecosystem)) => {
                let explained = ecosystem.explain(request, at).await;
                notes = explained.notes;
                explained.class
            }
        };
        let kept = self.kept(&request.target, &request.headers).await;
        let freshness = kept.as_ref().map(|kept| {
            let asked = freshness::Request { method: &request.method, headers: &request.headers };
            freshness::decide(&kept.policy, asked, at)
        });
        let promise = class.as_ref().and_then(Class::promise);
        let is_refuted = kept.as_ref().is_some_and(|kept| !keeps_promise(promise, &kept.blob));
        let is_at_hand = match promise {
            Some(promise) => {
                matches!(
                    boatyard_content::Store::stat(&self.shared.store, &promise.digest).await,
                    Ok(Some(_))
                )
            }
            None => false,
        };
        let ecosystem = ecosystem.map(|ecosystem| ecosystem.name());
        Explanation { ecosystem, class, notes, kept, freshness, is_refuted, is_at_hand, at }
    }
}
