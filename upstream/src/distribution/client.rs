//! The client: one request with its authentication and its retries.
//!
//! What a registry asks for is learnt from its first 401 and remembered, so that only the first
//! request of all costs a round trip more. A 401 later on means a token that expired early: it is
//! dropped, a new one asked for, and the request sent again, once.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use boatyard_oci::{ImageName, Reference, RegistryHost, RepositoryName};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use url::Url;

use super::endpoint::{Endpoint, Shown, Wanted};
use super::error::{ClientError, Deed};
use crate::answer::Answer;
use crate::clock::{Clock, SystemClock};
use crate::credentials::{Credential, CredentialSources, Credentials, Found};
use crate::registries_conf::{RegistriesConf, RegistriesConfError, Source};
use crate::retry::{self, RetryPolicy};
use crate::tls::Trust;
use crate::token::{ScopeSet, TokenRequest};
use crate::transport::{
    Incoming, Outgoing, Payload, ProxyUse, Timeouts, Transport, TransportError,
};

/// Which registries are spoken to without TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PlainHttp {
    /// This machine itself, where it answers plain HTTP, and what `registries.conf` marks as
    /// insecure, where it does not speak TLS.
    #[default]
    Loopback,
    /// Those, and these hosts, always.
    Hosts(BTreeSet<RegistryHost>),
}

impl PlainHttp {
    pub(crate) fn names(&self, registry: &RegistryHost) -> bool {
        matches!(self, PlainHttp::Hosts(hosts) if hosts.contains(registry))
    }
}

/// How a [`Client`] works.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Where credentials are.
    pub credentials: CredentialSources,
    /// Whom to trust.
    pub trust: Trust,
    /// Whom to speak to without TLS.
    pub plain_http: PlainHttp,
    /// What we call ourselves.
    pub user_agent: String,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How often to try again.
    pub retry: RetryPolicy,
    /// How many blobs are moved at once.
    pub concurrency: usize,
    /// Whether the system's proxies are used.
    pub proxy: ProxyUse,
    /// Time and chance.
    pub clock: Arc<dyn Clock>,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            credentials: CredentialSources::default(),
            trust: Trust::default(),
            plain_http: PlainHttp::default(),
            user_agent: format!("boatyard/{}", env!("CARGO_PKG_VERSION")),
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            concurrency: 4,
            proxy: ProxyUse::default(),
            clock: Arc::new(SystemClock),
        }
    }
}

/// Options that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A `registries.conf` cannot be used.
    #[error("the configuration of registries cannot be used")]
    Registries(#[from] RegistriesConfError),
    /// The user agent cannot stand in a header.
    #[error("`{text}` cannot be a user agent")]
    UserAgent {
        /// What was given.
        text: String,
    },
}

/// A client of any registry. Clones share connections, tokens and what was learnt.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    transport: Transport,
    credentials: Credentials,
    registries: RegistriesConf,
    options: ClientOptions,
    endpoints: Mutex<HashMap<(RegistryHost, bool), Arc<Endpoint>>>,
}

/// One request to a registry.
pub(crate) struct Call<'a> {
    pub(crate) deed: Deed,
    pub(crate) source: &'a Source,
    pub(crate) method: Method,
    pub(crate) target: Target<'a>,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    pub(crate) scopes: &'a ScopeSet,
}

/// Where a request goes.
pub(crate) enum Target<'a> {
    /// Below `/v2/`; may have a query.
    Path(String),
    /// An address that the registry gave (`Location`).
    Url(&'a Url),
}

impl Client {
    /// Returns a client that has connected to nobody yet. Reads the configuration of registries.
    ///
    /// # Errors
    /// Where that, or the user agent, cannot be used.
    pub fn new(options: ClientOptions) -> Result<Client, SetupError> {
        let user_agent = HeaderValue::from_str(&options.user_agent)
            .map_err(|_| SetupError::UserAgent { text: options.user_agent.clone() })?;
        let transport = Transport::new(
            options.trust.clone(),
            options.timeouts.clone(),
            user_agent,
            options.proxy,
        );
        let registries = RegistriesConf::load(&options.trust.registries_conf)?;
        let credentials = Credentials::new(options.credentials.clone());
        let endpoints = Mutex::default();
        let shared = Shared { transport, credentials, registries, options, endpoints };
        Ok(Client { shared: Arc::new(shared) })
    }

    /// Returns where an image may be fetched from, mirrors first.
    ///
    /// # Errors
    /// Where the configuration of registries blocks it.
    pub fn sources(&self, image: &ImageName) -> Result<Vec<Source>, ClientError> {
        let ImageName { registry, repository, reference } = image;
        Ok(self.shared.registries.sources(registry, repository, reference)?)
    }

