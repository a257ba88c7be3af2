//! An upstream in memory that is changed step by step, and the part of the engine that fetches.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use boatyard_content::local::RootOptions;
use boatyard_content::local::disk::{Disk, RealDisk};
use boatyard_content::{Blob, Expected, IngestKey, Root};
use boatyard_oci::Digest;
use boatyard_upstream::freshness::Policy;
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use jiff::Timestamp;

use super::super::Apt;
use crate::class::Class;
use crate::ecosystem::{
    Ask, Classified, Ecosystem as _, Fetcher, Obtain, ObtainError, Obtained, Resolution,
};
use crate::entry::Entry;
use crate::generation::Options;
use crate::hosted::Admitted;
use crate::request::Request;
use crate::target::Target;

/// A disk that loses nothing, for nobody cuts its power: thousands of generations are written.
#[derive(Debug)]
struct Hasty;

impl Disk for Hasty {
    fn create(&self, path: &Path) -> std::io::Result<fs_err::File> {
        RealDisk.create(path)
    }
    fn write(&self, file: &mut fs_err::File, bytes: &[u8]) -> std::io::Result<()> {
        RealDisk.write(file, bytes)
    }
    fn cut(&self, file: &fs_err::File, len: u64) -> std::io::Result<()> {
        RealDisk.cut(file, len)
    }
    fn sync(&self, _: &fs_err::File) -> std::io::Result<()> {
        Ok(())
    }
    fn sync_directory(&self, _: &Path) -> std::io::Result<()> {
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn make_directory(&self, path: &Path) -> std::io::Result<bool> {
        RealDisk.make_directory(path)
    }
    fn remove_file(&self, path: &Path) -> std::io::Result<bool> {
        RealDisk.remove_file(path)
    }
    fn remove_directory(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.remove_directory(path)
    }
}

/// One change of an upstream: files that appear, or go.
pub type Step = Vec<(String, Option<Vec<u8>>)>;

/// A proxy between clients and an upstream in memory.
#[derive(Debug)]
pub struct World {
    root: Arc<Root>,
    apt: Mutex<Arc<Apt>>,
    options: Options,
    state: Mutex<State>,
    _directory: tempfile::TempDir,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    is_down: bool,
    entries: BTreeMap<String, Arc<Entry>>,
    asked: Vec<String>,
    now: i64,
    /// Steps that are made before the upstream answers so many further requests.
    script: VecDeque<(usize, Step)>,
    requests: usize,
}

/// What a client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    pub headers: HeaderMap,
    pub is_stale: bool,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl World {
    pub fn new() -> World {
        World::with(Options::default())
    }

    pub fn with(options: Options) -> World {
        let directory = tempfile::tempdir().unwrap();
        let disk = RootOptions { disk: Arc::new(Hasty), ..RootOptions::default() };
        let root = Root::open(&directory.path().join("root"), disk).unwrap();
        let apt = Mutex::new(Arc::new(Apt::new(Arc::clone(&root), options.clone())));
        let state = Mutex::new(State { now: super::coherence::DAY, ..State::default() });
        World { root, apt, options, state, _directory: directory }
    }

    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Changes the upstream.
    pub fn make(&self, step: &Step) {
        apply(&mut self.state.lock().unwrap().files, step);
    }

    /// Makes each step before the upstream answers its so-manyth request from now on.
    pub fn script(&self, script: impl IntoIterator<Item = (usize, Step)>) {
        let mut state = self.state.lock().unwrap();
        (state.requests, state.script) = (0, script.into_iter().collect());
    }

    /// Makes the steps that are left.
    pub fn finish(&self) {
        let state = &mut *self.state.lock().unwrap();
        for (_, step) in state.script.drain(..) {
            apply(&mut state.files, &step);
        }
    }

    pub fn set_down(&self, is_down: bool) {
        self.state.lock().unwrap().is_down = is_down;
    }

    pub fn pass(&self, seconds: i64) {
        self.state.lock().unwrap().now += seconds;
    }

    /// Forgets what the process knew, and what the engine kept: as a server that starts again after
    /// all entries were evicted.
    pub fn restart(&self) {
        self.state.lock().unwrap().entries.clear();
        let apt = Apt::new(Arc::clone(&self.root), self.options.clone());
        *self.apt.lock().unwrap() = Arc::new(apt);
    }

    /// Returns what was asked of the upstream since the last time.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }

    pub async fn explain(&self, path: &str) -> String {
        let apt = Arc::clone(&self.apt.lock().unwrap());
        apt.describe(&target(path), self.now()).await.join("\n")
    }

    /// Gets a path over a connection that is known by its number.
    pub async fn get(&self, connection: u16, path: &str) -> Answer {
        self.get_as("Debian APT-HTTP/1.3 (2.6.1)", connection, path).await
    }

    pub async fn get_as(&self, agent: &'static str, connection: u16, path: &str) -> Answer {
        let apt = Arc::clone(&self.apt.lock().unwrap());
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        let client = SocketAddr::from(([127, 0, 0, 1], connection));
        let (method, target) = (Method::GET, target(path));
        let admitted = Admitted::default();
        let request =
            Request { method, target, headers, upstream: None, base: None, client, admitted };
        let resolution = match apt.classify(&request) {
            None => Resolution::Class(Class::Http),
            Some(Classified::As(class)) => Resolution::Class(class),
            Some(Classified::Resolve) => apt.resolve(&request, self).await,
        };
        match resolution {
            Resolution::Instead(..) | Resolution::Moved(_) | Resolution::Reply(_) => {
                unreachable!("apt says no such thing")
            }
            Resolution::Refused { status, message } => Answer {
                status: status.as_u16(),
                body: message.into_bytes(),
                headers: HeaderMap::new(),
                is_stale: false,
            },
            Resolution::Blob(resolved) => {
                let body = self.read(&resolved.blob);
                let is_stale = resolved.stale.is_some();
                Answer { status: 200, body, headers: resolved.headers, is_stale }
            }
            Resolution::Class(class) => {
                let ask = if class.promise().is_some() { Ask::IfAbsent } else { Ask::Always };
                match self.obtain(&Obtain { request, class, ask }).await {
                    Ok(obtained) => {
                        apt.kept(&obtained.entry, self).await;
                        let body = self.read(&obtained.entry.blob);
                        let headers = HeaderMap::new();
                        Answer { status: 200, body, headers, is_stale: obtained.stale }
                    }
                    Err(error) => {
                        let status = match &error {
                            ObtainError::Answered { status, .. } => status.as_u16(),
                            _ => 502,
                        };
                        let (body, headers) = (error.to_string().into_bytes(), HeaderMap::new());
                        Answer { status, body, headers, is_stale: false }
                    }
                }
            }
        }
    }

    fn read(&self, digest: &Digest) -> Vec<u8> {
        let blob = self.root.store().open_blocking(digest).unwrap().unwrap();
        Blob::File(blob).into_bytes(1 << 26).unwrap().to_vec()
    }

    fn write(&self, bytes: &[u8], expected: &Expected) -> Result<Digest, String> {
        let digest = Digest::sha256(bytes);
        let there = self.root.store().stat_blocking(&digest).unwrap();
        if there.is_some() && expected.digest.as_ref().is_none_or(|expected| *expected == digest) {
            return Ok(digest);
        }
        let lease = self.root.lease().unwrap();
        let key = IngestKey::random();
        let mut ingest = self.root.store().ingest_blocking(&key, &lease).unwrap();
        ingest.write_all(bytes).unwrap();
        let landed = ingest.commit_blocking(expected).map_err(|error| error.to_string())?;
        Ok(landed.info().digest.clone())
    }
}

pub fn target(path: &str) -> Target {
    format!("http://deb.example{path}").parse().unwrap()
}

fn apply(files: &mut BTreeMap<String, Vec<u8>>, step: &Step) {
    for (path, bytes) in step {
        match bytes {
            Some(bytes) => files.insert(path.clone(), bytes.clone()),
            None => files.remove(path),
        };
    }
}

#[async_trait]
impl Fetcher for World {
    async fn obtain(&self, wanted: &Obtain) -> Result<Obtained, ObtainError> {
        let target = wanted.request.target.clone();
        let promise = wanted.class.promise().cloned();
        let (kept, answer) = {
            let state = &mut *self.state.lock().unwrap();
            let kept = state.entries.get(target.as_str()).cloned();
            let kept = kept.filter(|kept| promise.as_ref().is_none_or(|p| p.digest == kept.blob));
            match (&kept, wanted.ask) {
                (Some(entry), Ask::Never | Ask::IfAbsent) => {
                    return Ok(Obtained { entry: Arc::clone(entry), stale: false });
                }
                _ if state.is_down => (kept, None),
                _ => {
                    state.requests += 1;
                    while state.script.front().is_some_and(|(at, _)| *at < state.requests) {
                        let step = state.script.pop_front().unwrap().1;
                        apply(&mut state.files, &step);
                    }
                    state.asked.push(target.path().to_owned());
                    (kept, Some(state.files.get(target.path()).cloned()))
                }
            }
        };
        let unavailable = |reason: &str| ObtainError::Unavailable {
            target: target.clone(),
            reason: reason.to_owned(),
        };
        match (answer, kept) {
            (None, Some(entry)) => Ok(Obtained { entry, stale: true }),
            (None, None) => Err(unavailable("connection refused")),
            (Some(None), _) => Err(ObtainError::Answered { target, status: StatusCode::NOT_FOUND }),
            (Some(Some(bytes)), _) => {
                let expected = promise.map(|promise| promise.expected()).unwrap_or_default();
                let blob = self.write(&bytes, &expected).map_err(|why| unavailable(&why))?;
                let now = self.now();
                let policy = Policy {
                    status: StatusCode::OK,
                    headers: HeaderMap::new(),
                    requested: now,
                    received: now,
                    varied: Vec::new(),
                };
                let entry = Arc::new(Entry {
                    target: target.clone(),
                    from: target.to_string(),
                    blob,
                    size: bytes.len() as u64,
                    verified: None,
                    policy,
                });
                let mut state = self.state.lock().unwrap();
                state.entries.insert(target.as_str().to_owned(), Arc::clone(&entry));
                Ok(Obtained { entry, stale: false })
            }
        }
    }

    fn root(&self) -> &Arc<Root> {
        &self.root
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.state.lock().unwrap().now).unwrap()
    }
}
