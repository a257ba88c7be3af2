//! The token service: what a caller may do of what they ask for, signed.

use boatyard_oci::RepositoryName;
use jiff::Timestamp;
use serde::Serialize;

use super::Authority;
use crate::action::{Right, Rights};
use crate::caller::{Caller, Origin};
use crate::identity::Identity;
use crate::signer::{AccessClaim, Proof, Purpose};

/// How long a token is good unless the configuration says otherwise. Clients ask for another one
/// by themselves.
const TOKEN_SECONDS: u32 = 300;
/// How long a refresh token is good: what `docker login` keeps in the place of a password.
const REFRESH_SECONDS: i64 = 90 * 24 * 3600;
/// The most scopes of one token: their list must fit into a header.
const SCOPES_MAX: usize = 32;

/// A scope that a client asks for: `repository:team/app:pull,push`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskedScope {
    /// `registry:catalog:*`
    Catalog,
    /// Some rights in a repository.
    Repository {
        /// The repository, as the client calls it.
        name: RepositoryName,
        /// The rights.
        rights: Rights,
    },
}

impl AskedScope {
    /// Reads the scopes of a request: each parameter may have several, with spaces between them.
    /// What is no scope that we know is left out: a token for less than was asked for is no error.
    pub fn parse_all<'a>(parameters: impl IntoIterator<Item = &'a str>) -> Vec<AskedScope> {
        let texts = parameters.into_iter().flat_map(|text| text.split(' '));
        texts.filter_map(AskedScope::parse).take(SCOPES_MAX).collect()
    }

    fn parse(text: &str) -> Option<AskedScope> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        // `repository(plugin)`: a class, which changes nothing.
        let kind = kind.split_once('(').map_or(kind, |(kind, _)| kind);
        match kind {
            "registry" if name == "catalog" => Some(AskedScope::Catalog),
            "repository" => {
                let rights = match actions {
                    "*" => Rights::ALL,
                    _ => actions.split(',').filter_map(|action| action.parse().ok()).collect(),
                };
                Some(AskedScope::Repository { name: name.parse().ok()?, rights })
            }
            _ => None,
        }
    }
}

/// What the token service answers.
///
/// > "For compatibility with OAuth 2.0, we will also accept `token` under the name
/// > `access_token`. At least one of these fields must be specified, but both may also appear."
/// > (distribution, docs/spec/auth/token.md)
#[derive(Clone, Serialize)]
pub struct Issued {
    token: String,
    access_token: String,
    expires_in: u32,
    issued_at: String,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
}

impl Authority {
    /// Issues a token for what a caller may do of what they ask for. `known_as` says by which name
    /// the rules know a repository that clients call otherwise. With `offline`, a refresh token,
    /// too.
    ///
    /// `None` where the caller may not have any: what they showed is wrong, or is itself a token
    /// of this service, which must not beget others.
    pub fn issue(
        &self,
        caller: &Caller,
        asked: &[AskedScope],
        known_as: &dyn Fn(&RepositoryName) -> Option<RepositoryName>,
        offline: bool,
    ) -> Option<Issued> {
        if caller.is_refused || caller.grants.is_some() {
            return None;
        }
        let configured = self.configured();
        let now = Timestamp::now();
        let granted = |asked: &AskedScope| match asked {
            AskedScope::Catalog => Some(claim("registry", "catalog", "*")),
            AskedScope::Repository { name, rights } => {
                let known = |name: &RepositoryName| self.rights(&configured.policy, caller, name);
                let elsewhere = known_as(name).map_or(Rights::default(), |name| known(&name));
                // Of another's repositories one can have but copies.
                let pull: Rights = [Right::Pull].into_iter().collect();
                let given = known(name).union(elsewhere.intersection(pull)).intersection(*rights);
                let words = given.iter().filter(|right| *right != Right::Overwrite);
                let words: Vec<&str> = words.map(Right::as_str).collect();
                (!words.is_empty()).then(|| claim("repository", name.as_str(), &words.join(",")))
            }
        };
        let access: Vec<AccessClaim> = asked.iter().filter_map(granted).collect();
        let scope = access
            .iter()
            .map(|claim| format!("{}:{}:{}", claim.kind, claim.name, claim.actions.join(",")));
        let scope = scope.collect::<Vec<_>>().join(" ");
        let subject = (caller.identity.to_string(), self.proof(caller)?);
        let seconds = configured.policy.token_seconds.unwrap_or(TOKEN_SECONDS);
        let refresh_token = (offline && !caller.identity.is_anonymous()).then(|| {
            let subject = subject.clone();
            self.signer.sign(Purpose::Refresh, subject, Vec::new(), now, REFRESH_SECONDS)
        });
        let token = self.signer.sign(Purpose::Access, subject, access, now, i64::from(seconds));
        Some(Issued {
            access_token: token.clone(),
            token,
            expires_in: seconds,
            issued_at: now.to_string(),
            scope,
            refresh_token,
        })
    }

    /// Returns whose a refresh token is; `None` where it is none, or is good no more.
    pub fn refresh(&self, token: &str, origin: &Origin) -> Option<Caller> {
        let now = Timestamp::now();
        let claims = self.signer.verify(Purpose::Refresh, token, now)?;
        self.subject(&claims, origin, now)
    }

    fn proof(&self, caller: &Caller) -> Option<Proof> {
        Some(match (&caller.identity, &caller.token) {
            (_, Some(id)) => Proof::Token { id: id.clone() },
            (Identity::User(name), None) => Proof::Password {
                user: name.to_string(),
                digest: self.hash_of(&self.configured(), name)?.fingerprint(),
            },
            (Identity::Certificate { names }, None) => Proof::Certificate { names: names.clone() },
            (Identity::Anonymous | Identity::Token { .. }, None) => Proof::Nothing,
        })
    }
}

fn claim(kind: &str, name: &str, actions: &str) -> AccessClaim {
    AccessClaim {
        kind: kind.to_owned(),
        name: name.to_owned(),
        actions: actions.split(',').map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_leniently() {
        let repository = |name: &str, rights: Rights| AskedScope::Repository {
            name: name.parse().unwrap(),
            rights,
        };
        let pull: Rights = [Right::Pull].into_iter().collect();
        let both: Rights = [Right::Pull, Right::Push].into_iter().collect();
        let asked = AskedScope::parse_all([
            "repository:a/b:pull,push repository:c:pull",
            "registry:catalog:*",
            "repository(plugin):d:pull,unknown",
            "repository:e:*",
            "nonsense",
            "",
            "repository:../x:pull",
            "aws:x:y",
            "repository::pull",
        ]);
        assert_eq!(
            asked,
            [
                repository("a/b", both),
                repository("c", pull),
                AskedScope::Catalog,
                repository("d", pull),
                repository("e", Rights::ALL),
            ]
        );
        let many = vec!["repository:a:pull"; 1000];
        assert_eq!(AskedScope::parse_all(many).len(), SCOPES_MAX);
    }
}
