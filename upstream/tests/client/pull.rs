//! Whole pulls: platforms, resuming, lies.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use boatyard_content::memory::MemoryStore;
use boatyard_content::{IngestKey, Lease, Store};
use boatyard_oci::{Algorithm, Descriptor, Digest, ImageName, MediaType, Platform};
use boatyard_upstream::distribution::PullError;
use boatyard_upstream::transfer::TransferError;
use boatyard_upstream::{
    ClientOptions, NoProgress, Outcome, Platforms, Pulled, TransferProgress, pull,
};

use crate::support::{
    Content, Image, Response, Server, blob, chain, client, image, index, options,
};

async fn pull_into(
    store: &MemoryStore,
    server: &Server,
    platforms: Platforms<'_>,
) -> Result<Pulled, PullError> {
    let name: ImageName = format!("{}/app:1", server.host()).parse().unwrap();
    let client = client(options());
    pull(&client, &name, platforms, store, &Lease::unheld(), &NoProgress).await
}

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn layer(image: &Image) -> Descriptor {
    (*image.manifest.value().blobs()[1]).clone()
}

#[tokio::test]
async fn chooses_the_platform_and_fetches_nothing_else() {
    let (amd, arm, proof) = (image(&[b"amd"]), image(&[b"arm"]), image(&[b"proof"]));
    let list = index(&[
        (&proof.manifest, "unknown/unknown"),
        (&arm.manifest, "linux/arm64"),
        (&amd.manifest, "linux/amd64"),
    ]);
    let content = Content::default()
        .image("amd", &amd)
        .image("arm", &arm)
        .image("proof", &proof)
        .manifest("1", &MediaType::OCI_INDEX, &list);
    let server = Server::start(move |request| content.answer(request));
    let store = MemoryStore::new();
    let pulled = pull_into(&store, &server, Platforms::One(&amd64())).await.unwrap();
    assert_eq!(pulled.platform.as_ref().unwrap().to_string(), "linux/amd64");
    assert_eq!(pulled.top.digest, *list.digest());
    let digests: Vec<_> = pulled.manifests.iter().map(|(m, _)| m.digest().clone()).collect();
    assert_eq!(digests, [amd.manifest.digest().clone(), list.digest().clone()]);
    assert_eq!(pulled.image().unwrap().digest(), amd.manifest.digest());
    for held in [layer(&amd).digest, amd.manifest.digest().clone(), list.digest().clone()] {
        assert!(store.stat(&held).await.unwrap().is_some());
    }
    assert!(store.stat(&layer(&arm).digest).await.unwrap().is_none());
    // Index, manifest, configuration, layer.
    assert_eq!(server.lines().len(), 4);

    let again = pull_into(&store, &server, Platforms::One(&amd64())).await.unwrap();
    assert_eq!(again.manifests.len(), 2);
    assert_eq!(server.lines().len(), 5, "only the tag is asked for again");

    let all = pull_into(&store, &server, Platforms::All).await.unwrap();
    assert_eq!(all.manifests.len(), 4);
    assert_eq!(all.manifests.last().unwrap().0.digest(), list.digest());

    let s390x = "linux/s390x".parse().unwrap();
    let error = pull_into(&store, &server, Platforms::One(&s390x)).await.unwrap_err();
    assert!(error.to_string().contains("offers linux/arm64, linux/amd64"), "{error}");
}

