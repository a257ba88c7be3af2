//! The tags of a repository.

use boatyard_oci::{RegistryHost, RepositoryName, Tag};
use http::Method;
use http::header::LINK;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::client::{Call, Client, Target};
use super::error::{ClientError, Deed};
use crate::token::{Scope, ScopeSet};
use crate::transport::Incoming;

/// The most bytes of one page.
const PAGE_MAX: usize = 8 * 1024 * 1024;
/// The most pages that are followed.
const PAGES_MAX: usize = 1000;

#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

impl Client {
    /// Returns all tags of a repository, page by page. What is not a valid tag is left out.
    ///
    /// # Errors
    /// Where the registry does not answer with such a list.
    pub async fn tags(
        &self,
        registry: &RegistryHost,
        repository: &RepositoryName,
    ) -> Result<Vec<Tag>, ClientError> {
        let source = self.origin(registry, repository)?;
        let deed = Deed::new("list tags", "", &source);
        let scopes = ScopeSet::from([Scope::pull(&source.repository)]);
        let first = Target::Path(format!("{}/tags/list", source.repository));
        let call = Call::new(deed, &source, Method::GET, first, &scopes);
        let mut tags = Vec::new();
        let take = |page: Page| {
            tags.extend(page.tags.unwrap_or_default().iter().filter_map(|tag| tag.parse().ok()));
        };
        self.pages(call, PAGES_MAX, "tags", take).await?;
        Ok(tags)
    }

    /// Asks for a list, and for its further pages as long as there are some.
    pub(super) async fn pages<P: DeserializeOwned>(
        &self,
        first: Call<'_>,
        pages_max: usize,
        what: &str,
        mut take: impl FnMut(P),
    ) -> Result<(), ClientError> {
        let (deed, source, scopes) = (first.deed.clone(), first.source, first.scopes);
        let mut answer = self.call(first).await?;
        for _ in 1..=pages_max {
            let following = next_page(&answer);
            let body = answer
                .bytes(PAGE_MAX)
                .await
                .map_err(|source| ClientError::Transport { deed: deed.clone(), source })?;
            take(serde_json::from_slice(&body).map_err(|_| ClientError::Protocol {
                deed: deed.clone(),
                problem: format!("no list of {what}"),
            })?);
            let Some(url) = following else { return Ok(()) };
            let call = Call::new(deed.clone(), source, Method::GET, Target::Url(&url), scopes);
            answer = self.call(call).await?;
        }
        Err(ClientError::Protocol { deed, problem: format!("more than {pages_max} pages") })
    }
}

/// Returns the `Link: <...>; rel="next"` of an answer (RFC 8288), if it stays with the host that
/// answered.
pub(crate) fn next_page(answer: &Incoming) -> Option<Url> {
    let text = answer.headers.get(LINK)?.to_str().ok()?;
    let next = text.split(',').find(|link| link.replace(' ', "").contains("rel=\"next\""))?;
    let target = next.trim().strip_prefix('<')?.split_once('>')?.0;
    let url = answer.url.join(target).ok()?;
    (url.host() == answer.url.host() && url != answer.url).then_some(url)
}
