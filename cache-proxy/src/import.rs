//! Taking in what is there already: directories of packages, and the cache of apt-cacher-ng.
//!
//! ```text
//! DIR/<host>/<path>        a file that apt-cacher-ng keeps
//! DIR/<host>/<path>.head   the header that it came with; `X-Original-Source` has its true address
//! DIR/_*                   what is no part of the cache
//! ```
//!
//! Files become blobs, held by entries. What is taken in counts as fetched when its file was last
//! changed: nobody vouches for it, so it is revalidated, or found to be what an index promises, before
//! it serves; and it is there when the upstream is away. Nothing that is kept is replaced.

use std::io;
use std::path::{Path, PathBuf};

use boatyard_content::store::StoreError;
use boatyard_content::{Expected, IngestKey, Lease, Root};
use boatyard_upstream::freshness::Policy;
use fs_err as fs;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;

use crate::entry::Entry;
use crate::target::Target;

/// Where files are from of which nobody says it: no such host can be (RFC 6761, section 6.4).
const NOWHERE: &str = "http://import.invalid";
/// What ends the names of apt-cacher-ng's headers.
const HEAD: &str = ".head";
/// The most bytes of such a header.
const HEAD_MAX: u64 = 64 * 1024;

/// Something cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file or directory cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store refused.
    #[error("cannot keep {path}")]
    Keep {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Imported {
    /// It is kept as this.
    Kept {
        /// Its address.
        target: Target,
        /// Its size.
        bytes: u64,
        /// Its bytes were not there before.
        is_new: bool,
    },
    /// Something is kept of its address already.
    Known(Target),
    /// It is left alone, for this reason.
    Skipped(PathBuf, String),
}

/// Where the files of a directory are from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// apt-cacher-ng's cache: each file says it.
    Heads,
    /// Below this address, under the paths that they have below the directory.
    Below(String),
    /// Nobody knows: they are found by their digests.
    Unknown,
}

impl Origin {
    /// Says whether a directory is the cache of apt-cacher-ng: some file in it has a header.
    pub fn has_heads(directory: &Path) -> bool {
        let mut paths = Vec::new();
        let _ = walk(directory, true, &mut paths);
        paths.iter().any(|path| is_head(path) && path.with_extension("").is_file())
    }
}

/// Imports the files of a directory and tells of each. Blocking.
///
/// # Errors
/// Where a directory cannot be listed, or the store cannot be written to.
pub fn import(
    root: &Root,
    directory: &Path,
    origin: &Origin,
    tell: &mut dyn FnMut(&Imported),
) -> Result<(), ImportError> {
    let mut paths = Vec::new();
    let keep = |source| ImportError::Keep { path: directory.to_path_buf(), source };
    walk(directory, matches!(origin, Origin::Heads), &mut paths)?;
    paths.sort();
    let lease = root.lease().map_err(keep)?;
    for path in paths {
        if matches!(origin, Origin::Heads) && is_head(&path) {
            continue;
        }
        tell(&one(root, &lease, directory, &path, origin)?);
    }
    Ok(())
}

