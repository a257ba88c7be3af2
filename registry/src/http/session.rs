//! Upload sessions: where one is, and who writes to it.
//!
//! A session is a key that a repository keeps, and an ingest of the store under that key. Both
//! survive a restart. What else there is to know travels in the session's Location, as `_state`:
//! the offset that the client was told, so that a request that is sent twice is refused instead
//! of appended twice; and the algorithm that it announced.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use boatyard_content::repository::Repository;
use boatyard_content::{Ingest, IngestKey, Lease, StoreError};
use boatyard_oci::{Algorithm, RepositoryName};
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::answer::{self, set, text};
use super::error::{ApiError, Code};
use super::room::Room;
use super::{Call, blocking, range};
use crate::registry::Registry;
use crate::sessions::TooMany;

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
/// How often, and after which wait, a session is tried that another request still writes to: a
/// client that lost its connection comes back before we have noticed.
const BUSY_TRIES: u32 = 40;
const BUSY_WAIT: Duration = Duration::from_millis(50);

/// An upload session of a repository.
#[derive(Clone)]
pub(super) struct Session {
    registry: Arc<Registry>,
    pub(super) name: RepositoryName,
    pub(super) repository: Repository,
    pub(super) key: IngestKey,
    state: State,
}

/// What a session's Location says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// The offset at which the next bytes belong.
    offset: Option<u64>,
    /// The algorithm that was announced.
    algorithm: Option<Algorithm>,
}

impl State {
    /// Reads `<offset>[.<algorithm>]`.
    fn parse(text: &str) -> State {
        let (offset, algorithm) = text.split_once('.').unwrap_or((text, ""));
        State { offset: offset.parse().ok(), algorithm: algorithm.parse().ok() }
    }

    fn text(self, offset: u64) -> String {
        match self.algorithm {
            None => offset.to_string(),
            Some(algorithm) => format!("{offset}.{algorithm}"),
        }
    }
}

impl Session {
    /// Begins a session.
    pub(super) async fn begin(
        call: &Call,
        name: RepositoryName,
        algorithm: Option<Algorithm>,
    ) -> Result<Session, ApiError> {
        // Nothing is reserved for it before something comes.
        drop(Room::begin(call, &name).await?);
        let (registry, owner) = (Arc::clone(&call.registry), call.caller.owner());
        blocking(move || {
            let repository = registry.repository(&name);
            let limits = &registry.limits;
            registry
                .sessions
                .begin(&registry.repositories, &repository, limits)?
                .map_err(|refusal| too_many(&refusal))?;
            let begun = repository.begin_upload_of(&owner);
            let key = begun.inspect_err(|_| registry.sessions.end(1))?;
            let state = State { offset: Some(0), algorithm };
            Ok(Session { registry, name, repository, key, state })
        })
        .await
    }

    /// Finds the session that a request names, in its repository and no other.
    pub(super) async fn find(
        call: &Call,
        name: RepositoryName,
        key: &str,
    ) -> Result<Session, ApiError> {
        let unknown = || ApiError::new(Code::BlobUploadUnknown, "there is no such upload session");
        let key = IngestKey::from_str(key).map_err(|_| unknown())?;
        let state = call.query.first("_state").map(State::parse).unwrap_or_default();
        let (registry, owner) = (Arc::clone(&call.registry), call.caller.owner());
        blocking(move || {
            let repository = registry.repository(&name);
            // Another's session is as good as none.
            if repository.upload_owner(&key)?.is_none_or(|of| !of.is_empty() && of != owner) {
                return Err(unknown());
            }
            Ok(Session { registry, name, repository, key, state })
        })
        .await
    }

    /// Becomes the session's writer.
    pub(super) async fn take_up(&self, lease: &Lease) -> Result<Ingest, ApiError> {
        for _ in 0..BUSY_TRIES {
            match self.try_take_up(lease).await {
                Err(StoreError::IngestBusy { .. }) => tokio::time::sleep(BUSY_WAIT).await,
                result => return Ok(self.announce(result?)),
            }
        }
        Ok(self.announce(self.try_take_up(lease).await?))
    }

