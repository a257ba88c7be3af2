//! A registry of the test's own on loopback, and a client of it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::{Access, Limits, Mirrors, OpenAccess, Registry};
use boatyard_content::Root;
use boatyard_content::local::RootOptions;
use boatyard_front::{Server, ServerOptions, StopReport};
use boatyard_oci::{Digest, Manifest, MediaType};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) directory: tempfile::TempDir,
    client: reqwest::Client,
    stop: oneshot::Sender<()>,
    stopped: JoinHandle<StopReport>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Served {
    pub(crate) async fn start() -> Served {
        Served::start_with(Arc::new(OpenAccess), Limits::default()).await
    }

    pub(crate) async fn start_with(access: Arc<dyn Access>, limits: Limits) -> Served {
        Served::over(tempfile::tempdir().unwrap(), access, limits).await
    }

    async fn over(directory: tempfile::TempDir, access: Arc<dyn Access>, limits: Limits) -> Served {
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let registry = Registry::new(root, Mirrors::default(), access, limits);
        Served::routing(directory, crate::router(registry)).await
    }

    /// Serves what a test has put together.
    pub(crate) async fn routing(directory: tempfile::TempDir, router: axum::Router) -> Served {
        let addresses = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        let options = ServerOptions { addresses, ..ServerOptions::default() };
        let server = Server::bind(options).unwrap();
        let address = server.local_addrs()[0];
        let (stop, told) = oneshot::channel::<()>();
        let stopped = tokio::spawn(server.serve(router, async {
            let _ = told.await;
        }));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Served { address, directory, client, stop, stopped }
    }

    /// Stops the server and starts another one over the same files.
    pub(crate) async fn restart(self) -> Served {
        self.restart_with(Limits::default()).await
    }

    /// The same with other limits.
    pub(crate) async fn restart_with(self, limits: Limits) -> Served {
        Served::over(self.stop().await, Arc::new(OpenAccess), limits).await
    }

    /// The same with other rules.
    pub(crate) async fn restart_as(self, access: Arc<dyn Access>) -> Served {
        Served::over(self.stop().await, access, Limits::default()).await
    }

    async fn stop(self) -> tempfile::TempDir {
        drop(self.client);
        self.stop.send(()).unwrap();
        assert_eq!(self.stopped.await.unwrap().cut, 0);
        self.directory
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let url = format!("http://{}{path}", self.address);
        let mut request = self.client.request(method, url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let version = "docker-distribution-api-version";
        assert_eq!(headers[version], "registry/2.0", "every answer says what it is");
        Answer { status, headers, body: response.bytes().await.unwrap() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub(crate) async fn head(&self, path: &str) -> Answer {
        self.send(Method::HEAD, path, &[], "").await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str) -> Answer {
        self.send(Method::POST, path, &[], "").await
    }

    pub(crate) async fn put(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.send(Method::PUT, path, &[], body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.send(Method::PATCH, path, &[], body).await
    }

    /// Pushes a blob in one request.
    pub(crate) async fn push_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let answer = self.send(Method::POST, &path, &[], bytes.to_vec()).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        digest
    }

    /// Begins an upload session and returns its Location.
    pub(crate) async fn begin(&self, name: &str) -> String {
        let answer = self.post(&format!("/v2/{name}/blobs/uploads/")).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.location()
    }

    pub(crate) async fn put_manifest(
        &self,
        name: &str,
        reference: &str,
        media_type: &MediaType,
        manifest: &[u8],
    ) -> Answer {
        let path = format!("/v2/{name}/manifests/{reference}");
        let headers = [("content-type", media_type.as_str())];
        self.send(Method::PUT, &path, &headers, manifest.to_vec()).await
    }

    /// Pushes a small image and returns its manifest.
    pub(crate) async fn push_image(&self, name: &str, reference: &str, content: &str) -> Bytes {
        let manifest = self.image(name, content).await;
        let answer = self.put_manifest(name, reference, &MediaType::OCI_MANIFEST, &manifest).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        manifest
    }

    /// Pushes the blobs of a small image and returns its manifest.
    pub(crate) async fn image(&self, name: &str, content: &str) -> Bytes {
        self.push_blob(name, content.as_bytes()).await;
        self.push_blob(name, b"{}").await;
        image(content, json!({}))
    }
}

/// Returns the manifest of an image with one layer, with further properties.
pub(crate) fn image(content: &str, more: Value) -> Bytes {
    let mut properties = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_MANIFEST,
        "config": descriptor(&MediaType::OCI_CONFIG, b"{}"),
        "layers": [descriptor(&MediaType::OCI_LAYER, content.as_bytes())],
    });
    let Value::Object(more) = more else { panic!("further properties are an object") };
    properties.as_object_mut().unwrap().extend(more);
    // Spaces that nobody else would write: the bytes must come back as they are.
    format!("{properties} \n").into()
}

pub(crate) fn descriptor(media_type: &MediaType, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::sha256(bytes), "size": bytes.len() })
}

/// Says that the bytes can be read as a manifest, so that a test's own mistake shows.
pub(crate) fn digest_of(manifest: &Bytes, media_type: &MediaType) -> Digest {
    Manifest::parse(manifest.clone(), media_type).unwrap().digest().clone()
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn location(&self) -> String {
        let location = self.header("location").expect("a Location").to_owned();
        assert!(location.starts_with("/v2/"), "{location} is relative");
        location
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks that this is an error of the specification's form.
    #[track_caller]
    pub(crate) fn refuses(&self, status: u16, code: &str) {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body = self.json();
        let error = &body["errors"][0];
        assert_eq!(error["code"], code, "{body}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        let keys: Vec<&String> = error.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["code", "message", "detail"]);
        assert_eq!(body.as_object().unwrap().len(), 1);
    }
}

/// Puts bytes into a root's store, as another process does.
pub(crate) fn put(root: &Root, lease: &boatyard_content::Lease, bytes: &[u8]) -> Digest {
    use std::io::Write as _;
    let key = boatyard_content::IngestKey::random();
    let mut ingest = root.store().ingest_blocking(&key, lease).unwrap();
    ingest.write_all(bytes).unwrap();
    ingest.commit_blocking(&boatyard_content::Expected::any()).unwrap();
    Digest::sha256(bytes)
}
