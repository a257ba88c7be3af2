//! The engine with an ecosystem that a test makes: promises that upstreams break, bytes that must
//! stay, upstreams that stand still.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    dead_code,
    reason = "it is shared with others"
)]
#[path = "../../tests/support/origin.rs"]
mod origin;

use std::collections::{HashMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boatyard_cache_proxy::engine::{Engine, EngineOptions};
use boatyard_cache_proxy::forward::{Proxy, ProxyOptions};
use boatyard_cache_proxy::policy::Rules;
use boatyard_cache_proxy::request::Request;
use boatyard_cache_proxy::statistics::Counters;
use boatyard_cache_proxy::{Class, Classified, Ecosystem, Promise, Upstream, Upstreams};
use boatyard_content::local::RootOptions;
use boatyard_content::{Root, Store as _};
use boatyard_front::server::{Server, ServerOptions};
use boatyard_oci::Digest;
use boatyard_upstream::transport::{ProxyUse, Transport};
use boatyard_upstream::{RetryPolicy, SystemClock, Timeouts, Trust, transfer};
use http::HeaderValue;

use origin::{Origin, Reply};

/// Knows what bytes must be, by their paths, and which must stay.
#[derive(Debug, Default)]
struct Archive {
    promised: Mutex<HashMap<String, Promise>>,
    needed: Mutex<HashSet<Digest>>,
}

impl Archive {
    fn promise(&self, path: &str, bytes: &[u8]) {
        let (digest, size) = (Digest::sha256(bytes), Some(bytes.len() as u64));
        let promise = Promise { digest, size, by: "an index".to_owned() };
        self.promised.lock().unwrap().insert(path.to_owned(), promise);
    }
}

impl Ecosystem for Archive {
    fn name(&self) -> &'static str {
        "test"
    }

    fn classify(&self, request: &Request) -> Option<Classified> {
        let promise = self.promised.lock().unwrap().get(request.target.url().path()).cloned();
        Some(Classified::As(promise.map_or(Class::Http, Class::promised)))
    }

    fn needed(&self) -> HashSet<Digest> {
        self.needed.lock().unwrap().clone()
    }
}

struct World {
    origin: Origin,
    mirror: Origin,
    archive: Arc<Archive>,
    root: Arc<Root>,
    engine: Engine,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl World {
    /// Starts a proxy whose upstream has two servers.
    async fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let (origin, mirror) = (Origin::start(), Origin::start());
        let archive = Arc::<Archive>::default();
        let bases = [origin.url(""), mirror.url("")];
        let upstream = Upstream::new("o", &bases).unwrap();
        let timeouts = Timeouts::default();
        let agent = HeaderValue::from_static("test");
        let transport = Transport::new(Trust::default(), timeouts, agent, ProxyUse::Never);
        let retry = RetryPolicy {
            attempts_max: 2,
            delay_first: Duration::from_millis(1),
            ..RetryPolicy::default()
        };
        let options = EngineOptions {
            upstreams: Upstreams::new(vec![upstream]).unwrap(),
            ecosystems: vec![Arc::clone(&archive) as Arc<dyn Ecosystem>],
            transport: Arc::new(transport),
            limits: transfer::Limits {
                idle: Duration::from_millis(300),
                retry: retry.clone(),
                ..transfer::Limits::default()
            },
            rules: Rules::default(),
            upload_max: 1 << 20,
            retry,
            bytes_max: None,
            grace: Duration::ZERO,
            absent_for: Duration::from_secs(20),
            rest_for: Duration::ZERO,
            clock: Arc::new(SystemClock),
            statistics: Arc::new(Counters::default()),
        };
        let engine = Engine::new(&root, options);
        let addresses = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        let server = Server::bind(ServerOptions { addresses, ..ServerOptions::default() }).unwrap();
        let address = server.local_addrs()[0];
        let proxy = Proxy::new(engine.clone(), ProxyOptions::default());
        let serve = move |stream, client, stop| proxy.clone().serve(stream, client, stop);
        tokio::spawn(server.serve_by(serve, std::future::pending()));
        World { origin, mirror, archive, root, engine, address, _directory: directory }
    }

