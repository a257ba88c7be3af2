//! Files of URLs, each fetched once and kept.
//!
//! ```text
//! ROOT/cache/http/files/<sha256>/body        the bytes: a name beside the blob's, which may go
//!                               /facts       their number and other hashes, JSON; its mtime: last use
//! ROOT/cache/http/urls/<BLAKE3 of the URL>   the answer that named them, JSON
//! ROOT/cache/http/sums/<algorithm>-<hex>     the sha256 of the file with this checksum
//! ```
//!
//! A file is fetched by a transfer: once for all who want it at a time, resumed where it broke. Who
//! names its checksum gets what is here without a request. Otherwise an answer that says how long
//! it is fresh serves as long as that (RFC 9111), and after that the server is asked whether it
//! still holds: by entity tag or date. That a server says nothing of freshness is no reason to
//! believe an old answer: nothing is fresh by heuristics here.
//!
//! Facts are written before what names them; what is torn counts as absent.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use boatyard_content::local::write_unsynced;
use boatyard_content::{IngestKey, Lease, Root, StoreError};
use boatyard_oci::{Algorithm, Digest};
use fs_err as fs;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use url::Url;

use crate::clock::{Clock, SystemClock};
use crate::freshness::{Decision, Policy, Request, decide};
use crate::http::{HttpError, HttpSource};
use crate::redact::{Secret, url_without_secrets};
use crate::transfer::{Failure, Limits, TransferError, Transfers, Wanted};
use crate::transport::{Transport, TransportError};

/// A use within this time of the last one is not written.
const USED_GRAIN: Duration = Duration::from_secs(3600);
const BUFFER_BYTES: usize = 256 << 10;

/// What fetches and keeps files.
#[derive(Clone, Debug)]
pub struct Downloads {
    root: Arc<Root>,
    transport: Arc<Transport>,
    transfers: Transfers,
    clock: Arc<dyn Clock>,
    offline: bool,
    /// What was asked for already: nobody is asked twice as long as this lives.
    asked: Arc<Mutex<HashMap<String, Arc<Asked>>>>,
}

/// The sha256 of a URL's file, once it is known. Who asks holds the lock: others wait.
type Asked = tokio::sync::Mutex<Option<String>>;

/// Who is asked, and what they are sent as `Authorization` if the URL does not say it.
type Server<'a> = (&'a Url, Option<&'a Secret>);

/// A file that is here now.
#[derive(Debug)]
pub struct Download {
    /// Its bytes.
    pub file: File,
    /// What is known of them.
    pub facts: Facts,
    /// What the server said of them; empty where nobody was asked.
    pub headers: HeaderMap,
    /// No byte came over the network for this.
    pub was_here: bool,
}

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The number of its bytes.
    pub size: u64,
    /// Where it came from first, without a query.
    pub from: String,
    /// Its SHA-256.
    pub sha256: String,
    /// Its SHA-384.
    pub sha384: String,
    /// Its SHA-512.
    pub sha512: String,
    /// Its BLAKE3.
    pub blake3: String,
    /// `Last-Modified` of the answer that it came with.
    #[serde(default)]
    pub modified: Option<String>,
    /// `Content-Disposition` of that answer.
    #[serde(default)]
    pub disposition: Option<String>,
}

