//! Requests of clients who log in: to read private packages, and to publish them.

use std::sync::Arc;

use boatyard_access::{
    Access as _, Action, Admission, Caller, Connection, Presented, Refusal, Verdict,
};
use boatyard_content::{Expected, IngestKey, Lease, Store as _, StoreError};
use boatyard_upstream::transport::Payload;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{AUTHORIZATION, ORIGIN, RETRY_AFTER};
use http::{HeaderMap, HeaderName, StatusCode};

use super::Engine;
use crate::answer::Answer;
use crate::ecosystem::Ecosystem;
use crate::hosted::{Admitted, Hosted, Refused, Upload, rule_name_of_all};
use crate::reply::Reply;
use crate::request::Request;

/// How many passwords are computed at once: each takes a core, and up to tens of megabytes.
pub(super) const PASSWORDS_AT_ONCE: usize = 2;
/// What browsers add, and clients of packages never.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Who receives what is published.
pub(super) struct Receiver<'a> {
    hosted: Arc<Hosted>,
    /// `None` where nothing can be published in this way.
    ecosystem: Option<&'a Arc<dyn Ecosystem>>,
}

/// Why a body was not taken.
enum Untaken {
    TooLong,
    /// The client sent no more.
    Broken,
    Store(StoreError),
}

impl From<StoreError> for Untaken {
    fn from(error: StoreError) -> Untaken {
        Untaken::Store(error)
    }
}

/// Says whether there is no upstream behind what a request is for.
pub(super) fn is_alone(request: &Request) -> bool {
    request.upstream.as_ref().is_some_and(|upstream| upstream.is_alone())
}

impl Engine {
    /// Finds out who makes a request, where its upstream hosts packages. What they prove it with is
    /// ours to see, and nobody else's: it is taken off. An error is the answer.
    pub(super) async fn admit(&self, request: &mut Request) -> Result<(), Answer> {
        let hosted = request.upstream.as_ref().and_then(|upstream| upstream.hosted.clone());
        // Who uses us as a forward proxy speaks to the upstream.
        let Some(hosted) = hosted.filter(|_| request.base.is_some()) else { return Ok(()) };
        let connection = Connection { peer: Some(request.client.ip()), ..Connection::default() };
        let presented = Presented::of(&request.headers, None, connection);
        let shows = request.headers.remove(AUTHORIZATION).is_some();
        let caller = match hosted.authority().admit_at_once(&presented) {
            Admission::Done(caller) => caller,
            Admission::MustVerify => self.verify(&hosted, presented).await,
        };
        let caller = match caller {
            Ok(caller) => caller,
            Err(refusal @ Refusal::TooMany { seconds }) => {
                let reply = Reply::text(StatusCode::TOO_MANY_REQUESTS, &refusal.to_string());
                return Err(Answer::replied(reply.with(RETRY_AFTER, &seconds.to_string())));
            }
        };
        let verdict = decide(&hosted, &caller, Action::Pull);
        if shows && matches!(verdict, Verdict::Unauthenticated { .. }) {
            let ecosystem = self.ecosystem_of(request);
            let message = "this user, password or token is not known here";
            return Err(Engine::refused(ecosystem, StatusCode::UNAUTHORIZED, message));
        }
        let reads = verdict == Verdict::Allowed;
        request.admitted = Admitted { caller: Some(Arc::new(caller)), reads };
        Ok(())
    }

    async fn verify(&self, hosted: &Hosted, presented: Presented) -> Result<Caller, Refusal> {
        // The semaphore is never closed, and work that fails is work of a program that stops.
        let _place = self.shared.passwords.acquire().await;
        let authority = Arc::clone(hosted.authority());
        let verified = tokio::task::spawn_blocking(move || authority.admit(&presented)).await;
        verified.unwrap_or(Err(Refusal::TooMany { seconds: 1 }))
    }

