//! One blob of a registry, as a stream, from any offset.

use std::ops::RangeInclusive;

use boatyard_oci::{Descriptor, ImageName};
use bytes::Bytes;
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::client::{Call, Client, Target};
use super::error::{ClientError, Deed};
use super::resolve::passed_over;
use crate::registries_conf::Source;
use crate::token::{Scope, ScopeSet};
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
            match self.blob_at(&source, blob, range.clone()).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(passed_over(&source, error)),
            }
        }
        Err(last.expect("there is always the registry itself"))
    }

    pub(crate) async fn blob_at(
        &self,
        source: &Source,
        blob: &Descriptor,
        range: Option<RangeInclusive<u64>>,
    ) -> Result<BlobStream, ClientError> {
        let deed = Deed::new("fetch blob", &blob.digest, source);
        let scopes = ScopeSet::from([Scope::pull(&source.repository)]);
        let target = Target::Path(format!("{}/blobs/{}", source.repository, blob.digest));
        let mut headers = HeaderMap::new();
        if let Some(range) = &range {
            let text = format!("bytes={}-{}", range.start(), range.end());
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
