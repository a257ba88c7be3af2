//! The authority of a root: it says who somebody is, what they may do, and issues tokens.

mod admit;
mod service;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use boatyard_oci::RepositoryName;

use crate::action::{Action, Rights};
use crate::audit::{Audit, Entry};
use crate::caller::{Access, Caller, Verdict};
use crate::origin::Surroundings;
use crate::passwords::Verified;
use crate::rules::{Rules, Scope};
use crate::signer::{SERVICE, Signer, SignerError};
use crate::throttle::Throttle;
use crate::tokens::Tokens;
use crate::users::{self, Users, UsersError, UsersFile};
use crate::watched::Watched;

pub use admit::{Admission, Presented, Refusal};
pub use service::{AskedScope, Issued};

/// What the configuration says about access.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The rules.
    pub rules: Rules,
    /// From where requests come.
    pub surroundings: Surroundings,
    /// A file of users that others keep, beside our own, which wins.
    pub htpasswd: Option<std::path::PathBuf>,
    /// How long a token of the token service is good, in seconds.
    pub token_seconds: Option<u32>,
}

/// An authority that cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The users cannot be read.
    #[error("cannot read the users")]
    Users(#[source] UsersError),
    /// The signing key cannot be used.
    #[error("cannot sign tokens")]
    Signer(#[source] SignerError),
    /// The system has no randomness.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// Users, tokens, certificates and rules of a root, as a server asks them.
#[derive(Debug)]
pub struct Authority {
    policy: RwLock<Arc<Configured>>,
    users: Watched<Users>,
    tokens: Tokens,
    signer: Signer,
    verified: Verified,
    throttle: Throttle,
    audit: Arc<Audit>,
    password_checks: AtomicU64,
    /// What the time of throttles and caches is counted from.
    start: Instant,
}

/// The policy, and the file that it names.
#[derive(Debug)]
struct Configured {
    policy: Policy,
    htpasswd: Option<Watched<Users>>,
}

impl Configured {
    fn new(policy: Policy) -> Result<Configured, AuthorityError> {
        let open = |path: &std::path::PathBuf| Watched::open(path.clone(), read_htpasswd);
        let htpasswd = policy.htpasswd.as_ref().map(open).transpose();
        Ok(Configured { htpasswd: htpasswd.map_err(AuthorityError::Users)?, policy })
    }
}

/// Reads a file that others keep: that it is not there is a mistake of the configuration.
fn read_htpasswd(path: &Path) -> Result<Users, UsersError> {
    users::read_existing(path)
}

impl Authority {
    /// Opens the authority of a root: `directory` is its `access`. Blocking.
    ///
    /// # Errors
    /// Where the users or the key cannot be read.
    pub fn open(
        directory: &Path,
        policy: Policy,
        audit: Arc<Audit>,
    ) -> Result<Arc<Authority>, AuthorityError> {
        let users = Watched::open(UsersFile::new(directory).path(), users::read);
        Ok(Arc::new(Authority {
            policy: RwLock::new(Arc::new(Configured::new(policy)?)),
            users: users.map_err(AuthorityError::Users)?,
            tokens: Tokens::new(directory),
            signer: Signer::open(directory).map_err(AuthorityError::Signer)?,
            verified: Verified::new().ok_or(AuthorityError::NoRandomness)?,
            throttle: Throttle::default(),
            audit,
            password_checks: AtomicU64::new(0),
            start: Instant::now(),
        }))
    }

    /// Puts another configuration in the place of this one, for requests from now on. Blocking.
    ///
    /// # Errors
    /// Where a file that it names cannot be read; then the old one stays.
    pub fn configure(&self, policy: Policy) -> Result<(), AuthorityError> {
        let configured = Arc::new(Configured::new(policy)?);
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = configured;
        Ok(())
    }

    /// Returns the log of who did what.
    pub fn audit(&self) -> &Arc<Audit> {
        &self.audit
    }

    /// Returns how many passwords were computed so far.
    pub fn password_checks(&self) -> u64 {
        self.password_checks.load(Ordering::Relaxed)
    }

    /// Forgets who failed to log in.
    pub fn forgive(&self) {
        self.throttle.clear();
    }

    /// Says what holds for lack of rules; `None` where there are rules.
    pub fn without_rules(&self) -> Option<WithoutRules> {
        let configured = self.configured();
        let all_loopback = configured.policy.surroundings.all_loopback;
        configured.policy.rules.is_empty().then_some(match all_loopback {
            true => WithoutRules::LocalMayAll,
            false => WithoutRules::PullOnly,
        })
    }

    fn configured(&self) -> Arc<Configured> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns our users, and those of the file of others.
    fn users(&self, configured: &Configured) -> (Arc<Users>, Option<Arc<Users>>) {
        let others = configured.htpasswd.as_ref().map(|others| others.get(read_htpasswd));
        (self.users.get(users::read), others)
    }

    fn since_start(&self) -> Duration {
        self.start.elapsed()
    }

    /// Says whether a caller who says nothing of themselves is asked who they are, before anything
    /// else: clients keep silent about what they know until they are asked.
    fn asks(&self, configured: &Configured) -> bool {
        if !configured.policy.rules.is_empty() {
            return true;
        }
        let (own, others) = self.users(configured);
        !own.is_empty() || others.is_some_and(|others| !others.is_empty())
    }

    fn rights(&self, policy: &Policy, caller: &Caller, repository: &RepositoryName) -> Rights {
        let by_rules = if caller.is_rescue || is_open(policy, caller) {
            Rights::ALL
        } else if policy.rules.is_empty() {
            [crate::Right::Pull].into_iter().collect()
        } else {
            policy.rules.rights(&caller.identity, repository)
        };
        match &caller.scopes {
            Some(scopes) => by_rules.intersection(Scope::rights(scopes, repository)),
            None => by_rules,
        }
    }
}

/// What holds for lack of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutRules {
    /// Requests from this machine to a local name may do everything, others pull.
    LocalMayAll,
    /// Everybody may pull, nobody anything else.
    PullOnly,
}

/// Says whether there is nothing to be protected from this caller.
fn is_open(policy: &Policy, caller: &Caller) -> bool {
    policy.rules.is_empty() && policy.surroundings.all_loopback && caller.origin.is_local
}

impl Access for Authority {
    fn decide(
        &self,
        caller: &Caller,
        action: Action,
        repository: Option<&RepositoryName>,
    ) -> Verdict {
        let configured = self.configured();
        let policy = &configured.policy;
        let ask = || Verdict::Unauthenticated {
            challenge: caller.challenge(SERVICE, action, repository),
        };
        if caller.is_refused {
            return ask();
        }
        let is_silent = caller.identity.is_anonymous() && caller.grants.is_none();
        let allowed = match (action.right(), repository) {
            (None, _) if action == Action::Ping => {
                !is_silent || is_open(policy, caller) || !self.asks(&configured)
            }
            (None, _) => {
                !is_silent
                    || policy.rules.is_empty()
                    || policy.rules.lets_pull_something(&caller.identity)
            }
            (Some(right), Some(repository)) => {
                self.rights(policy, caller, repository).contains(right)
            }
            (Some(_), None) => false,
        };
        if !allowed {
            return if caller.identity.is_anonymous() { ask() } else { Verdict::Denied };
        }
        if caller.is_granted(action, repository) { Verdict::Allowed } else { ask() }
    }

    fn record(&self, entry: &Entry) {
        self.audit.record(entry);
    }
}

#[cfg(test)]
mod tests;
