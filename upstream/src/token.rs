//! Tokens: what a registry's token service gives for credentials, and for how long.
//!
//! A token is kept per set of scopes until shortly before it expires. One task at a time asks for
//! the token of a set; the others wait for its answer. Credentials are sent only where
//! [`crate::realm`] allows it: elsewhere an anonymous token is asked for, and the error, if there is
//! one, says that the credentials were withheld.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boatyard_oci::RepositoryName;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use url::{Url, form_urlencoded};

use crate::answer::Answer;
use crate::challenge::BearerChallenge;
use crate::clock::Clock;
use crate::credentials::{Credential, Origin};
use crate::redact::{Secret, url_without_secrets};
use crate::transport::{Outgoing, Payload, Transport, TransportError};

/// The most that is read of a token service's answer, in bytes.
const ANSWER_MAX: usize = 256 * 1024;
/// How long a token is good whose answer does not say.
///
/// > "For compatibility with older clients, a token should never be returned with less than 60
/// > seconds to live." (distribution, token.md)
const LIFETIME_DEFAULT: Duration = Duration::from_secs(60);
/// How long before its end a token is not used any more.
const LIFETIME_MARGIN: Duration = Duration::from_secs(10);
/// How many tokens are kept for one registry.
const SLOTS_MAX: usize = 1024;
/// What we call ourselves in `client_id`.
const CLIENT_ID: &str = "boatyard";

/// One thing that a token allows: actions on a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(String);

/// The scopes of a token.
pub type ScopeSet = BTreeSet<Scope>;

impl Scope {
    /// Reading a repository.
    pub fn pull(repository: &RepositoryName) -> Scope {
        Scope(format!("repository:{repository}:pull"))
    }

    /// Reading and writing a repository.
    pub fn push(repository: &RepositoryName) -> Scope {
        Scope(format!("repository:{repository}:pull,push"))
    }

    /// May list the repositories.
    pub fn catalog() -> Scope {
        Scope("registry:catalog:*".to_owned())
    }

    /// Deleting from a repository.
    pub fn delete(repository: &RepositoryName) -> Scope {
        Scope(format!("repository:{repository}:delete,pull,push"))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A token service that gave no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The realm is not an address.
    #[error("the token service `{realm}` is not a URL")]
    Realm {
        /// What the challenge says, shortened.
        realm: String,
    },
    /// It could not be reached.
    #[error("the token service could not be asked")]
    Transport(#[source] TransportError),
    /// It refused.
    #[error("the token service {service} refused {shown}")]
    Refused {
        /// Its address.
        service: String,
        /// What was shown to it.
        shown: Shown,
        /// What it answered.
        #[source]
        source: Answer,
    },
    /// Its answer holds no token.
    #[error("the token service {service} answered without a token")]
    Form {
        /// Its address.
        service: String,
    },
}

impl TokenError {
    /// Says whether the same request may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        match self {
            TokenError::Transport(source) => source.is_retryable(),
            TokenError::Refused { source, .. } => crate::retry::is_retryable(source.status),
            TokenError::Realm { .. } | TokenError::Form { .. } => false,
        }
    }
}

/// What was shown to a token service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Nothing.
    Nothing,
    /// Nothing, though there are credentials: the service is not the registry's kin.
    Withheld(Origin),
    /// The credentials from there.
    Credentials(Origin),
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shown::Nothing => f.write_str("a request without credentials"),
            Shown::Withheld(origin) => write!(
                f,
                "a request without credentials (those from {origin} were withheld: the service \
                 does not belong to the registry's domain; list its host as trusted to send them)"
            ),
            Shown::Credentials(origin) => write!(f, "the credentials from {origin}"),
        }
    }
}

/// Tokens for one registry.
#[derive(Debug, Default)]
pub struct TokenCache {
    slots: Mutex<HashMap<(ScopeSet, Option<Credential>), Slot>>,
}

type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

#[derive(Clone, Debug)]
struct Token {
    secret: Secret,
    until: Timestamp,
}