fn one(
    root: &Root,
    lease: &Lease,
    directory: &Path,
    path: &Path,
    origin: &Origin,
) -> Result<Imported, ImportError> {
    let skipped = |reason: &str| Ok(Imported::Skipped(path.to_path_buf(), reason.to_owned()));
    let read = |source| ImportError::Read { path: path.to_path_buf(), source };
    let keep = |source| ImportError::Keep { path: path.to_path_buf(), source };
    let Some(name) = path.strip_prefix(directory).ok().and_then(Path::to_str) else {
        return skipped("its name is no text");
    };
    let metadata = fs::metadata(path).map_err(read)?;
    let changed = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
    let changed = changed.unwrap_or(Timestamp::UNIX_EPOCH).min(Timestamp::now());
    let (address, mut headers) = match origin {
        Origin::Heads => match head(path) {
            Ok(Head { source, headers }) => {
                (source.unwrap_or_else(|| format!("http://{}", escaped(name))), headers)
            }
            Err(reason) => return skipped(&reason),
        },
        Origin::Below(base) => {
            (format!("{}/{}", base.trim_end_matches('/'), escaped(name)), dated(changed))
        }
        Origin::Unknown => (format!("{NOWHERE}/{}", escaped(name)), dated(changed)),
    };
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length != metadata.len()) {
        return skipped("it is incomplete");
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(metadata.len()));
    let Ok(target) = address.parse::<Target>() else {
        return skipped(&format!("`{address}` is no address"));
    };
    let key = target.key();
    if !root.entries().get(&key).map_err(keep)?.variants.is_empty() {
        return Ok(Imported::Known(target));
    }
    let mut file = fs::File::open(path).map_err(read)?;
    let mut ingest = root.store().ingest_blocking(&IngestKey::random(), lease).map_err(keep)?;
    let bytes = io::copy(&mut file, &mut ingest).map_err(read)?;
    let landed = ingest.commit_blocking(&Expected::any()).map_err(keep)?;
    let is_new = matches!(landed, boatyard_content::Landed::New(_));
    let policy = Policy {
        status: StatusCode::OK,
        headers,
        requested: changed,
        received: changed,
        varied: Vec::new(),
    };
    let blob = landed.info().digest.clone();
    let from = target.to_string();
    let entry = Entry { target: target.clone(), from, blob, size: bytes, verified: None, policy };
    root.entries().put(&key, &[], &entry.to_variant()).map_err(keep)?;
    root.entries().mark_used(&key).map_err(keep)?;
    Ok(Imported::Kept { target, bytes, is_new })
}

/// Lists the files below a directory; no link is followed.
fn walk(directory: &Path, heads: bool, paths: &mut Vec<PathBuf>) -> Result<(), ImportError> {
    let failed = |source| ImportError::Read { path: directory.to_path_buf(), source };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        let name = entry.file_name();
        // Those are apt-cacher-ng's own, and what lies hidden is nobody's package.
        let is_aside = name.as_encoded_bytes().starts_with(if heads { b"_" } else { b"." });
        if is_aside {
            continue;
        }
        if kind.is_dir() {
            walk(&entry.path(), heads, paths)?;
        } else if kind.is_file() {
            paths.push(entry.path());
        }
    }
    Ok(())
}

fn is_head(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(HEAD.as_bytes())
}

/// What a header of apt-cacher-ng says.
struct Head {
    source: Option<String>,
    headers: HeaderMap,
}

/// Reads the header of a file: the same name, with `.head` behind it.
fn head(path: &Path) -> Result<Head, String> {
    let mut name = path.as_os_str().to_owned();
    name.push(HEAD);
    let name = PathBuf::from(name);
    let size = fs::metadata(&name).map_err(|_| "it has no header".to_owned())?.len();
    if size > HEAD_MAX {
        return Err("its header is too long".to_owned());
    }
    let bytes = fs::read(&name).map_err(|error| error.to_string())?;
    parse_head(&String::from_utf8_lossy(&bytes))
}

fn parse_head(text: &str) -> Result<Head, String> {
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| line.split_whitespace().nth(1)).unwrap_or_default();
    if status != "200" {
        return Err(format!("its header has the status `{status}`"));
    }
    let (mut source, mut headers) = (None, HeaderMap::new());
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("x-original-source") && !value.is_empty() {
            source = Some(value.to_owned());
        }
        let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value))
        else {
            continue;
        };
        if [CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, LAST_MODIFIED].contains(&name) {
            headers.insert(name, value);
        }
    }
    Ok(Head { source, headers })
}

fn dated(changed: Timestamp) -> HeaderMap {
    let date = changed.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let date = HeaderValue::from_str(&date).ok();
    date.into_iter().map(|date| (LAST_MODIFIED, date)).collect()
}

/// Returns a path of files as one of a URL.
fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte);
    path.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_apt_cacher_ng() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Original-Source: \
                    http://deb.example/a.deb\r\nX-Other: y\r\nLast-Modified: Mon, 01 Jan 2024 \
                    00:00:00 GMT\r\n\r\n";
        let head = parse_head(text).ok().unwrap();
        assert_eq!(head.source.as_deref(), Some("http://deb.example/a.deb"));
        assert_eq!(head.headers.len(), 2);
        assert_eq!(head.headers["content-length"], "5");
        for bad in ["", "HTTP/1.1 404 Not Found\r\n\r\n", "noise"] {
            assert!(parse_head(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_of_files_in_urls() {
        assert_eq!(escaped("pool/a+b_1%3a2 é.deb"), "pool/a+b_1%253a2%20%C3%A9.deb");
    }
}
