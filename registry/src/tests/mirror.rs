//! A mirror beside what is hosted: who is asked, how often, and what is answered when they fail.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use boatyard_content::Root;
use boatyard_content::local::RootOptions;
use boatyard_oci::{Digest, MediaType};
use boatyard_upstream::transfer::Limits as TransferLimits;
use boatyard_upstream::{
    Client, ClientOptions, Credential, CredentialSources, RetryPolicy, Secret, SystemClock,
    Transfers,
};
use http::{StatusCode, header};

use super::support::Served;
use crate::mirror::{Answers, FreshnessOptions};
use crate::{Limits, Mirror, MirrorOptions, Mirrors, OpenAccess, Registry};

/// What an upstream was asked, and how it answers from now on.
#[derive(Clone, Default)]
struct Watch {
    asked: Arc<Mutex<Vec<String>>>,
    broken: Arc<Mutex<Option<StatusCode>>>,
    /// Repositories whose path contains this are shown to nobody without credentials.
    private: Arc<Mutex<Option<&'static str>>>,
}

impl Watch {
    async fn pass(self, request: Request, next: Next) -> Response {
        let asked = format!("{} {}", request.method(), request.uri().path());
        self.asked.lock().unwrap().push(asked);
        let private = *self.private.lock().unwrap();
        let hidden = private.is_some_and(|part| request.uri().path().contains(part));
        if hidden && !request.headers().contains_key(header::AUTHORIZATION) {
            let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"x\"")];
            return (StatusCode::UNAUTHORIZED, challenge).into_response();
        }
        let broken = *self.broken.lock().unwrap();
        match broken {
            Some(status) => status.into_response(),
            None => next.run(request).await,
        }
    }

    fn router(&self, router: Router) -> Router {
        let watch = self.clone();
        router.layer(middleware::from_fn(move |request, next| watch.clone().pass(request, next)))
    }

    /// Returns what was asked since the last time, without the questions whether anybody is there.
    fn asked(&self) -> Vec<String> {
        let asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.into_iter().filter(|asked| !asked.ends_with(" /v2/")).collect()
    }

    fn answers_from_now_on(&self, status: Option<StatusCode>) {
        *self.broken.lock().unwrap() = status;
    }
}

/// An upstream and a mirror of it.
struct World {
    upstream: Served,
    watch: Watch,
    mirror: Served,
    /// The mirror's.
    registry: Arc<Registry>,
}

impl World {
    async fn new(freshness: FreshnessOptions) -> World {
        World::with(freshness, |options| options).await
    }

    async fn with(
        freshness: FreshnessOptions,
        change: impl FnOnce(MirrorOptions) -> MirrorOptions,
    ) -> World {
        let watch = Watch::default();
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let registry =
            Registry::new(root, Mirrors::default(), Arc::new(OpenAccess), Limits::default());
        let upstream = Served::routing(directory, watch.router(crate::router(registry))).await;

        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let host = format!("127.0.0.1:{}", upstream.address.port());
        let client = ClientOptions {
            retry: RetryPolicy { attempts_max: 1, ..RetryPolicy::default() },
            ..ClientOptions::default()
        };
        let options = change(MirrorOptions {
            name: "up".to_owned(),
            host: host.parse().unwrap(),
            also: Vec::new(),
            prefix: None,
            client: Client::new(client).unwrap(),
            anonymous: None,
            shares_private: false,
            freshness,
            transfers: Transfers::new(
                Arc::new(root.store()),
                TransferLimits::default(),
                Arc::new(SystemClock),
            ),
            bytes_max: None,
            clock: Arc::new(SystemClock),
        });
        let answers =
            Answers { names: vec!["up".to_owned(), host], default: true, ..Answers::default() };
        let mirror = Mirror::new(Arc::clone(&root), options);
        let mirrors = Mirrors::new(vec![mirror], vec![answers]).unwrap();
        let registry = Registry::new(root, mirrors, Arc::new(OpenAccess), Limits::default());
        let router = crate::router(Arc::clone(&registry));
        let mirror = Served::routing(directory, router).await;
        World { upstream, watch, mirror, registry }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.upstream.address.port())
    }
}

fn always() -> FreshnessOptions {
    FreshnessOptions {
        tag_ttl: Duration::ZERO,
        rest: Duration::ZERO,
        ..FreshnessOptions::default()
    }
}