/// What is needed to ask for a token.
pub struct TokenRequest<'a> {
    /// The registry's base URL: its kin may see the credential.
    pub registry: &'a Url,
    /// What the registry said.
    pub challenge: &'a BearerChallenge,
    /// What the token is to allow.
    pub scopes: &'a ScopeSet,
    /// Who asks, and where that was found.
    pub credential: Option<(&'a Credential, &'a Origin)>,
    /// Further hosts that may see the credential.
    pub trusted: &'a BTreeSet<String>,
    /// Whether certificates are not checked for the registry.
    pub unchecked: bool,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
    issued_at: Option<String>,
}

impl TokenCache {
    /// Returns a token, from the cache where a good one is there.
    ///
    /// # Errors
    /// Where the token service cannot be asked, or gives none.
    pub async fn get(
        &self,
        transport: &Transport,
        clock: &dyn Clock,
        request: &TokenRequest<'_>,
    ) -> Result<Secret, TokenError> {
        let key = (request.scopes.clone(), request.credential.map(|(c, _)| c.clone()));
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            if slots.len() >= SLOTS_MAX {
                // A mirror of very many repositories: what nobody waits for is asked for again.
                slots.retain(|_, slot| Arc::strong_count(slot) > 1);
            }
            Arc::clone(slots.entry(key).or_default())
        };
        let mut slot = slot.lock().await;
        if let Some(token) = &*slot
            && token.until > clock.now()
        {
            return Ok(token.secret.clone());
        }
        let token = fetch(transport, clock, request).await?;
        let secret = token.secret.clone();
        *slot = Some(token);
        Ok(secret)
    }

    /// Forgets a token that the registry refused, whatever its lifetime was to be.
    pub fn forget(&self, refused: &Secret) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in slots.values() {
            // One that is locked is just being replaced.
            if let Ok(mut slot) = slot.try_lock()
                && slot.as_ref().is_some_and(|token| token.secret == *refused)
            {
                *slot = None;
            }
        }
    }
}

async fn fetch(
    transport: &Transport,
    clock: &dyn Clock,
    request: &TokenRequest<'_>,
) -> Result<Token, TokenError> {
    let realm = read_realm(&request.challenge.realm)?;
    let trusted = crate::realm::may_see_credentials(request.registry, &realm, request.trusted);
    let credential = request.credential.filter(|_| trusted);
    let shown = match (credential, request.credential) {
        (Some((_, origin)), _) => Shown::Credentials(origin.clone()),
        (None, Some((_, origin))) => Shown::Withheld(origin.clone()),
        (None, None) => Shown::Nothing,
    };
    let same_host = realm.host() == request.registry.host();
    let unchecked = request.unchecked && same_host;
    let outgoing = match credential.map(|(credential, _)| credential) {
        Some(Credential::IdentityToken { token }) => by_post(&realm, request, token),
        Some(Credential::Password { user, password }) => {
            let mut outgoing = by_get(&realm, request);
            outgoing.url.query_pairs_mut().append_pair("account", user);
            outgoing.headers.insert(AUTHORIZATION, basic(user, password));
            outgoing
        }
        _ => by_get(&realm, request),
    };
    let answer =
        transport.send(Outgoing { unchecked, ..outgoing }).await.map_err(TokenError::Transport)?;
    let service = url_without_secrets(&realm);
    let status = answer.status;
    if status != StatusCode::OK {
        let source = Answer::read(answer).await;
        return Err(TokenError::Refused { service, shown, source });
    }
    let body = answer.bytes(ANSWER_MAX).await.map_err(TokenError::Transport)?;
    parse(&body, clock.now()).ok_or(TokenError::Form { service })
}

fn read_realm(realm: &str) -> Result<Url, TokenError> {
    let refuse = || TokenError::Realm { realm: realm.chars().take(200).collect() };
    let mut url = Url::parse(realm).map_err(|_| refuse())?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(refuse());
    }
    url.set_fragment(None);
    Ok(url)
}

/// The GET form: `?service=...&scope=...&scope=...` (distribution, token.md).
fn by_get(realm: &Url, request: &TokenRequest<'_>) -> Outgoing {
    let mut url = realm.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = &request.challenge.service {
            query.append_pair("service", service);
        }
        for scope in request.scopes {
            query.append_pair("scope", &scope.0);
        }
    }
    Outgoing {
        method: Method::GET,
        url,
        headers: HeaderMap::new(),
        payload: Payload::Empty,
        unchecked: false,
    }
}

