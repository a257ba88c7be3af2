//! Referrers: the manifests whose subject is a given one.

use boatyard_oci::{Descriptor, Digest, Index, Manifest, RegistryHost, RepositoryName, Tag};
use http::Method;
use url::Url;

use super::client::{Call, Client, Target};
use super::error::{ClientError, Deed};
use super::tags::next_page;
use crate::registries_conf::Source;
use crate::token::{Scope, ScopeSet};

/// The most pages that are followed.
const PAGES_MAX: usize = 100;

impl Client {
    /// Returns the descriptors of what refers to `subject`.
    ///
    /// > "A client querying the referrers API and receiving a 404 Not Found MUST fallback to
    /// > using the referrers tag schema" (distribution-spec, "Listing Referrers")
    ///
    /// # Errors
    /// Where the registry answers with neither.
    pub async fn referrers(
        &self,
        registry: &RegistryHost,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, ClientError> {
        let source = self.origin(registry, repository)?;
        match self.referrers_by_api(&source, subject).await {
            Err(error) if error.is_not_found() => self.referrers_by_tag(&source, subject).await,
            other => other,
        }
    }

    async fn referrers_by_api(
        &self,
        source: &Source,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, ClientError> {
        let deed = Deed::new("list referrers", subject, source);
        let scopes = ScopeSet::from([Scope::pull(&source.repository)]);
        let mut found = Vec::new();
        let mut next: Option<Url> = None;
        for _ in 0..PAGES_MAX {
            let target = match &next {
                Some(url) => Target::Url(url),
                None => Target::Path(format!("{}/referrers/{subject}", source.repository)),
            };
            let call = Call::new(deed.clone(), source, Method::GET, target, &scopes);
            let answer = self.call(call).await?;
            let following = next_page(&answer);
            let body = answer
                .bytes(Manifest::SIZE_MAX)
                .await
                .map_err(|source| ClientError::Transport { deed: deed.clone(), source })?;
            let index: Index = serde_json::from_slice(&body).map_err(|_| {
                let problem = "no index of referrers".to_owned();
                ClientError::Protocol { deed: deed.clone(), problem }
            })?;
            found.extend(index.manifests);
            match following {
                Some(url) => next = Some(url),
                None => return Ok(found),
            }
        }
        Err(ClientError::Protocol { deed, problem: format!("more than {PAGES_MAX} pages") })
    }

    async fn referrers_by_tag(
        &self,
        source: &Source,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, ClientError> {
        match self.manifest_at(source, &fallback_tag(subject).into_reference()).await {
            Ok((manifest, _)) => Ok(manifest.value().manifests().to_vec()),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Returns the tag under which registries without the API keep a subject's referrers:
/// `<algorithm>-<hex>`, each part cut (distribution-spec, "Referrers Tag Schema").
pub(crate) fn fallback_tag(subject: &Digest) -> FallbackTag {
    let hex: String = subject.hex().chars().take(64).collect();
    let text = format!("{}-{hex}", subject.algorithm());
    FallbackTag(text.parse().expect("letters, a dash and digits are a tag"))
}

/// The tag of the referrers tag schema.
pub(crate) struct FallbackTag(Tag);

impl FallbackTag {
    fn into_reference(self) -> boatyard_oci::Reference {
        boatyard_oci::Reference::Tag(self.0)
    }
}