#[tokio::test]
async fn every_way_of_naming_the_upstream_gives_the_same_bytes() {
    let world = World::new(FreshnessOptions::default()).await;
    let manifest = world.upstream.push_image("team/app", "1.0", "layer").await;
    let layer = Digest::sha256(b"layer");
    let ns = format!("?ns={}", world.host());
    let ways = [
        ("/v2/team/app".to_owned(), String::new()),
        ("/v2/up/team/app".to_owned(), String::new()),
        ("/up/v2/team/app".to_owned(), String::new()),
        ("/v2/team/app".to_owned(), ns),
        ("/v2/team/app".to_owned(), "?ns=up".to_owned()),
    ];
    for (path, query) in ways {
        let answer = world.mirror.get(&format!("{path}/manifests/1.0{query}")).await;
        assert_eq!((answer.status.as_u16(), &answer.body), (200, &manifest), "{path}{query}");
        assert_eq!(answer.header("content-type"), Some(MediaType::OCI_MANIFEST.as_str()));
        assert_eq!(answer.header("oci-namespace"), Some(world.host().as_str()));
        let answer = world.mirror.get(&format!("{path}/blobs/{layer}{query}")).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"layer"[..]), "{path}");
        let answer = world.mirror.get(&format!("{path}/tags/list{query}")).await;
        assert_eq!(answer.json()["tags"], serde_json::json!(["1.0"]), "{path}{query}");
    }
    for path in ["/nobody/v2/team/app/manifests/1.0", "/v2/team/app/manifests/1.0?ns=evil.example"]
    {
        world.mirror.get(path).await.refuses(404, "NAME_UNKNOWN");
    }
}

#[tokio::test]
async fn an_upstream_is_asked_once_for_what_does_not_change() {
    let world = World::new(FreshnessOptions::default()).await;
    world.upstream.push_image("app", "1.0", "layer").await;
    world.watch.asked();
    let layer = Digest::sha256(b"layer");
    for _ in 0..3 {
        assert_eq!(world.mirror.head("/v2/up/app/manifests/1.0").await.status, 200);
        assert_eq!(world.mirror.get("/v2/up/app/manifests/1.0").await.status, 200);
        let head = world.mirror.head(&format!("/v2/up/app/blobs/{layer}")).await;
        assert_eq!((head.status.as_u16(), head.header("content-length")), (200, Some("5")));
        let part = [("range", "bytes=1-2")];
        let path = format!("/v2/up/app/blobs/{layer}");
        let answer = world.mirror.send(http::Method::GET, &path, &part, "").await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (206, &b"ay"[..]));
    }
    let asked = world.watch.asked();
    let (tags, rest): (Vec<_>, Vec<_>) =
        asked.iter().partition(|asked| asked.ends_with("/manifests/1.0"));
    assert_eq!(tags, ["HEAD /v2/app/manifests/1.0"]);
    assert_eq!(rest.len(), 2, "the manifest by its digest, and the layer: {rest:?}");
    assert_eq!(rest[1], &format!("GET /v2/app/blobs/{layer}"));
}

#[tokio::test]
async fn a_tag_that_moved_is_seen_and_one_that_is_gone_too() {
    let world = World::new(always()).await;
    world.upstream.push_image("app", "1.0", "old").await;
    let old = world.mirror.get("/v2/up/app/manifests/1.0").await.body;
    let new = world.upstream.push_image("app", "1.0", "new").await;
    assert_ne!(old, new);
    assert_eq!(world.mirror.get("/v2/up/app/manifests/1.0").await.body, new);
    assert_eq!(world.upstream.delete("/v2/app/manifests/1.0").await.status, 202);
    world.mirror.get("/v2/up/app/manifests/1.0").await.refuses(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn what_is_kept_is_answered_while_the_upstream_is_not_there() {
    let world = World::new(always()).await;
    let manifest = world.upstream.push_image("app", "1.0", "layer").await;
    let layer = format!("/v2/up/app/blobs/{}", Digest::sha256(b"layer"));
    assert_eq!(world.mirror.get("/v2/up/app/manifests/1.0").await.status, 200);
    assert_eq!(world.mirror.get(&layer).await.status, 200);
    for status in [503, 429] {
        let status = StatusCode::from_u16(status).unwrap();
        world.watch.answers_from_now_on(Some(status));
        assert_eq!(world.mirror.get("/v2/up/app/manifests/1.0").await.body, manifest);
        assert_eq!(world.mirror.get(&layer).await.status, 200);
        assert_eq!(world.mirror.get("/v2/up/app/tags/list").await.status, 200);
        let other = world.mirror.get("/v2/up/other/manifests/1.0").await;
        let expected = if status.as_u16() == 429 { 429 } else { 502 };
        assert_eq!(other.status.as_u16(), expected, "{other:?}");
        let message = other.json()["errors"][0]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&world.host()), "the upstream is named: {message}");
    }
}

