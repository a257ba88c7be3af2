//! Private packages: `npm publish`, `npm deprecate`, `npm unpublish`, `npm dist-tag`, and what
//! clients read of them.
//!
//! ```text
//! PUT    /NAME                               a version, its tarball in it as base64; or deprecations
//! PUT    /NAME/-rev/REV                      the first half of unpublishing a version
//! DELETE /NAME/-/FILE.tgz/-rev/REV           the second half
//! DELETE /NAME/-rev/REV                      all of them
//! PUT    /-/package/NAME/dist-tags/TAG       a tag; DELETE takes it away
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boatyard_access::Action;
use boatyard_content::packages::{Package, PackageFile, Published};
use boatyard_oci::Digest;
use boatyard_oci::digest::Algorithm;
use http::header::ETAG;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha1::{Digest as _, Sha1};

use super::integrity::{Integrity, hex};
use super::name::PackageName;
use crate::hosted::{Hosted, Refused, Upload};
use crate::reply::Reply;
use crate::request::Request;

/// The longest request that publishes: its tarball is a part of a JSON document, read in memory.
const DOCUMENT_MAX: u64 = 256 * 1024 * 1024;
/// The name of the document that has a package's tags.
const TAGS: &str = "tags";

/// What a request changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A version, or what is said of versions.
    Document(PackageName),
    /// A tarball is taken away.
    RemoveFile(PackageName, String),
    /// All of them are.
    RemoveAll(PackageName),
    /// A tag is put, or taken away.
    Tag(PackageName, String),
}

impl Change {
    /// Understands a method and a path without a slash in front.
    pub(super) fn parse(method: &Method, path: &str) -> Option<Change> {
        let is_put = *method == Method::PUT;
        if !is_put && *method != Method::DELETE {
            return None;
        }
        if let Some(rest) = path.strip_prefix("-/package/") {
            let (name, tag) = rest.split_once("/dist-tags/")?;
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            let good = !tag.is_empty() && tag.len() <= 128 && tag.bytes().all(plain);
            return good.then_some(Change::Tag(PackageName::parse(name)?, tag.to_owned()));
        }
        let path = path.split_once("/-rev/").map_or(path, |(path, _)| path);
        if let Some((name, file)) = path.split_once("/-/") {
            let file = file.rsplit('/').next().unwrap_or_default().to_owned();
            return (!is_put).then_some(Change::RemoveFile(PackageName::parse(name)?, file));
        }
        let name = PackageName::parse(path)?;
        Some(if is_put { Change::Document(name) } else { Change::RemoveAll(name) })
    }

    /// Returns the package.
    pub(super) fn name(&self) -> &PackageName {
        match self {
            Change::Document(name)
            | Change::RemoveFile(name, _)
            | Change::RemoveAll(name)
            | Change::Tag(name, _) => name,
        }
    }
}

/// What clients send.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    name: String,
    versions: Map<String, Value>,
    #[serde(rename = "dist-tags")]
    tags: BTreeMap<String, String>,
    #[serde(rename = "_attachments")]
    attachments: BTreeMap<String, Attachment>,
}

#[derive(Debug, Deserialize)]
struct Attachment {
    data: String,
}

/// Why something is not changed.
enum Unchanged {
    Refused(Refused),
    Bad(StatusCode, String),
}

impl From<Refused> for Unchanged {
    fn from(refused: Refused) -> Unchanged {
        Unchanged::Refused(refused)
    }
}

fn bad(message: impl Into<String>) -> Unchanged {
    Unchanged::Bad(StatusCode::BAD_REQUEST, message.into())
}

/// Changes what a request changes. Blocking.
pub(super) fn receive(
    request: &Request,
    hosted: &Hosted,
    upload: &Upload,
    change: &Change,
) -> Reply {
    let done = match change {
        Change::Document(name) => document(request, hosted, upload, name),
        Change::RemoveFile(name, file) => remove_file(request, hosted, name, file),
        Change::RemoveAll(name) => remove_all(request, hosted, name),
        Change::Tag(name, tag) => put_tag(request, hosted, upload, name, tag),
    };
    match done {
        Ok(status) => Reply::json(status, &json!({ "ok": true, "success": true })),
        Err(Unchanged::Bad(status, message)) => refusal(status, &message),
        Err(Unchanged::Refused(refused)) => refusal(refused.status(), &refused.to_string()),
    }
}

/// Says no as npm shows it.
pub(super) fn refusal(status: StatusCode, message: &str) -> Reply {
    Reply::json(status, &json!({ "error": message, "reason": message }))
}

