//! What clients get instead of the upstream's bytes: made once for each version of them.

use std::io;
use std::sync::Arc;

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
        let rendered = self.blocking(move |shared| shared.render(&*ecosystem, &recipe, &source));
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
    /// Renders an entry, or finds what was rendered before. Blocking.
    fn render(&self, ecosystem: &dyn Ecosystem, recipe: &str, entry: &Entry) -> io::Result<Entry> {
        // The recipe has the address under which clients see us: each has its own rendering.
        let key = EntryKey::of(&format!("render {}\n{recipe}\n{}", ecosystem.name(), entry.blob));
        let entries = self.root.entries();
        let kept = entries.get(&key).map_err(io::Error::other)?;
        if let Some(known) =
            kept.variants.first().and_then(|variant| Entry::of_variant(&kept.vary, variant))
        {
            let policy = boatyard_upstream::freshness::Policy {
                headers: known.policy.headers,
                ..entry.policy.clone()
            };
            return Ok(Entry { blob: known.blob, size: known.size, policy, ..entry.clone() });
        }
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
        entries.put(&key, &[], &variant).map_err(io::Error::other)?;
        Ok(rendered)
    }
}

fn tag(digest: &Digest) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{}\"", digest.hex())).expect("hex digits are a tag")
}