    pub(crate) fn destination(&self, image: &ImageName) -> Result<Source, ClientError> {
        Ok(self.shared.registries.destination(&image.registry, &image.repository)?)
    }

    /// Returns the repository itself, for what mirrors are not asked: tags, referrers.
    pub(crate) fn origin(
        &self,
        registry: &RegistryHost,
        repository: &RepositoryName,
    ) -> Result<Source, ClientError> {
        Ok(self.shared.registries.destination(registry, repository)?)
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.shared.options
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.shared.options.clock
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.shared.credentials
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.shared.transport
    }

    pub(crate) fn is_insecure(&self, registry: &RegistryHost) -> bool {
        self.shared.registries.is_insecure(registry)
    }

    pub(crate) fn endpoint(&self, registry: &RegistryHost, insecure: bool) -> Arc<Endpoint> {
        let mut endpoints = self.shared.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoint = endpoints
            .entry((registry.clone(), insecure))
            .or_insert_with(|| Arc::new(Endpoint::new(registry.clone(), insecure)));
        Arc::clone(endpoint)
    }

    pub(crate) async fn base(&self, endpoint: &Endpoint) -> Result<Url, TransportError> {
        let Shared { transport, options, .. } = &*self.shared;
        endpoint.base(transport, &options.trust, &options.plain_http).await
    }

    /// Sends a request and returns the answer where its status is one of success; any other is an
    /// error.
    pub(crate) async fn call(&self, call: Call<'_>) -> Result<Incoming, ClientError> {
        let endpoint = self.endpoint(&call.source.registry, call.source.insecure);
        let transport_error = |source| ClientError::Transport { deed: call.deed.clone(), source };
        let base = self.base(&endpoint).await.map_err(transport_error)?;
        let url = match &call.target {
            Target::Path(path) => base.join(&format!("/v2/{path}")).map_err(|_| {
                ClientError::Protocol { deed: call.deed.clone(), problem: "a bad path".to_owned() }
            })?,
            Target::Url(url) => secure(url, &base),
        };
        let ours = url.origin() == base.origin();
        let mut payload = call.payload;
        let (mut failed, mut renewed) = (0, false);
        loop {
            let shown = if ours {
                self.show(&endpoint, &base, call.source, call.scopes, &call.deed).await?
            } else {
                None
            };
            let mut headers = call.headers.clone();
            if let Some(shown) = &shown {
                headers.insert(AUTHORIZATION, shown.header.clone());
            }
            let again = payload.again();
            let result = self
                .shared
                .transport
                .send(Outgoing {
                    method: call.method.clone(),
                    url: url.clone(),
                    headers,
                    payload,
                    unchecked: call.source.insecure,
                })
                .await;
            let (delay, error) = match result {
                Ok(answer) if answer.status.is_success() => return Ok(answer),
                Ok(answer) if answer.status == StatusCode::UNAUTHORIZED && ours => {
                    let known = endpoint.learn(&answer);
                    if let Some(token) = shown.as_ref().and_then(|shown| shown.token.as_ref()) {
                        endpoint.tokens.forget(token);
                    }
                    let worth = known && self.differs(&endpoint, shown.as_ref(), call.source);
                    if let (Some(again), false, true) = (&again, renewed, worth) {
                        renewed = true;
                        endpoint.forget_credentials();
                        payload = again.again().unwrap_or(Payload::Empty);
                        continue;
                    }
                    return Err(self.refusal(call.deed, answer, &endpoint, call.source).await);
                }
                Ok(answer) if retry::is_retryable(answer.status) => {
                    let asked = retry::retry_after(&answer.headers, self.clock().now());
                    let error = self.refusal(call.deed.clone(), answer, &endpoint, call.source);
                    (asked, error.await)
                }
                Ok(answer) => {
                    return Err(self.refusal(call.deed, answer, &endpoint, call.source).await);
                }
                Err(source) if source.is_retryable() => {
                    (None, ClientError::Transport { deed: call.deed.clone(), source })
                }
                Err(source) => return Err(ClientError::Transport { deed: call.deed, source }),
            };
            failed += 1;
            let Some(again) = again else {
                return Err(error);
            };
            let jitter = self.clock().jitter();
            let Some(delay) = self.shared.options.retry.delay(failed, delay, jitter) else {
                return Err(error);
            };
            tracing::debug!(%error, ?delay, failed, "trying again");
            self.clock().sleep(delay).await;
            payload = again;
        }
    }

