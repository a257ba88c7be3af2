//! Private gems: published by `gem push`, listed in the compact index beside the public ones.
//!
//! In `/versions` and `/names` their lines come first: then the public part still grows at its end, and
//! clients that have it ask for what is new. A public gem of a private name is left out.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::sync::Arc;

use boatyard_content::entries::{EntryKey, Variant};
use boatyard_content::packages::{Listing, Package as Gems, PackageFile, Published};
use boatyard_content::{Expected, IngestKey, StoreError};
use boatyard_oci::Digest;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use md5::{Digest as _, Md5};
use serde_json::{Value, json};

use super::Gem;
use super::address::{Address, Kind, splits};
use super::compact::headers_of;
use super::marshal;
use super::package::Package;
use crate::ecosystem::{Resolution, Resolved};
use crate::entry::Entry;
use crate::hosted::{Hosted, Refused, Seen, Upload};
use crate::reply::Reply;
use crate::request::Request;
use crate::statistics::Outcome;

/// The longest form that asks to withdraw a gem.
const FORM_MAX: u64 = 64 * 1024;
/// The longest line of a public index that is looked at whole.
const LINE_MAX: u64 = 1024 * 1024;

/// What a request that writes wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Push,
    Yank,
}

/// Returns what hosts the private gems of a request's source.
pub(super) fn hosted(request: &Request) -> Option<&Arc<Hosted>> {
    request.upstream.as_ref()?.hosted.as_ref()
}

/// Says whether a request publishes or withdraws a gem.
pub(super) fn receives(request: &Request) -> bool {
    deed(request).is_some()
}

fn deed(request: &Request) -> Option<Deed> {
    let below = request.upstream.as_ref()?.below(&request.target)?;
    match (&request.method, below.split('?').next()?) {
        (&Method::POST, "api/v1/gems") => Some(Deed::Push),
        (&Method::DELETE, "api/v1/gems/yank") => Some(Deed::Yank),
        _ => None,
    }
}

/// Publishes or withdraws a gem. Blocking.
pub(super) fn receive(request: &Request, hosted: &Hosted, upload: &Upload) -> Reply {
    let received = match deed(request) {
        Some(Deed::Push) => push(request, hosted, upload),
        Some(Deed::Yank) => yank(request, hosted, upload),
        None => Ok(Reply::text(StatusCode::METHOD_NOT_ALLOWED, "nothing is published so")),
    };
    received.unwrap_or_else(|refused| Reply::text(refused.status(), &refused.to_string()).asking())
}

fn push(request: &Request, hosted: &Hosted, upload: &Upload) -> Result<Reply, Refused> {
    let read = upload.open().map_err(super::package::PackageError::from).and_then(Package::read);
    let gem = match read {
        Ok(gem) => gem,
        Err(error) => {
            return Ok(Reply::text(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()));
        }
    };
    let mut rest = vec![format!("checksum:{}", upload.digest().hex())];
    rest.extend(gem.requirements.iter().cloned());
    let mut new = upload.as_file(&gem.name, &gem.version, &gem.file());
    new.metadata = json!({ "info": format!("{}|{}", gem.dependencies, rest.join(",")) });
    let (name, version) = (&gem.name, &gem.version);
    let conflict = |message: String| Reply::text(StatusCode::CONFLICT, &message);
    Ok(match hosted.publish(request, new)? {
        Published::New(_) | Published::Same(_) => {
            let message = format!("Successfully registered gem: {name} ({version})");
            Reply::text(StatusCode::OK, &message)
        }
        Published::Taken(_) => conflict(format!("{name} {version} is there, with other bytes")),
        Published::Removed => conflict(format!("{name} {version} was removed, and stays so")),
        Published::Absent => {
            Reply::text(StatusCode::SERVICE_UNAVAILABLE, "what was sent is gone: send it again")
        }
    })
}