    /// Returns the room of its writer, who has so many bytes.
    pub(super) fn room(&self, offset: u64) -> Room {
        Room::resume(&self.registry, &self.name, &self.key, offset)
    }

    async fn try_take_up(&self, lease: &Lease) -> Result<Ingest, StoreError> {
        let (session, lease) = (self.clone(), lease.clone());
        let open = move || session.registry.store.ingest_blocking(&session.key, &lease);
        tokio::task::spawn_blocking(open).await.map_err(|_| StoreError::Worker)?
    }

    fn announce(&self, mut ingest: Ingest) -> Ingest {
        if let Some(algorithm) = self.state.algorithm {
            ingest.also(algorithm);
        }
        ingest
    }

    /// Checks that a request's bytes belong at `offset`, and returns where they end, as far as
    /// the request says.
    ///
    /// > "If a chunk is uploaded out of order, the registry MUST respond with a `416 Requested
    /// > Range Not Satisfiable` code." (distribution-spec, "Pushing a blob in chunks")
    pub(super) fn place(&self, call: &Call, offset: u64) -> Result<Option<u64>, ApiError> {
        let out_of_order = || self.out_of_order(offset);
        if self.state.offset.is_some_and(|told| told != offset) {
            return Err(out_of_order()?);
        }
        let Some(header) = call.headers.get(header::CONTENT_RANGE) else { return Ok(None) };
        let Some((first, last)) = header.to_str().ok().and_then(range::chunk) else {
            return Err(out_of_order()?);
        };
        if first != offset || last < first || last == u64::MAX {
            return Err(out_of_order()?);
        }
        let len = call.header(header::CONTENT_LENGTH).and_then(|len| len.parse::<u64>().ok());
        if len.is_some_and(|len| len != last - first + 1) {
            let message = "Content-Length and Content-Range do not agree";
            return Err(ApiError::new(Code::SizeInvalid, message));
        }
        Ok(Some(last + 1))
    }

    /// Returns the refusal that tells the client where to go on.
    fn out_of_order(&self, offset: u64) -> Result<ApiError, ApiError> {
        let message = format!("these bytes do not follow the {offset} that are there");
        Ok(ApiError::new(Code::BlobUploadInvalid, message)
            .status(StatusCode::RANGE_NOT_SATISFIABLE)
            .header(header::LOCATION, text(&self.location(offset))?)
            .header(header::RANGE, text(&range_text(offset))?))
    }

    fn location(&self, offset: u64) -> String {
        let state = self.state.text(offset);
        format!("/v2/{}/blobs/uploads/{}?_state={state}", self.name, self.key)
    }

    /// Returns the answer that says where the session is.
    pub(super) fn answer(&self, status: StatusCode, offset: u64) -> Result<Response, ApiError> {
        let mut response = answer::empty(status);
        set(&mut response, header::LOCATION, text(&self.location(offset))?);
        set(&mut response, header::RANGE, text(&range_text(offset))?);
        set(&mut response, UPLOAD_UUID, text(self.key.as_str())?);
        Ok(response)
    }

    /// Ends the session; its ingest was committed or has to go.
    pub(super) async fn end(self) -> Result<(), ApiError> {
        blocking(move || {
            self.repository.end_upload(&self.key)?;
            self.registry.policies.quotas.end(&self.key);
            self.registry.sessions.end(1);
            Ok(())
        })
        .await
    }
}

fn too_many(refusal: &TooMany) -> ApiError {
    ApiError::refused(Code::TooManyRequests, refusal)
        .header(header::RETRY_AFTER, HeaderValue::from_static("60"))
}

/// Returns the bytes that are there, as first and last; an empty session has no words of its own.
fn range_text(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written() {
        for state in [
            State { offset: Some(0), algorithm: None },
            State { offset: Some(7), algorithm: Some(Algorithm::Sha512) },
        ] {
            assert_eq!(State::parse(&state.text(state.offset.unwrap())), state);
        }
        for nonsense in ["", "x", "-1", "1.md5", ".", "1.sha512.x"] {
            assert!(State::parse(nonsense).algorithm.is_none(), "{nonsense}");
        }
    }
}