    /// Returns who receives a request that writes, where nobody passes it on.
    pub(super) fn receiver(&self, request: &Request) -> Option<Receiver<'_>> {
        let upstream = request.upstream.as_ref()?;
        let hosted = Arc::clone(upstream.hosted.as_ref()?);
        // Who uses us as a forward proxy speaks to the upstream.
        let direct = request.base.is_some();
        let ecosystem = self.ecosystem_of(request).filter(|it| direct && it.receives(request));
        (ecosystem.is_some() || upstream.is_alone()).then_some(Receiver { hosted, ecosystem })
    }

    fn ecosystem_of(&self, request: &Request) -> Option<&Arc<dyn Ecosystem>> {
        let wanted = request.upstream.as_ref()?.ecosystem.as_deref()?;
        self.shared.options.ecosystems.iter().find(|ecosystem| ecosystem.name() == wanted)
    }

    /// Says no as the clients of an ecosystem show it.
    pub(super) fn refused(
        ecosystem: Option<&Arc<dyn Ecosystem>>,
        status: StatusCode,
        message: &str,
    ) -> Answer {
        Answer::replied(match ecosystem {
            Some(ecosystem) => ecosystem.refusal(status, message).asking(),
            None => Reply::text(status, message).asking(),
        })
    }

    /// Has an ecosystem answer a request that writes.
    pub(super) async fn receive(
        &self,
        request: &Request,
        receiver: Receiver<'_>,
        payload: Payload,
    ) -> Answer {
        let Receiver { hosted, ecosystem } = receiver;
        let refuse = |status, message: &str| Engine::refused(ecosystem, status, message);
        let Some(receiving) = ecosystem else {
            let message = "nothing is published in this way";
            return refuse(StatusCode::METHOD_NOT_ALLOWED, message);
        };
        if is_of_browser(&request.headers) {
            let message = "a browser asks, for whatever page: packages are not published so";
            return refuse(StatusCode::FORBIDDEN, message);
        }
        let caller = request.admitted.caller.as_deref();
        let is_known = caller.is_some_and(|caller| {
            !caller.identity().is_anonymous()
                || decide(&hosted, caller, Action::Push) == Verdict::Allowed
        });
        if !is_known {
            return refuse(StatusCode::UNAUTHORIZED, &Refused::Login.to_string());
        }
        let upload = match self.taken(&hosted, payload).await {
            Ok(upload) => upload,
            Err(Untaken::TooLong) => {
                let most = self.shared.options.upload_max;
                let message = format!("no more than {most} bytes are taken at once (upload_max)");
                return refuse(StatusCode::PAYLOAD_TOO_LARGE, &message);
            }
            Err(Untaken::Broken) => {
                return refuse(StatusCode::BAD_REQUEST, "the body broke off");
            }
            Err(Untaken::Store(error)) => {
                tracing::error!(target = %request.target, %error, "what was sent is not kept");
                let refused = Refused::from(error);
                return refuse(refused.status(), "there is no room for it, or the disk fails");
            }
        };
        let (ecosystem, asked) = (Arc::clone(receiving), request.clone());
        let received = self.blocking(move |_| ecosystem.receive(&asked, &hosted, &upload)).await;
        let stopping = || Reply::text(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping");
        Answer::replied(received.unwrap_or_else(stopping))
    }

    /// Puts a body on disk.
    async fn taken(&self, hosted: &Arc<Hosted>, payload: Payload) -> Result<Upload, Untaken> {
        let most = self.shared.options.upload_max;
        let lease = self.lease().await?;
        let mut ingest = self.shared.store.ingest(&IngestKey::random(), &lease).await?;
        let taken: Result<(), Untaken> = async {
            match payload {
                Payload::Empty => {}
                Payload::Bytes(bytes) if bytes.len() as u64 > most => return Err(Untaken::TooLong),
                Payload::Bytes(bytes) => ingest.append(bytes).await?,
                Payload::Stream { length, .. } if length > most => return Err(Untaken::TooLong),
                Payload::Stream { length, mut stream } => {
                    while let Some(piece) = stream.next().await {
                        let piece: Bytes = piece.map_err(|_| Untaken::Broken)?;
                        ingest.append(piece).await?;
                    }
                    if ingest.offset() != length {
                        return Err(Untaken::Broken);
                    }
                }
            }
            Ok(())
        }
        .await;
        if let Err(untaken) = taken {
            // What stays behind is the collector's.
            let _ = ingest.abort().await;
            return Err(untaken);
        }
        let body = ingest.commit(Expected::any()).await?.info().clone();
        Ok(Upload::new(hosted.root(), lease, body))
    }

    async fn lease(&self) -> Result<Lease, StoreError> {
        let root = Arc::clone(&self.shared.root);
        let made = tokio::task::spawn_blocking(move || root.lease()).await;
        made.unwrap_or_else(|error| {
            let source = std::io::Error::other(error);
            Err(StoreError::Io { doing: "begin a lease", source })
        })
    }
}

/// Asks the rules for all private packages of an upstream together.
fn decide(hosted: &Hosted, caller: &Caller, action: Action) -> Verdict {
    match rule_name_of_all(hosted.packages().name()) {
        Some(name) => hosted.authority().decide(caller, action, Some(&name)),
        None => Verdict::Denied,
    }
}

/// Says whether a page of the web may have had a browser send this.
fn is_of_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) || headers.contains_key(SEC_FETCH_SITE)
}