fn yank(request: &Request, hosted: &Hosted, upload: &Upload) -> Result<Reply, Refused> {
    let body = upload.bytes(FORM_MAX).unwrap_or_default();
    let query = request.target.url().query().unwrap_or_default();
    let mut form: BTreeMap<String, String> = BTreeMap::new();
    for pairs in [query.as_bytes(), &body] {
        let pairs = url::form_urlencoded::parse(pairs);
        form.extend(pairs.map(|(key, value)| (key.into_owned(), value.into_owned())));
    }
    let field = |name: &str| form.get(name).filter(|value| !value.is_empty());
    let (Some(name), Some(number)) = (field("gem_name"), field("version")) else {
        let message = "it takes `gem_name` and `version`";
        return Ok(Reply::text(StatusCode::BAD_REQUEST, message));
    };
    let platform = field("platform").filter(|platform| *platform != "ruby");
    let version = platform.map_or_else(|| number.clone(), |is| format!("{number}-{is}"));
    let found = hosted.withdraw(request, (name, &version, None), Some("yanked"))?;
    Ok(match found {
        0 => Reply::text(StatusCode::NOT_FOUND, &format!("there is no {name} {version}")),
        _ => Reply::text(StatusCode::OK, &format!("Successfully deleted gem: {name} ({version})")),
    })
}

/// Returns the `/info` of a private gem.
fn info(gems: &Gems) -> String {
    let listed = gems.files.iter().filter(|file| file.withdrawn.is_none());
    let line = |file: &Arc<PackageFile>| {
        let rest = file.metadata.get("info").and_then(Value::as_str).unwrap_or("|");
        format!("{} {rest}\n", file.version)
    };
    format!("---\n{}", listed.map(line).collect::<String>())
}

/// Returns an answer with the description of a version.
fn description(file: &PackageFile) -> Option<Resolution> {
    let info = file.metadata.get("info")?.as_str()?;
    let (dependencies, requirements) = info.split_once('|')?;
    let version = file.version.split_once('-').unwrap_or((&file.version, "ruby"));
    let bytes = marshal::description(&file.package, version, dependencies, requirements).ok()?;
    Some(Resolution::Reply(Reply::new(StatusCode::OK, "application/octet-stream", bytes)))
}

/// Returns the lines of an index about private gems.
fn lines(listing: &Listing, kind: &Kind) -> String {
    let mut text = String::new();
    for gems in listing.packages() {
        let listed = gems.files.iter().filter(|file| file.withdrawn.is_none());
        let versions: Vec<&str> = listed.map(|file| file.version.as_str()).collect();
        if versions.is_empty() {
            continue;
        }
        text.push_str(&gems.name);
        if *kind == Kind::Versions {
            let sum = hex(&<[u8; 16]>::from(Md5::digest(info(gems))));
            text.push_str(&format!(" {} {sum}", versions.join(",")));
        }
        text.push('\n');
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns an answer with an index that was made here.
fn reply(text: String) -> Resolution {
    let sum = <[u8; 16]>::from(Md5::digest(&text));
    let blob = Digest::sha256(text.as_bytes());
    let mut reply = Reply::new(StatusCode::OK, "text/plain; charset=utf-8", text);
    if let Some(headers) = headers_of(&HeaderMap::new(), &blob, sum) {
        reply.headers.extend(headers);
    }
    Resolution::Reply(reply)
}

fn absent() -> Resolution {
    let message = "there is no such private gem";
    Resolution::Refused { status: StatusCode::NOT_FOUND, message: message.to_owned() }
}

/// Answers for what is private; `None` where the upstream is to be asked.
pub(super) fn resolve(request: &Request, address: &Address, hosted: &Hosted) -> Option<Resolution> {
    let seen = |name: &str| match hosted.package(request, name) {
        Seen::Hidden => Err(Resolution::Reply(Reply::unauthorized())),
        Seen::Absent => Err(absent()),
        Seen::There(gems) => Ok(gems),
    };
    match &address.kind {
        Kind::Info => {
            let name = request.target.file_name();
            let found = hosted.is_private(&name).then(|| seen(&name))?;
            Some(found.map_or_else(|refused| refused, |gems| reply(info(&gems))))
        }
        Kind::Gem(file) => {
            let name = splits(file).map(|(name, _)| name).find(|name| hosted.is_private(name))?;
            let found = seen(name).map(|gems| gems.file(&format!("{file}.gem")).cloned());
            Some(match found {
                Err(refused) => refused,
                Ok(None) => absent(),
                Ok(Some(file)) => {
                    let kind = HeaderValue::from_static("application/octet-stream");
                    let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, kind)]);
                    let (blob, outcome) = (file.blob.clone(), Outcome::Hit);
                    Resolution::Blob(Resolved { blob, headers, stale: None, outcome })
                }
            })
        }
        Kind::Spec => {
            let file = request.target.file_name();
            let file = file.strip_suffix(".gemspec.rz")?;
            let name = splits(file).map(|(name, _)| name).find(|name| hosted.is_private(name))?;
            let found = seen(name).map(|gems| gems.file(&format!("{file}.gem")).cloned());
            Some(match found {
                Err(refused) => refused,
                Ok(file) => file.and_then(|file| description(&file)).unwrap_or_else(absent),
            })
        }
        Kind::Versions | Kind::Names if hosted.is_alone() => Some(if request.admitted.reads {
            let head = match address.kind {
                Kind::Versions => "created_at: 1970-01-01T00:00:00Z\n---\n",
                _ => "---\n",
            };
            reply(format!("{head}{}", lines(&hosted.listing(), &address.kind)))
        } else {
            Resolution::Reply(Reply::unauthorized())
        }),
        Kind::Root if hosted.is_alone() => Some(Resolution::Reply(Reply::text(
            StatusCode::OK,
            "a source of private gems with a compact index",
        ))),
        _ => None,
    }
}

