//! Private artifacts: read, deployed, removed. Blocking.

use boatyard_access::Action;
use boatyard_content::packages::{Package, PackageFile, Published};
use boatyard_oci::Digest;
use http::header::{ETAG, LAST_MODIFIED};
use http::{HeaderValue, StatusCode};
use jiff::fmt::rfc2822::DateTimePrinter;

use super::layout::{Checksum, Place, What, plugins_of};
use super::metadata::{checksum_of, checksum_of_blob, of_artifact, of_snapshot};
use crate::ecosystem::{Resolution, Resolved};
use crate::hosted::{Hosted, Refused, Seen, Upload};
use crate::reply::Reply;
use crate::request::Request;

/// The document that keeps what a group has of plugins.
const PLUGINS: &str = "plugins";
/// The longest `maven-metadata.xml`, and the longest checksum, that is taken.
const METADATA_MAX: u64 = 1024 * 1024;

/// Answers a GET or HEAD.
pub(super) fn read(hosted: &Hosted, request: &Request, place: &Place) -> Resolution {
    let absent = || Resolution::Refused {
        status: StatusCode::NOT_FOUND,
        message: "no private artifact of that name is published here".to_owned(),
    };
    let packages = place.packages();
    let mut found = None;
    for name in &packages {
        match hosted.package(request, name) {
            Seen::Hidden => return Resolution::Reply(Reply::unauthorized()),
            Seen::Absent => {}
            Seen::There(package) => {
                found = Some(package);
                break;
            }
        }
    }
    match &place.what {
        What::Artifact { .. } | What::Moving { .. } => {
            let file = found.as_ref().and_then(|package| package.file(&place.file));
            let Some(file) = file else { return absent() };
            match place.checksum {
                None => Resolution::Blob(resolved(file)),
                Some(kind) => match checksum_of_blob(hosted.root(), &file.blob, kind) {
                    Some(hex) => Resolution::Reply(text(hex)),
                    None => absent(),
                },
            }
        }
        What::Metadata { above, snapshot } => {
            let made = found.as_deref().and_then(|package| made(package, snapshot.as_deref()));
            let kept = || {
                let name = plugins_of(&above.join("."));
                let bytes = hosted.packages().document(&name, PLUGINS).ok()??;
                snapshot.is_none().then(|| String::from_utf8(bytes).ok())?
            };
            let Some(xml) = made.or_else(kept) else { return absent() };
            match place.checksum {
                None => {
                    let tag = Digest::sha256(xml.as_bytes());
                    let reply = Reply::new(StatusCode::OK, "application/xml", xml);
                    Resolution::Reply(reply.with(ETAG, &format!("\"{}\"", tag.hex())))
                }
                Some(kind) => match checksum_of(xml.as_bytes(), kind) {
                    Some(hex) => Resolution::Reply(text(hex)),
                    None => absent(),
                },
            }
        }
    }
}

fn made(package: &Package, snapshot: Option<&str>) -> Option<String> {
    match snapshot {
        Some(version) => of_snapshot(package, version),
        None => of_artifact(package),
    }
}

fn text(hex: String) -> Reply {
    Reply::new(StatusCode::OK, "text/plain", hex)
}

fn resolved(file: &PackageFile) -> Resolved {
    let kind = match file.file.rsplit('.').next() {
        Some("pom" | "xml") => "application/xml",
        Some("jar") => "application/java-archive",
        Some("asc") => "text/plain",
        _ => "application/octet-stream",
    };
    let mut resolved = Resolved::private(file, kind);
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&file.published);
    if let Some(date) = date.ok().and_then(|date| HeaderValue::from_str(&date).ok()) {
        resolved.headers.insert(LAST_MODIFIED, date);
    }
    resolved
}

/// Answers a PUT, as `mvn deploy` and Gradle send it.
pub(super) fn deploy(hosted: &Hosted, request: &Request, place: &Place, upload: &Upload) -> Reply {
    let done = match (&place.what, place.checksum) {
        (What::Artifact { version, .. }, None) => publish(hosted, request, place, version, upload),
        (What::Artifact { .. } | What::Moving { .. }, Some(kind)) => {
            compare(hosted, request, place, kind, upload)
        }
        (What::Moving { .. }, None) => Ok(Reply::text(
            StatusCode::BAD_REQUEST,
            "a snapshot is published with the time and number of its build, as Maven 3 does it",
        )),
        (What::Metadata { .. }, _) => take_metadata(hosted, request, place, upload),
    };
    done.unwrap_or_else(|refused| Reply::text(refused.status(), &refused.to_string()).asking())
}

