//! Who somebody is, once it is proved.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most bytes of a name.
const NAME_BYTES_MAX: usize = 128;

/// The name of a user, a token or a group.
///
/// - It has 1 to 128 bytes.
/// - It has no `:` (it would end a name in `user:password`), no white space, no control character.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Box<str>);

/// A text that is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no name: it has 1 to 128 bytes, and no colon, white space or control character"
)]
pub struct NameError {
    text: String,
}

impl Name {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Name, NameError> {
        let bad = |c: char| c == ':' || c.is_whitespace() || c.is_control();
        if text.is_empty() || text.len() > NAME_BYTES_MAX || text.contains(bad) {
            let shown = text.chars().take(NAME_BYTES_MAX).flat_map(char::escape_debug).collect();
            return Err(NameError { text: shown });
        }
        Ok(Name(text.into()))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Name, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0.into()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a certificate calls its holder: a common name, or an alternative name.
///
/// - It has 1 to 255 bytes, and no control character.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CertificateName(Box<str>);

impl CertificateName {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CertificateName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<CertificateName, NameError> {
        if text.is_empty() || text.len() > 255 || text.contains(char::is_control) {
            let shown = text.chars().take(NAME_BYTES_MAX).flat_map(char::escape_debug).collect();
            return Err(NameError { text: shown });
        }
        Ok(CertificateName(text.into()))
    }
}

impl TryFrom<String> for CertificateName {
    type Error = NameError;

    fn try_from(text: String) -> Result<CertificateName, NameError> {
        text.parse()
    }
}

impl From<CertificateName> for String {
    fn from(name: CertificateName) -> String {
        name.0.into()
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who makes a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Somebody of whom nothing is known.
    #[default]
    Anonymous,
    /// A user, who proved it with a password.
    User(Name),
    /// The bearer of an API token.
    Token {
        /// What the token is called.
        name: Name,
        /// Whose it is, if it is a user's: then it may do what they may, within its scope.
        user: Option<Name>,
    },
    /// The holder of a client certificate.
    Certificate {
        /// What it says of its holder: the common name and each alternative name.
        names: Vec<CertificateName>,
    },
}

impl Identity {
    /// Says whether nothing is known of them.
    pub fn is_anonymous(&self) -> bool {
        *self == Identity::Anonymous
    }
}

/// As rules, logs and upload sessions write it: `anonymous`, `user:alice`, `token:ci`,
/// `cert:builder.example`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Anonymous => f.write_str("anonymous"),
            Identity::User(name) => write!(f, "user:{name}"),
            Identity::Token { name, .. } => write!(f, "token:{name}"),
            Identity::Certificate { names } => match names.first() {
                Some(name) => write!(f, "cert:{name}"),
                None => f.write_str("cert:"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_be_mistaken_for_more() {
        for good in ["alice", "Alice.B@team.example", "é", "CORP\\bob", &"a".repeat(128)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", "a:b", "a b", "a\nb", "a\0", "\u{a0}", &"a".repeat(129)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        let shown = "a\x1b[31m".parse::<Name>().unwrap_err().to_string();
        assert!(!shown.contains('\x1b'), "{shown}");
    }
}
