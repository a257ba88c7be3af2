//! A caller: who they are, what their credential is good for, and from where they ask.

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use boatyard_oci::RepositoryName;

use crate::action::{Action, Rights};
use crate::audit::Entry;
use crate::identity::Identity;
use crate::rules::Scope;
use crate::tokens::TokenId;

/// What [`Access`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Allowed,
    /// Not without a proof of identity, or another one: this is the value of `WWW-Authenticate`.
    Unauthenticated {
        /// The challenge.
        challenge: String,
    },
    /// No. Who reads is answered as if the repository did not exist; who writes is told.
    Denied,
}

/// The rules, as a service asks them: once for the repository of a request, and once for each
/// other repository that it reads, such as the source of a mount. Called for every request, so it
/// must not wait for anything but a file in memory.
pub trait Access: Debug + Send + Sync {
    /// Says whether a caller may do something; `repository` is that of the request, if it has one.
    fn decide(
        &self,
        caller: &Caller,
        action: Action,
        repository: Option<&RepositoryName>,
    ) -> Verdict;

    /// Writes down what somebody has done, where that is kept.
    fn record(&self, entry: &Entry) {
        let _ = entry;
    }
}

/// Everybody may do everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenAccess;

impl Access for OpenAccess {
    fn decide(&self, _: &Caller, _: Action, _: Option<&RepositoryName>) -> Verdict {
        Verdict::Allowed
    }
}

/// From where a request comes, and how the server is called there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client's address; behind a configured proxy, what the proxy says.
    pub address: Option<IpAddr>,
    /// Where clients get tokens: a URL.
    pub realm: String,
    /// The request came over loopback, to a local name, and through no proxy.
    pub is_local: bool,
    /// What the request is called in the logs.
    pub request_id: Option<Arc<str>>,
}

/// What a bearer token of the built-in token service is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// The list of repositories.
    Catalog,
    /// Some rights in a repository.
    Repository {
        /// The repository.
        name: RepositoryName,
        /// The rights, as the token protocol knows them: without overwriting.
        rights: Rights,
    },
}

/// Who makes a request, with what. An `Authority` makes one of each request; it travels as an
/// extension of the request. Without one the caller is anonymous.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Caller {
    pub(crate) identity: Identity,
    pub(crate) origin: Origin,
    /// The scope of the API token that proves the identity.
    pub(crate) scopes: Option<Arc<[Scope]>>,
    /// What the bearer token is good for that was shown.
    pub(crate) grants: Option<Arc<[Grant]>>,
    /// What the request calls the repository, where the rules know it by another name.
    pub(crate) alias: Option<RepositoryName>,
    /// The rules do not apply: the owner of the files has made this credential to get back in.
    pub(crate) is_rescue: bool,
    /// The API token that was shown.
    pub(crate) token: Option<TokenId>,
    /// What was shown is wrong: nothing is allowed, and every question is answered by asking again.
    pub(crate) is_refused: bool,
}

impl Caller {
    /// Returns a caller of whom nothing is known, neither who nor where.
    pub fn anonymous() -> Caller {
        Caller::default()
    }

    /// Returns a caller who has proved who they are.
    pub fn new(identity: Identity, origin: Origin) -> Caller {
        Caller { identity, origin, ..Caller::default() }
    }

    /// Returns who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns from where they ask.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns what is noted with an upload session, which nobody else may use.
    pub fn owner(&self) -> String {
        self.identity.to_string()
    }

    /// Says what the request calls the repository that the rules know by another name: clients of
    /// a mirror ask the token service for what they see.
    #[must_use]
    pub fn asking_as(mut self, alias: RepositoryName) -> Caller {
        self.alias = Some(alias);
        self
    }

    /// Says whether the credential, whoever has it, is good for this.
    pub fn is_granted(&self, action: Action, repository: Option<&RepositoryName>) -> bool {
        let Some(grants) = &self.grants else { return true };
        let alias = self.alias.as_ref();
        grants.iter().any(|grant| match (grant, action) {
            (Grant::Catalog, Action::Catalog) => true,
            (Grant::Repository { name, rights }, action) => {
                (Some(name) == repository || Some(name) == alias)
                    && rights.contains(action.in_scope())
            }
            (Grant::Catalog, _) => false,
        }) || matches!(action, Action::Ping | Action::List)
    }

    /// Returns the challenge that names what the caller lacks.
    pub fn challenge(
        &self,
        service: &str,
        action: Action,
        repository: Option<&RepositoryName>,
    ) -> String {
        let realm = &self.origin.realm;
        let mut challenge = format!("Bearer realm=\"{realm}\",service=\"{service}\"");
        match (action, repository) {
            (Action::Catalog, _) => challenge.push_str(",scope=\"registry:catalog:*\""),
            (_, Some(name)) => {
                let actions = match action {
                    Action::Push | Action::Overwrite => "pull,push",
                    Action::Delete => "delete",
                    _ => "pull",
                };
                challenge.push_str(&format!(",scope=\"repository:{name}:{actions}\""));
            }
            _ => {}
        }
        if self.is_refused {
            challenge.push_str(",error=\"invalid_token\"");
        } else if self.grants.is_some() {
            challenge.push_str(",error=\"insufficient_scope\"");
        }
        challenge
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Right;

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    #[test]
    fn a_bearer_is_good_for_what_it_names() {
        let rights = [Right::Pull, Right::Push].into_iter().collect();
        let grants = vec![Grant::Repository { name: name("a"), rights }, Grant::Catalog];
        let caller = Caller { grants: Some(grants.into()), ..Caller::default() };
        let table = [
            (Action::Ping, None, true),
            (Action::Catalog, None, true),
            (Action::List, Some("b"), true),
            (Action::Pull, Some("a"), true),
            (Action::Overwrite, Some("a"), true),
            (Action::Delete, Some("a"), false),
            (Action::Pull, Some("b"), false),
        ];
        for (action, repository, granted) in table {
            let repository = repository.map(name);
            let given = caller.is_granted(action, repository.as_ref());
            assert_eq!(given, granted, "{action:?} {repository:?}");
        }
        let aliased = caller.clone().asking_as(name("a"));
        assert!(aliased.is_granted(Action::Pull, Some(&name("docker.io/a"))));
        assert!(Caller::default().is_granted(Action::Delete, Some(&name("x"))));
        let none = Caller { grants: Some(Vec::new().into()), ..Caller::default() };
        assert!(none.is_granted(Action::Ping, None));
        assert!(!none.is_granted(Action::Pull, Some(&name("a"))));
    }

    #[test]
    fn a_challenge_says_where_and_for_what() {
        let origin =
            Origin { realm: "http://localhost:5000/v2/token".to_owned(), ..Origin::default() };
        let caller = Caller::new(Identity::Anonymous, origin);
        assert_eq!(
            caller.challenge("boatyard", Action::Push, Some(&name("team/a"))),
            "Bearer realm=\"http://localhost:5000/v2/token\",service=\"boatyard\",\
             scope=\"repository:team/a:pull,push\""
        );
    }
}
