//! Maven: repositories of artifacts for Maven, Gradle, sbt and their kin.
//!
//! ```text
//! com/acme/app/maven-metadata.xml                   changes: which versions there are
//! com/acme/app/1.0/app-1.0.jar[.asc]                never changes
//! com/acme/app/1.0/app-1.0.jar.sha1                 nor does what vouches for it
//! com/acme/app/1.1-SNAPSHOT/maven-metadata.xml      changes: which build is the last
//! com/acme/app/1.1-SNAPSHOT/app-1.1-20260102.030405-1.jar    never changes: one build
//! com/acme/app/1.1-SNAPSHOT/app-1.1-SNAPSHOT.jar    changes: whichever build is the last
//! ```
//!
//! An artifact is fetched together with its `.sha256`, `.sha512` and `.sha1`; the strongest that
//! there is must agree with it. The checksums of a `maven-metadata.xml` are made of the bytes that
//! are kept of it: those of the upstream may be of another version already.
//!
//! A private artifact is called `group:artifact`. What Maven deploys besides artifacts is made here
//! when it is read: metadata of the files that are published, checksums of their bytes. So two who
//! deploy at once lose no version.

mod layout;
mod metadata;
mod private;

use async_trait::async_trait;
use boatyard_content::cache::Cache;
use boatyard_oci::{Algorithm, Digest};
use http::{Method, StatusCode};
use jiff::Timestamp;

use super::{
    Ask, Classified, Ecosystem, Explained, Fetcher, Obtain, ObtainError, Obtained, Resolution,
    Resolved,
};
use crate::class::{Class, Promise};
use crate::hosted::{Hosted, Upload};
use crate::reply::Reply;
use crate::request::Request;
use crate::statistics::Outcome;

pub use layout::{Checksum, Place, What};

/// How many digests of artifacts are remembered.
const DIGESTS_MAX: usize = 10_000;
/// The longest file with a checksum.
const SIDECAR_MAX: usize = 4096;

/// Maven's repositories.
#[derive(Debug)]
pub struct Maven {
    /// The SHA-1 of blobs: nothing else vouches for most artifacts.
    sha1: Cache<Digest, String>,
}

impl Default for Maven {
    fn default() -> Maven {
        Maven { sha1: Cache::new(DIGESTS_MAX) }
    }
}

#[async_trait]
impl Ecosystem for Maven {
    fn name(&self) -> &'static str {
        "maven"
    }

    fn classify(&self, request: &Request) -> Option<Classified> {
        let place = place(request)?;
        let is_configured =
            request.upstream.as_ref().is_some_and(|it| it.ecosystem.as_deref() == Some("maven"));
        if !is_configured && !place.is_unmistakable() {
            return None;
        }
        if hosted(request).is_some_and(|hosted| place.is_private(hosted)) {
            return Some(Classified::Resolve);
        }
        Some(match (&place.what, place.checksum) {
            (What::Artifact { .. }, None) if place.is_signature() => {
                Classified::As(Class::immutable())
            }
            (What::Artifact { .. }, None) if request.method == Method::GET => Classified::Resolve,
            (What::Artifact { .. }, _) => Classified::As(Class::immutable()),
            (What::Metadata { .. }, _) if request.method == Method::GET => Classified::Resolve,
            (What::Metadata { .. } | What::Moving { .. }, _) => Classified::As(Class::index()),
        })
    }

    async fn resolve(&self, request: &Request, fetcher: &dyn Fetcher) -> Resolution {
        let Some(place) = place(request) else { return Resolution::Class(Class::Http) };
        if let Some(hosted) = hosted(request).filter(|hosted| place.is_private(hosted)) {
            let (hosted, request) = (hosted.clone(), request.clone());
            let read = move || private::read(&hosted, &request, &place);
            return tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| refused_stopping());
        }
        match (&place.what, place.checksum) {
            (What::Metadata { .. }, None) => metadata_of(request, fetcher).await,
            (_, Some(checksum)) => checksum_of_metadata(request, fetcher, checksum).await,
            (_, None) => self.artifact(request, fetcher).await,
        }
    }

    async fn explain(&self, request: &Request, now: Timestamp) -> Explained {
        let _ = now;
        let Some(place) = place(request) else { return Explained::default() };
        if hosted(request).is_some_and(|hosted| place.is_private(hosted)) {
            let note = "it is of a private artifact: the upstream is never asked for it".to_owned();
            return Explained { class: None, notes: vec![note] };
        }
        match (&place.what, place.checksum) {
            (What::Metadata { .. }, Some(_)) => {
                let note = "it is computed of the maven-metadata.xml that is kept".to_owned();
                Explained { class: Some(Class::index()), notes: vec![note] }
            }
            (What::Metadata { .. }, None) => {
                Explained { class: Some(Class::index()), notes: Vec::new() }
            }
            _ => Explained { class: Some(Class::immutable()), notes: Vec::new() },
        }
    }

    fn receives(&self, request: &Request) -> bool {
        matches!(request.method, Method::PUT | Method::DELETE)
    }

    fn receive(&self, request: &Request, hosted: &Hosted, upload: &Upload) -> Reply {
        let Some(place) = place(request) else {
            return Reply::text(StatusCode::BAD_REQUEST, "this is no path of a Maven repository");
        };
        if request.method == Method::DELETE {
            return private::delete(hosted, request, &place);
        }
        private::deploy(hosted, request, &place, upload)
    }
}