#[tokio::test]
async fn a_broken_connection_is_resumed_where_it_broke() {
    let bytes: Vec<u8> = (0..1_000_000u32).map(|n| (n * 7) as u8).collect();
    let app = image(&[&bytes]);
    let target = format!("/v2/app/blobs/{}", layer(&app).digest);
    let content = Content::default().image("1", &app);
    let (path, body) = (target.clone(), bytes.clone());
    let server = Server::start(move |request| match request.path() {
        seen if seen == path => match request.header("range") {
            None => Response::new(200).body(&body[..300_000]).announced(body.len()),
            Some("bytes=300000-999999") => Response::new(206)
                .header("Content-Range", "bytes 300000-999999/1000000")
                .body(&body[300_000..700_000])
                .announced(700_000),
            Some(_) => blob(request, &body),
        },
        _ => content.answer(request),
    });
    let store = MemoryStore::new();
    pull_into(&store, &server, Platforms::One(&amd64())).await.unwrap();
    assert!(store.stat(&layer(&app).digest).await.unwrap().is_some());
    let ranges: Vec<_> = server
        .log()
        .iter()
        .filter(|request| request.path() == target)
        .map(|request| request.header("range").map(str::to_owned))
        .collect();
    let asked = |range: &str| Some(range.to_owned());
    assert_eq!(ranges, [None, asked("bytes=300000-999999"), asked("bytes=700000-999999")]);
}

#[tokio::test]
async fn what_an_earlier_process_left_is_used_if_it_is_right() {
    let app = image(&[b"0123456789"]);
    let content = Content::default().image("1", &app);
    let server = Server::start(move |request| content.answer(request));
    let wanted = layer(&app);
    for (left, requests) in [("01234", 1), ("wrong", 2), ("more than all of it", 1)] {
        let store = MemoryStore::new();
        let key = IngestKey::of(&wanted.digest);
        let mut ingest = store.ingest(&key, &Lease::unheld()).await.unwrap();
        ingest.append(left.into()).await.unwrap();
        ingest.suspend().await.unwrap();
        let before = server.log().len();
        pull_into(&store, &server, Platforms::One(&amd64())).await.unwrap();
        assert!(store.stat(&wanted.digest).await.unwrap().is_some(), "{left}");
        let path = format!("/v2/app/blobs/{}", wanted.digest);
        let asked: Vec<_> =
            server.log().split_off(before).into_iter().filter(|r| r.path() == path).collect();
        assert_eq!(asked.len(), requests, "{left}");
        let resumed = asked[0].header("range") == Some("bytes=5-9");
        assert_eq!(resumed, left.len() == 5, "{left}");
    }
}

#[tokio::test]
async fn a_registry_without_ranges_sends_it_all_again() {
    let app = image(&[b"0123456789"]);
    let path = format!("/v2/app/blobs/{}", layer(&app).digest);
    let content = Content::default().image("1", &app);
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |request| match request.path() {
        seen if seen == path => match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Response::new(200).body("01234").announced(10),
            _ => Response::new(200).body("0123456789"),
        },
        _ => content.answer(request),
    });
    let store = MemoryStore::new();
    pull_into(&store, &server, Platforms::One(&amd64())).await.unwrap();
    assert!(store.stat(&layer(&app).digest).await.unwrap().is_some());
}

/// Serves one image whose layer is answered by `answer`; returns the pull's error.
async fn lie(answer: impl Fn() -> Response + Send + Sync + 'static) -> (TransferError, usize) {
    let app = image(&[b"0123456789"]);
    let wanted = layer(&app).digest;
    let path = format!("/v2/app/blobs/{wanted}");
    let content = Content::default().image("1", &app);
    let line = format!("GET {path}");
    let server = Server::start(move |request| match request.path() {
        seen if seen == path => answer(),
        _ => content.answer(request),
    });
    let store = MemoryStore::new();
    let error = pull_into(&store, &server, Platforms::One(&amd64())).await.unwrap_err();
    assert!(store.stat(&wanted).await.unwrap().is_none());
    let text = chain(&error);
    assert!(text.contains(&wanted.to_string()) && text.contains(&server.host()), "{text}");
    let PullError::Blob { source, .. } = error else { unreachable!("{text}") };
    (source, server.count(&line))
}

#[tokio::test]
async fn wrong_bytes_are_never_kept() {
    let (error, requests) = lie(|| Response::new(200).body("abcdefghij")).await;
    assert!(error.to_string().contains(&Digest::sha256(b"abcdefghij").to_string()), "{error}");
    assert_eq!(requests, 1);
}