/// The answer that named a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answer {
    sha256: String,
    status: u16,
    headers: Vec<(String, String)>,
    requested: Timestamp,
    received: Timestamp,
}

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// No address.
    #[error("`{text}` is no URL")]
    Url {
        /// What was given, without secrets.
        text: String,
        /// Why not.
        #[source]
        source: url::ParseError,
    },
    /// Nobody may be asked, and it is not here.
    #[error("{url} is not here, and nobody may be asked for it")]
    Offline {
        /// Which, without its query.
        url: String,
    },
    /// It could not be fetched.
    #[error("cannot fetch {url}")]
    Fetch {
        /// Which, without its query.
        url: String,
        /// Why.
        #[source]
        source: Failure,
    },
    /// It is here, but nobody says whether it still is what the URL names.
    #[error(
        "cannot ask whether what is here of {url} still holds; with --offline it is taken as it is"
    )]
    Unasked {
        /// Which, without its query.
        url: String,
        /// Why.
        #[source]
        source: Failure,
    },
    /// It is another file than was promised.
    #[error("{url} has the checksum {got}, not {wanted}")]
    Checksum {
        /// Which, without its query.
        url: String,
        /// What was promised.
        wanted: String,
        /// What came.
        got: String,
    },
    /// The store failed.
    #[error("cannot keep what was fetched")]
    Store(#[source] StoreError),
    /// A file of ours could not be read or written.
    #[error("cannot keep what was fetched")]
    Io(#[from] io::Error),
    /// The connections cannot be set up.
    #[error(transparent)]
    Setup(#[from] TransportError),
}

impl Downloads {
    /// Returns what fetches into a root; `offline` asks nobody.
    pub fn new(root: Arc<Root>, transport: Arc<Transport>, offline: bool) -> Downloads {
        let clock = Arc::new(SystemClock);
        let limits = Limits { first_byte: Duration::from_secs(3600), ..Limits::default() };
        let store = Arc::new(root.store());
        let transfers = Transfers::new(store, limits, Arc::<SystemClock>::clone(&clock));
        Downloads { root, transport, transfers, clock, offline, asked: Arc::default() }
    }

    /// Returns the file of a URL. `checksum` is the name of an algorithm and a hash: what is here
    /// with it is taken without a question, and what comes must have it. `login` is what the server
    /// is sent as `Authorization`; without it, what the URL says.
    ///
    /// # Errors
    /// Where the file is not here and cannot be fetched, or is another one.
    pub async fn get(
        &self,
        url: &str,
        checksum: Option<(&str, &str)>,
        login: Option<&Secret>,
        lease: &Lease,
    ) -> Result<Download, DownloadError> {
        let parsed: Url = url.parse().map_err(|source| {
            let text = url.split(['?', '@']).next().unwrap_or_default().to_owned();
            DownloadError::Url { text, source }
        })?;
        if let Some((algorithm, hex)) = checksum
            && let Some(sha256) = self.with_sum(algorithm, hex)
            && let Some(found) = self.open(&sha256)?
        {
            return Ok(found);
        }
        let download = self.once(url, (&parsed, login), lease).await?;
        let Some((algorithm, wanted)) = checksum else { return Ok(download) };
        let got = match algorithm {
            "sha384" => &download.facts.sha384,
            "sha512" => &download.facts.sha512,
            _ => &download.facts.sha256,
        };
        if got != wanted {
            return Err(DownloadError::Checksum {
                url: url_without_secrets(&parsed),
                wanted: format!("{algorithm}:{wanted}"),
                got: format!("{algorithm}:{got}"),
            });
        }
        Ok(download)
    }

    async fn once(
        &self,
        url: &str,
        server: Server<'_>,
        lease: &Lease,
    ) -> Result<Download, DownloadError> {
        let slot = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(asked.entry(url.to_owned()).or_default())
        };
        let mut slot = slot.lock().await;
        let known = self.answer(url).and_then(|answer| {
            let found = self.open(&answer.sha256).ok().flatten()?;
            Some((answer, found))
        });
        if let (Some(sha256), Some((answer, _))) = (&*slot, &known)
            && answer.sha256 == *sha256
            && let Some((answer, found)) = known
        {
            return Ok(Download { headers: answer.header_map(), ..found });
        }
        let download = self.ask(url, server, known, lease).await?;
        *slot = Some(download.facts.sha256.clone());
        Ok(download)
    }

    async fn ask(
        &self,
        url: &str,
        server: Server<'_>,
        known: Option<(Answer, Download)>,
        lease: &Lease,
    ) -> Result<Download, DownloadError> {
        let (parsed, _) = server;
        let mut conditions = HeaderMap::new();
        if let Some((answer, found)) = known {
            let headers = answer.header_map();
            if self.offline || self.is_fresh(&answer, &headers) {
                return Ok(Download { headers, ..found });
            }
            conditions = answer.conditions(&headers);
            if !conditions.is_empty() {
                let asked = self.fetch(url, server, conditions.clone(), lease).await;
                let Err(DownloadError::Fetch { source, .. }) = &asked else { return asked };
                let Some(told) = not_modified(source) else {
                    let url = url_without_secrets(parsed);
                    return Err(DownloadError::Unasked { url, source: Arc::clone(source) });
                };
                let headers = self.refresh(url, answer, told)?;
                return Ok(Download { headers, ..found });
            }
        }
        if self.offline {
            return Err(DownloadError::Offline { url: url_without_secrets(parsed) });
        }
        conditions.clear();
        match self.fetch(url, server, conditions.clone(), lease).await {
            // Another process asked whether what it has still holds, and we joined its transfer.
            Err(DownloadError::Fetch { source, .. }) if not_modified(&source).is_some() => {
                self.fetch(url, server, conditions, lease).await
            }
            asked => asked,
        }
    }

    fn is_fresh(&self, answer: &Answer, headers: &HeaderMap) -> bool {
        let says = headers.get_all(CACHE_CONTROL).iter().any(|value| {
            value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains("max-age"))
        });
        if !says && !headers.contains_key(EXPIRES) {
            return false;
        }
        let none = HeaderMap::new();
        let request = Request { method: &Method::GET, headers: &none };
        let policy = answer.policy(headers);
        policy.is_some_and(|policy| {
            matches!(decide(&policy, request, self.clock.now()), Decision::Fresh { .. })
        })
    }

    async fn fetch(
        &self,
        url: &str,
        server: Server<'_>,
        conditions: HeaderMap,
        lease: &Lease,
    ) -> Result<Download, DownloadError> {
        let (parsed, login) = server;
        let shown = url_without_secrets(parsed);
        let failed = |source| DownloadError::Fetch { url: shown.clone(), source };
        let mut source = HttpSource::new(Arc::clone(&self.transport), parsed.clone());
        if let Some(port) = parsed.port() {
            source.name = format!("{}:{port}", source.name);
        }
        source.headers = conditions;
        source.headers.extend(login.map_or_else(|| credentials(parsed), authorization));
        source.trusts_close = true;
        let requested = self.clock.now();
        let wanted = Wanted::unpromised(key(url)?);
        let reader = self.transfers.open(&wanted, vec![Arc::new(source)], lease).await;
        let reader = reader.map_err(failed)?;
        let headers = reader.head().headers.clone();
        let info = reader.landed().await.map_err(failed)?;
        let received = self.clock.now();
        let blob = self.root.layout().blob(&info.digest);
        let facts = self.keep(&blob, &info.digest, &shown, &headers)?;
        let answer = Answer {
            sha256: facts.sha256.clone(),
            status: StatusCode::OK.as_u16(),
            headers: texts(&headers),
            requested,
            received,
        };
        self.put_answer(url, &answer)?;
        let found = self.open(&facts.sha256)?;
        let found = found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Download { headers, was_here: false, ..found })
    }

    /// Keeps the bytes of a blob under a name of our own.
    fn keep(
        &self,
        blob: &Path,
        digest: &Digest,
        from: &str,
        headers: &HeaderMap,
    ) -> Result<Facts, DownloadError> {
        let header = |name: HeaderName| {
            headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let facts = Facts {
            from: from.to_owned(),
            modified: header(LAST_MODIFIED),
            disposition: header(CONTENT_DISPOSITION),
            ..hash(fs::File::open(blob)?)?
        };
        if digest.algorithm() == Algorithm::Sha256 && digest.hex() != facts.sha256 {
            return Err(io::Error::other(format!("{digest} is damaged")).into());
        }
        let directory = self.file_directory(&facts.sha256);
        fs::create_dir_all(&directory)?;
        let body = directory.join("body");
        match fs::hard_link(blob, &body) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_) => {
                let mut copy = tempfile::NamedTempFile::new_in(&directory)?;
                io::copy(&mut fs::File::open(blob)?, &mut copy)?;
                copy.persist(&body).map_err(|error| error.error)?;
            }
            Ok(()) => {}
        }
        let text = serde_json::to_vec(&facts).expect("texts always serialise");
        write_unsynced(&directory.join("facts"), &text).map_err(DownloadError::Store)?;
        for (algorithm, hex) in [("sha384", &facts.sha384), ("sha512", &facts.sha512)] {
            let path = self.directory().join("sums").join(format!("{algorithm}-{hex}"));
            write_unsynced(&path, facts.sha256.as_bytes()).map_err(DownloadError::Store)?;
        }
        Ok(facts)
    }

    /// Opens a file that is here, and notes that it is used.
    fn open(&self, sha256: &str) -> Result<Option<Download>, DownloadError> {
        let directory = self.file_directory(sha256);
        let Ok(text) = fs::read(directory.join("facts")) else { return Ok(None) };
        let Ok(facts) = serde_json::from_slice::<Facts>(&text) else { return Ok(None) };
        let Ok(file) = fs::File::open(directory.join("body")) else { return Ok(None) };
        if file.metadata()?.len() != facts.size {
            return Ok(None);
        }
        let used = fs::File::open(directory.join("facts"))?;
        let since = used.metadata()?.modified().ok();
        let since = since.and_then(|used| SystemTime::now().duration_since(used).ok());
        if since.is_none_or(|since| since > USED_GRAIN) {
            // What cannot be noted costs a later request.
            let _ = used.file().set_modified(SystemTime::now());
        }
        let headers = HeaderMap::new();
        Ok(Some(Download { file: file.into_file(), facts, headers, was_here: true }))
    }

    fn with_sum(&self, algorithm: &str, hex: &str) -> Option<String> {
        if algorithm == "sha256" {
            return Some(hex.to_owned());
        }
        let path = self.directory().join("sums").join(format!("{algorithm}-{hex}"));
        fs::read_to_string(path).ok().filter(|text| is_hex(text))
    }

    fn answer(&self, url: &str) -> Option<Answer> {
        let answer: Answer = serde_json::from_slice(&fs::read(self.url_path(url)).ok()?).ok()?;
        is_hex(&answer.sha256).then_some(answer)
    }

    fn put_answer(&self, url: &str, answer: &Answer) -> Result<(), DownloadError> {
        let text = serde_json::to_vec(answer).expect("texts always serialise");
        write_unsynced(&self.url_path(url), &text).map_err(DownloadError::Store)
    }

    /// Takes in what a server said of an answer that still holds.
    fn refresh(
        &self,
        url: &str,
        answer: Answer,
        told: &HeaderMap,
    ) -> Result<HeaderMap, DownloadError> {
        let mut headers = answer.header_map();
        let now = self.clock.now();
        let refreshed = answer.policy(&headers).and_then(|it| it.refreshed(told, now, now));
        headers = refreshed.map_or(headers, |policy| policy.headers);
        let answer = Answer { headers: texts(&headers), requested: now, received: now, ..answer };
        self.put_answer(url, &answer)?;
        Ok(headers)
    }

    fn directory(&self) -> PathBuf {
        self.root.layout().cache().join("http")
    }

    fn file_directory(&self, sha256: &str) -> PathBuf {
        self.directory().join("files").join(sha256)
    }

    fn url_path(&self, url: &str) -> PathBuf {
        self.directory().join("urls").join(blake3::hash(url.as_bytes()).to_hex().as_str())
    }
}