fn document(
    request: &Request,
    hosted: &Hosted,
    upload: &Upload,
    name: &PackageName,
) -> Result<StatusCode, Unchanged> {
    let bytes = upload
        .bytes(DOCUMENT_MAX)
        .map_err(|error| Unchanged::Bad(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()))?;
    let document: Document = serde_json::from_slice(&bytes)
        .map_err(|error| bad(format!("that is no package's document: {error}")))?;
    drop(bytes);
    if document.name != name.to_string() {
        return Err(bad(format!("the document is not that of {name}")));
    }
    if document.attachments.is_empty() {
        say(request, hosted, name, &document)?;
        return Ok(StatusCode::OK);
    }
    let mut versions = document.versions.into_iter();
    let mut attachments = document.attachments.into_values();
    let (Some((version, manifest)), None, Some(attachment), None) =
        (versions.next(), versions.next(), attachments.next(), attachments.next())
    else {
        return Err(bad("one version is published at a time"));
    };
    // A login that may not publish learns that before its tarball is looked at.
    hosted.permit(request, Action::Push, &name.to_string())?;
    let tarball = STANDARD
        .decode(attachment.data)
        .map_err(|_| bad("the tarball is not encoded as base64"))?;
    let new = (name, version.as_str(), manifest);
    publish(request, hosted, upload, new, &tarball)?;
    let tags = if document.tags.is_empty() {
        [("latest".to_owned(), version)].into()
    } else {
        document.tags
    };
    put_tags(hosted, name, |known| known.extend(tags))?;
    Ok(StatusCode::CREATED)
}

fn publish(
    request: &Request,
    hosted: &Hosted,
    upload: &Upload,
    (name, version, mut manifest): (&PackageName, &str, Value),
    tarball: &[u8],
) -> Result<(), Unchanged> {
    let file = name.tarball(version).ok_or_else(|| bad(format!("`{version}` is no version")))?;
    let Some(members) = manifest.as_object_mut() else { return Err(bad("a version is an object")) };
    let said = |member: &str| members.get("dist")?.get(member)?.as_str();
    let promised = Integrity::of(said("integrity"), said("shasum"));
    if !promised.holds(tarball).unwrap_or(false) {
        return Err(bad("the tarball is not what its document says"));
    }
    let strong = Digest::of(Algorithm::Sha512, tarball);
    let bytes = unhex(strong.hex());
    let dist = json!({
        "shasum": hex(&Sha1::digest(tarball)),
        "integrity": format!("sha512-{}", STANDARD.encode(bytes)),
    });
    members.insert("dist".to_owned(), dist);
    members.insert("name".to_owned(), name.to_string().into());
    members.insert("version".to_owned(), version.into());
    let kept = upload.keep(tarball).map_err(Refused::from)?;
    let mut new = upload.as_file(&name.to_string(), version, &file);
    (new.blob, new.size, new.metadata) = (kept.digest, kept.size, manifest);
    match hosted.publish(request, new)? {
        Published::New(_) => Ok(()),
        Published::Same(_) | Published::Taken(_) => {
            let message = format!("{name} {version} is published already, and stays as it is");
            Err(Unchanged::Bad(StatusCode::CONFLICT, message))
        }
        Published::Removed => {
            let message = format!("{name} {version} was unpublished: its number stays taken");
            Err(Unchanged::Bad(StatusCode::CONFLICT, message))
        }
        Published::Absent => {
            let message = "the tarball was lost on its way".to_owned();
            Err(Unchanged::Bad(StatusCode::INTERNAL_SERVER_ERROR, message))
        }
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default() as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) * 16 + digit(pair[1])).collect()
}

/// Takes in what a document without a tarball says of versions: which are deprecated, and why.
fn say(
    request: &Request,
    hosted: &Hosted,
    name: &PackageName,
    document: &Document,
) -> Result<(), Unchanged> {
    let key = name.to_string();
    hosted.permit(request, Action::Push, &key)?;
    let listing = hosted.listing();
    let Some(package) = listing.get(&key) else {
        return Err(Unchanged::Bad(StatusCode::NOT_FOUND, format!("there is no {name}")));
    };
    for (version, said) in &document.versions {
        let why = said["deprecated"].as_str().filter(|why| !why.is_empty());
        let differs = |file: &Arc<PackageFile>| file.withdrawn.as_deref() != why;
        if package.version(version).any(differs) {
            hosted.withdraw(request, (&key, version, None), why)?;
        }
    }
    let tags = document.tags.clone();
    put_tags(hosted, name, |known| known.extend(tags))
}

fn remove_file(
    request: &Request,
    hosted: &Hosted,
    name: &PackageName,
    file: &str,
) -> Result<StatusCode, Unchanged> {
    let key = name.to_string();
    hosted.permit(request, Action::Delete, &key)?;
    let listing = hosted.listing();
    let found = listing.get(&key).and_then(|package| package.file(file));
    let Some(found) = found else {
        return Err(Unchanged::Bad(StatusCode::NOT_FOUND, format!("there is no {file}")));
    };
    hosted.remove(request, (&key, &found.version, None))?;
    Ok(StatusCode::OK)
}

fn remove_all(
    request: &Request,
    hosted: &Hosted,
    name: &PackageName,
) -> Result<StatusCode, Unchanged> {
    let key = name.to_string();
    hosted.permit(request, Action::Delete, &key)?;
    let listing = hosted.listing();
    let files = listing.get(&key).map(|package| package.files.clone()).unwrap_or_default();
    for file in &files {
        hosted.remove(request, (&key, &file.version, None))?;
    }
    Ok(StatusCode::OK)
}

