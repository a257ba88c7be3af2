//! The token service: `GET` and `POST /v2/token`.
//!
//! Clients come here from the challenge of a 401, with their password or with nothing, and come
//! back with a token that is good for what they wanted. It is why anonymous pulls and pulls of
//! logged-in users work on one port: every client is asked, and whoever has no password gets a
//! token, too, for what is everybody's.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use boatyard_access::{AskedScope, Caller};
use boatyard_oci::RepositoryName;
use http::{HeaderValue, Method, Request, StatusCode, header};
use serde_json::json;

use super::error::{ApiError, Code};
use super::gate::Gate;
use super::query::Query;
use super::{answer, receive};
use crate::mirror::Address;
use crate::registry::Registry;

/// The most bytes of a form.
const FORM_BYTES_MAX: usize = 64 * 1024;

/// What the token service works with.
#[derive(Clone)]
pub(crate) struct TokenService {
    pub(crate) registry: Arc<Registry>,
    pub(crate) gate: Arc<Gate>,
}

/// Answers a request; what the answer holds is for its client alone.
pub(crate) async fn serve(State(service): State<TokenService>, request: Request<Body>) -> Response {
    let answer = match *request.method() {
        Method::GET => service.get(&request),
        Method::POST => service.post(request).await,
        _ => Err(ApiError::new(Code::Unsupported, "the endpoint does not have this method")
            .header(header::ALLOW, HeaderValue::from_static("GET, POST"))),
    };
    let mut response = answer.unwrap_or_else(ApiError::into_response);
    super::say_version(&mut response);
    answer::set(&mut response, header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl TokenService {
    /// > "GET /token?service=...&scope=...&account=...&offline_token=true, with an Authorization
    /// > header if the client has credentials" (distribution, docs/spec/auth/token.md)
    fn get(&self, request: &Request<Body>) -> Result<Response, ApiError> {
        let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
        let query = Query::parse(request.uri().query());
        let offline = query.first("offline_token") == Some("true");
        let scopes = AskedScope::parse_all(query.all("scope"));
        let host = host(request);
        self.issue(&caller, &scopes, host.as_deref(), offline).ok_or_else(wrong)
    }

    /// The same as OAuth 2 has it.
    ///
    /// > "grant_type (REQUIRED) Type of grant used to get token. When getting a refresh token
    /// > using credentials this type should be set to "password" and have the accompanying
    /// > username and password parameters. Type "authorization_code" is reserved ..., type
    /// > "refresh_token"" (distribution, docs/spec/auth/oauth.md)
    async fn post(&self, request: Request<Body>) -> Result<Response, ApiError> {
        let host = host(&request);
        let (parts, body) = request.into_parts();
        let by_header = parts.extensions.get::<Caller>().cloned().unwrap_or_default();
        let too_large = || {
            ApiError::new(Code::SizeInvalid, "the form is too large")
                .status(StatusCode::PAYLOAD_TOO_LARGE)
        };
        let body = receive::small(body, FORM_BYTES_MAX, too_large).await?;
        let text = std::str::from_utf8(&body).map_err(|_| invalid("invalid_request"))?;
        let form = Query::of_form(text);
        let scopes = AskedScope::parse_all(form.all("scope"));
        let origin = by_header.origin().clone();
        match form.first("grant_type") {
            Some("password") => {
                let field = |name| form.first(name).map(str::to_owned);
                let (Some(user), Some(password)) = (field("username"), field("password")) else {
                    return Err(invalid("invalid_request"));
                };
                let log_in = move |authority: &boatyard_access::Authority| {
                    authority.log_in(&user, &password, origin)
                };
                let caller = self.gate.verify(log_in).await?;
                let offline = form.first("access_type") == Some("offline");
                self.issue(&caller, &scopes, host.as_deref(), offline).ok_or_else(wrong)
            }
            Some("refresh_token") => {
                let token = form.first("refresh_token").unwrap_or_default();
                let caller = self.gate.authority.refresh(token, &origin).ok_or_else(wrong)?;
                self.issue(&caller, &scopes, host.as_deref(), false).ok_or_else(wrong)
            }
            _ => Err(invalid("unsupported_grant_type")),
        }
    }

    fn issue(
        &self,
        caller: &Caller,
        scopes: &[AskedScope],
        host: Option<&str>,
        offline: bool,
    ) -> Option<Response> {
        // A client of a mirror asks for what it sees, not for what we call it.
        let known_as = |name: &RepositoryName| {
            let address = Address { prefix: None, namespace: None, host, repository: name };
            let meant = self.registry.mirrors.find(&address).ok().flatten();
            meant.map(|meant| meant.titled())
        };
        let issued = self.gate.authority.issue(caller, scopes, &known_as, offline)?;
        Some(answer::json(serde_json::to_string(&issued).ok()?))
    }
}

fn host(request: &Request<Body>) -> Option<String> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    host.or(request.uri().authority().map(http::uri::Authority::as_str)).map(str::to_owned)
}

/// Answers that what was shown is wrong. What is asked for is a password, so that a person with a
/// browser or curl knows what to give.
fn wrong() -> ApiError {
    ApiError::new(Code::Unauthorized, "the user or the password is wrong").header(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"boatyard\", charset=\"UTF-8\""),
    )
}

/// Answers in the words of OAuth 2, which its clients read.
fn invalid(error: &'static str) -> ApiError {
    ApiError::new(Code::Unsupported, "the form is not one that this service takes")
        .status(StatusCode::BAD_REQUEST)
        .detail(json!({ "error": error }))
}
