//! Listing the repositories.

use axum::response::Response;
use boatyard_access::Action;
use boatyard_content::repository::Space;
use boatyard_oci::RepositoryName;
use http::header;
use serde::Serialize;

use super::error::ApiError;
use super::page::Page;
use super::{Call, answer, blocking};

#[derive(Serialize)]
struct Catalog<'a> {
    repositories: &'a [RepositoryName],
}

/// `GET /v2/_catalog`
pub(super) async fn list(call: Call) -> Result<Response, ApiError> {
    let limits = &call.registry.limits;
    let page = Page::parse(&call.query, limits.catalog_page_default, limits.catalog_page_max)?;
    blocking(move || {
        let mut names = read(&call, &page)?;
        let next = page.cut("/v2/_catalog", &mut names);
        let text = serde_json::to_string(&Catalog { repositories: &names });
        let mut response = answer::json(text.map_err(ApiError::internal)?);
        if let Some(next) = next {
            answer::set(&mut response, header::LINK, next);
        }
        Ok(response)
    })
    .await
}

/// Reads names until the page is full; those that the caller may not read are not in it.
fn read(call: &Call, page: &Page) -> Result<Vec<RepositoryName>, ApiError> {
    let wanted = page.read_most();
    let mut names = Vec::new();
    let mut last = page.last.clone();
    while names.len() < wanted {
        let most = wanted - names.len();
        let batch = call.registry.repositories.names(&Space::Hosted, last.as_deref(), most)?;
        let ended = batch.len() < most;
        last = batch.last().map(ToString::to_string);
        names.extend(batch.into_iter().filter(|name| call.allows(Action::List, name)));
        if ended {
            break;
        }
    }
    Ok(names)
}
