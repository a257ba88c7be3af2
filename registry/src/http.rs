//! The registry's HTTP side: one function for the way of every request, one file per endpoint.

mod answer;
mod blobs;
mod catalog;
mod error;
mod gate;
mod manifests;
mod mirrored;
mod mount;
mod notify;
mod page;
mod query;
mod range;
mod receive;
mod referrers;
mod room;
mod route;
mod session;
mod tags;
mod token;
mod uploads;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

use boatyard_access::{Action, Authority, Caller, Deed, Entry, Right, TOKEN_PATH, Verdict};
use boatyard_front::{Labels, Peer};
use boatyard_oci::RepositoryName;

use crate::mirror::{Address, AddressError, Meant};
use crate::registry::Registry;
use error::{ApiError, Code};
use gate::Gate;
use query::Query;
use route::Route;
use token::TokenService;

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// Returns the routes of the registry: everything at and below `/v2`, and the same below the name
/// of each mirror, for clients that are given a URL with a path.
pub fn router(registry: Arc<Registry>) -> Router {
    // axum's patterns cannot split a name that has slashes, so all paths have one handler.
    Router::new()
        .route("/v2", any(serve))
        .route("/v2/", any(serve))
        .route("/v2/{*path}", any(serve))
        .route("/{upstream}/v2", any(serve))
        .route("/{upstream}/v2/", any(serve))
        .route("/{upstream}/v2/{*path}", any(serve))
        .with_state(registry)
}

/// Returns the same behind a gate: who makes a request is known before anything of it is looked
/// at. Where tokens are issued is among the routes.
pub fn guarded_router(registry: Arc<Registry>, authority: Arc<Authority>) -> Router {
    let gate = Arc::new(Gate::new(authority));
    let service = TokenService { registry: Arc::clone(&registry), gate: Arc::clone(&gate) };
    let tokens = Router::new().route(TOKEN_PATH, any(token::serve)).with_state(service);
    router(registry).merge(tokens).layer(from_fn_with_state(gate, gate::enter))
}

/// Answers a request; errors become the specification's body here and nowhere else.
async fn serve(State(registry): State<Arc<Registry>>, request: Request<Body>) -> Response {
    let (parts, mut body) = request.into_parts();
    let route = Route::parse(split_prefix(parts.uri.path()).1);
    let caller = parts.extensions.get::<Caller>().map(Caller::identity);
    let who = caller.filter(|identity| !identity.is_anonymous()).map(|who| who.to_string().into());
    let labels = Labels { service: "registry", route: route.as_ref().map_or("", Route::kind), who };
    let answer = match (within_rate(&registry, &parts), route) {
        (Ok(()), Ok(route)) => answer(registry, parts, body, route).await,
        (Ok(()), Err(error)) => Err(error),
        (Err(refusal), _) => {
            receive::drain(&mut body).await;
            Err(refusal)
        }
    };
    let mut response = answer.unwrap_or_else(ApiError::into_response);
    response.extensions_mut().insert(labels);
    say_version(&mut response);
    response
}

/// Adds the header by which clients tell a registry from a web server.
fn say_version(response: &mut Response) {
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
}

/// Refuses a client that makes more requests than it may.
fn within_rate(registry: &Registry, parts: &Parts) -> Result<(), ApiError> {
    let Some(peer) = parts.extensions.get::<Peer>() else { return Ok(()) };
    registry.rates.count(peer.address.ip()).map_err(|wait| {
        let most = registry.rates.limit().per_second;
        let message =
            format!("the client makes more requests than requests_per_second allows ({most})");
        ApiError::new(Code::TooManyRequests, message)
            .header(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1))
    })
}