fn publish(
    hosted: &Hosted,
    request: &Request,
    place: &Place,
    version: &str,
    upload: &Upload,
) -> Result<Reply, Refused> {
    let [name] = place.packages().try_into().unwrap_or_default();
    let published = hosted.publish(request, upload.as_file(&name, version, &place.file))?;
    Ok(match published {
        Published::New(_) => Reply::text(StatusCode::CREATED, "published"),
        Published::Same(_) => Reply::text(StatusCode::OK, "it is published already"),
        Published::Taken(_) => Reply::text(
            StatusCode::CONFLICT,
            "it is published already, with other bytes: a version is never replaced",
        ),
        Published::Removed => Reply::text(
            StatusCode::CONFLICT,
            "it was removed, and its name is not used again: publish another version",
        ),
        Published::Absent => {
            Reply::text(StatusCode::SERVICE_UNAVAILABLE, "it is gone meanwhile: send it again")
        }
    })
}

/// Compares a checksum that is deployed with the bytes that came before it.
fn compare(
    hosted: &Hosted,
    request: &Request,
    place: &Place,
    kind: Checksum,
    upload: &Upload,
) -> Result<Reply, Refused> {
    for name in place.packages() {
        hosted.permit(request, Action::Push, &name)?;
        let listing = hosted.listing();
        let Some(file) = listing.get(&name).and_then(|package| package.file(&place.file)) else {
            return Ok(Reply::text(StatusCode::CONFLICT, "there is no file that it could be of"));
        };
        let sent = upload.bytes(METADATA_MAX).ok().and_then(|bytes| kind.read(&bytes));
        let Some(computed) = checksum_of_blob(hosted.root(), &file.blob, kind) else { continue };
        if sent.as_ref() != Some(&computed) {
            let message = format!("the file has the checksum {computed}: it broke on its way here");
            return Ok(Reply::text(StatusCode::BAD_REQUEST, &message));
        }
    }
    Ok(Reply::text(StatusCode::OK, "that is its checksum"))
}

/// Takes a `maven-metadata.xml`. That of an artifact is made here, of what is published; that of a
/// group's plugins is kept.
fn take_metadata(
    hosted: &Hosted,
    request: &Request,
    place: &Place,
    upload: &Upload,
) -> Result<Reply, Refused> {
    let What::Metadata { above, snapshot } = &place.what else {
        return Ok(Reply::text(StatusCode::BAD_REQUEST, "no metadata"));
    };
    let packages = place.packages();
    let listing = hosted.listing();
    let of_artifact = packages.first().filter(|name| !name.ends_with(':'));
    let is_published = of_artifact.is_some_and(|name| listing.get(name).is_some());
    if snapshot.is_some() || is_published {
        hosted.permit(request, Action::Push, of_artifact.map_or("", String::as_str))?;
        return Ok(Reply::text(StatusCode::OK, "metadata is made here, of what is published"));
    }
    let name = plugins_of(&above.join("."));
    hosted.permit(request, Action::Push, &name)?;
    if place.checksum.is_none() {
        let Ok(bytes) = upload.bytes(METADATA_MAX) else {
            return Ok(Reply::text(StatusCode::PAYLOAD_TOO_LARGE, "the metadata is too long"));
        };
        hosted.packages().change_document(&name, PLUGINS, |_| Some(bytes.to_vec()))?;
    }
    Ok(Reply::text(StatusCode::OK, "kept"))
}

/// Answers a DELETE of a file.
pub(super) fn delete(hosted: &Hosted, request: &Request, place: &Place) -> Reply {
    let (What::Artifact { version, .. }, None) = (&place.what, place.checksum) else {
        return Reply::text(StatusCode::METHOD_NOT_ALLOWED, "only artifacts are removed");
    };
    let [name] = place.packages().try_into().unwrap_or_default();
    match hosted.remove(request, (&name, version, Some(&place.file))) {
        Ok(0) => Reply::text(StatusCode::NOT_FOUND, "it is not published here"),
        Ok(_) => Reply::empty(StatusCode::NO_CONTENT),
        Err(refused) => Reply::text(refused.status(), &refused.to_string()).asking(),
    }
}
