//! Resolving a name to a descriptor, and fetching and storing manifests.

use boatyard_oci::{Descriptor, Digest, ImageName, Manifest, MediaType, Raw, Reference};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Method};

use super::client::{Call, Client, Target, manifest_path};
use super::error::{ClientError, Deed};
use crate::registries_conf::Source;
use crate::token::{Scope, ScopeSet};
use crate::transport::{Incoming, Payload};

/// The header in which a registry names what it serves.
const CONTENT_DIGEST: &str = "docker-content-digest";

impl Client {
    /// Returns the descriptor of what a name points at now, by HEAD where the registry answers it
    /// fully, else by GET. Mirrors are asked first; what they cannot answer, the next can.
    ///
    /// # Errors
    /// The last source's error.
    pub async fn resolve(&self, image: &ImageName) -> Result<Descriptor, ClientError> {
        let mut last = None;
        for source in self.sources(image)? {
            match self.resolve_at(&source, &image.reference).await {
                Ok(descriptor) => return Ok(descriptor),
                Err(error) => last = Some(passed_over(&source, error)),
            }
        }
        Err(last.expect("there is always the registry itself"))
    }

    async fn resolve_at(
        &self,
        source: &Source,
        reference: &Reference,
    ) -> Result<Descriptor, ClientError> {
        let deed = Deed::new("resolve", reference, source);
        let scopes = ScopeSet::from([Scope::pull(&source.repository)]);
        let target = Target::Path(manifest_path(source, reference));
        let call = Call::new(deed, source, Method::HEAD, target, &scopes);
        let answer = match self.call(Call { headers: accept(), ..call }).await {
            Ok(answer) => answer,
            // A HEAD's refusal has no body: ask for the words. Some registries know no HEAD.
            Err(error) if error.status().is_some() && !error.is_retryable() => {
                let (manifest, media_type) = self.manifest_at(source, reference).await?;
                return Ok(Descriptor::new(media_type, manifest.digest().clone(), manifest.size()));
            }
            Err(error) => return Err(error),
        };
        if let Some(descriptor) = described(&answer, reference) {
            return Ok(descriptor);
        }
        let (manifest, media_type) = self.manifest_at(source, reference).await?;
        Ok(Descriptor::new(media_type, manifest.digest().clone(), manifest.size()))
    }

