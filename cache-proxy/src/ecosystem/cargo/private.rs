//! Private crates: published by `cargo publish`, and nowhere else.
//!
//! A crate is known here by its name in lower case, with `_` for `-`: cargo takes such names for one.

use std::io::Read;

use boatyard_content::packages::{Package, Published};
use boatyard_oci::Digest;
use http::header::ETAG;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::address::{Kind, Version};
use super::config;
use crate::ecosystem::{Resolution, Resolved};
use crate::hosted::{Hosted, Refused, Seen, Upload};
use crate::reply::Reply;
use crate::request::Request;

/// The longest description of a crate that is taken.
const METADATA_MAX: u32 = 1024 * 1024;

/// What a request that writes wants.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Deed {
    Publish,
    Yank(Version),
    Unyank(Version),
}

/// Why a body is no crate.
#[derive(Debug, thiserror::Error)]
enum CrateError {
    #[error("what was sent is no crate: {0}")]
    Read(#[from] std::io::Error),
    #[error("what was sent has no description that is JSON")]
    Json(#[source] serde_json::Error),
    #[error("the description has no {0} that can be one")]
    Field(&'static str),
}

/// Returns the name that tells a crate from all others.
pub(super) fn canonical(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

/// Says whether a request publishes or withdraws a crate.
pub(super) fn receives(request: &Request) -> bool {
    deed(request).is_some()
}

fn deed(request: &Request) -> Option<Deed> {
    let below = request.upstream.as_ref()?.below(&request.target)?;
    let below = below.strip_prefix("-/api/v1/crates/")?;
    if request.method == Method::PUT && below == "new" {
        return Some(Deed::Publish);
    }
    let mut parts = below.split('/');
    let (name, number, verb) = (parts.next()?, parts.next()?, parts.next()?);
    let version = Version::of(name, &number.replace("%2B", "+"))?;
    match (&request.method, verb, parts.next()) {
        (&Method::DELETE, "yank", None) => Some(Deed::Yank(version)),
        (&Method::PUT, "unyank", None) => Some(Deed::Unyank(version)),
        _ => None,
    }
}

/// Says no as cargo shows it.
pub(super) fn refusal(status: StatusCode, message: &str) -> Reply {
    Reply::json(status, &json!({ "errors": [{ "detail": message }] }))
}

/// Publishes or withdraws a crate. Blocking.
pub(super) fn receive(request: &Request, hosted: &Hosted, upload: &Upload) -> Reply {
    let received = match deed(request) {
        Some(Deed::Publish) => publish(request, hosted, upload),
        Some(Deed::Yank(version)) => withdraw(request, hosted, &version, Some("yanked")),
        Some(Deed::Unyank(version)) => withdraw(request, hosted, &version, None),
        None => Ok(refusal(StatusCode::METHOD_NOT_ALLOWED, "nothing is published so")),
    };
    received.unwrap_or_else(|refused| refusal(refused.status(), &refused.to_string()).asking())
}

fn withdraw(
    request: &Request,
    hosted: &Hosted,
    version: &Version,
    why: Option<&str>,
) -> Result<Reply, Refused> {
    let package = canonical(&version.name);
    Ok(match hosted.withdraw(request, (&package, &version.number, None), why)? {
        0 => refusal(StatusCode::NOT_FOUND, &format!("there is no {version}")),
        _ => Reply::json(StatusCode::OK, &json!({ "ok": true })),
    })
}

/// > "The body of the data sent by Cargo is: 32-bit unsigned little-endian integer of the length of
/// > JSON data. Metadata of the package as a JSON object. 32-bit unsigned little-endian integer of the
/// > length of the `.crate` file. The `.crate` file." (The Cargo Book, Web API)
fn publish(request: &Request, hosted: &Hosted, upload: &Upload) -> Result<Reply, Refused> {
    let (version, mut line, mut rest) = match read(upload) {
        Ok(read) => read,
        Err(error) => return Ok(refusal(StatusCode::BAD_REQUEST, &error.to_string())),
    };
    let kept = upload.keep(&mut rest)?;
    line.insert("cksum".to_owned(), Value::String(kept.digest.hex().to_owned()));
    let file = format!("{}-{}.crate", version.name, version.number);
    let mut new = upload.as_file(&canonical(&version.name), &version.number, &file);
    (new.blob, new.size) = (kept.digest, kept.size);
    new.metadata = Value::Object(line);
    let conflict = |message: String| refusal(StatusCode::CONFLICT, &message);
    Ok(match hosted.publish(request, new)? {
        Published::New(_) | Published::Same(_) => {
            let none: [&str; 0] = [];
            let warnings =
                json!({ "invalid_categories": none, "invalid_badges": none, "other": none });
            Reply::json(StatusCode::OK, &json!({ "warnings": warnings }))
        }
        Published::Taken(_) => conflict(format!("{version} is there, with other bytes")),
        Published::Removed => conflict(format!("{version} was removed, and stays so")),
        Published::Absent => {
            refusal(StatusCode::SERVICE_UNAVAILABLE, "what was sent is gone: send it again")
        }
    })
}

/// Reads the description of a crate, and returns its line of the index, and what reads the crate.
fn read(upload: &Upload) -> Result<(Version, Map<String, Value>, impl Read), CrateError> {
    let mut body = upload.open()?;
    let length = number(&mut body)?;
    if length > METADATA_MAX {
        return Err(CrateError::Field("length"));
    }
    let mut text = vec![0; length as usize];
    body.read_exact(&mut text)?;
    let described: Map<String, Value> = serde_json::from_slice(&text).map_err(CrateError::Json)?;
    let (version, line) = line(&described)?;
    let length = u64::from(number(&mut body)?);
    if upload.size() != 8 + text.len() as u64 + length {
        return Err(CrateError::Field("length of the crate"));
    }
    Ok((version, line, body.take(length)))
}

fn number(body: &mut impl Read) -> Result<u32, CrateError> {
    let mut bytes = [0; 4];
    body.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

/// Makes the line of an index of the description that cargo sends: they say the same in two ways.
fn line(described: &Map<String, Value>) -> Result<(Version, Map<String, Value>), CrateError> {
    let text = |key: &str| described.get(key).and_then(Value::as_str).unwrap_or_default();
    let version =
        Version::of(text("name"), text("vers")).ok_or(CrateError::Field("name and version"))?;
    let deps = described.get("deps").and_then(Value::as_array).map(Vec::as_slice);
    let deps: Option<Vec<Value>> = deps.unwrap_or_default().iter().map(dependency).collect();
    let deps = deps.ok_or(CrateError::Field("dependencies"))?;
    let (mut old, mut new) = (Map::new(), Map::new());
    for (name, needs) in described.get("features").and_then(Value::as_object).into_iter().flatten()
    {
        let words = needs.as_array().ok_or(CrateError::Field("features"))?;
        let mut words = words.iter().filter_map(Value::as_str);
        // > "features2 ... contains features with new, extended syntax" (Registry Index)
        let is_new = words.any(|word| word.starts_with("dep:") || word.contains("?/"));
        let features = if is_new { &mut new } else { &mut old };
        features.insert(name.clone(), needs.clone());
    }
    let mut line = Map::new();
    line.insert("name".to_owned(), json!(version.name));
    line.insert("vers".to_owned(), json!(version.number));
    line.insert("deps".to_owned(), Value::Array(deps));
    line.insert("features".to_owned(), Value::Object(old));
    for key in ["links", "rust_version"] {
        line.extend(described.get(key).map(|value| (key.to_owned(), value.clone())));
    }
    if !new.is_empty() {
        line.insert("features2".to_owned(), Value::Object(new));
        line.insert("v".to_owned(), json!(2));
    }
    Ok((version, line))
}

fn dependency(described: &Value) -> Option<Value> {
    let described = described.as_object()?;
    let mut dependency = described.clone();
    let name = described.get("name")?.as_str()?;
    let required = dependency.remove("version_req")?;
    dependency.insert("req".to_owned(), required);
    let renamed = dependency.remove("explicit_name_in_toml");
    if let Some(Value::String(here)) = renamed {
        dependency.insert("package".to_owned(), json!(name));
        dependency.insert("name".to_owned(), json!(here));
    }
    Some(Value::Object(dependency))
}

/// Returns the file of a private crate in the index.
fn listing(package: &Package, name: &str) -> String {
    let mut text = String::new();
    for file in &package.files {
        let Some(mut line) = file.metadata.as_object().cloned() else { continue };
        let named = line.get("name").and_then(Value::as_str).unwrap_or_default();
        if named.to_lowercase() != name {
            continue;
        }
        line.insert("yanked".to_owned(), json!(file.withdrawn.is_some()));
        text.push_str(&Value::Object(line).to_string());
        text.push('\n');
    }
    text
}

/// Answers for what is private; `None` where the upstream is to be asked.
pub(super) fn resolve(request: &Request, kind: &Kind, hosted: &Hosted) -> Option<Resolution> {
    let hidden = || Resolution::Reply(Reply::unauthorized());
    let absent = || Resolution::Reply(refusal(StatusCode::NOT_FOUND, "there is no such crate"));
    match kind {
        Kind::Config if hosted.is_alone() => {
            let config = config::of_private(request)?;
            Some(Resolution::Reply(Reply::json(StatusCode::OK, &config)))
        }
        Kind::Index => {
            let name = request.target.file_name();
            let package = canonical(&name);
            hosted.is_private(&package).then_some(())?;
            Some(match hosted.package(request, &package) {
                Seen::Hidden => hidden(),
                Seen::Absent => absent(),
                Seen::There(package) => {
                    let text = listing(&package, &name);
                    if text.is_empty() {
                        return Some(absent());
                    }
                    let tag = format!("\"{}\"", Digest::sha256(text.as_bytes()).hex());
                    let reply = Reply::new(StatusCode::OK, "text/plain; charset=utf-8", text);
                    Resolution::Reply(reply.with(ETAG, &tag))
                }
            })
        }
        Kind::Crate(version, sum) => {
            let package = canonical(&version.name);
            hosted.is_private(&package).then_some(())?;
            Some(match hosted.package(request, &package) {
                Seen::Hidden => hidden(),
                Seen::Absent => absent(),
                Seen::There(package) => {
                    let mut files = package.version(&version.number);
                    let Some(file) = files.find(|file| file.blob == *sum) else {
                        return Some(absent());
                    };
                    Resolution::Blob(Resolved::private(file, "application/gzip"))
                }
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_become_lines() {
        let described = json!({
            "name": "Acme-tools", "vers": "1.0.0+x", "authors": ["x"], "links": null,
            "deps": [
                { "name": "a", "version_req": "^1", "features": [], "optional": false,
                  "default_features": true, "target": null, "kind": "normal",
                  "registry": "https://r.example" },
                { "name": "b", "version_req": "2", "explicit_name_in_toml": "c", "kind": "dev" },
            ],
            "features": { "old": ["a"], "new": ["dep:a"] },
        });
        let (version, line) = line(described.as_object().unwrap()).unwrap();
        assert_eq!(version.to_string(), "Acme-tools 1.0.0+x");
        let expected = json!({
            "name": "Acme-tools", "vers": "1.0.0+x",
            "deps": [
                { "name": "a", "req": "^1", "features": [], "optional": false,
                  "default_features": true, "target": null, "kind": "normal",
                  "registry": "https://r.example" },
                { "name": "c", "req": "2", "kind": "dev", "package": "b" },
            ],
            "features": { "old": ["a"] }, "links": null,
            "features2": { "new": ["dep:a"] }, "v": 2,
        });
        assert_eq!(Value::Object(line), expected);
        assert_eq!(canonical("Acme-Tools"), "acme_tools");
    }

    #[test]
    fn what_is_no_description() {
        for bad in [
            json!({}),
            json!({ "name": "../a", "vers": "1.0.0" }),
            json!({ "name": "a", "vers": "x" }),
            json!({ "name": "a", "vers": "1.0.0", "deps": [1] }),
            json!({ "name": "a", "vers": "1.0.0", "deps": [{ "name": "b" }] }),
            json!({ "name": "a", "vers": "1.0.0", "features": { "x": 1 } }),
        ] {
            assert!(line(bad.as_object().unwrap()).is_err(), "{bad}");
        }
    }
}
