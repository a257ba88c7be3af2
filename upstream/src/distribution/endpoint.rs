//! One registry as it is reached: its base URL, what it asked for, and what we show it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use boatyard_oci::{RegistryHost, RepositoryName};
use http::StatusCode;
use http::{HeaderMap, HeaderValue, Method};
use url::Url;

use super::client::PlainHttp;
use crate::certs_d::HostCertificates;
use crate::challenge::{BearerChallenge, Challenge};
use crate::credentials::{Credential, Found};
use crate::redact::Secret;
use crate::tls::Trust;
use crate::token::TokenCache;
use crate::transport::{Incoming, Outgoing, Payload, Transport, TransportError, host_names};

/// Where Docker Hub's registry really is.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// What is known of a registry, shared by all requests to it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) registry: RegistryHost,
    /// Whether it is marked insecure: certificates go unchecked, and plain HTTP will do.
    pub(crate) insecure: bool,
    pub(crate) tokens: TokenCache,
    base: tokio::sync::OnceCell<Url>,
    wanted: Mutex<Option<Wanted>>,
    found: Mutex<HashMap<Option<RepositoryName>, Option<Found>>>,
}

/// The kind of authentication that a registry wants.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    Basic,
    Bearer(BearerChallenge),
}

/// What a request shows.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) header: HeaderValue,
    pub(crate) token: Option<Secret>,
}

impl Endpoint {
    pub(crate) fn new(registry: RegistryHost, insecure: bool) -> Endpoint {
        Endpoint {
            registry,
            insecure,
            tokens: TokenCache::default(),
            base: tokio::sync::OnceCell::new(),
            wanted: Mutex::default(),
            found: Mutex::default(),
        }
    }

    /// Returns the URL that `v2/` is appended to; finds out whether it is plain HTTP where that
    /// is open.
    pub(crate) async fn base(
        &self,
        transport: &Transport,
        trust: &Trust,
        plain_http: &PlainHttp,
    ) -> Result<Url, TransportError> {
        let base = self.base.get_or_try_init(|| self.find_base(transport, trust, plain_http));
        base.await.cloned()
    }

    async fn find_base(
        &self,
        transport: &Transport,
        trust: &Trust,
        plain_http: &PlainHttp,
    ) -> Result<Url, TransportError> {
        let (http, https) = (self.url("http")?, self.url("https")?);
        if plain_http.names(&self.registry) {
            return Ok(http);
        }
        let candidates = if self.insecure {
            [https, http]
        } else if self.registry.is_loopback() && !has_certificates(trust, &https) {
            [http, https]
        } else {
            return Ok(https);
        };
        let mut first_error = None;
        for base in candidates {
            match self.probe(transport, &base).await {
                Ok(true) => return Ok(base),
                Ok(false) => {}
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        match first_error {
            Some(error) => Err(error),
            // Both answered 400, so the requests themselves will say what is wrong.
            None => self.url("https"),
        }
    }

    /// Asks whether a registry answers there. A TLS server answers plain HTTP with 400.
    async fn probe(&self, transport: &Transport, base: &Url) -> Result<bool, TransportError> {
        let mut url = base.clone();
        url.set_path("/v2/");
        let answer = transport
            .send(Outgoing {
                method: Method::GET,
                url,
                headers: HeaderMap::new(),
                payload: Payload::Empty,
                unchecked: self.insecure,
            })
            .await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            self.learn(&answer);
        }
        Ok(answer.status != StatusCode::BAD_REQUEST)
    }

    fn url(&self, scheme: &str) -> Result<Url, TransportError> {
        let host = if self.registry.is_docker_hub() { DOCKER_HUB } else { self.registry.as_str() };
        // Names such as `1.2.3.999` or `xn--a` are a registry's in form, but nobody's address.
        Url::parse(&format!("{scheme}://{host}/"))
            .map_err(|source| TransportError::Address { host: host.to_owned(), source })
    }

    /// Remembers what an answer with status 401 asks for; says whether it asks for something that
    /// we can do.
    pub(crate) fn learn(&self, answer: &Incoming) -> bool {
        let challenges = Challenge::read_all(&answer.headers);
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer(bearer) => Some(Wanted::Bearer(bearer.clone())),
            Challenge::Basic => None,
        });
        let basic = challenges.contains(&Challenge::Basic).then_some(Wanted::Basic);
        let Some(wanted) = bearer.or(basic) else {
            return false;
        };
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(wanted);
        true
    }

    pub(crate) fn wanted(&self) -> Option<Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns what was looked up for a repository before.
    pub(crate) fn remembered(&self, repository: Option<&RepositoryName>) -> Option<Option<Found>> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.get(&repository.cloned()).cloned()
    }

    pub(crate) fn remember(&self, repository: Option<&RepositoryName>, found: Option<Found>) {
        let mut all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(repository.cloned(), found);
    }

    /// Forgets whose credentials were looked up: they have changed.
    pub(crate) fn forget_credentials(&self) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Shown {
    pub(crate) fn token(token: Secret) -> Shown {
        Shown { header: crate::token::bearer(&token), token: Some(token) }
    }

    /// Returns what answers a `Basic` challenge.
    pub(crate) fn basic(credential: &Credential) -> Option<Shown> {
        let header = match credential {
            Credential::Password { user, password } => crate::token::basic(user, password),
            Credential::IdentityToken { .. } | Credential::RegistryToken { .. } => return None,
        };
        Some(Shown { header, token: None })
    }
}

fn has_certificates(trust: &Trust, https: &Url) -> bool {
    // A directory that cannot be read counts: the connection will say what is wrong with it.
    HostCertificates::load(&trust.certs_d, &host_names(https)).map_or(true, |c| !c.is_empty())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::transport::{ProxyUse, Timeouts};

    async fn base(registry: &str, plain_http: &PlainHttp) -> Result<Url, TransportError> {
        let none = Duration::from_secs(1);
        let transport = Transport::new(
            Trust::default(),
            Timeouts { connect: none, idle: none },
            HeaderValue::from_static("test"),
            ProxyUse::Never,
        );
        let endpoint = Endpoint::new(registry.parse().unwrap(), false);
        endpoint.base(&transport, &Trust::default(), plain_http).await
    }

    #[tokio::test]
    async fn addresses_that_are_nobodys() {
        for registry in ["1.2.3.999", "1.2.3.4.5", "xn--a"] {
            let error = base(registry, &PlainHttp::Loopback).await.unwrap_err();
            assert!(error.to_string().contains(registry), "{error}");
        }
    }

    #[tokio::test]
    async fn addresses_that_need_no_question() {
        let hosts = PlainHttp::Hosts(["registry.lan:5000".parse().unwrap()].into());
        for (registry, expected) in [
            ("docker.io", "https://registry-1.docker.io/"),
            ("registry.example", "https://registry.example/"),
            ("registry.lan", "https://registry.lan/"),
            ("registry.lan:5000", "http://registry.lan:5000/"),
            ("[2001:db8::1]:5000", "https://[2001:db8::1]:5000/"),
        ] {
            assert_eq!(base(registry, &hosts).await.unwrap().as_str(), expected);
        }
    }
}
