//! Who somebody is, from what came with their request.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use jiff::Timestamp;

use super::{Authority, Configured};
use crate::audit::{Deed, Entry};
use crate::caller::{Caller, Grant, Origin};
use crate::certificate;
use crate::identity::{Identity, Name};
use crate::origin::Connection;
use crate::password::{Cost, PASSWORD_BYTES_MAX, PasswordHash};
use crate::signer::{Claims, Proof, Purpose};
use crate::tokens::{TokenId, is_token};

/// The most bytes of the header that says who somebody is.
const AUTHORIZATION_BYTES_MAX: usize = 16 * 1024;

/// What came with a request that may say who makes it.
#[derive(Clone)]
pub struct Presented {
    credential: Credential,
    connection: Connection,
    headers: HeaderMap,
    authority: Option<String>,
    request_id: Option<Arc<str>>,
}

#[derive(Clone)]
enum Credential {
    None,
    Password {
        user: String,
        password: String,
    },
    Bearer(String),
    /// Nothing that can be read.
    Unreadable,
}

impl Presented {
    /// Takes what a request has of it. `authority` is what HTTP/2 has in the place of `Host`.
    pub fn of(headers: &HeaderMap, authority: Option<&str>, connection: Connection) -> Presented {
        let mut others = headers.clone();
        others.remove(header::AUTHORIZATION);
        Presented {
            credential: Credential::of(headers),
            connection,
            headers: others,
            authority: authority.map(str::to_owned),
            request_id: None,
        }
    }

    /// Says what the request is called in the logs.
    #[must_use]
    pub fn with_request_id(mut self, id: Arc<str>) -> Presented {
        self.request_id = Some(id);
        self
    }
}

impl Credential {
    fn of(headers: &HeaderMap) -> Credential {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Credential::None };
        // Two of them are one for us and one for somebody else: which?
        if values.next().is_some() || value.len() > AUTHORIZATION_BYTES_MAX {
            return Credential::Unreadable;
        }
        let text = value.to_str().ok().map(str::trim).unwrap_or_default();
        let Some((scheme, rest)) = text.split_once(' ') else {
            // gem and cargo send the token alone.
            let is_alone = is_token(text);
            return if is_alone {
                Credential::Bearer(text.to_owned())
            } else {
                Credential::Unreadable
            };
        };
        match (scheme.to_ascii_lowercase().as_str(), rest.trim()) {
            ("basic", rest) => Credential::basic(rest).unwrap_or(Credential::Unreadable),
            ("bearer", rest) => Credential::Bearer(rest.to_owned()),
            _ => Credential::Unreadable,
        }
    }

    fn basic(encoded: &str) -> Option<Credential> {
        let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Credential::Password { user: user.to_owned(), password: password.to_owned() })
    }
}

/// Why somebody is not let in at all, whoever they are.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum Refusal {
    /// There were too many failures from there, or of that user.
    #[error("there were too many failed logins: try again in {seconds} s")]
    TooMany {
        /// When to try again.
        seconds: u64,
    },
}

/// What is known of a request without work that takes time.
#[derive(Debug)]
pub enum Admission {
    /// Who it is, or that they are not let in.
    Done(Result<Caller, Refusal>),
    /// A password must be computed: ask [`Authority::admit`] where one may block.
    MustVerify,
}

/// What [`Authority::prove`] says.
enum Proved {
    Yes(Identity),
    No,
    MustVerify,
}

impl Authority {
    /// Says who makes a request. Computes a password where it must: blocking.
    ///
    /// Whoever shows something that is wrong is a caller, too: one to whom every question is
    /// answered with a challenge.
    ///
    /// # Errors
    /// Where there were too many failures.
    pub fn admit(&self, presented: &Presented) -> Result<Caller, Refusal> {
        match self.admission(presented, true) {
            Admission::Done(caller) => caller,
            Admission::MustVerify => Ok(self.refused(presented)),
        }
    }

    /// Says who makes a request, unless a password has to be computed for it.
    pub fn admit_at_once(&self, presented: &Presented) -> Admission {
        self.admission(presented, false)
    }