/// The POST form, which exchanges an identity token (distribution, oauth.md).
fn by_post(realm: &Url, request: &TokenRequest<'_>, token: &Secret) -> Outgoing {
    let scopes: Vec<&str> = request.scopes.iter().map(|scope| scope.0.as_str()).collect();
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token");
    form.append_pair("client_id", CLIENT_ID);
    form.append_pair("service", request.challenge.service.as_deref().unwrap_or_default());
    form.append_pair("scope", &scopes.join(" "));
    form.append_pair("refresh_token", token.expose());
    let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
    Outgoing {
        method: Method::POST,
        url: realm.clone(),
        headers: HeaderMap::from_iter([(CONTENT_TYPE, form_type)]),
        payload: Payload::Bytes(Bytes::from(form.finish())),
        unchecked: false,
    }
}

/// Returns the `Authorization` of a user and a password (RFC 7617).
pub(crate) fn basic(user: &str, password: &Secret) -> HeaderValue {
    let joined = STANDARD.encode(format!("{user}:{}", password.expose()));
    sensitive(&format!("Basic {joined}"))
}

/// Returns the `Authorization` of a token (RFC 6750).
pub(crate) fn bearer(token: &Secret) -> HeaderValue {
    sensitive(&format!("Bearer {}", token.expose()))
}

fn sensitive(text: &str) -> HeaderValue {
    // What cannot stand in a header cannot be a token either: the registry will refuse it.
    let mut value = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

fn parse(body: &[u8], now: Timestamp) -> Option<Token> {
    let answer: TokenAnswer = serde_json::from_slice(body).ok()?;
    let text = answer.token.filter(|token| !token.is_empty()).or(answer.access_token)?;
    if text.is_empty() || HeaderValue::from_str(&text).is_err() {
        return None;
    }
    let lifetime = answer.expires_in.map_or(LIFETIME_DEFAULT, Duration::from_secs);
    // A service whose clock runs ahead must not make a token immortal.
    let issued = answer
        .issued_at
        .and_then(|text| text.parse::<Timestamp>().ok())
        .map_or(now, |issued| issued.min(now));
    let usable = lifetime.saturating_sub(LIFETIME_MARGIN).max(lifetime / 2);
    let usable = SignedDuration::try_from(usable).unwrap_or(SignedDuration::MAX);
    let until = issued.saturating_add(usable).unwrap_or(Timestamp::MAX);
    Some(Token { secret: Secret::new(text), until })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_token_services() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let table = [
            (r#"{"token":"t"}"#, Some(("t", 50))),
            (r#"{"access_token":"a","expires_in":300}"#, Some(("a", 290))),
            (r#"{"token":"","access_token":"a","expires_in":10}"#, Some(("a", 5))),
            (
                r#"{"token":"t","expires_in":100,"issued_at":"2025-12-31T23:59:30Z"}"#,
                Some(("t", 60)),
            ),
            (
                r#"{"token":"t","expires_in":100,"issued_at":"2030-01-01T00:00:00Z"}"#,
                Some(("t", 90)),
            ),
            (r#"{"token":"t","issued_at":"gibberish"}"#, Some(("t", 50))),
            ("{}", None),
            (r#"{"token":"a\nb"}"#, None),
            ("[", None),
        ];
        for (body, expected) in table {
            let token = parse(body.as_bytes(), now);
            let got = token
                .as_ref()
                .map(|token| (token.secret.expose(), token.until.duration_since(now).as_secs()));
            assert_eq!(got, expected, "{body}");
        }
        let huge = parse(br#"{"token":"t","expires_in":18446744073709551615}"#, now).unwrap();
        assert!(huge.until > now);
    }

    #[test]
    fn realms_that_are_no_urls() {
        for realm in ["", "token", "file:///etc/passwd", "data:,x", "http://"] {
            assert!(read_realm(realm).is_err(), "{realm}");
        }
    }
}
