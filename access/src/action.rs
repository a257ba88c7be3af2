//! What a caller may want to do, and the rights that rules give.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a caller wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// To learn that this is a registry.
    Ping,
    /// To list the repositories.
    Catalog,
    /// To see a repository in such a list. The rules for pulling decide; a bearer token need not
    /// name the repository.
    List,
    /// To read blobs, manifests, tags and referrers.
    Pull,
    /// To write blobs, manifests and tags that point at nothing yet.
    Push,
    /// To point a tag at another manifest than it points at.
    Overwrite,
    /// To delete blobs, manifests and tags.
    Delete,
}

impl Action {
    /// Returns the right that it takes; none is needed to ask whether this is a registry, nor for
    /// a list, in which there is only what may be seen.
    pub fn right(self) -> Option<Right> {
        match self {
            Action::Ping | Action::Catalog => None,
            Action::List | Action::Pull => Some(Right::Pull),
            Action::Push => Some(Right::Push),
            Action::Overwrite => Some(Right::Overwrite),
            Action::Delete => Some(Right::Delete),
        }
    }

    /// Returns what clients call it in a scope of the token protocol, which knows no overwriting:
    /// who may push is told by the rules whether a tag may be moved.
    pub(crate) fn in_scope(self) -> Right {
        match self {
            Action::Ping | Action::Catalog | Action::List | Action::Pull => Right::Pull,
            Action::Push | Action::Overwrite => Right::Push,
            Action::Delete => Right::Delete,
        }
    }
}

/// What a rule can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Reading blobs, manifests, tags and referrers.
    Pull,
    /// Writing blobs, manifests and new tags.
    Push,
    /// Pointing a tag at another manifest.
    Overwrite,
    /// Deleting blobs, manifests and tags.
    Delete,
}

impl Right {
    /// All of them.
    pub const ALL: [Right; 4] = [Right::Pull, Right::Push, Right::Overwrite, Right::Delete];

    /// Returns the word.
    pub fn as_str(self) -> &'static str {
        match self {
            Right::Pull => "pull",
            Right::Push => "push",
            Right::Overwrite => "overwrite",
            Right::Delete => "delete",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is no right: there are pull, push, overwrite and delete")]
pub struct RightError {
    word: String,
}

impl FromStr for Right {
    type Err = RightError;

    fn from_str(word: &str) -> Result<Right, RightError> {
        let known = Right::ALL.into_iter().find(|right| right.as_str() == word);
        known.ok_or_else(|| RightError { word: word.to_owned() })
    }
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Rights {
    /// All rights.
    pub const ALL: Rights = Rights(0b1111);

    /// Says whether a right is among them.
    pub fn contains(self, right: Right) -> bool {
        self.0 & (1 << right as u8) != 0
    }

    /// Returns those of either.
    #[must_use]
    pub fn union(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }

    /// Returns those of both.
    #[must_use]
    pub fn intersection(self, other: Rights) -> Rights {
        Rights(self.0 & other.0)
    }

    /// Says whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns them in the order of [`Right::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.contains(*right))
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Rights {
        rights.into_iter().fold(Rights::default(), |set, right| Rights(set.0 | 1 << right as u8))
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.iter().map(Right::as_str).collect();
        f.write_str(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_into_it() {
        let set: Rights = [Right::Push, Right::Pull].into_iter().collect();
        assert_eq!(set.to_string(), "pull,push");
        assert!(set.contains(Right::Pull) && !set.contains(Right::Delete));
        assert_eq!(Right::ALL.into_iter().collect::<Rights>(), Rights::ALL);
        assert_eq!("delete".parse(), Ok(Right::Delete));
        assert!("Delete".parse::<Right>().is_err());
    }
}
