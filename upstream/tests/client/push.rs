//! Whole pushes: looking, mounting, sending, resuming.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use boatyard_content::local::{Root, RootOptions};
use boatyard_content::memory::MemoryStore;
use boatyard_content::{Expected, IngestKey, Lease, Store};
use boatyard_oci::{Digest, ImageName, Manifest, MediaType, Raw, RepositoryName};
use boatyard_upstream::distribution::PushError;
use boatyard_upstream::{NoProgress, Platforms, Pushed, pull, push};

use crate::support::{
    Content, Image, Request, Response, Server, chain, client, image, index, options,
};

/// A registry that takes uploads.
#[derive(Default)]
struct Shelf {
    blobs: HashMap<String, Vec<u8>>,
    manifests: HashMap<String, Vec<u8>>,
    sessions: HashMap<String, Vec<u8>>,
    mountable: Vec<String>,
    opened: usize,
}

impl Shelf {
    fn answer(&mut self, request: &Request) -> Response {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let query: HashMap<String, String> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let last = path.rsplit('/').next().unwrap().to_owned();
        match request.method.as_str() {
            "HEAD" => match self.blobs.get(&last) {
                Some(blob) => Response::new(200).header("Content-Length", blob.len()),
                None => Response::new(404),
            },
            "POST" => {
                if let Some(digest) = query.get("mount").filter(|d| self.mountable.contains(d)) {
                    return Response::new(201).header("Docker-Content-Digest", digest);
                }
                self.opened += 1;
                let id = format!("session{}", self.opened);
                self.sessions.insert(id.clone(), Vec::new());
                // Relative, with a state that must come back.
                Response::new(202).header("Location", format!("/v2/up/{id}?state=a%2Fb"))
            }
            "PATCH" | "PUT" if path.starts_with("/v2/up/") => self.upload(request, &last, &query),
            "GET" if path.starts_with("/v2/up/") => match self.sessions.get(&last) {
                Some(session) => progress(204, request, session.len()),
                None => Response::new(404),
            },
            "DELETE" => {
                self.sessions.remove(&last);
                Response::new(204)
            }
            "PUT" => {
                self.manifests.insert(last, request.body.clone());
                Response::new(201).header("Docker-Content-Digest", Digest::sha256(&request.body))
            }
            _ => Response::new(200),
        }
    }