/// The way of a request: what it names, what it wants to do there, whether it may, and the doing.
async fn answer(
    registry: Arc<Registry>,
    parts: Parts,
    body: Body,
    mut route: Route,
) -> Result<Response, ApiError> {
    let (prefix, _) = split_prefix(parts.uri.path());
    let action = action(&route, &parts.method)?;
    let prefix = prefix.map(str::to_owned);
    let mut call = Call::new(registry, parts);
    if let Some(meant) = call.meant(prefix.as_deref(), &route)? {
        if let Some(asked) = route.repository() {
            call.caller = call.caller.asking_as(asked.clone());
        }
        match call.authorize(action, Some(&meant.titled()))? {
            Passage::Open => return mirrored::serve(call, meant, route).await,
            Passage::Hidden => route = route.moved_to(&call.registry.nowhere),
        }
    } else if call.authorize(action, route.repository())? == Passage::Hidden {
        route = route.moved_to(&call.registry.nowhere);
    }
    match (route, call.method.clone()) {
        (Route::Base, _) => Ok(answer::json("{}")),
        (Route::Catalog, _) => catalog::list(call).await,
        (Route::Tags(name), _) => tags::list(call, name).await,
        (Route::Referrers(name, subject), _) => referrers::list(call, name, &subject).await,
        (Route::Manifest(name, reference), Method::PUT) => {
            manifests::put(call, name, &reference, body).await
        }
        (Route::Manifest(name, reference), Method::DELETE) => {
            manifests::delete(call, name, &reference).await
        }
        (Route::Manifest(name, reference), _) => manifests::get(call, &name, &reference).await,
        (Route::Blob(name, digest), Method::DELETE) => blobs::delete(call, name, &digest).await,
        (Route::Blob(name, digest), _) => blobs::get(call, name, &digest).await,
        (Route::Uploads(name), _) => uploads::begin(call, name, body).await,
        (Route::Upload(name, session), Method::PATCH) => {
            uploads::append(call, name, &session, body).await
        }
        (Route::Upload(name, session), Method::PUT) => {
            uploads::finish(call, name, &session, body).await
        }
        (Route::Upload(name, session), Method::DELETE) => {
            uploads::cancel(call, name, &session).await
        }
        (Route::Upload(name, session), _) => uploads::status(call, name, &session).await,
    }
}

/// Splits a path into the mirror's name before `/v2`, if there is one, and the rest.
fn split_prefix(path: &str) -> (Option<&str>, &str) {
    let Some((first, rest)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
        return (None, path);
    };
    if first == "v2" {
        return (None, path);
    }
    (Some(first), &path[path.len() - rest.len() - 1..])
}

/// Returns what a method does to what a path names.
fn action(route: &Route, method: &Method) -> Result<Action, ApiError> {
    let read = *method == Method::GET || *method == Method::HEAD;
    let (action, allowed) = match route {
        Route::Base => (read.then_some(Action::Ping), "GET, HEAD"),
        Route::Catalog => (read.then_some(Action::Catalog), "GET, HEAD"),
        Route::Tags(_) | Route::Referrers(..) => (read.then_some(Action::Pull), "GET, HEAD"),
        Route::Manifest(..) => match *method {
            Method::PUT => (Some(Action::Push), ""),
            Method::DELETE => (Some(Action::Delete), ""),
            _ => (read.then_some(Action::Pull), "GET, HEAD, PUT, DELETE"),
        },
        Route::Blob(..) => match *method {
            Method::DELETE => (Some(Action::Delete), ""),
            _ => (read.then_some(Action::Pull), "GET, HEAD, DELETE"),
        },
        Route::Uploads(_) => ((*method == Method::POST).then_some(Action::Push), "POST"),
        Route::Upload(..) => {
            let known = [Method::GET, Method::PATCH, Method::PUT, Method::DELETE];
            (known.contains(method).then_some(Action::Push), "GET, PATCH, PUT, DELETE")
        }
    };
    action.ok_or_else(|| {
        ApiError::new(Code::Unsupported, "the endpoint does not have this method")
            .header(header::ALLOW, HeaderValue::from_static(allowed))
    })
}

/// How a request goes on that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passage {
    /// To what it asks for.
    Open,
    /// As if what it asks for were in a repository that does not exist: what one may not read and
    /// what is not there have the same answer, and the same work is done for it.
    Hidden,
}

