//! A scripted registry: a listener on loopback whose answers a closure decides, and what tests
//! share.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boatyard_oci::manifest::ImageManifest;
use boatyard_oci::{Descriptor, Digest, Index, Manifest, MediaType, Platform, Raw};
use boatyard_upstream::{Client, ClientOptions, Clock, ProxyUse, Timeouts};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// An answer as it is to go.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    length: Option<usize>,
    endless: bool,
}

impl Response {
    pub(crate) fn new(status: u16) -> Response {
        Response { status, headers: Vec::new(), body: Vec::new(), length: None, endless: false }
    }

    #[expect(clippy::needless_pass_by_value, reason = "scripts read better without `&`")]
    pub(crate) fn header(mut self, name: &str, value: impl ToString) -> Response {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Response {
        self.body = body.as_ref().to_vec();
        self
    }

    /// Announces another length than the body has; the connection is closed after the body.
    pub(crate) fn announced(mut self, length: usize) -> Response {
        self.length = Some(length);
        self
    }

    /// Repeats the body for ever, without a length.
    pub(crate) fn endless(mut self) -> Response {
        self.endless = true;
        self
    }
}

type Handler = dyn Fn(&Request) -> Response + Send + Sync;

/// A server that runs until the test's process ends.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
    cuts: Arc<Mutex<Vec<(&'static str, usize)>>>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Server {
        Server::start_at("127.0.0.1:0", None, handler)
    }

    pub(crate) fn start_at(
        address: &str,
        tls: Option<Arc<rustls::ServerConfig>>,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (log, cuts) = (Arc::default(), Arc::default());
        let server = Server { address, log: Arc::clone(&log), cuts: Arc::clone(&cuts) };
        let handler: Arc<Handler> = Arc::new(handler);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (handler, log, cuts, tls) =
                    (Arc::clone(&handler), Arc::clone(&log), Arc::clone(&cuts), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(stream, &*handler, &log, &cuts),
                    Some(tls) => {
                        let connection = rustls::ServerConnection::new(tls).unwrap();
                        serve(rustls::StreamOwned::new(connection, stream), &*handler, &log, &cuts)
                    }
                });
            }
        });
        server
    }

    /// Makes the next request with this method break off after so many bytes of its body.
    pub(crate) fn cut(&self, method: &'static str, after: usize) {
        self.cuts.lock().unwrap().push((method, after));
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn log(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// Returns the requests' first lines, without the probe for plain HTTP.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log().iter().map(Request::line).filter(|line| line != "GET /v2/").collect()
    }

    pub(crate) fn count(&self, line: &str) -> usize {
        self.lines().iter().filter(|seen| *seen == line).count()
    }
}

fn serve<S: Read + Write>(
    stream: S,
    handler: &Handler,
    log: &Mutex<Vec<Request>>,
    cuts: &Mutex<Vec<(&'static str, usize)>>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
            None => break,
        }
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let cut = {
        let mut cuts = cuts.lock().unwrap();
        let at = cuts.iter().position(|(cut, _)| *cut == method);
        at.map(|at| cuts.remove(at).1)
    };
    let mut body = vec![0; cut.unwrap_or(length).min(length)];
    stream.read_exact(&mut body).ok()?;
    let request = Request { method, target, headers, body };
    log.lock().unwrap().push(request.clone());
    let response = handler(&request);
    if cut.is_some() {
        return None;
    }
    let stream = stream.get_mut();
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", response.status);
    for (name, value) in &response.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let has_length = response.headers.iter().any(|(name, _)| name == "Content-Length");
    if !response.endless && !has_length {
        head += &format!("Content-Length: {}\r\n", response.length.unwrap_or(response.body.len()));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if request.method != "HEAD" {
        stream.write_all(&response.body).ok()?;
        if response.endless {
            loop {
                stream.write_all(&response.body).ok()?;
            }
        }
    }
    stream.flush().ok()
}

/// A clock that never waits: sleeping moves it on.
#[derive(Debug)]
pub(crate) struct TestClock {
    now: Mutex<Timestamp>,
    slept: Mutex<Vec<Duration>>,
}

impl TestClock {
    pub(crate) fn new() -> Arc<TestClock> {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        Arc::new(TestClock { now: Mutex::new(now), slept: Mutex::default() })
    }

    pub(crate) fn advance(&self, seconds: i64) {
        *self.now.lock().unwrap() += SignedDuration::from_secs(seconds);
    }

    pub(crate) fn slept(&self) -> Vec<Duration> {
        self.slept.lock().unwrap().clone()
    }
}

#[async_trait::async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }

    async fn sleep(&self, duration: Duration) {
        self.slept.lock().unwrap().push(duration);
        *self.now.lock().unwrap() += SignedDuration::try_from(duration).unwrap();
        tokio::task::yield_now().await;
    }

    fn jitter(&self) -> f64 {
        0.5
    }
}