impl Answer {
    fn header_map(&self) -> HeaderMap {
        let header = |(name, value): &(String, String)| {
            Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?))
        };
        self.headers.iter().filter_map(header).collect()
    }

    fn policy(&self, headers: &HeaderMap) -> Option<Policy> {
        let none = HeaderMap::new();
        let request = Request { method: &Method::GET, headers: &none };
        let status = StatusCode::from_u16(self.status).ok()?;
        Policy::of(request, status, headers, self.requested, self.received).ok()
    }

    fn conditions(&self, headers: &HeaderMap) -> HeaderMap {
        use http::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH};
        let mut conditions = HeaderMap::new();
        for (validator, condition) in [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)] {
            if let Some(value) = headers.get(validator) {
                conditions.insert(condition, value.clone());
            }
        }
        conditions
    }
}

fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        let shown = !matches!(name.as_str(), "set-cookie" | "set-cookie2");
        shown.then_some(())?;
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    headers.iter().filter_map(text).collect()
}

/// Returns what an upstream said that told that nothing has changed.
fn not_modified(failure: &TransferError) -> Option<&HeaderMap> {
    match failure.reason::<HttpError>()? {
        HttpError::Status { status: StatusCode::NOT_MODIFIED, headers, .. } => Some(headers),
        _ => None,
    }
}