    fn admission(&self, presented: &Presented, may_block: bool) -> Admission {
        let configured = self.configured();
        let origin = origin(&configured, presented);
        let now = Timestamp::now();
        let done = |caller| Admission::Done(Ok(caller));
        match &presented.credential {
            Credential::None => done(Caller::new(silent(&presented.connection), origin)),
            Credential::Unreadable => done(refuse(origin)),
            Credential::Bearer(token) if is_token(token) => {
                Admission::Done(self.admit_token(token, origin, now))
            }
            Credential::Bearer(token) => done(self.admit_signed(token, origin, now)),
            Credential::Password { password, .. } if is_token(password) => {
                Admission::Done(self.admit_token(password, origin, now))
            }
            Credential::Password { user, password } => {
                self.admit_password(&configured, (user, password), origin, may_block)
            }
        }
    }

    /// Says who has this password, as [`Authority::admit`] does for that of a header. Blocking.
    ///
    /// # Errors
    /// Where there were too many failures.
    pub fn log_in(&self, user: &str, password: &str, origin: Origin) -> Result<Caller, Refusal> {
        if is_token(password) {
            return self.admit_token(password, origin, Timestamp::now());
        }
        let configured = self.configured();
        match self.admit_password(&configured, (user, password), origin.clone(), true) {
            Admission::Done(caller) => caller,
            Admission::MustVerify => Ok(refuse(origin)),
        }
    }

    fn admit_password(
        &self,
        configured: &Configured,
        (user, password): (&str, &str),
        origin: Origin,
        may_block: bool,
    ) -> Admission {
        if !self.asks(configured) {
            // Nobody can have a password here; what clients remember of former days does no harm.
            return Admission::Done(Ok(Caller::new(Identity::Anonymous, origin)));
        }
        let now = self.since_start();
        match self.prove(configured, user, password, false) {
            Proved::Yes(identity) => return Admission::Done(Ok(Caller::new(identity, origin))),
            Proved::No | Proved::MustVerify => {}
        }
        let seconds = self.throttle.wait(origin.address, user, now);
        if seconds > 0 {
            return Admission::Done(Err(Refusal::TooMany { seconds }));
        }
        if !may_block {
            return Admission::MustVerify;
        }
        match self.prove(configured, user, password, true) {
            Proved::Yes(identity) => Admission::Done(Ok(Caller::new(identity, origin))),
            Proved::No | Proved::MustVerify => {
                self.throttle.fail(origin.address, user, now);
                self.tell_failure(&origin, self.known_name(configured, user));
                Admission::Done(Ok(refuse(origin)))
            }
        }
    }

    /// Says whether a user has a password.
    ///
    /// Somebody who is no user costs the same work: their password is compared with that of a
    /// user, always the same one for a name, and it counts for nothing that it agrees.
    fn prove(
        &self,
        configured: &Configured,
        user: &str,
        password: &str,
        may_compute: bool,
    ) -> Proved {
        let (own, others) = self.users(configured);
        let name = user.parse::<Name>().ok();
        let find = |name: &Name| own.get(name).or_else(|| others.as_ref()?.get(name)).cloned();
        let found = name.as_ref().and_then(find);
        let now = self.since_start();
        if let (Some(name), Some(hash)) = (&name, &found)
            && self.verified.has(name, hash, password, now)
        {
            return Proved::Yes(Identity::User(name.clone()));
        }
        if !may_compute {
            return Proved::MustVerify;
        }
        if password.len() > PASSWORD_BYTES_MAX {
            return Proved::No;
        }
        let other = || {
            let hashes: Vec<&PasswordHash> =
                own.values().chain(others.iter().flat_map(|others| others.values())).collect();
            hashes.get(self.verified.choose(user, hashes.len())).copied().cloned()
        };
        let hash =
            found.clone().or_else(other).or_else(|| PasswordHash::of("-", Cost::default()).ok());
        self.password_checks.fetch_add(1, Ordering::Relaxed);
        let agrees = hash.as_ref().is_some_and(|hash| hash.verify(password));
        match (name, found) {
            (Some(name), Some(hash)) if agrees => {
                self.verified.put(&name, &hash, password, now);
                Proved::Yes(Identity::User(name))
            }
            _ => Proved::No,
        }
    }

    /// Returns a name that may be written to a log: what is no user's may be a password.
    fn known_name(&self, configured: &Configured, user: &str) -> Option<Name> {
        let name: Name = user.parse().ok()?;
        self.has_user(configured, &name).then_some(name)
    }

    fn has_user(&self, configured: &Configured, name: &Name) -> bool {
        self.hash_of(configured, name).is_some()
    }

