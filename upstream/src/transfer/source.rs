//! Where an object comes from, and what is said of it before its first byte.

use std::error::Error;
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::HeaderMap;

use super::validator::Validator;

/// One upstream that has an object. Several for one object are its mirrors.
///
/// It answers for the requests: credentials, redirects, and trying again what failed before there
/// was an answer. What happens after the answer's head is the transfer's.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync {
    /// Returns the upstream's name, by which its connections are counted and which errors show.
    fn upstream(&self) -> &str;

    /// Asks for the object, or for what is missing of it.
    async fn fetch(&self, missing: &Missing) -> Result<Arrival, SourceError>;
}

/// What is missing of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// From where on; 0 for all of it.
    pub offset: u64,
    /// The size of the whole, where it is known: then a range can name its end.
    pub size: Option<u64>,
    /// What tells the object that is there in part from another one: goes into `If-Range`. Absent
    /// where a digest does that better.
    pub validator: Option<Validator>,
}

/// An answer whose bytes are about to come.
pub struct Arrival {
    /// The place of its first byte: 0 where the upstream sends all of it.
    pub offset: u64,
    /// The size of the whole, where the upstream says it.
    pub size: Option<u64>,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its bytes. Where `size` is not known, that they end means that the answer's framing has
    /// ended: a body that only ends with its connection ends in an error instead.
    pub body: BoxStream<'static, Result<Bytes, SourceError>>,
}

/// Why a source gives nothing, or no more.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The connection failed, or the upstream is busy: the same may succeed a little later.
    #[error(transparent)]
    Interrupted(Cause),
    /// It has nothing from that place on (416).
    #[error(transparent)]
    Unsatisfiable(Cause),
    /// It does not give the object: absent, forbidden, or an answer that makes no sense.
    #[error(transparent)]
    Refused(Cause),
}

/// What the client of an upstream has to say; [`super::TransferError::reason`] gets it back.
pub type Cause = Box<dyn Error + Send + Sync>;