#[tokio::test]
async fn an_upstream_that_failed_is_left_alone_for_a_moment() {
    let rest = Duration::from_secs(3600);
    let world = World::new(FreshnessOptions { rest, ..always() }).await;
    world.upstream.push_image("app", "1.0", "layer").await;
    assert_eq!(world.mirror.get("/v2/up/app/manifests/1.0").await.status, 200);
    world.watch.answers_from_now_on(Some(StatusCode::SERVICE_UNAVAILABLE));
    world.watch.asked();
    for _ in 0..5 {
        assert_eq!(world.mirror.get("/v2/up/app/manifests/1.0").await.status, 200);
        assert_eq!(world.mirror.get("/v2/up/x/manifests/1.0").await.status, 502);
    }
    assert_eq!(world.watch.asked(), ["HEAD /v2/app/manifests/1.0"]);
}

#[tokio::test]
async fn what_is_absent_is_remembered_shortly() {
    let world = World::new(FreshnessOptions::default()).await;
    for _ in 0..4 {
        world.mirror.get("/v2/up/app/manifests/none").await.refuses(404, "MANIFEST_UNKNOWN");
    }
    let asked = world.watch.asked();
    assert!(asked.len() <= 2, "a HEAD, and a GET for the words: {asked:?}");
}

#[tokio::test]
async fn what_is_hosted_wins_over_a_default_and_a_mirror_takes_no_pushes() {
    let world = World::new(FreshnessOptions::default()).await;
    world.upstream.push_image("app", "1.0", "theirs").await;
    let ours = world.mirror.push_image("app", "1.0", "ours").await;
    assert_eq!(world.mirror.get("/v2/app/manifests/1.0").await.body, ours);
    let theirs = world.mirror.get("/v2/up/app/manifests/1.0").await.body;
    assert_ne!(theirs, ours);
    world.mirror.post("/v2/up/app/blobs/uploads/").await.refuses(405, "UNSUPPORTED");
    world.mirror.post("/v2/app/blobs/uploads/?ns=up").await.refuses(405, "UNSUPPORTED");
    world.mirror.delete("/v2/up/app/manifests/1.0").await.refuses(405, "UNSUPPORTED");
    // A blob that somebody pushed here is not the upstream's.
    let secret = world.mirror.push_blob("team/secret", b"secret").await;
    let answer = world.mirror.get(&format!("/v2/up/app/blobs/{secret}")).await;
    assert_eq!(answer.status, 404, "{answer:?}");
}

#[tokio::test]
async fn an_upload_into_a_new_repository_is_ours_to_answer_for() {
    let world = World::new(FreshnessOptions::default()).await;
    let session = world.mirror.begin("new/app").await;
    let answer = world.mirror.get(&session).await;
    assert_eq!(answer.status, 204, "{answer:?}");
}

#[tokio::test]
async fn offline_gives_what_is_kept_and_asks_nobody() {
    let world = World::new(FreshnessOptions { offline: true, ..always() }).await;
    world.upstream.push_image("app", "1.0", "layer").await;
    world.watch.asked();
    let answer = world.mirror.get("/v2/up/app/manifests/1.0").await;
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(String::from_utf8_lossy(&answer.body).contains("offline"), "{answer:?}");
    assert_eq!(world.watch.asked(), [""; 0]);
}

#[tokio::test]
async fn many_clients_cost_one_transfer() {
    let world = World::new(FreshnessOptions::default()).await;
    let content = "x".repeat(3 << 20);
    world.upstream.push_image("app", "1.0", &content).await;
    world.watch.asked();
    let path = format!("/v2/up/app/blobs/{}", Digest::sha256(content.as_bytes()));
    let pulls = (0..32).map(|_| async {
        let manifest = world.mirror.get("/v2/up/app/manifests/1.0").await;
        let blob = world.mirror.get(&path).await;
        (manifest.status.as_u16(), blob.status.as_u16(), blob.body.len())
    });
    for pulled in futures_util::future::join_all(pulls).await {
        assert_eq!(pulled, (200, 200, content.len()));
    }
    let asked = world.watch.asked();
    assert_eq!(asked.len(), 3, "one HEAD, one manifest, one blob: {asked:?}");
}

fn with_credentials(options: MirrorOptions) -> MirrorOptions {
    let password = Secret::new("p");
    let credential = Credential::Password { user: "u".to_owned(), password };
    let given = vec![(options.host.clone(), credential)];
    let credentials = CredentialSources { given, ..CredentialSources::default() };
    let client = ClientOptions { credentials, ..ClientOptions::default() };
    let anonymous = Some(options.client.clone());
    MirrorOptions { client: Client::new(client).unwrap(), anonymous, ..options }
}

