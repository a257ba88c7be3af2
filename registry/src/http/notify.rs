//! What a request tells those who want to know: who asks, noted beside what it changes; and what
//! it pulls.

use boatyard_access::TOKEN_PATH;
use boatyard_content::IngestKey;
use boatyard_content::repository::Repository;
use boatyard_oci::{Digest, MediaType, Reference, RepositoryName};
use http::header;
use jiff::Timestamp;

use super::Call;
use crate::webhooks::event::Happened;
use crate::webhooks::{Action, Note};

impl Call {
    /// Returns a hosted repository that is going to be changed. Where webhooks are told of that,
    /// they are told who did it.
    pub(super) fn changing(&self, name: &RepositoryName) -> Repository {
        self.changing_from(name, None)
    }

    /// The same, of one that takes a blob from another repository.
    pub(super) fn changing_from(
        &self,
        name: &RepositoryName,
        from: Option<&RepositoryName>,
    ) -> Repository {
        let repository = self.registry.repository(name);
        if !self.registry.policies.webhooks.is_used() {
            return repository;
        }
        let note = Note { from: from.map(ToString::to_string), ..self.as_note() };
        match serde_json::to_string(&note) {
            Ok(text) => repository.on_behalf_of(text.into()),
            Err(_) => repository,
        }
    }

    /// Says that something was changed: it is told at once then, and not a moment later.
    pub(super) fn changed(&self) {
        self.registry.policies.webhooks.hint();
    }

    /// Says that a manifest was pulled.
    pub(super) fn pulled(
        &self,
        name: &RepositoryName,
        asked: &Reference,
        digest: &Digest,
        media_type: &MediaType,
        size: usize,
    ) {
        self.registry.policies.webhooks.pulled(name, || Happened {
            id: IngestKey::random().to_string(),
            at: Timestamp::now(),
            action: Action::Pull,
            repository: name.clone(),
            digest: Some(digest.clone()),
            media_type: Some(media_type.clone()),
            size: Some(size as u64),
            tag: match asked {
                Reference::Tag(tag) => Some(tag.to_string()),
                Reference::Digest(_) => None,
            },
            note: Some(self.as_note()),
        });
    }

    /// Returns who asks, and how.
    pub(super) fn as_note(&self) -> Note {
        let origin = self.caller.origin();
        Note {
            who: self.caller.identity().to_string(),
            request: origin.request_id.as_deref().map(str::to_owned),
            address: origin.address.map(|address| address.to_string()),
            host: self.host.clone(),
            base: origin.realm.strip_suffix(TOKEN_PATH).map(str::to_owned),
            method: Some(self.method.to_string()),
            agent: self.header(header::USER_AGENT).map(str::to_owned),
            from: None,
        }
    }
}
