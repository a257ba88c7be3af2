//! Single requests: resolve, manifests, tags, referrers, retries, messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use boatyard_oci::{Digest, ImageName, Manifest, MediaType, Reference};
use boatyard_upstream::{ClientError, ClientOptions};

use crate::support::{
    Content, Response, Server, TestClock, chain, client, image, not_found, options,
};

fn name(server: &Server, rest: &str) -> ImageName {
    format!("{}/{rest}", server.host()).parse().unwrap()
}

#[tokio::test]
async fn resolves_by_head_alone() {
    let app = image(&[b"layer"]);
    let content = Content::default().image("1", &app);
    let server = Server::start(move |request| content.answer(request));
    let found = client(options()).resolve(&name(&server, "app:1")).await.unwrap();
    assert_eq!(found.digest, *app.manifest.digest());
    assert_eq!((found.media_type, found.size), (MediaType::OCI_MANIFEST, app.manifest.size()));
    assert_eq!(server.lines(), ["HEAD /v2/app/manifests/1"]);
    let request = server.log().pop().unwrap();
    assert!(request.header("accept").unwrap().contains("image.index.v1+json"));
    assert!(request.header("user-agent").unwrap().starts_with("boatyard/"));
}

#[tokio::test]
async fn resolves_by_get_where_head_says_too_little() {
    let app = image(&[]);
    let bytes = app.manifest.bytes().clone();
    let server = Server::start(move |request| match request.method.as_str() {
        "HEAD" => Response::new(405),
        _ => Response::new(200).header("Content-Type", "application/json").body(&bytes),
    });
    let found = client(options()).resolve(&name(&server, "app:1")).await.unwrap();
    assert_eq!(found.digest, *app.manifest.digest());
    assert_eq!(found.media_type, MediaType::OCI_MANIFEST);
}

#[tokio::test]
async fn a_manifest_of_another_digest_is_refused() {
    let app = image(&[]);
    let other = image(&[b"x"]);
    let bytes = other.manifest.bytes().clone();
    let server = Server::start(move |_| {
        Response::new(200).header("Content-Type", &MediaType::OCI_MANIFEST).body(&bytes)
    });
    let image =
        name(&server, "app").with_reference(Reference::Digest(app.manifest.digest().clone()));
    let error = client(options()).manifest(&image).await.unwrap_err();
    let text = chain(&error);
    assert!(text.contains(&other.manifest.digest().to_string()), "{text}");
    assert!(matches!(error, ClientError::Manifest { .. }));
}

#[tokio::test]
async fn manifests_without_end_are_cut() {
    let announced = Server::start(|_| {
        Response::new(200)
            .header("Content-Type", &MediaType::OCI_MANIFEST)
            .announced(Manifest::SIZE_MAX + 1)
    });
    let endless = Server::start(|_| {
        Response::new(200)
            .header("Content-Type", &MediaType::OCI_MANIFEST)
            .body(vec![b' '; 65536])
            .endless()
    });
    for server in [announced, endless] {
        let error = client(options()).manifest(&name(&server, "app")).await.unwrap_err();
        assert!(chain(&error).contains("more than 4194304 bytes"), "{}", chain(&error));
        assert_eq!(server.count("GET /v2/app/manifests/latest"), 1);
    }
}

#[tokio::test]
async fn waits_as_long_as_the_registry_asks() {
    let app = image(&[]);
    let content = Content::default().image("1", &app);
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |request| match request.path() {
        "/v2/" => Response::new(200),
        _ if asked.fetch_add(1, Ordering::SeqCst) == 0 => {
            Response::new(429).header("Retry-After", 7)
        }
        _ if asked.load(Ordering::SeqCst) == 2 => Response::new(503),
        _ => content.answer(request),
    });
    let clock = TestClock::new();
    let options = ClientOptions { clock: Arc::clone(&clock) as _, ..options() };
    client(options).manifest(&name(&server, "app:1")).await.unwrap();
    // The second is half (the test's jitter) of the second bound.
    assert_eq!(clock.slept(), [Duration::from_secs(7), Duration::from_millis(250)]);
}

#[tokio::test]
async fn gives_up_where_the_wait_is_too_long() {
    let server = Server::start(|request| match request.path() {
        "/v2/" => Response::new(200),
        _ => Response::new(429)
            .header("Retry-After", 86_400)
            .body(r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}"#),
    });
    let error = client(options()).manifest(&name(&server, "app:1")).await.unwrap_err();
    let text = chain(&error);
    assert!(matches!(error, ClientError::RateLimited { .. }));
    assert!(text.contains("pull rate limit") && text.contains("boatyard login"), "{text}");
    assert_eq!(server.lines().len(), 1);
}

#[tokio::test]
async fn says_what_is_missing_in_the_registrys_words() {
    let server = Server::start(|_| not_found());
    let error = client(options()).manifest(&name(&server, "team/app:1")).await.unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(
        chain(&error),
        format!(
            "cannot fetch manifest 1 of {}/team/app: it is not there: the answer was 404 Not \
             Found: MANIFEST_UNKNOWN: no such thing",
            server.host()
        )
    );
}

#[tokio::test]
async fn lists_tags_page_by_page() {
    let server = Server::start(|request| match request.target.as_str() {
        "/v2/app/tags/list" => Response::new(200)
            .header("Link", "</v2/app/tags/list?last=b>; rel=\"next\"")
            .body(r#"{"tags":["a","b","not a tag"]}"#),
        "/v2/app/tags/list?last=b" => Response::new(200)
            .header("Link", "<http://other.example/v2/>; rel=\"next\"")
            .body(r#"{"tags":["c"]}"#),
        _ => Response::new(200),
    });
    let image = name(&server, "app");
    let tags = client(options()).tags(&image.registry, &image.repository).await.unwrap();
    let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
    assert_eq!(tags, ["a", "b", "c"]);
}

#[tokio::test]
async fn referrers_by_api_and_by_tag() {
    let app = image(&[]);
    let list = crate::support::index(&[(&app.manifest, "linux/amd64")]);
    let subject = Digest::sha256(b"subject");
    let (api, tag) = (format!("/v2/new/referrers/{subject}"), format!("sha256-{}", subject.hex()));
    let bytes = list.bytes().clone();
    let content = Content::default().manifest(&tag, &MediaType::OCI_INDEX, &list);
    let server = Server::start(move |request| match request.path() {
        path if path == api => Response::new(200).body(&bytes),
        _ => content.answer(request),
    });
    let client = client(options());
    for repository in ["new", "old"] {
        let image = name(&server, repository);
        let found = client.referrers(&image.registry, &image.repository, &subject).await.unwrap();
        assert_eq!(found.len(), 1, "{repository}");
        assert_eq!(found[0].digest, *app.manifest.digest());
    }
    let image = name(&server, "old");
    let none = client.referrers(&image.registry, &image.repository, &Digest::sha256(b"x")).await;
    assert_eq!(none.unwrap(), []);
}