impl Gem {
    /// Puts the private gems into a public index, and takes public ones of their names out. Made once
    /// for each version of both.
    pub(super) async fn merged(
        &self,
        request: &Request,
        kind: &Kind,
        entry: &Arc<Entry>,
    ) -> Arc<Entry> {
        let Some(hosted) = hosted(request).filter(|_| *kind != Kind::Info) else {
            return Arc::clone(entry);
        };
        let (root, hosted) = (Arc::clone(&self.root), Arc::clone(hosted));
        let (public, kind, reads) = (Arc::clone(entry), kind.clone(), request.admitted.reads);
        let made = tokio::task::spawn_blocking(move || {
            let listing = hosted.listing();
            let of = (public.target.as_str(), &public.blob, listing.revision(), reads);
            let key = EntryKey::of(&format!("gem merged {of:?}"));
            let entries = root.entries();
            if let Some(kept) = entries.get(&key)?.variants.first()
                && let Some(known) = Entry::of_variant(&[], kept)
                && root.store().open_blocking(&known.blob)?.is_some()
            {
                return Ok(Entry { policy: public.policy.clone(), ..known });
            }
            let lease = root.lease()?;
            let mut ingest = root.store().ingest_blocking(&IngestKey::random(), &lease)?;
            let private = if reads { lines(&listing, &kind) } else { String::new() };
            let Some(from) = root.store().open_blocking(&public.blob)? else {
                return Ok((*public).clone());
            };
            merge(from.into_file(), &mut ingest, &private, |name| hosted.is_private(name))
                .map_err(|source| StoreError::Io { doing: "merge indexes of gems", source })?;
            let info = ingest.commit_blocking(&Expected::any())?.info().clone();
            let mut made = Entry { blob: info.digest, size: info.size, ..(*public).clone() };
            made.policy.varied.clear();
            let Variant { blob, note, .. } = made.to_variant();
            entries.put(&key, &[], &Variant { key: key.clone(), blob, note })?;
            Ok::<_, StoreError>(made)
        });
        match made.await {
            Ok(Ok(made)) => Arc::new(made),
            Ok(Err(error)) => {
                tracing::error!(target = %entry.target, %error, "private gems are not shown");
                Arc::clone(entry)
            }
            Err(_) => Arc::clone(entry),
        }
    }
}

/// Writes a public index with private lines before its own, and without the names that are private.
fn merge(
    from: impl io::Read,
    to: &mut impl Write,
    private: &str,
    is_private: impl Fn(&str) -> bool,
) -> io::Result<()> {
    let (mut from, mut to) = (BufReader::new(from), BufWriter::new(to));
    let mut line = Vec::new();
    let mut is_head = true;
    loop {
        line.clear();
        let read = (&mut from).take(LINE_MAX).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        let name = line.split(|byte| b" \n".contains(byte)).next().unwrap_or_default();
        let name = std::str::from_utf8(name).unwrap_or_default();
        if is_head {
            to.write_all(&line)?;
            if line == b"---\n" {
                to.write_all(private.as_bytes())?;
                is_head = false;
            }
        } else if name.is_empty() || !is_private(name) {
            to.write_all(&line)?;
        }
    }
    to.flush()
}