pub(crate) fn options() -> ClientOptions {
    ClientOptions {
        clock: TestClock::new(),
        proxy: ProxyUse::Never,
        timeouts: Timeouts { connect: Duration::from_secs(20), idle: Duration::from_secs(20) },
        ..ClientOptions::default()
    }
}

pub(crate) fn client(options: ClientOptions) -> Client {
    Client::new(options).unwrap()
}

/// An error with all its causes, as a person would be shown.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// An image of these layers, each some bytes.
pub(crate) struct Image {
    pub(crate) manifest: Raw<Manifest>,
    pub(crate) blobs: HashMap<String, Bytes>,
}

pub(crate) fn image(layers: &[&[u8]]) -> Image {
    let config = Bytes::from_static(br#"{"architecture":"amd64","os":"linux"}"#);
    let mut blobs = HashMap::new();
    let mut add = |media_type: MediaType, bytes: Bytes| {
        let descriptor = Descriptor::of(media_type, &bytes);
        blobs.insert(descriptor.digest.to_string(), bytes);
        descriptor
    };
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: Some(MediaType::OCI_MANIFEST),
        artifact_type: None,
        config: add(MediaType::OCI_CONFIG, config),
        layers: layers
            .iter()
            .map(|layer| add(MediaType::OCI_LAYER_GZIP, Bytes::copy_from_slice(layer)))
            .collect(),
        subject: None,
        annotations: Default::default(),
    };
    let manifest = Manifest::parse(manifest.to_bytes(), &MediaType::OCI_MANIFEST).unwrap();
    Image { manifest, blobs }
}

pub(crate) fn index(entries: &[(&Raw<Manifest>, &str)]) -> Raw<Manifest> {
    let entries = entries
        .iter()
        .map(|(manifest, platform)| {
            let (os, architecture) = platform.split_once('/').unwrap();
            let platform = Platform {
                os: os.to_owned(),
                architecture: architecture.to_owned(),
                variant: None,
                os_version: None,
                os_features: Vec::new(),
            };
            Descriptor {
                platform: Some(platform),
                ..Descriptor::of(MediaType::OCI_MANIFEST, manifest.bytes())
            }
        })
        .collect();
    Manifest::parse(Index::new(entries).to_bytes(), &MediaType::OCI_INDEX).unwrap()
}

/// A registry's content: manifests by reference, blobs by digest.
#[derive(Clone, Default)]
pub(crate) struct Content {
    manifests: HashMap<String, (MediaType, Bytes)>,
    blobs: HashMap<String, Bytes>,
}

impl Content {
    pub(crate) fn image(mut self, reference: &str, image: &Image) -> Content {
        self.blobs.extend(image.blobs.clone());
        self.manifest(reference, &MediaType::OCI_MANIFEST, &image.manifest)
    }

    pub(crate) fn manifest(
        mut self,
        reference: &str,
        media_type: &MediaType,
        manifest: &Raw<Manifest>,
    ) -> Content {
        let entry = (media_type.clone(), manifest.bytes().clone());
        self.manifests.insert(manifest.digest().to_string(), entry.clone());
        self.manifests.insert(reference.to_owned(), entry);
        self
    }

    /// Answers GET and HEAD as a plain registry does, with ranges.
    pub(crate) fn answer(&self, request: &Request) -> Response {
        let (_, reference) = request.path().rsplit_once('/').unwrap();
        if let Some((media_type, bytes)) =
            self.manifests.get(reference).filter(|_| request.path().contains("/manifests/"))
        {
            return Response::new(200)
                .header("Content-Type", media_type)
                .header("Docker-Content-Digest", Digest::sha256(bytes))
                .body(bytes);
        }
        if let Some(bytes) = self.blobs.get(reference) {
            return blob(request, bytes);
        }
        match request.path() {
            "/v2/" => Response::new(200),
            _ => not_found(),
        }
    }
}

pub(crate) fn blob(request: &Request, bytes: &[u8]) -> Response {
    let Some(range) = request.header("range") else {
        return Response::new(200).body(bytes);
    };
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    Response::new(206)
        .header("Content-Range", format!("bytes {first}-{last}/{}", bytes.len()))
        .body(&bytes[first..=last])
}

pub(crate) fn not_found() -> Response {
    Response::new(404).body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such thing"}]}"#)
}