#[tokio::test]
async fn what_only_our_credentials_open_is_not_everybodys() {
    let world = World::with(always(), with_credentials).await;
    world.upstream.push_image("open/app", "1.0", "open").await;
    world.upstream.push_image("secret/app", "1.0", "secret").await;
    *world.watch.private.lock().unwrap() = Some("secret/");
    assert_eq!(world.mirror.get("/v2/up/open/app/manifests/1.0").await.status, 200);
    let blob = format!("/v2/up/secret/app/blobs/{}", Digest::sha256(b"secret"));
    for path in ["/v2/up/secret/app/manifests/1.0", "/v2/up/secret/app/tags/list", &blob] {
        assert_eq!(world.mirror.get(path).await.status, 404, "{path}");
        assert_eq!(world.mirror.head(path).await.status, 404, "{path}");
    }
    // A reference that is not there hides none of the others.
    world.upstream.push_image("other/app", "1.0", "other").await;
    assert_eq!(world.mirror.get("/v2/up/other/app/manifests/none").await.status, 404);
    assert_eq!(world.mirror.get("/v2/up/other/app/tags/list").await.status, 200);
    assert_eq!(world.mirror.get("/v2/up/other/app/manifests/1.0").await.status, 200);
    let blob = format!("/v2/up/other/app/blobs/{}", Digest::sha256(b"other"));
    assert_eq!(world.mirror.get(&blob).await.status, 200);
    // What was found out holds while the upstream is away.
    world.watch.answers_from_now_on(Some(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(world.mirror.get("/v2/up/open/app/manifests/1.0").await.status, 200);

    let shares = |options| MirrorOptions { shares_private: true, ..with_credentials(options) };
    let world = World::with(always(), shares).await;
    world.upstream.push_image("secret/app", "1.0", "secret").await;
    *world.watch.private.lock().unwrap() = Some("secret/");
    assert_eq!(world.mirror.get("/v2/up/secret/app/manifests/1.0").await.status, 200);
}

#[tokio::test]
async fn a_blob_that_is_not_there_is_an_unknown_blob() {
    let world = World::with(always(), with_credentials).await;
    world.upstream.push_image("app", "1.0", "layer").await;
    assert_eq!(world.mirror.get("/v2/up/app/manifests/1.0").await.status, 200);
    let absent = format!("/v2/up/app/blobs/{}", Digest::sha256(b"never pushed"));
    world.mirror.get(&absent).await.refuses(404, "BLOB_UNKNOWN");
    assert_eq!(world.mirror.head(&absent).await.status, 404);
    let private = absent.replace("/app/", "/secret/app/");
    world.mirror.get(&private).await.refuses(404, "BLOB_UNKNOWN");
    world.mirror.get("/v2/up/nothing/tags/list").await.refuses(404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn a_new_repository_can_be_pushed_to_while_the_default_upstream_fails() {
    let world = World::new(always()).await;
    world.watch.answers_from_now_on(Some(StatusCode::SERVICE_UNAVAILABLE));
    let layer = Digest::sha256(b"layer");
    let path = format!("/v2/new/app/blobs/{layer}");
    // As docker does: it looks for each blob before it sends it.
    assert_eq!(world.mirror.head(&path).await.status, 404);
    world.mirror.push_image("new/app", "1.0", "layer").await;
    assert_eq!(world.mirror.head(&path).await.status, 200);
    // Who names the upstream, or wants bytes, is told what the matter is.
    assert_eq!(world.mirror.head(&format!("/v2/up/app/blobs/{layer}")).await.status, 502);
    assert_eq!(world.mirror.get(&format!("/v2/other/app/blobs/{layer}")).await.status, 502);
}

#[tokio::test]
async fn a_blob_that_is_warm_is_answered_from_what_is_mapped() {
    let world = World::new(FreshnessOptions::default()).await;
    let content = "x".repeat(100_000);
    world.upstream.push_image("app", "1.0", &content).await;
    let digest = Digest::sha256(content.as_bytes());
    let path = format!("/v2/up/app/blobs/{digest}");
    assert_eq!(world.mirror.get("/v2/up/app/manifests/1.0").await.status, 200);
    // The transfer, then its file, which stays mapped.
    while world.registry.blobs.get(&digest).is_none() {
        assert_eq!(world.mirror.get(&path).await.body, content);
    }
    let part = [("range", "bytes=99990-")];
    let answer = world.mirror.send(http::Method::GET, &path, &part, "").await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (206, 10));
    // Another repository of the mirror does not have it for that.
    let other = world.mirror.get(&format!("/v2/up/other/blobs/{digest}")).await;
    other.refuses(404, "BLOB_UNKNOWN");
}
