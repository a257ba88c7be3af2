//! What clients get instead of the upstream's bytes: made once for each version of them.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use boatyard_content::entries::{EntryKey, Variant};
use boatyard_content::{Blob, Expected, IngestKey};
use boatyard_oci::Digest;
use http::HeaderValue;
use http::header::ETAG;

use super::{Engine, Shared};
use crate::ecosystem::Ecosystem;
use crate::entry::Entry;
use crate::request::Request;

impl Engine {
    /// Returns what an ecosystem makes of an entry by a recipe. Where it cannot, the entry itself.
    pub(super) async fn rendered(
        &self,
        request: &Request,
        recipe: &str,
        entry: Arc<Entry>,
    ) -> Arc<Entry> {
        let (Some(ecosystem), _) = self.classify(request) else { return entry };
        let (ecosystem, recipe) = (Arc::clone(ecosystem), recipe.to_owned());
        let source = Arc::clone(&entry);
        // The recipe has the address under which clients see us: each has its own rendering.
        let key = EntryKey::of(&format!("render {}\n{recipe}\n{}", ecosystem.name(), entry.blob));
        let (found, known) = (key.clone(), Arc::clone(&entry));
        let found = self.blocking(move |shared| shared.rendered_before(&found, &known)).await;
        if let Some(Ok(Some(rendered))) = found {
            return Arc::new(rendered);
        }
        // Who comes while it is made waits for it: however many do, it is made once.
        let turn = self.shared.rendering.turn(&key);
        let _turn = turn.lock().await;
        let rendered =
            self.blocking(move |shared| shared.render(&key, &*ecosystem, &recipe, &source));
        match rendered.await {
            Some(Ok(rendered)) => Arc::new(rendered),
            Some(Err(error)) => {
                tracing::warn!(target = %entry.target, %error, "it is passed on as it is");
                entry
            }
            None => entry,
        }
    }
}

impl Shared {
    /// Finds what was rendered of an entry before. Blocking.
    fn rendered_before(&self, key: &EntryKey, entry: &Entry) -> io::Result<Option<Entry>> {
        let kept = self.root.entries().get(key).map_err(io::Error::other)?;
        let known = kept.variants.first();
        let Some(known) = known.and_then(|variant| Entry::of_variant(&kept.vary, variant)) else {
            return Ok(None);
        };
        let policy = boatyard_upstream::freshness::Policy {
            headers: known.policy.headers,
            ..entry.policy.clone()
        };
        Ok(Some(Entry { blob: known.blob, size: known.size, policy, ..entry.clone() }))
    }

    /// Renders an entry, or finds what was rendered meanwhile. Blocking.
    fn render(
        &self,
        key: &EntryKey,
        ecosystem: &dyn Ecosystem,
        recipe: &str,
        entry: &Entry,
    ) -> io::Result<Entry> {
        if let Some(rendered) = self.rendered_before(key, entry)? {
            return Ok(rendered);
        }
        let entries = self.root.entries();
        let lease = self.root.lease().map_err(io::Error::other)?;
        let source = self.store.open_blocking(&entry.blob).map_err(io::Error::other)?;
        let source = source.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let ingest = self.store.ingest_blocking(&IngestKey::random(), &lease);
        let mut ingest = ingest.map_err(io::Error::other)?;
        let mut reader = Blob::File(source).into_reader();
        let changed = ecosystem.render(recipe, &mut reader, &mut ingest)?;
        let landed = ingest.commit_blocking(&Expected::any()).map_err(io::Error::other)?;
        let info = landed.info().clone();
        let mut policy = entry.policy.clone();
        policy.varied.clear();
        policy.headers.insert(ETAG, tag(&info.digest));
        for name in changed.keys() {
            policy.headers.remove(name);
        }
        policy.headers.extend(changed);
        let rendered = Entry { blob: info.digest, size: info.size, policy, ..entry.clone() };
        let Variant { blob, note, .. } = rendered.to_variant();
        let variant = Variant { key: key.clone(), blob, note };
        entries.put(key, &[], &variant).map_err(io::Error::other)?;
        Ok(rendered)
    }
}

/// What is being rendered.
#[derive(Debug, Default)]
pub(super) struct Rendering {
    turns: Mutex<HashMap<EntryKey, Weak<tokio::sync::Mutex<()>>>>,
}

impl Rendering {
    /// Returns what all wait for who want one thing rendered.
    fn turn(&self, key: &EntryKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(key.clone(), Arc::downgrade(&turn));
        turn
    }
}

fn tag(digest: &Digest) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{}\"", digest.hex())).expect("hex digits are a tag")
}
