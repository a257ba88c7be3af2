//! Redirects: followed, but with nothing of ours where they leave the registry.

use boatyard_oci::{Descriptor, ImageName, MediaType};
use boatyard_upstream::{ClientOptions, Credential, CredentialSources, Secret};

use crate::support::{Response, Server, chain, client, options};

fn basic_client(host: &str) -> boatyard_upstream::Client {
    let credential =
        Credential::Password { user: "me".to_owned(), password: Secret::new("hunter2") };
    let given = vec![(host.parse().unwrap(), credential)];
    let credentials = CredentialSources { given, ..CredentialSources::default() };
    client(ClientOptions { credentials, ..options() })
}

/// A registry with basic authentication that sends blobs to `target`.
fn redirecting(target: String) -> Server {
    Server::start(move |request| match request.header("authorization") {
        None => Response::new(401).header("WWW-Authenticate", "Basic realm=x"),
        Some(_) => Response::new(307).header("Location", &target),
    })
}

async fn fetch(registry: &Server) -> Result<Vec<u8>, String> {
    let image: ImageName = format!("{}/app", registry.host()).parse().unwrap();
    let blob = Descriptor::of(MediaType::OCI_LAYER, b"layer");
    let client = basic_client(&registry.host());
    let mut stream = client.blob(&image, &blob, None).await.map_err(|error| chain(&error))?;
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.chunk().await.map_err(|error| chain(&error))? {
        bytes.extend(chunk);
    }
    Ok(bytes)
}

#[tokio::test]
async fn another_host_sees_no_authorization() {
    let storage = Server::start_at("127.0.0.2:0", None, |_| Response::new(200).body("layer"));
    let registry = redirecting(format!("http://{}/x?signature=s", storage.host()));
    assert_eq!(fetch(&registry).await.unwrap(), b"layer");
    assert_eq!(storage.log()[0].target, "/x?signature=s");
    assert_eq!(storage.log()[0].header("authorization"), None);
}

#[tokio::test]
async fn another_port_sees_none_either() {
    let storage = Server::start(|_| Response::new(200).body("layer"));
    let registry = redirecting(format!("http://{}/x", storage.host()));
    assert_eq!(fetch(&registry).await.unwrap(), b"layer");
    assert_eq!(storage.log()[0].header("authorization"), None);
}

#[tokio::test]
async fn a_circle_ends_and_signatures_are_not_shown() {
    let registry = redirecting("/v2/app/again?signature=hunter3".to_owned());
    let error = fetch(&registry).await.unwrap_err();
    assert!(error.contains("too many redirects"), "{error}");
    assert!(!error.contains("hunter"), "{error}");
    assert_eq!(registry.lines().len(), 6);
}

#[tokio::test]
async fn targets_that_are_no_http_are_not_followed() {
    for target in ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[/"] {
        let registry = redirecting(target.to_owned());
        let error = fetch(&registry).await.unwrap_err();
        assert!(error.contains("not followed"), "{target}: {error}");
    }
}