    /// Asks for a path until the connection ends.
    async fn get(&self, path: &str) -> Vec<u8> {
        let url = self.origin.url(path);
        let address = self.address;
        let ask = move || {
            let mut connection = std::net::TcpStream::connect(address).unwrap();
            connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let request = format!("GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            connection.write_all(request.as_bytes()).unwrap();
            let mut answer = Vec::new();
            // One that is cut has said what it had to say.
            let _ = connection.read_to_end(&mut answer);
            answer
        };
        tokio::task::spawn_blocking(ask).await.unwrap()
    }

    async fn has(&self, bytes: &[u8]) -> bool {
        self.root.store().stat(&Digest::sha256(bytes)).await.unwrap().is_some()
    }
}

fn says(answer: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(answer).contains(text)
}

/// Returns bytes that differ at every place from those with another seed.
fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ seed).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_neither_kept_nor_sent_whole() {
    let world = World::new().await;
    let (right, wrong) = (bytes(1, 400_000), bytes(2, 400_000));
    world.archive.promise("/a", &right);
    for server in [&world.origin, &world.mirror] {
        server.put("/a", Reply::fresh(wrong.clone()));
    }
    let answer = world.get("/a").await;
    assert!(answer.len() < wrong.len(), "{} bytes", answer.len());
    assert!(!world.has(&wrong).await && !world.has(&right).await);
    let asked = (world.origin.asked().len(), world.mirror.asked().len());
    assert_eq!(asked, (1, 1), "each is asked once");

    // What nobody has a byte of yet is had from the next server.
    let (right, wrong) = (bytes(3, 10_000), bytes(4, 10_000));
    world.archive.promise("/b", &right);
    world.origin.put("/b", Reply::fresh(wrong.clone()));
    world.mirror.put("/b", Reply::fresh(right.clone()));
    assert!(world.get("/b").await.ends_with(&right));
    assert!(!world.has(&wrong).await);
    // And what is here is not asked for under another name.
    world.origin.asked();
    world.mirror.asked();
    while !world.has(&right).await {}
    world.archive.promise("/c", &right);
    let answer = world.get("/c").await;
    assert!(answer.ends_with(&right) && says(&answer, "x-cache: HIT"));
    assert_eq!((world.origin.count(), world.mirror.count()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_without_a_promise_is_held_against_one_that_comes_later() {
    let world = World::new().await;
    for path in ["/right", "/wrong"] {
        world.origin.put(path, Reply::fresh("kept"));
        while !says(&world.get(path).await, "x-cache: HIT") {}
    }
    world.origin.asked();
    world.archive.promise("/right", b"kept");
    assert!(says(&world.get("/right").await, "x-cache: HIT"));
    assert_eq!(world.origin.count(), 0);
    world.archive.promise("/wrong", b"promised");
    world.origin.put("/wrong", Reply::fresh("promised"));
    assert!(world.get("/wrong").await.ends_with(b"promised"));
    assert_eq!(world.origin.asked(), ["GET /wrong"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_needed_is_not_evicted() {
    let world = World::new().await;
    for path in ["/index", "/other"] {
        world.origin.put(path, Reply::fresh(path));
        while !says(&world.get(path).await, "x-cache: HIT") {}
    }
    world.archive.needed.lock().unwrap().insert(Digest::sha256(b"/index"));
    let evicted = world.engine.sweep(0).await.unwrap();
    assert_eq!(evicted.entries, 1);
    // Whoever fetched it may hold it for a moment more.
    while world.has(b"/other").await {
        assert_eq!(world.engine.sweep(0).await.unwrap().entries, 0);
    }
    assert!(world.has(b"/index").await);
    assert!(says(&world.get("/index").await, "x-cache: HIT"));
    assert!(says(&world.get("/other").await, "x-cache: MISS"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_still_is_gone_on_with_over_another_connection() {
    let world = World::new().await;
    let body = bytes(5, 1_000_000);
    let reply = Reply { waits_at: Some(600_000), ..Reply::fresh(body.clone()).tagged("x") };
    world.origin.put("/stalls", reply);
    assert!(world.get("/stalls").await.ends_with(&body));
    let asked = world.origin.asked();
    assert!(asked[0] == "GET /stalls" && asked[1].starts_with("GET /stalls bytes="), "{asked:?}");
    world.origin.release();
}
