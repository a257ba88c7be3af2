//! One blob of a registry, as a stream, from any offset; and as what a transfer fetches from.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use boatyard_oci::{Descriptor, Digest, ImageName};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::client::{Call, Client, Target};
use super::error::{ClientError, Deed};
use super::resolve::passed_over;
use crate::registries_conf::Source;
use crate::token::{Scope, ScopeSet};
use crate::transfer::{self, Arrival, Missing, SourceError};
use crate::transport::Incoming;

/// The bytes of a blob, or of a part of one, as they come. They are not checked here: whoever
/// keeps them compares the digest.
pub struct BlobStream {
    deed: Deed,
    answer: Incoming,
    offset: u64,
    whole: Option<u64>,
}

impl BlobStream {
    /// Returns where in the blob the stream begins: 0 where the registry ignored the range.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the size of the whole blob, where the registry said it.
    pub fn whole_size(&self) -> Option<u64> {
        self.whole
    }

    /// Returns the next bytes, `None` at the end.
    ///
    /// # Errors
    /// Where the connection breaks or stands still.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        let chunk = self.answer.chunk().await;
        chunk.map_err(|source| ClientError::Transport { deed: self.deed.clone(), source })
    }
}

impl Client {
    /// Opens a blob of the image's repository. `range` asks for a part of it; a registry may
    /// ignore that, which [`BlobStream::offset`] shows. A descriptor's `urls` are never followed.
    ///
    /// # Errors
    /// The last source's error.
    pub async fn blob(
        &self,
        image: &ImageName,
        blob: &Descriptor,
        range: Option<RangeInclusive<u64>>,
    ) -> Result<BlobStream, ClientError> {
        let mut last = None;
        for source in self.sources(image)? {
            let range = range.as_ref().map(|range| format!("{}-{}", range.start(), range.end()));
            match self.blob_at(&source, &blob.digest, range).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(passed_over(&source, error)),
            }
        }
        Err(last.expect("there is always the registry itself"))
    }

    /// Returns what a transfer fetches a blob of the image's repository from: mirrors first, the
    /// registry itself last.
    ///
    /// # Errors
    /// Where the configuration of registries blocks it.
    pub fn blob_sources(
        &self,
        image: &ImageName,
        digest: &Digest,
    ) -> Result<Vec<Arc<dyn transfer::Source>>, ClientError> {
        let sources = self.sources(image)?.into_iter();
        Ok(sources.map(|source| self.blob_source(source, digest)).collect())
    }

    pub(crate) fn blob_source(&self, source: Source, digest: &Digest) -> Arc<dyn transfer::Source> {
        let name = source.registry.to_string();
        Arc::new(BlobSource { client: self.clone(), source, digest: digest.clone(), name })
    }

    /// Opens a blob, or a range of it such as `5-9`.
    async fn blob_at(
        &self,
        source: &Source,
        digest: &Digest,
        range: Option<String>,
    ) -> Result<BlobStream, ClientError> {
        let deed = Deed::new("fetch blob", digest, source);
        let scopes = ScopeSet::from([Scope::pull(&source.repository)]);
        let target = Target::Path(format!("{}/blobs/{digest}", source.repository));
        let mut headers = HeaderMap::new();
        if let Some(range) = &range {
            let text = format!("bytes={range}");
            headers.insert(RANGE, HeaderValue::from_str(&text).expect("digits are plain text"));
        }
        let call = Call::new(deed.clone(), source, Method::GET, target, &scopes);
        let answer = self.call(Call { headers, ..call }).await?;
        let (offset, whole) = match answer.status {
            StatusCode::PARTIAL_CONTENT => part(&answer, &deed)?,
            _ => (0, answer.content_length()),
        };
        if range.is_none() && offset != 0 {
            return Err(ClientError::Protocol { deed, problem: "an unasked range".to_owned() });
        }
        Ok(BlobStream { deed, answer, offset, whole })
    }
}

/// A blob of one repository.
struct BlobSource {
    client: Client,
    source: Source,
    digest: Digest,
    name: String,
}

impl fmt::Debug for BlobSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}/{}", self.digest, self.name, self.source.repository)
    }
}

#[async_trait]
impl transfer::Source for BlobSource {
    fn upstream(&self) -> &str {
        &self.name
    }

    /// The digest says whether parts belong together, so no validator is sent: a registry that
    /// redirects to several stores has one for each.
    async fn fetch(&self, missing: &Missing) -> Result<Arrival, SourceError> {
        let range = (missing.offset > 0).then(|| match missing.size {
            Some(size) => format!("{}-{}", missing.offset, size.saturating_sub(1)),
            None => format!("{}-", missing.offset),
        });
        let stream = self.client.blob_at(&self.source, &self.digest, range).await?;
        let (offset, size, headers) = (stream.offset, stream.whole, stream.answer.headers.clone());
        let body = stream::unfold(Some(stream), |stream| async move {
            let mut stream = stream?;
            match stream.chunk().await.transpose()? {
                Ok(bytes) => Some((Ok(bytes), Some(stream))),
                Err(error) => Some((Err(error.into()), None)),
            }
        });
        Ok(Arrival { offset, size, headers, body: body.boxed() })
    }
}

impl From<ClientError> for SourceError {
    fn from(error: ClientError) -> SourceError {
        let cause = |error| Box::new(error);
        match error.status() {
            Some(StatusCode::RANGE_NOT_SATISFIABLE) => SourceError::Unsatisfiable(cause(error)),
            _ if error.is_retryable() => SourceError::Interrupted(cause(error)),
            _ => SourceError::Refused(cause(error)),
        }
    }
}

/// Reads `Content-Range: bytes 5-9/10` (RFC 9110, section 14.4): where it starts, and the size of
/// the whole.
fn part(answer: &Incoming, deed: &Deed) -> Result<(u64, Option<u64>), ClientError> {
    let text = answer.headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    text.and_then(read_content_range).ok_or_else(|| ClientError::Protocol {
        deed: deed.clone(),
        problem: "no Content-Range that can be read".to_owned(),
    })
}

fn read_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, whole) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let whole = match whole.trim() {
        "*" => None,
        digits => Some(digits.parse().ok()?),
    };
    let fits = first <= last && whole.is_none_or(|whole| last < whole);
    fits.then_some((first, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        let table = [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 0-0/*", Some((0, None))),
            ("bytes 9-5/10", None),
            ("bytes 5-10/10", None),
            ("bytes */10", None),
            ("5-9/10", None),
            ("bytes 5-99999999999999999999999/*", None),
        ];
        for (text, expected) in table {
            assert_eq!(read_content_range(text), expected, "{text}");
        }
    }
}