    /// Returns a manifest, its exact bytes and its media type. One that is named by digest has
    /// that digest.
    ///
    /// # Errors
    /// The last source's error; what is larger than [`Manifest::SIZE_MAX`] is one.
    pub async fn manifest(
        &self,
        image: &ImageName,
    ) -> Result<(Raw<Manifest>, MediaType), ClientError> {
        let mut last = None;
        for source in self.sources(image)? {
            match self.manifest_at(&source, &image.reference).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => last = Some(passed_over(&source, error)),
            }
        }
        Err(last.expect("there is always the registry itself"))
    }

    pub(crate) async fn manifest_at(
        &self,
        source: &Source,
        reference: &Reference,
    ) -> Result<(Raw<Manifest>, MediaType), ClientError> {
        let deed = Deed::new("fetch manifest", reference, source);
        let scopes = ScopeSet::from([Scope::pull(&source.repository)]);
        let target = Target::Path(manifest_path(source, reference));
        let call = Call::new(deed.clone(), source, Method::GET, target, &scopes);
        let answer = self.call(Call { headers: accept(), ..call }).await?;
        let sent_as = answer.header("content-type").map(MediaType::new);
        let promised = match reference {
            Reference::Digest(digest) => Some(digest.clone()),
            Reference::Tag(_) => {
                answer.header(CONTENT_DIGEST).and_then(|text| text.parse::<Digest>().ok())
            }
        };
        let bytes = answer
            .bytes(Manifest::SIZE_MAX)
            .await
            .map_err(|source| ClientError::Transport { deed: deed.clone(), source })?;
        let media_type = media_type_of(sent_as, &bytes);
        let parsed = match &promised {
            Some(digest) => Manifest::parse_expecting(bytes, &media_type, digest),
            None => Manifest::parse(bytes, &media_type),
        };
        match parsed {
            Ok(manifest) => Ok((manifest, media_type)),
            Err(source) => Err(ClientError::Manifest { deed, source }),
        }
    }

    /// Stores a manifest under a name; what it refers to must be there. The registry may refuse
    /// it otherwise.
    ///
    /// # Errors
    /// Where the registry refuses, or says that it stored something else.
    pub async fn put_manifest(
        &self,
        image: &ImageName,
        manifest: &Raw<Manifest>,
        media_type: &MediaType,
    ) -> Result<(), ClientError> {
        let source = self.destination(image)?;
        let scopes = ScopeSet::from([Scope::push(&source.repository)]);
        self.put_manifest_at(&source, &image.reference, manifest, media_type, &scopes)
            .await
            .map(drop)
    }

    /// Stores a manifest under a name, if that points at `before`, or at nothing, until now. Only some
    /// registries look at that, ours among them: those answer with [`http::StatusCode::PRECONDITION_FAILED`]
    /// otherwise. Others store it in any case.
    ///
    /// # Errors
    /// Where the registry refuses, or says that it stored something else.
    pub async fn put_manifest_over(
        &self,
        image: &ImageName,
        manifest: &Raw<Manifest>,
        media_type: &MediaType,
        before: Option<&Digest>,
    ) -> Result<(), ClientError> {
        let source = self.destination(image)?;
        let scopes = ScopeSet::from([Scope::push(&source.repository)]);
        let (name, value) = match before {
            Some(digest) => (IF_MATCH, format!("\"{digest}\"")),
            None => (IF_NONE_MATCH, "*".to_owned()),
        };
        let value = HeaderValue::from_str(&value).expect("a digest is plain text");
        let headers = HeaderMap::from_iter([(name, value)]);
        let sent = (manifest, media_type, headers);
        self.put_manifest_with(&source, &image.reference, sent, &scopes).await.map(drop)
    }

    /// Deletes the manifest that a name means by its digest.
    ///
    /// # Errors
    /// Where the registry refuses: many do.
    pub async fn delete_manifest(&self, image: &ImageName) -> Result<(), ClientError> {
        let source = self.destination(image)?;
        let scopes = ScopeSet::from([Scope::delete(&source.repository)]);
        let deed = Deed::new("delete manifest", &image.reference, &source);
        let target = Target::Path(manifest_path(&source, &image.reference));
        self.call(Call::new(deed, &source, Method::DELETE, target, &scopes)).await.map(drop)
    }

    pub(crate) async fn put_manifest_at(
        &self,
        source: &Source,
        reference: &Reference,
        manifest: &Raw<Manifest>,
        media_type: &MediaType,
        scopes: &ScopeSet,
    ) -> Result<Incoming, ClientError> {
        let sent = (manifest, media_type, HeaderMap::new());
        self.put_manifest_with(source, reference, sent, scopes).await
    }

    async fn put_manifest_with(
        &self,
        source: &Source,
        reference: &Reference,
        (manifest, media_type, mut headers): (&Raw<Manifest>, &MediaType, HeaderMap),
        scopes: &ScopeSet,
    ) -> Result<Incoming, ClientError> {
        let deed = Deed::new("push manifest", reference, source);
        let target = Target::Path(manifest_path(source, reference));
        let media_type = HeaderValue::from_str(media_type.as_str()).map_err(|_| {
            let problem = "a media type that cannot be a Content-Type".to_owned();
            ClientError::Protocol { deed: deed.clone(), problem }
        })?;
        headers.insert(CONTENT_TYPE, media_type);
        let call = Call::new(deed.clone(), source, Method::PUT, target, scopes);
        let payload = Payload::Bytes(manifest.bytes().clone());
        let answer = self.call(Call { headers, payload, ..call }).await?;
        let stored = answer.header(CONTENT_DIGEST).and_then(|text| text.parse::<Digest>().ok());
        match stored {
            Some(got)
                if got.algorithm() == manifest.digest().algorithm()
                    && got != *manifest.digest() =>
            {
                Err(ClientError::StoredOtherwise { deed, got })
            }
            _ => Ok(answer),
        }
    }
}

/// Returns the descriptor that the answer to a HEAD is, where it says all of it and means what was
/// asked for.
fn described(answer: &Incoming, reference: &Reference) -> Option<Descriptor> {
    let digest: Digest = answer.header(CONTENT_DIGEST)?.parse().ok()?;
    let size = answer.content_length().filter(|size| *size > 0)?;
    let media_type = MediaType::new(answer.header("content-type")?);
    let is_meant = match reference {
        Reference::Tag(_) => true,
        Reference::Digest(asked) => *asked == digest,
    };
    is_meant.then(|| Descriptor::new(media_type, digest, size))
}

/// Returns what a manifest was sent as. Some registries send a general type, or none: then the
/// bytes' own word counts.
fn media_type_of(sent_as: Option<MediaType>, bytes: &Bytes) -> MediaType {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Own {
        media_type: Option<MediaType>,
    }
    let general = ["", "application/json", "text/plain", "application/octet-stream"];
    match sent_as {
        Some(sent_as) if !general.contains(&sent_as.as_str()) => sent_as,
        _ => serde_json::from_slice::<Own>(bytes)
            .ok()
            .and_then(|own| own.media_type)
            .unwrap_or(MediaType::OCI_MANIFEST),
    }
}

fn accept() -> HeaderMap {
    let list: Vec<_> = MediaType::IMAGE_MANIFESTS
        .iter()
        .map(|media_type| media_type.as_str().to_owned())
        .collect();
    let value = HeaderValue::from_str(&list.join(", ")).expect("media types are plain text");
    HeaderMap::from_iter([(ACCEPT, value)])
}

pub(crate) fn passed_over(source: &Source, error: ClientError) -> ClientError {
    if source.mirror {
        tracing::info!(registry = %source.registry, %error, "the mirror is passed over");
    }
    error
}