fn put_tag(
    request: &Request,
    hosted: &Hosted,
    upload: &Upload,
    name: &PackageName,
    tag: &str,
) -> Result<StatusCode, Unchanged> {
    let key = name.to_string();
    hosted.permit(request, Action::Push, &key)?;
    if request.method == Method::DELETE {
        put_tags(hosted, name, |tags| drop(tags.remove(tag)))?;
        return Ok(StatusCode::OK);
    }
    let bytes = upload.bytes(1024).map_err(|error| bad(error.to_string()))?;
    let version: String =
        serde_json::from_slice(&bytes).map_err(|_| bad("the body is not a version's number"))?;
    let listing = hosted.listing();
    let is_there = listing.get(&key).is_some_and(|found| found.version(&version).next().is_some());
    if !is_there {
        return Err(Unchanged::Bad(StatusCode::NOT_FOUND, format!("there is no {name} {version}")));
    }
    put_tags(hosted, name, |tags| drop(tags.insert(tag.to_owned(), version)))?;
    Ok(StatusCode::OK)
}

fn put_tags(
    hosted: &Hosted,
    name: &PackageName,
    change: impl FnOnce(&mut BTreeMap<String, String>),
) -> Result<(), Unchanged> {
    let changed = hosted.packages().change_document(&name.to_string(), TAGS, |known| {
        let known = known.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut tags: BTreeMap<String, String> = known.unwrap_or_default();
        change(&mut tags);
        serde_json::to_vec(&tags).ok()
    });
    changed.map_err(|error| Unchanged::Refused(Refused::Failed(error)))
}

/// Returns the tags of a package that point at what is there. Blocking.
pub(super) fn tags(hosted: &Hosted, package: &Package) -> BTreeMap<String, String> {
    let known = hosted.packages().document(&package.name, TAGS).ok().flatten();
    let known = known.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut tags: BTreeMap<String, String> = known.unwrap_or_default();
    tags.retain(|_, version| package.version(version).next().is_some());
    if let (None, Some(newest)) = (tags.get("latest"), package.files.last()) {
        tags.insert("latest".to_owned(), newest.version.clone());
    }
    tags
}

/// Returns what is known of a package, as clients that see the registry at `seen` read it.
pub(super) fn read(package: &Package, tags: &BTreeMap<String, String>, seen: &str) -> Value {
    let mut versions = Map::new();
    let mut times = Map::new();
    for file in &package.files {
        versions.insert(file.version.clone(), version(file, seen));
        times.insert(file.version.clone(), file.published.to_string().into());
    }
    let created = package.files.iter().map(|file| file.published).min();
    let modified = package.files.iter().map(|file| file.published).max();
    if let (Some(created), Some(modified)) = (created, modified) {
        times.insert("created".to_owned(), created.to_string().into());
        times.insert("modified".to_owned(), modified.to_string().into());
    }
    let modified = times.get("modified").cloned();
    json!({
        "_id": package.name, "_rev": format!("{}-boatyard", package.files.len()),
        "name": package.name, "dist-tags": tags, "versions": versions, "time": times,
        "modified": modified,
    })
}

/// Returns what is known of a version.
pub(super) fn version(file: &PackageFile, seen: &str) -> Value {
    let mut manifest = file.metadata.clone();
    let tarball = format!("{seen}/{}/-/{}", file.package, file.file);
    if let Some(dist) = manifest.get_mut("dist").and_then(Value::as_object_mut) {
        dist.insert("tarball".to_owned(), tarball.into());
    }
    if let (Some(why), Some(members)) = (&file.withdrawn, manifest.as_object_mut()) {
        members.insert("deprecated".to_owned(), why.as_str().into());
    }
    manifest
}

/// Returns a document as an answer.
pub(super) fn reply(document: &Value) -> Reply {
    let bytes = document.to_string();
    let tag = format!("\"{}\"", Digest::sha256(bytes.as_bytes()).hex());
    Reply::new(StatusCode::OK, "application/json", bytes).with(ETAG, &tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_requests_change() {
        let name = |text: &str| PackageName::parse(text).unwrap();
        let (put, delete) = (Method::PUT, Method::DELETE);
        for (method, path, expected) in [
            (&put, "@acme%2Fp", Some(Change::Document(name("@acme/p")))),
            (&put, "p/-rev/1-x", Some(Change::Document(name("p")))),
            (&delete, "p/-rev/1-x", Some(Change::RemoveAll(name("p")))),
            (
                &delete,
                "@acme/p/-/p-1.0.0.tgz/-rev/1-x",
                Some(Change::RemoveFile(name("@acme/p"), "p-1.0.0.tgz".to_owned())),
            ),
            (
                &put,
                "-/package/@acme%2Fp/dist-tags/next",
                Some(Change::Tag(name("@acme/p"), "next".to_owned())),
            ),
            (&put, "-/user/org.couchdb.user:x", None),
            (&put, "p/-/p-1.0.0.tgz", None),
            (&Method::POST, "p", None),
            (&put, "-/package/p/dist-tags/", None),
        ] {
            assert_eq!(Change::parse(method, path), expected, "{method} {path}");
        }
    }
}
