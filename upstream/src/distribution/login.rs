//! Logging in: credentials are tried before they are kept.

use std::collections::BTreeSet;

use boatyard_oci::RegistryHost;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};

use super::client::Client;
use super::endpoint::{Shown, Wanted};
use super::error::{ClientError, Deed};
use crate::answer::Answer;
use crate::credentials::{Credential, CredentialError, Origin};
use crate::realm;
use crate::redact::Secret;
use crate::token::TokenRequest;
use crate::transport::{Incoming, Outgoing, Payload};

/// What came of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Where the credentials are kept now.
    pub kept: Origin,
    /// Whether the registry checked them. One that lets everybody in does not.
    pub checked: bool,
}

impl Client {
    /// Tries a user and a password against a registry, and keeps them if they are good.
    ///
    /// # Errors
    /// Where the registry refuses them or cannot be asked, or they cannot be kept.
    pub async fn login(
        &self,
        registry: &RegistryHost,
        user: &str,
        password: Secret,
    ) -> Result<Login, ClientError> {
        let deed = Deed::of_registry("log in", registry);
        let credential = Credential::Password { user: user.to_owned(), password };
        let checked = self.verify(registry, &credential, &deed).await?;
        let (credentials, host) = (self.credentials().clone(), registry.clone());
        let kept = tokio::task::spawn_blocking(move || credentials.keep(&host, &credential))
            .await
            .expect("keeping credentials does not panic")
            .map_err(|source| ClientError::Credential { deed, source })?;
        self.forget_everywhere(registry);
        Ok(Login { kept, checked })
    }

    /// Forgets the credentials that [`Client::login`] kept; says whether there were any.
    ///
    /// # Errors
    /// Where our file or its helper cannot be used.
    pub async fn logout(&self, registry: &RegistryHost) -> Result<bool, CredentialError> {
        let (credentials, host) = (self.credentials().clone(), registry.clone());
        let removed = tokio::task::spawn_blocking(move || credentials.forget(&host))
            .await
            .expect("forgetting credentials does not panic")?;
        self.forget_everywhere(registry);
        Ok(removed)
    }

    fn forget_everywhere(&self, registry: &RegistryHost) {
        for insecure in [false, true] {
            self.endpoint(registry, insecure).forget_credentials();
        }
    }

    /// Shows a credential to `/v2/`, and says whether anybody looked at it.
    async fn verify(
        &self,
        registry: &RegistryHost,
        credential: &Credential,
        deed: &Deed,
    ) -> Result<bool, ClientError> {
        let endpoint = self.endpoint(registry, self.is_insecure(registry));
        let transport = |source| ClientError::Transport { deed: deed.clone(), source };
        let base = self.base(&endpoint).await.map_err(transport)?;
        let first = self.ping(&base, endpoint.insecure, None, deed).await?;
        if first.status != StatusCode::UNAUTHORIZED {
            return self.accept(first, deed, Origin::Given).await.map(|()| false);
        }
        endpoint.learn(&first);
        let shown = match endpoint.wanted() {
            Some(Wanted::Basic) => Shown::basic(credential),
            Some(Wanted::Bearer(challenge)) => {
                // Elsewhere an anonymous token would do; here it would prove nothing.
                let trusted = &self.options().trust.realms;
                if !realm::sees_credentials(&base, &challenge.realm, trusted) {
                    let realm = challenge.realm.chars().take(200).collect();
                    return Err(ClientError::RealmNotTrusted { deed: deed.clone(), realm });
                }
                let request = TokenRequest {
                    registry: &base,
                    challenge: &challenge,
                    scopes: &BTreeSet::new(),
                    credential: Some((credential, &Origin::Given)),
                    trusted: &self.options().trust.realms,
                    unchecked: endpoint.insecure,
                };
                let token = endpoint.tokens.get(self.transport(), self.clock(), &request).await;
                let token =
                    token.map_err(|source| ClientError::Token { deed: deed.clone(), source })?;
                Some(Shown::token(token))
            }
            None => None,
        };
        let second = self.ping(&base, endpoint.insecure, shown, deed).await?;
        self.accept(second, deed, Origin::Given).await.map(|()| true)
    }

    pub(super) async fn ping(
        &self,
        base: &url::Url,
        unchecked: bool,
        shown: Option<Shown>,
        deed: &Deed,
    ) -> Result<Incoming, ClientError> {
        let mut url = base.clone();
        url.set_path("/v2/");
        let headers = HeaderMap::from_iter(shown.map(|shown| (AUTHORIZATION, shown.header)));
        let request =
            Outgoing { method: Method::GET, url, headers, payload: Payload::Empty, unchecked };
        let answer = self.transport().send(request).await;
        answer.map_err(|source| ClientError::Transport { deed: deed.clone(), source })
    }

    async fn accept(
        &self,
        answer: Incoming,
        deed: &Deed,
        origin: Origin,
    ) -> Result<(), ClientError> {
        if answer.status.is_success() {
            return Ok(());
        }
        Err(ClientError::of(deed.clone(), Answer::read(answer).await, Some(origin)))
    }
}
