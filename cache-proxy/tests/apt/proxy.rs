//! A small proxy around apt's ecosystem: connections and fetching as plain as can be, so that what
//! apt sees is what the ecosystem says.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use boatyard_cache_proxy::ecosystem::apt::Apt;
use boatyard_cache_proxy::generation::Options;
use boatyard_cache_proxy::{
    Ask, Class, Classified, Ecosystem as _, Entry, Fetcher, Obtain, ObtainError, Obtained, Request,
    Resolution, Target,
};
use boatyard_content::local::RootOptions;
use boatyard_content::{Blob, Expected, IngestKey, Root};
use boatyard_oci::Digest;
use boatyard_upstream::freshness::Policy;
use http::header::{IF_MODIFIED_SINCE, IF_RANGE, LAST_MODIFIED, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jiff::Timestamp;

/// A running proxy; it ends with the test's process.
pub struct Proxy {
    address: SocketAddr,
}

#[derive(Debug)]
struct Engine {
    root: Arc<Root>,
    apt: Apt,
    entries: Mutex<BTreeMap<String, Arc<Entry>>>,
}

struct Response {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Proxy {
    /// Starts a proxy on a root that may have been another's before.
    pub fn start(root: &Path) -> Proxy {
        let root = Root::open(root, RootOptions::default()).unwrap();
        let apt = Apt::new(Arc::clone(&root), Options::default());
        let engine = Arc::new(Engine { root, apt, entries: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            for connection in listener.incoming().map_while(Result::ok) {
                let (engine, handle) = (Arc::clone(&engine), runtime.handle().clone());
                // A client that hangs up ends its connection; nothing else is to be done.
                std::thread::spawn(move || drop(engine.serve(&connection, &handle)));
            }
        });
        Proxy { address }
    }

    /// Returns its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Engine {
    fn serve(
        &self,
        connection: &TcpStream,
        runtime: &tokio::runtime::Handle,
    ) -> std::io::Result<()> {
        let client = connection.peer_addr()?;
        let mut reader = BufReader::new(connection.try_clone()?);
        let mut writer = connection.try_clone()?;
        loop {
            let Some((line, headers)) = read_head(&mut reader)? else { return Ok(()) };
            let url = line.split(' ').nth(1).unwrap_or_default().replace("/./", "/");
            let response = match url.parse::<Target>() {
                Ok(target) => {
                    let (method, headers) = (Method::GET, headers.clone());
                    let request =
                        Request { method, target, headers, upstream: None, base: None, client };
                    runtime.block_on(self.answer(request))
                }
                Err(error) => refusal(400, error.to_string()),
            };
            let Some(response) = response else { return Ok(()) };
            send(&mut writer, conditional(response, &headers))?;
        }
    }

    /// Answers a request; `None` where the connection has to be cut.
    async fn answer(&self, request: Request) -> Option<Response> {
        let resolution = match self.apt.classify(&request) {
            None => Resolution::Class(Class::Http),
            Some(Classified::As(class)) => Resolution::Class(class),
            Some(Classified::Resolve) => self.apt.resolve(&request, self).await,
        };
        match resolution {
            Resolution::Refused { status, message } => refusal(status.as_u16(), message),
            Resolution::Blob(resolved) => {
                let body = self.read(&resolved.blob);
                Some(Response { status: 200, headers: resolved.headers, body })
            }
            Resolution::Class(class) => {
                let ask = if class.promise().is_some() { Ask::IfAbsent } else { Ask::Always };
                match self.obtain(&Obtain { request, class, ask }).await {
                    Ok(Obtained { entry, .. }) => {
                        self.apt.kept(&entry, self).await;
                        let headers = entry.policy.headers.clone();
                        Some(Response { status: 200, headers, body: self.read(&entry.blob) })
                    }
                    Err(ObtainError::Answered { status, .. }) => {
                        refusal(status.as_u16(), String::new())
                    }
                    Err(_) => None,
                }
            }
        }
    }

    fn read(&self, digest: &Digest) -> Vec<u8> {
        let blob = self.root.store().open_blocking(digest).unwrap().unwrap();
        Blob::File(blob).into_bytes(1 << 26).unwrap().to_vec()
    }

    fn keep(&self, target: &Target, got: Response, expected: &Expected) -> Result<Entry, String> {
        let lease = self.root.lease().unwrap();
        let mut ingest = self.root.store().ingest_blocking(&IngestKey::random(), &lease).unwrap();
        ingest.write_all(&got.body).unwrap();
        let landed = ingest.commit_blocking(expected).map_err(|error| error.to_string())?;
        let now = Timestamp::now();
        Ok(Entry {
            target: target.clone(),
            from: target.to_string(),
            blob: landed.info().digest.clone(),
            size: landed.info().size,
            verified: None,
            policy: Policy {
                status: StatusCode::OK,
                headers: got.headers,
                requested: now,
                received: now,
                varied: Vec::new(),
            },
        })
    }
}

#[async_trait]
impl Fetcher for Engine {
    async fn obtain(&self, wanted: &Obtain) -> Result<Obtained, ObtainError> {
        let target = &wanted.request.target;
        let promise = wanted.class.promise();
        let kept = self.entries.lock().unwrap().get(target.as_str()).cloned();
        let kept = kept.filter(|kept| promise.is_none_or(|promise| promise.digest == kept.blob));
        if let (Some(entry), Ask::IfAbsent | Ask::Never) = (&kept, wanted.ask) {
            return Ok(Obtained { entry: Arc::clone(entry), stale: false });
        }
        let unavailable =
            |reason: String| ObtainError::Unavailable { target: target.clone(), reason };
        let modified = kept.as_ref().and_then(|kept| kept.policy.headers.get(LAST_MODIFIED));
        match (fetch(target, modified), kept) {
            (Ok(Response { status: 304, .. }), Some(entry)) => Ok(Obtained { entry, stale: false }),
            (Ok(got), _) if got.status == 200 => {
                let expected = promise.map(|promise| promise.expected()).unwrap_or_default();
                let entry = Arc::new(self.keep(target, got, &expected).map_err(unavailable)?);
                let mut entries = self.entries.lock().unwrap();
                entries.insert(target.as_str().to_owned(), Arc::clone(&entry));
                Ok(Obtained { entry, stale: false })
            }
            (Ok(got), _) => {
                let status = StatusCode::from_u16(got.status).unwrap();
                Err(ObtainError::Answered { target: target.clone(), status })
            }
            (Err(_), Some(entry)) => Ok(Obtained { entry, stale: true }),
            (Err(error), None) => Err(unavailable(error.to_string())),
        }
    }

    fn root(&self) -> &Arc<Root> {
        &self.root
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

fn refusal(status: u16, message: String) -> Option<Response> {
    Some(Response { status, headers: HeaderMap::new(), body: message.into_bytes() })
}

/// Asks the origin, over a connection of its own.
fn fetch(target: &Target, modified: Option<&HeaderValue>) -> std::io::Result<Response> {
    let mut connection = TcpStream::connect((target.host(), target.port()))?;
    write!(connection, "GET {} HTTP/1.1\r\nHost: {}\r\n", target.path(), target.authority())?;
    if let Some(modified) = modified.and_then(|modified| modified.to_str().ok()) {
        write!(connection, "If-Modified-Since: {modified}\r\n")?;
    }
    write!(connection, "\r\n")?;
    let mut reader = BufReader::new(connection);
    let closed = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let (line, headers) = read_head(&mut reader)?.ok_or_else(closed)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(closed)?;
    let len = headers.get("content-length").and_then(|len| len.to_str().ok()?.parse().ok());
    let mut body = vec![0; len.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok(Response { status, headers, body })
}

fn read_head(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<(String, HeaderMap)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut headers = HeaderMap::new();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
    Ok(Some((line, headers)))
}

/// Makes of a whole answer the one that a request's conditions ask for.
fn conditional(mut response: Response, asked: &HeaderMap) -> Response {
    let modified = response.headers.get(LAST_MODIFIED).cloned();
    if response.status != 200 || modified.is_none() {
        return response;
    }
    if asked.get(IF_MODIFIED_SINCE) == modified.as_ref() {
        (response.status, response.body) = (304, Vec::new());
        return response;
    }
    let range = asked.get(RANGE).and_then(|range| range.to_str().ok());
    let from =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let Some(from) = from.filter(|from: &usize| *from < response.body.len()) else {
        return response;
    };
    if asked.get(IF_RANGE).is_none_or(|tag| Some(tag) == modified.as_ref()) {
        let len = response.body.len();
        let range = format!("bytes {from}-{}/{len}", len - 1);
        response.headers.insert("content-range", range.parse().unwrap());
        response.status = 206;
        response.body.drain(..from);
    }
    response
}

fn send(writer: &mut TcpStream, response: Response) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\n", response.status);
    for name in ["last-modified", "content-range"] {
        if let Some(value) = response.headers.get(name) {
            head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
        }
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", response.body.len()));
    writer.write_all(head.as_bytes())?;
    writer.write_all(&response.body)
}