    fn upload(&mut self, request: &Request, id: &str, query: &HashMap<String, String>) -> Response {
        assert_eq!(query.get("state").map(String::as_str), Some("a/b"));
        assert!(request.header("content-length").is_some());
        assert_eq!(request.header("transfer-encoding"), None);
        let Some(session) = self.sessions.get_mut(id) else {
            return Response::new(404).body("{}");
        };
        if let Some(range) = request.header("content-range") {
            let start: usize = range.split_once('-').unwrap().0.parse().unwrap();
            if start != session.len() {
                return Response::new(416);
            }
        } else if request.method == "PATCH" && !session.is_empty() {
            return Response::new(416);
        }
        session.extend_from_slice(&request.body);
        if request.method == "PATCH" {
            return progress(202, request, session.len());
        }
        let digest = Digest::sha256(session);
        if query["digest"] != digest.to_string() {
            return Response::new(400)
                .body(r#"{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}"#);
        }
        let bytes = self.sessions.remove(id).unwrap();
        self.blobs.insert(digest.to_string(), bytes);
        Response::new(201).header("Docker-Content-Digest", digest)
    }
}

fn progress(status: u16, request: &Request, size: usize) -> Response {
    // Absolute this time: both forms must do.
    let location = format!("http://{}{}", request.header("host").unwrap(), request.target);
    Response::new(status)
        .header("Location", location)
        .header("Range", format!("0-{}", size.saturating_sub(1)))
}

fn registry(shelf: Shelf) -> (Server, Arc<Mutex<Shelf>>) {
    let shelf = Arc::new(Mutex::new(shelf));
    let answering = Arc::clone(&shelf);
    (Server::start(move |request| answering.lock().unwrap().answer(request)), shelf)
}

async fn stored(images: &[&Image]) -> MemoryStore {
    let store = MemoryStore::new();
    for bytes in images.iter().flat_map(|image| image.blobs.values()) {
        let mut ingest = store.ingest(&IngestKey::random(), &Lease::unheld()).await.unwrap();
        ingest.append(bytes.clone()).await.unwrap();
        ingest.commit(Expected::any()).await.unwrap();
    }
    store
}

async fn push_to(
    server: &Server,
    store: &MemoryStore,
    manifests: &[(Raw<Manifest>, MediaType)],
    mount_from: &[RepositoryName],
) -> Result<Pushed, PushError> {
    let name: ImageName = format!("{}/team/app:1", server.host()).parse().unwrap();
    push(&client(options()), &name, manifests, store, mount_from, &NoProgress).await
}

fn one(image: &Image) -> Vec<(Raw<Manifest>, MediaType)> {
    vec![(image.manifest.clone(), MediaType::OCI_MANIFEST)]
}

fn layer(image: &Image) -> String {
    image.manifest.value().blobs()[1].digest.to_string()
}

fn large() -> Vec<u8> {
    (0..3_000_000u32).map(|n| (n * 31) as u8).collect()
}

#[tokio::test]
async fn sends_what_is_missing_and_nothing_else() {
    let app = image(&[b"small", &large()]);
    let (server, shelf) = registry(Shelf::default());
    let store = stored(&[&app]).await;
    let pushed = push_to(&server, &store, &one(&app), &[]).await.unwrap();
    assert_eq!(pushed.digest, *app.manifest.digest());
    {
        let shelf = shelf.lock().unwrap();
        assert_eq!(shelf.blobs.len(), 3);
        assert!(app.blobs.iter().all(|(digest, bytes)| shelf.blobs[digest] == *bytes));
        assert_eq!(shelf.manifests["1"], **app.manifest.bytes());
    }
    // Two small blobs: HEAD, POST, PUT each; a large one: HEAD, POST, PATCH, PUT; the manifest.
    assert_eq!(server.lines().len(), 11);
    let again = push_to(&server, &store, &one(&app), &[]).await.unwrap();
    assert_eq!(again, pushed);
    assert_eq!(server.lines().len(), 15);
}

#[tokio::test]
async fn manifests_go_children_first() {
    let (amd, arm) = (image(&[b"amd"]), image(&[b"arm"]));
    let list = index(&[(&amd.manifest, "linux/amd64"), (&arm.manifest, "linux/arm64")]);
    let (server, _) = registry(Shelf::default());
    let mut manifests = one(&amd);
    manifests.extend(one(&arm));
    manifests.push((list.clone(), MediaType::OCI_INDEX));
    push_to(&server, &stored(&[&amd, &arm]).await, &manifests, &[]).await.unwrap();
    let put: Vec<String> =
        server.lines().into_iter().filter(|line| line.contains("/manifests/")).collect();
    assert_eq!(
        put,
        [
            format!("PUT /v2/team/app/manifests/{}", amd.manifest.digest()),
            format!("PUT /v2/team/app/manifests/{}", arm.manifest.digest()),
            "PUT /v2/team/app/manifests/1".to_owned(),
        ]
    );
    let types: Vec<_> =
        server.log().iter().filter_map(|r| r.header("content-type").map(str::to_owned)).collect();
    assert_eq!(types.last().unwrap(), MediaType::OCI_INDEX.as_str());
}

#[tokio::test]
async fn mounts_where_it_can_and_uses_the_session_where_it_cannot() {
    let app = image(&[b"layer"]);
    let (server, shelf) = registry(Shelf { mountable: vec![layer(&app)], ..Shelf::default() });
    let from: Vec<RepositoryName> = vec!["team/app".parse().unwrap(), "base".parse().unwrap()];
    push_to(&server, &stored(&[&app]).await, &one(&app), &from).await.unwrap();
    let lines = server.lines();
    let mount = format!("POST /v2/team/app/blobs/uploads/?mount={}&from=base", layer(&app));
    assert!(lines.contains(&mount), "{lines:?}");
    // The configuration could not be mounted: its session was used, no other was opened.
    let shelf = shelf.lock().unwrap();
    assert_eq!((shelf.opened, shelf.blobs.len(), shelf.sessions.len()), (1, 1, 0));
}

#[tokio::test]
async fn a_mount_asks_for_the_right_to_read_the_source() {
    let app = image(&[]);
    let shelf = Mutex::new(Shelf::default());
    let server = Server::start(move |request| match request.path() {
        "/token" => Response::new(200).body(r#"{"token":"t"}"#),
        _ if request.header("authorization").is_none() => {
            let realm = format!("http://{}/token", request.header("host").unwrap());
            Response::new(401)
                .header("WWW-Authenticate", format!("Bearer realm=\"{realm}\",service=\"s\""))
        }
        _ => shelf.lock().unwrap().answer(request),
    });
    let from = ["base".parse().unwrap()];
    push_to(&server, &stored(&[&app]).await, &one(&app), &from).await.unwrap();
    let asked: Vec<String> =
        server.lines().into_iter().filter(|line| line.contains("/token")).collect();
    assert_eq!(
        asked,
        ["GET /token?service=s&scope=repository%3Abase%3Apull\
          &scope=repository%3Ateam%2Fapp%3Apull%2Cpush"]
    );
}

#[tokio::test]
async fn a_broken_upload_goes_on_where_it_broke() {
    let app = image(&[&large()]);
    let (server, shelf) = registry(Shelf::default());
    server.cut("PATCH", 1_200_000);
    server.cut("PATCH", 800_000);
    push_to(&server, &stored(&[&app]).await, &one(&app), &[]).await.unwrap();
    let ranges: Vec<_> = server
        .log()
        .iter()
        .filter(|request| request.method == "PATCH")
        .map(|request| (request.header("content-range").map(str::to_owned), request.body.len()))
        .collect();
    assert_eq!(
        ranges,
        [
            (None, 1_200_000),
            (Some("1200000-2999999".to_owned()), 800_000),
            (Some("2000000-2999999".to_owned()), 1_000_000),
        ]
    );
    let shelf = shelf.lock().unwrap();
    assert_eq!(shelf.blobs[&layer(&app)], large());
    assert_eq!(shelf.opened, 2);
}

#[tokio::test]
async fn an_upload_that_is_refused_says_why() {
    let app = image(&[b"layer"]);
    let server = Server::start(|request| match request.method.as_str() {
        "HEAD" => Response::new(404),
        "POST" => Response::new(403)
            .body(r#"{"errors":[{"code":"DENIED","message":"push is not for you"}]}"#),
        _ => Response::new(200),
    });
    let error = push_to(&server, &stored(&[&app]).await, &one(&app), &[]).await.unwrap_err();
    let text = chain(&error);
    assert!(text.contains("403 Forbidden: DENIED: push is not for you"), "{text}");
    assert!(text.contains("whoever shows no credentials may not do this"), "{text}");
}

#[tokio::test]
async fn what_the_store_lacks_is_named() {
    let app = image(&[b"layer"]);
    let (server, shelf) = registry(Shelf::default());
    let error = push_to(&server, &MemoryStore::new(), &one(&app), &[]).await.unwrap_err();
    assert!(error.to_string().contains("is not in the store"), "{error}");
    assert!(shelf.lock().unwrap().manifests.is_empty());
}

#[tokio::test]
async fn a_registry_that_stores_something_else_is_caught() {
    let app = image(&[b"layer"]);
    let server = Server::start(|request| match request.method.as_str() {
        "HEAD" => Response::new(404),
        "POST" => Response::new(202).header("Location", "/up"),
        "PUT" => Response::new(201).header("Docker-Content-Digest", Digest::sha256(b"else")),
        _ => Response::new(200),
    });
    let error = push_to(&server, &stored(&[&app]).await, &one(&app), &[]).await.unwrap_err();
    assert!(error.to_string().contains("the registry stored it as"), "{error}");
}

#[tokio::test]
async fn a_token_that_expires_during_an_upload_is_replaced() {
    let app = image(&[&large()]);
    let shelf = Mutex::new(Shelf::default());
    let patched = AtomicUsize::new(0);
    let issued = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        if request.path() == "/token" {
            let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
            return Response::new(200).body(format!(r#"{{"token":"t{number}"}}"#));
        }
        let good = format!("Bearer t{}", issued.load(Ordering::SeqCst));
        let expires = request.method == "PATCH" && patched.fetch_add(1, Ordering::SeqCst) == 0;
        if request.header("authorization") != Some(&good) || expires {
            let realm = format!("http://{}/token", request.header("host").unwrap());
            return Response::new(401)
                .header("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))
                .body("{}");
        }
        shelf.lock().unwrap().answer(request)
    });
    push_to(&server, &stored(&[&app]).await, &one(&app), &[]).await.unwrap();
    let tokens = server.lines().iter().filter(|line| line.contains("/token")).count();
    assert_eq!(tokens, 2);
}

#[tokio::test]
async fn a_registry_that_takes_no_byte_is_not_asked_for_ever() {
    let app = image(&[&large()]);
    let server = Server::start(|request| match request.method.as_str() {
        "HEAD" => Response::new(404),
        "POST" | "PATCH" => Response::new(202).header("Location", "/up").header("Range", "0-0"),
        "PUT" => Response::new(201),
        _ => Response::new(200),
    });
    let error = push_to(&server, &stored(&[&app]).await, &one(&app), &[]).await.unwrap_err();
    assert!(error.to_string().contains("no further byte"), "{error}");
}

#[tokio::test]
async fn from_one_registry_to_another_through_a_store_of_files() {
    let app = image(&[&large()]);
    let content = Content::default().image("1", &app);
    let from = Server::start(move |request| content.answer(request));
    let (to, shelf) = registry(Shelf::default());
    let root = tempfile::tempdir().unwrap();
    let root = Root::open(&root.path().join("root"), RootOptions::default()).unwrap();
    let (store, lease) = (root.store(), root.lease().unwrap());
    let client = client(options());
    let (source, target): (ImageName, ImageName) = (
        format!("{}/app:1", from.host()).parse().unwrap(),
        format!("{}/team/app:1", to.host()).parse().unwrap(),
    );
    let pulled = pull(&client, &source, Platforms::All, &store, &lease, &NoProgress).await.unwrap();
    to.cut("PATCH", 1_000_000);
    push(&client, &target, &pulled.manifests, &store, &[], &NoProgress).await.unwrap();
    let shelf = shelf.lock().unwrap();
    assert_eq!(shelf.blobs[&layer(&app)], large());
    assert_eq!(shelf.manifests["1"], **app.manifest.bytes());
}
