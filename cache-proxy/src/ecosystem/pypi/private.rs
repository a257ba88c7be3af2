//! Private packages: `twine upload`, and what clients read of them.

use boatyard_content::packages::{Package, Published};
use boatyard_oci::Digest;
use http::header::{CONTENT_TYPE, ETAG, VARY};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::address::{ProjectName, is_file};
use super::form::Parts;
use super::page::{self, Form, Recipe};
use crate::hosted::{Hosted, Refused, Upload};
use crate::reply::Reply;
use crate::request::Request;

/// The longest text of a form: descriptions are among them.
const TEXT_MAX: u64 = 4 * 1024 * 1024;

/// What a form says of a file.
#[derive(Debug, Default)]
struct Sent {
    action: String,
    name: String,
    version: String,
    sha256: Option<String>,
    requires_python: Option<String>,
    file: Option<(String, Digest, u64)>,
}

/// Publishes the file of a form. Blocking.
pub(super) fn receive(request: &Request, hosted: &Hosted, upload: &Upload) -> Reply {
    match publish(request, hosted, upload) {
        Ok(()) => Reply::text(StatusCode::OK, "it is published"),
        Err((status, message)) => Reply::text(status, &message),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "errors are handed over like that")]
fn bad(message: impl ToString) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, message.to_string())
}

fn publish(
    request: &Request,
    hosted: &Hosted,
    upload: &Upload,
) -> Result<(), (StatusCode, String)> {
    let kind = request.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let sent = read(upload, kind.unwrap_or_default())?;
    if sent.action != "file_upload" {
        return Err(bad("only `file_upload` is understood"));
    }
    let project = ProjectName::parse(&sent.name)
        .ok_or_else(|| bad(format!("`{}` is no project's name", sent.name)))?;
    let (file, blob, size) = sent.file.ok_or_else(|| bad("the form has no `content`"))?;
    // `six-1.0-py3-none-any.whl` and `zope.interface-5.tar.gz` begin with the project's name.
    let known = [".whl", ".tar.gz", ".zip"].iter().any(|end| file.ends_with(end));
    let is_its = file
        .match_indices('-')
        .any(|(at, _)| ProjectName::parse(&file[..at]).as_ref() == Some(&project));
    if !is_file(&file) || !known || !is_its {
        return Err(bad(format!("`{file}` is no file of {}", sent.name)));
    }
    if sent.sha256.is_some_and(|sha256| !sha256.eq_ignore_ascii_case(blob.hex())) {
        return Err(bad("the file is not what its sha256_digest says"));
    }
    let mut new = upload.as_file(project.as_str(), &sent.version, &file);
    let requires = sent.requires_python.filter(|requires| !requires.is_empty());
    (new.blob, new.size, new.metadata) = (blob, size, json!({ "requires-python": requires }));
    let published =
        hosted.publish(request, new).map_err(|refused| (refused.status(), refused.to_string()))?;
    match published {
        Published::New(_) | Published::Same(_) => Ok(()),
        Published::Taken(_) => {
            let message = format!("{file}: File already exists, with other bytes, which stay");
            Err((StatusCode::CONFLICT, message))
        }
        Published::Removed => {
            Err((StatusCode::CONFLICT, format!("{file} was removed: its name stays taken")))
        }
        Published::Absent => {
            let message = "the file was lost on its way".to_owned();
            Err((StatusCode::INTERNAL_SERVER_ERROR, message))
        }
    }
}

fn read(upload: &Upload, kind: &str) -> Result<Sent, (StatusCode, String)> {
    let mut parts = Parts::new(upload.open().map_err(bad)?, kind)
        .ok_or_else(|| bad("a form is expected, multipart/form-data"))?;
    let mut sent = Sent::default();
    while let Some(mut part) = parts.next().map_err(bad)? {
        if part.name == "content" {
            let file = part.file.clone().unwrap_or_default();
            let kept = upload.keep(&mut part).map_err(|error| {
                let refused = Refused::from(error);
                (refused.status(), refused.to_string())
            })?;
            sent.file = Some((file, kept.digest, kept.size));
            continue;
        }
        let known = [":action", "name", "version", "sha256_digest", "requires_python"];
        let Some(name) = known.into_iter().find(|name| *name == part.name) else { continue };
        let text = part.text(TEXT_MAX).map_err(bad)?;
        match name {
            ":action" => sent.action = text,
            "name" => sent.name = text,
            "version" => sent.version = text,
            "sha256_digest" => sent.sha256 = Some(text),
            _ => sent.requires_python = Some(text),
        }
    }
    Ok(sent)
}

/// Returns a project's page.
pub(super) fn read_page(package: &Package, form: Form) -> Reply {
    let files = package.files.iter().map(|file| {
        let yanked = file.withdrawn.as_ref().map_or(Value::Bool(false), |why| {
            if why.is_empty() { Value::Bool(true) } else { why.as_str().into() }
        });
        json!({
            "filename": file.file, "url": file.file,
            "hashes": { "sha256": file.blob.hex() },
            "requires-python": file.metadata["requires-python"],
            "size": file.size, "upload-time": file.published.to_string(), "yanked": yanked,
        })
    });
    let files: Vec<Value> = files.collect();
    let mut versions: Vec<&str> = package.files.iter().map(|file| file.version.as_str()).collect();
    versions.dedup();
    let page = json!({
        "meta": { "api-version": "1.1" }, "name": package.name, "versions": versions,
        "files": files,
    });
    let mut bytes = Vec::new();
    let recipe = Recipe { form, without: Vec::new() };
    let kind = page::render(&recipe, &mut page.to_string().as_bytes(), &mut bytes);
    let Ok(kind) = kind else {
        return Reply::text(StatusCode::INTERNAL_SERVER_ERROR, "the page cannot be written");
    };
    let tag = format!("\"{}\"", Digest::sha256(&bytes).hex());
    let mut reply = Reply::new(StatusCode::OK, kind, bytes).with(ETAG, &tag);
    reply.headers.insert(VARY, HeaderValue::from_static("Accept"));
    reply
}
