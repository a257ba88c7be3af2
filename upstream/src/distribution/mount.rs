//! Mounting: a blob that another repository of the same registry has is linked, not sent.

use boatyard_oci::{Digest, RepositoryName};
use http::{Method, StatusCode};

use super::client::{Call, Client, Target};
use super::error::{ClientError, Deed};
use super::upload::Session;
use crate::registries_conf::Source;
use crate::token::ScopeSet;
use crate::transport::Payload;

/// What came of asking for a mount.
pub(crate) enum Mount {
    /// The blob is there.
    Done,
    /// It is not, and the registry opened an upload session instead.
    ///
    /// > "If a registry does not support cross-repository mounting or is unable to mount the
    /// > requested blob, it SHOULD return a 202. This indicates that the upload session has begun
    /// > and that the client MAY proceed with the upload." (distribution-spec, "Mounting a blob")
    Session(Session),
}

impl Client {
    /// Asks to mount a blob from `from`.
    pub(crate) async fn mount(
        &self,
        source: &Source,
        digest: &Digest,
        from: &RepositoryName,
        scopes: &ScopeSet,
    ) -> Result<Mount, ClientError> {
        let deed = Deed::new("mount blob", digest, source);
        let path = format!("{}/blobs/uploads/?mount={digest}&from={from}", source.repository);
        let call = Call::new(deed.clone(), source, Method::POST, Target::Path(path), scopes);
        let payload = Payload::Bytes(bytes::Bytes::new());
        let answer = self.call(Call { payload, ..call }).await?;
        match answer.status {
            StatusCode::CREATED => Ok(Mount::Done),
            _ => Session::read(&answer, &deed).map(Mount::Session),
        }
    }
}