impl Maven {
    /// Answers for an artifact: with what vouches for it, if anything does.
    async fn artifact(&self, request: &Request, fetcher: &dyn Fetcher) -> Resolution {
        let obtain = |ask| Obtain { request: plain(request), class: Class::immutable(), ask };
        let known = fetcher.obtain(&obtain(Ask::Never)).await.ok();
        if known.as_ref().is_some_and(|known| known.entry.verified.is_some()) {
            return Resolution::Class(Class::immutable());
        }
        let [sha256, sha512, sha1] = {
            let of = |kind| sidecar(request, fetcher, kind);
            let (one, two, three) =
                tokio::join!(of(Checksum::Sha256), of(Checksum::Sha512), of(Checksum::Sha1));
            [one, two, three]
        };
        for (algorithm, text) in [(Algorithm::Sha256, sha256), (Algorithm::Sha512, sha512)] {
            let Some((text, by)) = text else { continue };
            if let Ok(digest) = Digest::from_parts(algorithm, &text) {
                let promise = Promise { digest, size: None, by };
                return Resolution::Class(Class::promised(promise));
            }
        }
        let Some((expected, by)) = sha1 else { return Resolution::Class(Class::immutable()) };
        for ask in [Ask::IfAbsent, Ask::Always] {
            let Ok(obtained) = fetcher.obtain(&obtain(ask)).await else {
                // The engine says what is to be said of that.
                return Resolution::Class(Class::immutable());
            };
            match self.sha1_of(fetcher, &obtained).await {
                Some(sha1) if sha1 == expected => return Resolution::Class(Class::immutable()),
                Some(_) => {}
                None => return Resolution::Class(Class::immutable()),
            }
        }
        let target = &request.target;
        tracing::warn!(%target, %by, "the upstream's bytes are not those that it has the SHA-1 of");
        let message = format!("{target}: the upstream's bytes are not what {by} says");
        Resolution::Refused { status: StatusCode::BAD_GATEWAY, message }
    }

    async fn sha1_of(&self, fetcher: &dyn Fetcher, obtained: &Obtained) -> Option<String> {
        let blob = &obtained.entry.blob;
        if let Some(known) = self.sha1.get(blob) {
            return Some(known);
        }
        let (root, wanted) = (fetcher.root().clone(), blob.clone());
        let compute = move || metadata::checksum_of_blob(&root, &wanted, Checksum::Sha1);
        let sha1 = tokio::task::spawn_blocking(compute).await.ok()??;
        self.sha1.put(blob.clone(), sha1.clone(), 1);
        Some(sha1)
    }
}

