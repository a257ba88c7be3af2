//! Uploads: one blob into a registry's session, resumed where it broke.
//!
//! A small blob goes in one PUT. A larger one goes in one streamed PATCH, closed by an empty PUT:
//! where the connection breaks, the session is asked how much it has, and another PATCH sends the
//! rest. Content-Length is always sent.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use boatyard_content::{Blob, Store};
use boatyard_oci::{Descriptor, Digest};
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use url::Url;

use super::client::{Call, Client, Target};
use super::error::{ClientError, Deed};
use super::progress::TransferProgress;
use super::push::PushError;
use crate::registries_conf::Source;
use crate::token::ScopeSet;
use crate::transport::exchange::{PayloadStream, Unreadable};
use crate::transport::{Incoming, Payload};

/// Up to this size a blob is sent in one request, and in whole again if that breaks.
const SMALL_MAX: u64 = 1024 * 1024;
/// How much is read from the store at a time.
const PIECE: usize = 256 * 1024;

/// An upload session: where its next request goes.
pub(crate) struct Session {
    location: Url,
}

impl Session {
    /// Reads the session from the answer that opened or moved it. Its address may be relative,
    /// and its query holds the registry's state.
    pub(crate) fn read(answer: &Incoming, deed: &Deed) -> Result<Session, ClientError> {
        let location = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.and_then(|text| answer.url.join(text).ok());
        match location.filter(|url| matches!(url.scheme(), "http" | "https")) {
            Some(location) => Ok(Session { location }),
            None => Err(ClientError::Protocol {
                deed: deed.clone(),
                problem: "no Location for the upload".to_owned(),
            }),
        }
    }

    /// Takes the address that an answer gives, where it gives one.
    fn moved(&mut self, answer: &Incoming, deed: &Deed) {
        if let Ok(moved) = Session::read(answer, deed) {
            *self = moved;
        }
    }

    fn closing(&self, digest: &Digest) -> Url {
        let mut url = self.location.clone();
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        url
    }
}

/// One blob on its way into a registry.
pub(crate) struct Upload<'a> {
    pub(crate) client: &'a Client,
    pub(crate) source: &'a Source,
    pub(crate) scopes: &'a ScopeSet,
    pub(crate) store: &'a dyn Store,
    pub(crate) progress: &'a dyn TransferProgress,
    pub(crate) blob: &'a Descriptor,
}