    /// Says whether a second attempt would show something else than the first did.
    fn differs(&self, endpoint: &Endpoint, shown: Option<&Shown>, source: &Source) -> bool {
        let had_token = shown.is_some_and(|shown| shown.token.is_some());
        let fixed = matches!(
            endpoint.remembered(Some(&source.repository)),
            Some(Some(Found { credential: Credential::RegistryToken { .. }, .. }))
        );
        match endpoint.wanted() {
            Some(Wanted::Bearer(_)) => !(had_token && fixed),
            Some(Wanted::Basic) => shown.is_none() || had_token,
            None => false,
        }
    }

    async fn refusal(
        &self,
        deed: Deed,
        answer: Incoming,
        endpoint: &Endpoint,
        source: &Source,
    ) -> ClientError {
        let found = endpoint.remembered(Some(&source.repository)).flatten();
        if answer.status == StatusCode::UNAUTHORIZED {
            // They may be replaced while this process lives: the next request looks again.
            endpoint.forget_credentials();
        }
        ClientError::of(deed, Answer::read(answer).await, found.map(|found| found.origin))
    }

    /// Returns what to show a registry, where it is known to want something.
    async fn show(
        &self,
        endpoint: &Endpoint,
        base: &Url,
        source: &Source,
        scopes: &ScopeSet,
        deed: &Deed,
    ) -> Result<Option<Shown>, ClientError> {
        let Some(wanted) = endpoint.wanted() else {
            return Ok(None);
        };
        let found = self.find(endpoint, Some(&source.repository), deed).await?;
        let credential = found.as_ref().map(|found| &found.credential);
        let challenge = match wanted {
            Wanted::Basic => return Ok(credential.and_then(Shown::basic)),
            Wanted::Bearer(challenge) => challenge,
        };
        if let Some(Credential::RegistryToken { token }) = credential {
            return Ok(Some(Shown::token(token.clone())));
        }
        let request = TokenRequest {
            registry: base,
            challenge: &challenge,
            scopes,
            credential: found.as_ref().map(|found| (&found.credential, &found.origin)),
            trusted: &self.shared.options.trust.realms,
            unchecked: endpoint.insecure,
        };
        let token = self.token(endpoint, &request, deed).await?;
        Ok(Some(Shown::token(token)))
    }

    /// Asks for a token, again where the token service is only busy.
    async fn token(
        &self,
        endpoint: &Endpoint,
        request: &TokenRequest<'_>,
        deed: &Deed,
    ) -> Result<crate::redact::Secret, ClientError> {
        let mut failed = 0;
        loop {
            let transport = &self.shared.transport;
            let error = match endpoint.tokens.get(transport, self.clock(), request).await {
                Ok(token) => return Ok(token),
                Err(error) => error,
            };
            failed += 1;
            let delay = error
                .is_retryable()
                .then(|| self.shared.options.retry.delay(failed, None, self.clock().jitter()))
                .flatten();
            match delay {
                Some(delay) => self.clock().sleep(delay).await,
                None => {
                    return Err(ClientError::Token { deed: deed.clone(), source: error });
                }
            }
        }
    }

    /// Looks credentials up, once per repository.
    pub(crate) async fn find(
        &self,
        endpoint: &Endpoint,
        repository: Option<&RepositoryName>,
        deed: &Deed,
    ) -> Result<Option<Found>, ClientError> {
        if let Some(found) = endpoint.remembered(repository) {
            return Ok(found);
        }
        let (credentials, registry) = (self.shared.credentials.clone(), endpoint.registry.clone());
        let looked_for = repository.cloned();
        let found =
            tokio::task::spawn_blocking(move || credentials.find(&registry, looked_for.as_ref()))
                .await
                .expect("looking credentials up does not panic")
                .map_err(|source| ClientError::Credential { deed: deed.clone(), source })?;
        endpoint.remember(repository, found.clone());
        Ok(found)
    }
}

impl Call<'_> {
    /// Returns a call without headers or payload.
    pub(crate) fn new<'a>(
        deed: Deed,
        source: &'a Source,
        method: Method,
        target: Target<'a>,
        scopes: &'a ScopeSet,
    ) -> Call<'a> {
        Call {
            deed,
            source,
            method,
            target,
            headers: HeaderMap::new(),
            payload: Payload::Empty,
            scopes,
        }
    }
}

/// Returns the path of a manifest below `/v2/`.
pub(crate) fn manifest_path(source: &Source, reference: &Reference) -> String {
    format!("{}/manifests/{reference}", source.repository)
}

/// Raises an address that a registry behind a proxy gave as `http` to the scheme by which the
/// registry itself is reached: upload sessions must not leave TLS.
fn secure(url: &Url, base: &Url) -> Url {
    let mut url = url.clone();
    if url.scheme() == "http" && base.scheme() == "https" && url.host() == base.host() {
        // Fails for schemes of other kinds only.
        let _ = url.set_scheme("https");
    }
    url
}