    pub(super) fn hash_of(&self, configured: &Configured, name: &Name) -> Option<PasswordHash> {
        let (own, others) = self.users(configured);
        own.get(name).or_else(|| others.as_ref()?.get(name)).cloned()
    }

    fn admit_token(&self, text: &str, origin: Origin, now: Timestamp) -> Result<Caller, Refusal> {
        let id = TokenId::of(text);
        if let Some(caller) = self.bearer_of(&id, &origin, now) {
            self.tokens.mark_used(&id, now);
            return Ok(caller);
        }
        let since = self.since_start();
        let seconds = self.throttle.wait(origin.address, "", since);
        if seconds > 0 {
            return Err(Refusal::TooMany { seconds });
        }
        self.throttle.fail(origin.address, "", since);
        self.tell_failure(&origin, None);
        Ok(refuse(origin))
    }

    /// Returns the bearer of an API token that is good now.
    fn bearer_of(&self, id: &TokenId, origin: &Origin, now: Timestamp) -> Option<Caller> {
        let token = match self.tokens.find(id) {
            Ok(token) => token?,
            Err(error) => {
                tracing::error!("cannot look up a token: {error}");
                return None;
            }
        };
        let orphan =
            token.user.as_ref().is_some_and(|user| !self.has_user(&self.configured(), user));
        if token.is_expired(now) || orphan {
            return None;
        }
        let identity = Identity::Token { name: token.name, user: token.user };
        let mut caller = Caller::new(identity, origin.clone());
        caller.scopes = token.scopes.map(Into::into);
        caller.is_rescue = token.rescue;
        caller.token = Some(id.clone());
        Some(caller)
    }

    /// Returns the bearer of a token that our service signed.
    fn admit_signed(&self, token: &str, origin: Origin, now: Timestamp) -> Caller {
        let claims = self.signer.verify(Purpose::Access, token, now);
        let caller = claims.and_then(|claims| {
            let grants = grants(&claims);
            let mut caller = self.subject(&claims, &origin, now)?;
            caller.grants = Some(grants.into());
            Some(caller)
        });
        caller.unwrap_or_else(|| refuse(origin))
    }

    /// Returns whose a signed token is, if what vouched for them still does.
    pub(super) fn subject(
        &self,
        claims: &Claims,
        origin: &Origin,
        now: Timestamp,
    ) -> Option<Caller> {
        let identity = match &claims.proof {
            Proof::Nothing => Identity::Anonymous,
            Proof::Certificate { names } => Identity::Certificate { names: names.clone() },
            Proof::Token { id } => return self.bearer_of(id, origin, now),
            Proof::Password { user, digest } => {
                let name: Name = user.parse().ok()?;
                let hash = self.hash_of(&self.configured(), &name)?;
                if hash.fingerprint() != *digest {
                    return None;
                }
                Identity::User(name)
            }
        };
        Some(Caller::new(identity, origin.clone()))
    }

    fn refused(&self, presented: &Presented) -> Caller {
        refuse(origin(&self.configured(), presented))
    }

    fn tell_failure(&self, origin: &Origin, user: Option<Name>) {
        let who = user.map_or_else(|| "unknown".to_owned(), |user| format!("user:{user}"));
        self.audit.record(&Entry::from_origin(Deed::LoginFailed, who, origin));
    }
}

fn origin(configured: &Configured, presented: &Presented) -> Origin {
    let surroundings = &configured.policy.surroundings;
    let authority = presented.authority.as_deref();
    let mut origin = surroundings.origin(&presented.headers, authority, &presented.connection);
    origin.request_id.clone_from(&presented.request_id);
    origin
}

/// Returns who somebody is who shows nothing with the request.
fn silent(connection: &Connection) -> Identity {
    match &connection.certificate {
        Some(certificate) => Identity::Certificate { names: certificate::names(certificate) },
        None => Identity::Anonymous,
    }
}

fn refuse(origin: Origin) -> Caller {
    Caller { is_refused: true, ..Caller::new(Identity::Anonymous, origin) }
}

fn grants(claims: &Claims) -> Vec<Grant> {
    let grant = |claim: &crate::signer::AccessClaim| match claim.kind.as_str() {
        "registry" if claim.name == "catalog" => Some(Grant::Catalog),
        "repository" => Some(Grant::Repository {
            name: claim.name.parse().ok()?,
            rights: claim.actions.iter().filter_map(|action| action.parse().ok()).collect(),
        }),
        _ => None,
    };
    claims.access.iter().filter_map(grant).collect()
}