impl Upload<'_> {
    /// Opens a session.
    pub(crate) async fn open(&self) -> Result<Session, ClientError> {
        let path = format!("{}/blobs/uploads/", self.source.repository);
        let call = self.call(Method::POST, Target::Path(path));
        let answer = self.client.call(Call { payload: no_bytes(), ..call }).await?;
        Session::read(&answer, &self.deed())
    }

    /// Sends the blob into a session; where the session is lost, into a new one.
    pub(crate) async fn send(&self, session: Session) -> Result<(), PushError> {
        let opened = self.store.open(&self.blob.digest).await;
        let blob = opened
            .map_err(|source| PushError::Store { digest: self.blob.digest.clone(), source })?
            .ok_or_else(|| PushError::Missing { digest: self.blob.digest.clone() })?;
        if blob.size() != self.blob.size {
            return Err(PushError::Size {
                digest: self.blob.digest.clone(),
                expected: self.blob.size,
                got: blob.size(),
            });
        }
        if blob.size() <= SMALL_MAX {
            return self.send_small(session, blob).await;
        }
        self.send_large(session, Arc::new(blob)).await
    }

    async fn send_small(&self, session: Session, blob: Blob) -> Result<(), PushError> {
        let bytes = tokio::task::spawn_blocking(move || blob.into_bytes(SMALL_MAX as usize))
            .await
            .expect("reading a blob does not panic")
            .map_err(|source| PushError::Store { digest: self.blob.digest.clone(), source })?;
        let url = session.closing(&self.blob.digest);
        let call = self.call(Method::PUT, Target::Url(&url));
        let payload = Payload::Bytes(bytes);
        let answer = match self.client.call(Call { headers: octets(), payload, ..call }).await {
            Ok(answer) => answer,
            // A repeated PUT finds its session closed if the first one did arrive.
            Err(error) if error.is_not_found() && self.exists().await? => {
                self.progress.advanced(&self.blob.digest, self.blob.size);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.progress.advanced(&self.blob.digest, self.blob.size);
        self.check(&answer)
    }

    async fn send_large(&self, session: Session, blob: Arc<Blob>) -> Result<(), PushError> {
        let (mut session, mut offset, mut failed) = (session, 0, 0);
        let clock = self.client.clock();
        while offset < self.blob.size {
            match self.patch(&session, &blob, offset).await {
                Ok(answer) => {
                    session.moved(&answer, &self.deed());
                    let before = offset;
                    offset = received(&answer).unwrap_or(self.blob.size);
                    if offset <= before {
                        let problem = "no further byte of the upload".to_owned();
                        return Err(ClientError::Protocol { deed: self.deed(), problem }.into());
                    }
                }
                Err(error) => {
                    failed += 1;
                    // The token expired on the way, or our idea of the offset is wrong: both mend.
                    let mends = matches!(
                        error.status(),
                        Some(StatusCode::UNAUTHORIZED | StatusCode::RANGE_NOT_SATISFIABLE)
                    );
                    let delay = self.client.options().retry.delay(failed, None, clock.jitter());
                    let Some(delay) = delay.filter(|_| error.is_retryable() || mends) else {
                        return Err(error.into());
                    };
                    tracing::debug!(%error, failed, "the upload broke");
                    clock.sleep(delay).await;
                    let before = offset;
                    (session, offset) = self.status(session).await?;
                    if offset > before {
                        failed = 0;
                    }
                }
            }
        }
        if offset > self.blob.size {
            return Err(PushError::Size {
                digest: self.blob.digest.clone(),
                expected: self.blob.size,
                got: offset,
            });
        }
        let url = session.closing(&self.blob.digest);
        let call = self.call(Method::PUT, Target::Url(&url));
        match self.client.call(Call { headers: octets(), payload: no_bytes(), ..call }).await {
            Ok(answer) => self.check(&answer),
            Err(error) if error.is_not_found() && self.exists().await? => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends all from `offset` on.
    async fn patch(
        &self,
        session: &Session,
        blob: &Arc<Blob>,
        offset: u64,
    ) -> Result<Incoming, ClientError> {
        let mut headers = octets();
        if offset > 0 {
            // > "Content-Range: <range>" with "<start>-<end>", inclusive (distribution-spec,
            // > "Pushing a blob in chunks"). The first one streams, and needs none.
            let range = format!("{offset}-{}", self.blob.size - 1);
            let range = HeaderValue::from_str(&range).expect("digits are plain text");
            headers.insert(CONTENT_RANGE, range);
        }
        let stream = self.pieces(Arc::clone(blob), offset);
        let payload = Payload::Stream { length: self.blob.size - offset, stream };
        let call = self.call(Method::PATCH, Target::Url(&session.location));
        self.client.call(Call { headers, payload, ..call }).await
    }

    /// Asks how much a session has. One that the registry lost is opened anew, with nothing.
    async fn status(&self, session: Session) -> Result<(Session, u64), ClientError> {
        let call = self.call(Method::GET, Target::Url(&session.location));
        match self.client.call(call).await {
            Ok(answer) => {
                let mut session = session;
                session.moved(&answer, &self.deed());
                Ok((session, received(&answer).unwrap_or(0)))
            }
            Err(error) if error.status().is_some_and(|status| status.is_client_error()) => {
                Ok((self.open().await?, 0))
            }
            Err(error) => Err(error),
        }
    }

    /// Ends a session that is not needed. That it stays open is no harm: registries purge them.
    pub(crate) async fn cancel(&self, session: Session) {
        let call = self.call(Method::DELETE, Target::Url(&session.location));
        if let Err(error) = self.client.call(call).await {
            tracing::debug!(%error, "a session that is not needed stays open");
        }
    }

    /// Asks whether the repository has the blob, in this size.
    pub(crate) async fn exists(&self) -> Result<bool, ClientError> {
        let path = format!("{}/blobs/{}", self.source.repository, self.blob.digest);
        let mut call = self.call(Method::HEAD, Target::Path(path));
        call.deed = call.deed.with_verb("look for blob");
        match self.client.call(call).await {
            Ok(answer) => Ok(answer.content_length().is_none_or(|size| size == self.blob.size)),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Compares what the registry says that it stored.
    fn check(&self, answer: &Incoming) -> Result<(), PushError> {
        let stored = answer.header("docker-content-digest").and_then(|text| text.parse().ok());
        match stored {
            Some::<Digest>(got)
                if got.algorithm() == self.blob.digest.algorithm() && got != self.blob.digest =>
            {
                Err(ClientError::StoredOtherwise { deed: self.deed(), got }.into())
            }
            _ => Ok(()),
        }
    }

    fn call<'c>(&'c self, method: Method, target: Target<'c>) -> Call<'c> {
        Call::new(self.deed(), self.source, method, target, self.scopes)
    }

    fn deed(&self) -> Deed {
        Deed::new("push blob", &self.blob.digest, self.source)
    }

    /// Returns the blob's bytes from `offset` on, read a piece at a time as they are sent.
    fn pieces(&self, blob: Arc<Blob>, offset: u64) -> PayloadStream {
        let steps = stream::try_unfold((blob, offset), |(blob, at)| async move {
            if at >= blob.size() {
                return Ok(None);
            }
            let read = tokio::task::spawn_blocking(move || {
                read_piece(&blob, at).map(|piece| (piece, blob))
            });
            let (piece, blob) = read
                .await
                .expect("reading a blob does not panic")
                .map_err(|error| std::io::Error::new(error.kind(), Unreadable(error)))?;
            let next = at + piece.len() as u64;
            Ok(Some((piece, (blob, next))))
        });
        Box::pin(steps)
    }
}

fn read_piece(blob: &Blob, at: u64) -> std::io::Result<Bytes> {
    let length = (blob.size() - at).min(PIECE as u64) as usize;
    match blob {
        Blob::Memory(bytes) => {
            let at = at as usize;
            Ok(bytes.slice(at..at + length))
        }
        Blob::File(file) => {
            let mut piece = vec![0; length];
            file.file().read_exact_at(&mut piece, at)?;
            Ok(piece.into())
        }
    }
}

/// Reads how many bytes a session has: `Range: 0-<end>`, inclusive. An empty one says `0-0` too,
/// which cannot be told from one byte; sending that byte again would break the upload, so one is
/// taken for none, and the registry corrects us with 416 if there was one.
fn received(answer: &Incoming) -> Option<u64> {
    let text = answer.headers.get(RANGE)?.to_str().ok()?;
    let (_, last) = text.trim_start_matches("bytes=").split_once('-')?;
    match last.trim().parse::<u64>().ok()? {
        0 => Some(0),
        last => last.checked_add(1),
    }
}

fn octets() -> HeaderMap {
    let octets = HeaderValue::from_static("application/octet-stream");
    HeaderMap::from_iter([(CONTENT_TYPE, octets)])
}

fn no_bytes() -> Payload {
    Payload::Bytes(Bytes::new())
}