/// Returns the header for a user and password that a URL names.
fn credentials(url: &Url) -> HeaderMap {
    let Some(password) = url.password().filter(|_| !url.username().is_empty()) else {
        return HeaderMap::new();
    };
    authorization(&Secret::basic(url.username(), password))
}

/// Returns the header; none of a text that a header cannot hold.
fn authorization(login: &Secret) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(mut value) = HeaderValue::from_str(login.expose()) {
        value.set_sensitive(true);
        headers.insert(http::header::AUTHORIZATION, value);
    }
    headers
}

fn key(url: &str) -> Result<IngestKey, DownloadError> {
    let hash = blake3::hash(url.as_bytes()).to_hex();
    let key = format!("url-{}", &hash.as_str()[..48]).parse::<IngestKey>();
    key.map_err(|error| io::Error::other(error).into())
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Hashes a file in every way that somebody may ask for, in one pass.
fn hash(mut file: fs::File) -> io::Result<Facts> {
    let (mut sha256, mut sha384, mut sha512) = (Sha256::new(), Sha384::new(), Sha512::new());
    let (mut blake3, mut size) = (blake3::Hasher::new(), 0);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        size += read as u64;
        let bytes = &buffer[..read];
        sha256.update(bytes);
        sha384.update(bytes);
        sha512.update(bytes);
        blake3.update(bytes);
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(Facts {
        size,
        from: String::new(),
        sha256: hex(&sha256.finalize()),
        sha384: hex(&sha384.finalize()),
        sha512: hex(&sha512.finalize()),
        blake3: blake3.finalize().to_hex().to_string(),
        modified: None,
        disposition: None,
    })
}