/// Answers for a `maven-metadata.xml`: with what is kept, once it is; who then asks for its checksum
/// gets that of the same bytes.
async fn metadata_of(request: &Request, fetcher: &dyn Fetcher) -> Resolution {
    let obtain = Obtain { request: plain(request), class: Class::index(), ask: Ask::Always };
    match fetcher.obtain(&obtain).await {
        Ok(Obtained { entry, stale }) => Resolution::Blob(Resolved {
            blob: entry.blob.clone(),
            headers: entry.policy.headers.clone(),
            stale: stale.then(|| entry.policy.age(fetcher.now())),
            outcome: Outcome::Revalidated,
        }),
        // What cannot be kept passes; and the engine has words for whatever went wrong.
        Err(_) => Resolution::Class(Class::index()),
    }
}

/// Answers for the checksum of a `maven-metadata.xml`: of the bytes that are kept.
async fn checksum_of_metadata(
    request: &Request,
    fetcher: &dyn Fetcher,
    checksum: Checksum,
) -> Resolution {
    let path = request.target.path();
    let path = path.strip_suffix(checksum.extension()).unwrap_or(path);
    let Ok(target) = request.target.at(path) else { return Resolution::Class(Class::Http) };
    let request = Request { target, ..plain(request) };
    let obtain = Obtain { request, class: Class::index(), ask: Ask::IfAbsent };
    let obtained = match fetcher.obtain(&obtain).await {
        Ok(obtained) => obtained,
        Err(ObtainError::Answered { status, .. }) => {
            let message = "there is no such maven-metadata.xml at the upstream".to_owned();
            return Resolution::Refused { status, message };
        }
        Err(error) => {
            let (status, message) = (StatusCode::BAD_GATEWAY, error.to_string());
            return Resolution::Refused { status, message };
        }
    };
    let (root, blob) = (fetcher.root().clone(), obtained.entry.blob.clone());
    let compute = move || metadata::checksum_of_blob(&root, &blob, checksum);
    match tokio::task::spawn_blocking(compute).await.ok().flatten() {
        Some(hex) => Resolution::Reply(Reply::new(StatusCode::OK, "text/plain", hex)),
        None => Resolution::Refused {
            status: StatusCode::NOT_FOUND,
            message: "ask for .sha1, .sha256 or .sha512".to_owned(),
        },
    }
}

/// Returns a checksum that the upstream has of an artifact, and what says it.
async fn sidecar(
    request: &Request,
    fetcher: &dyn Fetcher,
    checksum: Checksum,
) -> Option<(String, String)> {
    let path = format!("{}{}", request.target.path(), checksum.extension());
    let target = request.target.at(&path).ok()?;
    let by = target.file_name();
    let request = Request { target, ..plain(request) };
    let obtain = Obtain { request, class: Class::immutable(), ask: Ask::IfAbsent };
    let entry = fetcher.obtain(&obtain).await.ok()?.entry;
    let (root, blob) = (fetcher.root().clone(), entry.blob.clone());
    let read = move || {
        let opened = root.store().open_blocking(&blob).ok()??;
        boatyard_content::Blob::File(opened).into_bytes(SIDECAR_MAX).ok()
    };
    let bytes = tokio::task::spawn_blocking(read).await.ok()??;
    Some((checksum.read(&bytes)?, by))
}

/// Returns a request for all of something, without the client's conditions.
fn plain(request: &Request) -> Request {
    let mut request = Request { method: Method::GET, ..request.clone() };
    request.headers = crate::headers::shared(&request.headers);
    request
}

fn place(request: &Request) -> Option<Place> {
    let path = match &request.upstream {
        Some(upstream) => upstream.below(&request.target)?,
        None => request.target.path(),
    };
    Place::of(path.split('?').next().unwrap_or_default())
}

fn hosted(request: &Request) -> Option<&Hosted> {
    request.upstream.as_ref()?.hosted.as_deref()
}

fn refused_stopping() -> Resolution {
    let message = "the server is stopping".to_owned();
    Resolution::Refused { status: StatusCode::SERVICE_UNAVAILABLE, message }
}
