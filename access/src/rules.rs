//! The rules of the configuration: which repositories, who, what.
//!
//! ```toml
//! [groups]
//! ci = ["token:builder", "cert:runner.example"]
//!
//! [[rule]]
//! repositories = "team/**"
//! who = ["user:alice", "group:ci"]
//! allow = ["pull", "push"]
//! ```
//!
//! Rights add up: what one rule gives no other takes away. What no rule gives is denied.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use boatyard_oci::RepositoryName;
use serde::{Deserialize, Serialize};

use crate::action::{Right, Rights};
use crate::identity::{CertificateName, Identity, Name, NameError};
use crate::pattern::RepositoryPattern;

/// Who a rule is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// Everybody, known or not.
    Anonymous,
    /// Everybody who is known.
    Authenticated,
    /// A user, also through one of their tokens.
    User(Name),
    /// The bearer of a token.
    Token(Name),
    /// The holder of a certificate with this common name or alternative name.
    Certificate(CertificateName),
    /// A group of the configuration.
    Group(Name),
}

/// A text that does not say who.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It has no known form.
    #[error(
        "`{text}` names nobody: write anonymous, authenticated, user:NAME, token:NAME, cert:NAME \
         or group:NAME"
    )]
    Who {
        /// The text.
        text: String,
    },
    /// The name in it is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A group that is not configured.
    #[error("there is no group `{name}` in [groups]")]
    NoGroup {
        /// Its name.
        name: Name,
    },
    /// A group in a group.
    #[error("the group `{name}` has a group in it, or everybody: name its members")]
    NotMembers {
        /// The outer group's name.
        name: Name,
    },
}

