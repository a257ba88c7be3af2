//! Listing the tags of a repository.

use axum::response::Response;
use boatyard_oci::{RepositoryName, Tag};
use http::header;
use serde::Serialize;

use super::error::{ApiError, Code};
use super::page::Page;
use super::{Call, answer, blocking, mirrored};
use crate::mirror::Meant;

#[derive(Serialize)]
struct Tags<'a> {
    name: &'a RepositoryName,
    tags: &'a [Tag],
}

/// `GET /v2/<name>/tags/list`
pub(super) async fn list(call: Call, name: RepositoryName) -> Result<Response, ApiError> {
    let page = page(&call)?;
    blocking(move || {
        let repository = call.registry.repository(&name);
        if !repository.exists()? {
            return Err(ApiError::new(Code::NameUnknown, "there is no such repository"));
        }
        let tags = repository.tags(page.last.as_deref(), page.read_most())?;
        respond(&call, &name, &page, tags)
    })
    .await
}

/// The same of a mirror's upstream, in the order and the pages of our own lists.
pub(super) async fn list_mirrored(
    call: Call,
    meant: Meant,
    name: &RepositoryName,
) -> Result<Response, ApiError> {
    let page = page(&call)?;
    let tags = meant.mirror.tags(&meant.repository).await;
    let mut tags = tags.map_err(|error| mirrored::refusal(error, Code::NameUnknown))?;
    tags.retain(|tag| page.last.as_deref().is_none_or(|last| tag.as_str() > last));
    tags.truncate(page.read_most());
    respond(&call, name, &page, tags)
}

fn page(call: &Call) -> Result<Page, ApiError> {
    let most = call.registry.limits.tags_page_max;
    Page::parse(&call.query, most, most)
}

fn respond(
    call: &Call,
    name: &RepositoryName,
    page: &Page,
    mut tags: Vec<Tag>,
) -> Result<Response, ApiError> {
    let next = page.cut(&call.path, &mut tags);
    let text = serde_json::to_string(&Tags { name, tags: &tags });
    let mut response = answer::json(text.map_err(ApiError::internal)?);
    if let Some(next) = next {
        answer::set(&mut response, header::LINK, next);
    }
    Ok(response)
}
