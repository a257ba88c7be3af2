//! Listing the tags of a repository.

use axum::response::Response;
use boatyard_oci::{RepositoryName, Tag};
use http::header;
use serde::Serialize;

use super::error::{ApiError, Code};
use super::page::Page;
use super::{Call, answer, blocking};

#[derive(Serialize)]
struct Tags<'a> {
    name: &'a RepositoryName,
    tags: &'a [Tag],
}

/// `GET /v2/<name>/tags/list`
pub(super) async fn list(call: Call, name: RepositoryName) -> Result<Response, ApiError> {
    let most = call.registry.limits.tags_page_max;
    let page = Page::parse(&call.query, most, most)?;
    blocking(move || {
        let repository = call.registry.repository(&name);
        if !repository.exists()? {
            return Err(ApiError::new(Code::NameUnknown, "there is no such repository"));
        }
        let mut tags = repository.tags(page.last.as_deref(), page.read_most())?;
        let next = page.cut(&format!("/v2/{name}/tags/list"), &mut tags);
        let text = serde_json::to_string(&Tags { name: &name, tags: &tags });
        let mut response = answer::json(text.map_err(ApiError::internal)?);
        if let Some(next) = next {
            answer::set(&mut response, header::LINK, next);
        }
        Ok(response)
    })
    .await
}
