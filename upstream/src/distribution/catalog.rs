//! The repositories of a registry.

use boatyard_oci::{RegistryHost, RepositoryName};
use http::Method;
use serde::Deserialize;

use super::client::{Call, Client, Target};
use super::error::{ClientError, Deed};
use crate::registries_conf::Source;
use crate::token::{Scope, ScopeSet};

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
        let first = "_catalog?n=1000".to_owned();
        let call = Call::new(deed, &source, Method::GET, Target::Path(first), &scopes);
        let mut names = Vec::new();
        let take = |page: Page| {
            let listed = page.repositories.unwrap_or_default();
            names.extend(listed.iter().filter_map(|name| name.parse().ok()));
        };
        self.pages(call, PAGES_MAX, "repositories", take).await?;
        Ok(names)
    }
}