impl FromStr for Who {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Who, RuleError> {
        let named = |kind: fn(Name) -> Who, name: &str| Ok(kind(name.parse()?));
        match text.split_once(':') {
            None if text == "anonymous" => Ok(Who::Anonymous),
            None if text == "authenticated" => Ok(Who::Authenticated),
            Some(("user", name)) => named(Who::User, name),
            Some(("token", name)) => named(Who::Token, name),
            Some(("cert", name)) => Ok(Who::Certificate(name.parse()?)),
            Some(("group", name)) => named(Who::Group, name),
            _ => Err(RuleError::Who { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Anonymous => f.write_str("anonymous"),
            Who::Authenticated => f.write_str("authenticated"),
            Who::User(name) => write!(f, "user:{name}"),
            Who::Token(name) => write!(f, "token:{name}"),
            Who::Certificate(name) => write!(f, "cert:{name}"),
            Who::Group(name) => write!(f, "group:{name}"),
        }
    }
}

impl Serialize for Who {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Who {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Who, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The groups of the configuration, and who is in each.
pub type Groups = BTreeMap<Name, Vec<Who>>;

/// One `[[rule]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The repositories: a pattern, or a list of them.
    #[serde(deserialize_with = "one_or_more")]
    pub repositories: Vec<RepositoryPattern>,
    /// Who the rule is for.
    pub who: Vec<Who>,
    /// What they may do there.
    pub allow: Vec<Right>,
}

fn one_or_more<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<RepositoryPattern>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Texts {
        One(String),
        More(Vec<String>),
    }
    let texts = match Texts::deserialize(deserializer)? {
        Texts::One(text) => vec![text],
        Texts::More(texts) => texts,
    };
    texts.into_iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

/// What a token is limited to: some repositories, some rights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The repositories.
    pub repositories: RepositoryPattern,
    /// What may be done there.
    pub allow: Vec<Right>,
}

impl Scope {
    /// Returns what a list of scopes leaves of all rights on a repository.
    pub fn rights(scopes: &[Scope], repository: &RepositoryName) -> Rights {
        let there = scopes.iter().filter(|scope| scope.repositories.matches(repository));
        there.flat_map(|scope| scope.allow.iter().copied()).collect()
    }
}

/// All rules, their groups resolved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    rules: Vec<Rule>,
}

impl Rules {
    /// Returns the rules with the members of groups in the place of groups.
    ///
    /// # Errors
    /// Where a group is not there, or has something else than members.
    pub fn new(rules: Vec<Rule>, groups: &Groups) -> Result<Rules, RuleError> {
        for (name, members) in groups {
            let is_member =
                |who: &Who| matches!(who, Who::User(_) | Who::Token(_) | Who::Certificate(_));
            if !members.iter().all(is_member) {
                return Err(RuleError::NotMembers { name: name.clone() });
            }
        }
        let resolve = |mut rule: Rule| {
            let mut who = Vec::new();
            for one in rule.who {
                match one {
                    Who::Group(name) => match groups.get(&name) {
                        Some(members) => who.extend(members.iter().cloned()),
                        None => return Err(RuleError::NoGroup { name }),
                    },
                    one => who.push(one),
                }
            }
            rule.who = who;
            Ok(rule)
        };
        Ok(Rules { rules: rules.into_iter().map(resolve).collect::<Result<_, _>>()? })
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns what somebody may do in a repository.
    ///
    /// Every rule is compared, whether one gave the right already or not: how long that takes
    /// tells nothing about which rules there are for this repository.
    pub fn rights(&self, identity: &Identity, repository: &RepositoryName) -> Rights {
        self.rules.iter().fold(Rights::default(), |rights, rule| {
            let there = rule.repositories.iter().filter(|one| one.matches(repository)).count() > 0;
            let them = rule.who.iter().filter(|who| means(who, identity)).count() > 0;
            let gives: Rights = rule.allow.iter().copied().collect();
            if there & them { rights.union(gives) } else { rights }
        })
    }

    /// Says whether somebody may pull anything at all.
    pub fn lets_pull_something(&self, identity: &Identity) -> bool {
        self.rules.iter().any(|rule| {
            rule.allow.contains(&Right::Pull) && rule.who.iter().any(|who| means(who, identity))
        })
    }
}

fn means(who: &Who, identity: &Identity) -> bool {
    match (who, identity) {
        (Who::Anonymous, _) => true,
        (Who::Authenticated, identity) => !identity.is_anonymous(),
        (Who::User(name), Identity::User(user)) => name == user,
        (Who::User(name), Identity::Token { user, .. }) => Some(name) == user.as_ref(),
        (Who::Token(name), Identity::Token { name: token, .. }) => name == token,
        (Who::Certificate(name), Identity::Certificate { names }) => names.contains(name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn rule(repositories: &str, who: &[&str], allow: &[&str]) -> Rule {
        Rule {
            repositories: vec![repositories.parse().unwrap()],
            who: who.iter().map(|who| who.parse().unwrap()).collect(),
            allow: allow.iter().map(|right| right.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn rights_add_up_and_nothing_else_is_given() {
        let groups = Groups::from([(name("ci"), vec!["token:builder".parse().unwrap()])]);
        let rules = Rules::new(
            vec![
                rule("**", &["anonymous"], &["pull"]),
                rule("team/**", &["user:alice", "group:ci", "cert:runner"], &["push"]),
                rule("team/*", &["authenticated"], &["delete"]),
            ],
            &groups,
        )
        .unwrap();
        let token = |token: &str, user: Option<&str>| Identity::Token {
            name: name(token),
            user: user.map(name),
        };
        let certificate = Identity::Certificate {
            names: ["x", "runner"].map(|name| name.parse().unwrap()).to_vec(),
        };
        let table = [
            (Identity::Anonymous, "team/a", "pull"),
            (Identity::User(name("alice")), "team/a", "pull,push,delete"),
            (Identity::User(name("alice")), "team/a/b", "pull,push"),
            (Identity::User(name("alice")), "other", "pull"),
            (Identity::User(name("Alice")), "team/a", "pull,delete"),
            // A token is not a user of its name, nor the other way round.
            (token("alice", None), "team/a", "pull,delete"),
            (Identity::User(name("builder")), "team/a/b", "pull"),
            (token("builder", None), "team/a/b", "pull,push"),
            (token("mine", Some("alice")), "team/a/b", "pull,push"),
            (certificate, "team/a/b", "pull,push"),
        ];
        for (identity, repository, rights) in table {
            let given = rules.rights(&identity, &repository.parse().unwrap());
            assert_eq!(given.to_string(), rights, "{identity} in {repository}");
        }
        assert!(Rules::default().rights(&Identity::Anonymous, &"a".parse().unwrap()).is_empty());
    }

    #[test]
    fn a_group_is_known_and_flat() {
        let missing = Rules::new(vec![rule("a", &["group:x"], &["pull"])], &Groups::new());
        assert_eq!(missing, Err(RuleError::NoGroup { name: name("x") }));
        for inner in ["group:b", "anonymous", "authenticated"] {
            let groups = Groups::from([(name("a"), vec![inner.parse().unwrap()])]);
            assert!(Rules::new(Vec::new(), &groups).is_err(), "{inner}");
        }
        for nobody in ["", "alice", "user:", "users:x", "user:a:b", "Anonymous", "*"] {
            assert!(nobody.parse::<Who>().is_err(), "{nobody}");
        }
    }
}
