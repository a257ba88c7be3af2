//! The repositories of a registry.

use boatyard_oci::{RegistryHost, RepositoryName};
use http::Method;
use serde::Deserialize;
use url::Url;

use super::client::{Call, Client, Target};
use super::error::{ClientError, Deed};
use super::tags::next_page;
use crate::registries_conf::Source;
use crate::token::{Scope, ScopeSet};

/// The most bytes of one page.
const PAGE_MAX: usize = 8 * 1024 * 1024;
/// The most pages that are followed.
const PAGES_MAX: usize = 10_000;

#[derive(Deserialize)]
struct Page {
    repositories: Option<Vec<String>>,
}

impl Client {
    /// Returns all repositories of a registry, page by page, as far as it lists them: some list none,
    /// and some only what the caller may see. What is not a valid name is left out.
    ///
    /// # Errors
    /// Where the registry does not answer with such a list.
    pub async fn catalog(
        &self,
        registry: &RegistryHost,
    ) -> Result<Vec<RepositoryName>, ClientError> {
        let deed = Deed::of_registry("list repositories", registry);
        let source = Source {
            registry: registry.clone(),
            repository: "catalog".parse().expect("letters are a name"),
            insecure: self.is_insecure(registry),
            mirror: false,
        };
        let scopes = ScopeSet::from([Scope::catalog()]);
        let mut names = Vec::new();
        let mut next: Option<Url> = None;
        for _ in 0..PAGES_MAX {
            let target = match &next {
                Some(url) => Target::Url(url),
                None => Target::Path("_catalog?n=1000".to_owned()),
            };
            let call = Call::new(deed.clone(), &source, Method::GET, target, &scopes);
            let answer = self.call(call).await?;
            let following = next_page(&answer);
            let body = answer
                .bytes(PAGE_MAX)
                .await
                .map_err(|source| ClientError::Transport { deed: deed.clone(), source })?;
            let page: Page = serde_json::from_slice(&body).map_err(|_| ClientError::Protocol {
                deed: deed.clone(),
                problem: "no list of repositories".to_owned(),
            })?;
            let listed = page.repositories.unwrap_or_default();
            names.extend(listed.iter().filter_map(|name| name.parse().ok()));
            match following {
                Some(url) => next = Some(url),
                None => return Ok(names),
            }
        }
        Err(ClientError::Protocol { deed, problem: format!("more than {PAGES_MAX} pages") })
    }
}