#[tokio::test]
async fn wrong_lengths_are_never_kept() {
    let (error, requests) = lie(|| Response::new(200).body("0123456789abc")).await;
    assert!(matches!(error, TransferError::Length { expected: 10, got: 13, .. }), "{error}");
    assert_eq!(requests, 1);
    let (error, _) = lie(|| Response::new(200).body("012345678")).await;
    assert!(matches!(error, TransferError::Length { expected: 10, got: 9, .. }), "{error}");
    let (error, _) = lie(|| Response::new(200).body("0123456789abcde").endless()).await;
    assert!(matches!(error, TransferError::Length { expected: 10, .. }), "{error}");
    let (error, _) =
        lie(|| Response::new(206).header("Content-Range", "bytes 4-9/10").body("456789")).await;
    assert!(chain(&error).contains("an unasked range"), "{}", chain(&error));
}

#[tokio::test]
async fn what_breaks_each_time_is_given_up_and_kept_for_next_time() {
    let (error, requests) = lie(|| Response::new(200).announced(10)).await;
    assert!(matches!(error, TransferError::Broken { at: 0, attempts: 5, .. }), "{error}");
    assert_eq!(requests, 5);
}

#[tokio::test]
async fn foreign_urls_are_never_followed() {
    let thief = Server::start(|_| Response::new(200).body("0123456789"));
    let app = image(&[b"0123456789"]);
    let text = String::from_utf8(app.manifest.bytes().to_vec()).unwrap();
    let url = format!("\"urls\": [\"http://{}/x\"], \"size\": 10", thief.host());
    let text = text.replace("\"size\": 10", &url);
    let server = Server::start(move |request| match request.path() {
        "/v2/app/manifests/1" => {
            Response::new(200).header("Content-Type", &MediaType::OCI_MANIFEST).body(&text)
        }
        path if path.contains("/blobs/sha256:") => Response::new(404).body("{}"),
        _ => Response::new(200),
    });
    let error = pull_into(&MemoryStore::new(), &server, Platforms::One(&amd64())).await;
    assert!(error.is_err());
    assert_eq!(thief.log().len(), 0);
}

#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl TransferProgress for Recorder {
    fn started(&self, blob: &Descriptor) {
        self.0.lock().unwrap().push(format!("started {}", blob.size));
    }
    fn advanced(&self, _digest: &Digest, bytes: u64) {
        self.0.lock().unwrap().push(format!("advanced {bytes}"));
    }
    fn finished(&self, _digest: &Digest, outcome: Outcome) {
        self.0.lock().unwrap().push(format!("finished {outcome:?}"));
    }
}

#[tokio::test]
async fn mirrors_come_first_and_the_registry_fills_their_gaps() {
    let app = image(&[b"0123456789"]);
    let content = Content::default().image("1", &app);
    let (mirrored, missing) =
        (content.clone(), format!("/v2/hub/app/blobs/{}", layer(&app).digest));
    let mirror = Server::start(move |request| match request.path() {
        path if path == missing => Response::new(404),
        _ => mirrored.answer(request),
    });
    let server = Server::start(move |request| content.answer(request));
    let conf = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"127.0.0.1:1/none\"\n\
         [[registry.mirror]]\nlocation = \"{}/hub\"",
        server.host(),
        mirror.host()
    );
    std::io::Write::write_all(&mut conf.as_file(), text.as_bytes()).unwrap();
    let mut options = options();
    options.trust.registries_conf = vec![conf.path().to_owned()];
    let name: ImageName = format!("{}/app:1", server.host()).parse().unwrap();
    let (client, store) = (client(ClientOptions { concurrency: 1, ..options }), MemoryStore::new());
    let recorder = Recorder::default();
    let platform = amd64();
    pull(&client, &name, Platforms::One(&platform), &store, &Lease::unheld(), &recorder)
        .await
        .unwrap();
    assert_eq!(server.lines(), [format!("GET /v2/app/blobs/{}", layer(&app).digest)]);
    let events = recorder.0.into_inner().unwrap();
    assert!(events.contains(&"started 10".to_owned()), "{events:?}");
    assert!(events.contains(&"advanced 10".to_owned()), "{events:?}");
    assert_eq!(events.iter().filter(|event| *event == "finished Transferred").count(), 2);
}