/// A request without its path and body.
struct Call {
    registry: Arc<Registry>,
    caller: Caller,
    method: Method,
    headers: HeaderMap,
    query: Query,
    /// As it was sent: what a `Link` to the next page begins with.
    path: String,
    /// `Host`, or what HTTP/2 has in its place.
    host: Option<String>,
}

impl Call {
    fn new(registry: Arc<Registry>, mut parts: Parts) -> Call {
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        Call {
            registry,
            path: parts.uri.path().to_owned(),
            host: host
                .or(parts.uri.authority().map(http::uri::Authority::as_str))
                .map(str::to_owned),
            caller: parts.extensions.remove::<Caller>().unwrap_or_default(),
            query: Query::parse(parts.uri.query()),
            method: parts.method,
            headers: parts.headers,
        }
    }

    /// Returns a header's value where it is text.
    fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Finds the upstream that a request means; `None` where it means what is hosted here.
    fn meant(&self, prefix: Option<&str>, route: &Route) -> Result<Option<Meant>, ApiError> {
        let unknown = |error: AddressError| ApiError::refused(Code::NameUnknown, &error);
        let mirrors = &self.registry.mirrors;
        let Some(repository) = route.repository() else {
            return match prefix {
                Some(name) => mirrors.check_name(name).map_err(unknown).map(|()| None),
                None => Ok(None),
            };
        };
        let namespace = self.query.first("ns");
        let address = Address { prefix, namespace, host: self.host.as_deref(), repository };
        let meant = mirrors.find(&address).map_err(unknown)?;
        if !meant.as_ref().is_some_and(|meant| meant.by_default) {
            return Ok(meant);
        }
        // A default upstream is asked for what is not here, and for nothing but reading. Who asks
        // how far an upload is reads, too, in a repository that may not have a blob yet.
        let is_upload = matches!(route, Route::Uploads(_) | Route::Upload(..));
        let reads = !is_upload && matches!(self.method, Method::GET | Method::HEAD);
        let hosted = !reads
            || self.registry.repository(repository).exists()?
                // What one may not see is asked for upstream, as what is not here.
                && self.allows(Action::List, repository);
        Ok(meant.filter(|_| !hosted))
    }

    /// Writes into the audit log that the caller has done something.
    fn note(&self, deed: Deed, repository: &RepositoryName, more: impl FnOnce(&mut Entry)) {
        let who = self.caller.identity().to_string();
        let mut entry = Entry::from_origin(deed, who, self.caller.origin());
        entry.repository = Some(repository.to_string());
        more(&mut entry);
        self.registry.access.record(&entry);
    }

    /// Says whether the caller may do something.
    fn allows(&self, action: Action, repository: &RepositoryName) -> bool {
        let access = &self.registry.access;
        access.decide(&self.caller, action, Some(repository)) == Verdict::Allowed
    }

    fn authorize(
        &self,
        action: Action,
        repository: Option<&RepositoryName>,
    ) -> Result<Passage, ApiError> {
        match self.registry.access.decide(&self.caller, action, repository) {
            Verdict::Allowed => Ok(Passage::Open),
            Verdict::Denied if action == Action::Pull => Ok(Passage::Hidden),
            Verdict::Denied => {
                if let Some(repository) = repository {
                    let right = action.right().map(Right::as_str);
                    self.note(Deed::Denied, repository, |entry| {
                        entry.detail = right.map(str::to_owned);
                    });
                }
                Err(ApiError::new(Code::Denied, "the caller may not do this"))
            }
            Verdict::Unauthenticated { challenge } => {
                let error = ApiError::new(Code::Unauthorized, "authentication is required");
                let challenge = HeaderValue::try_from(challenge).map_err(ApiError::internal)?;
                Err(error.header(header::WWW_AUTHENTICATE, challenge))
            }
        }
    }
}

/// Does disk work on a thread where it may block: one crossing for each operation.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)?
}

/// Does work that goes on to its end even if the client goes away meanwhile.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(work).await.map_err(ApiError::internal)?
}