#[tokio::test]
async fn blobs_come_several_at_once_and_not_more() {
    let app = image(&[b"1", b"2", b"3", b"4", b"5"]);
    let content = Content::default().image("1", &app);
    let (flying, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    // Each of the six waits for another one: a client that fetches one by one would stand still.
    let pair = Barrier::new(2);
    let server = Server::start(move |request| {
        if !request.path().contains("/blobs/") {
            return content.answer(request);
        }
        seen.fetch_max(flying.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        pair.wait();
        flying.fetch_sub(1, Ordering::SeqCst);
        content.answer(request)
    });
    let client = client(ClientOptions { concurrency: 2, ..options() });
    let name: ImageName = format!("{}/app:1", server.host()).parse().unwrap();
    let store = MemoryStore::new();
    pull(&client, &name, Platforms::All, &store, &Lease::unheld(), &NoProgress).await.unwrap();
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn sha512_is_verified_too() {
    let digest = Digest::of(Algorithm::Sha512, b"0123456789");
    let text = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/x","digest":"{digest}","size":10}},"layers":[]}}"#
    );
    for (body, good) in [("0123456789", true), ("abcdefghij", false)] {
        let text = text.clone();
        let server = Server::start(move |request| match request.path() {
            "/v2/app/manifests/1" => {
                Response::new(200).header("Content-Type", &MediaType::OCI_MANIFEST).body(&text)
            }
            _ => Response::new(200).body(body),
        });
        let store = MemoryStore::new();
        let pulled = pull_into(&store, &server, Platforms::All).await;
        assert_eq!(pulled.is_ok(), good);
        assert_eq!(store.stat(&digest).await.unwrap().is_some(), good);
    }
}

#[tokio::test]
async fn an_index_of_indexes_ends() {
    let mut content = Content::default();
    let mut inner = image(&[]).manifest;
    let mut media_type = MediaType::OCI_MANIFEST;
    for _ in 0..8 {
        let entry = Descriptor::of(media_type, inner.bytes());
        let list = boatyard_oci::Index::new(vec![entry]).to_bytes();
        media_type = MediaType::OCI_INDEX;
        inner = boatyard_oci::Manifest::parse(list, &media_type).unwrap();
        content = content.manifest("1", &media_type, &inner);
    }
    let server = Server::start(move |request| content.answer(request));
    let error = pull_into(&MemoryStore::new(), &server, Platforms::All).await.unwrap_err();
    assert!(matches!(error, PullError::TooDeep { .. }), "{error}");
}

#[tokio::test]
async fn a_beginning_that_the_registry_cannot_continue_is_dropped() {
    let app = image(&[b"0123456789"]);
    let path = format!("/v2/app/blobs/{}", layer(&app).digest);
    let content = Content::default().image("1", &app);
    let server = Server::start(move |request| match request.header("range") {
        Some(_) if request.path() == path => Response::new(416).body("{}"),
        _ => content.answer(request),
    });
    let store = MemoryStore::new();
    let key = IngestKey::of(&layer(&app).digest);
    let mut ingest = store.ingest(&key, &Lease::unheld()).await.unwrap();
    ingest.append("0123".into()).await.unwrap();
    ingest.suspend().await.unwrap();
    pull_into(&store, &server, Platforms::All).await.unwrap();
    assert!(store.stat(&layer(&app).digest).await.unwrap().is_some());
}
