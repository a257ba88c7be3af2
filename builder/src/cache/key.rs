//! A step's key: a hash of named parts, so that two keys can be compared part by part.
//!
//! ```text
//! "boatyard step key 1\n"
//! kind (length, bytes)  number of parts (u64)
//! per part, sorted by name:  name (length, bytes)  value (length, bytes)
//! ```
//!
//! Lengths are u64, little-endian. Parts of one name keep the order in which they were pushed. The
//! golden vectors below fix the format: where one changes, every cache in the world is lost.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::dockerfile::lint::is_secret_name;

const FORMAT: &[u8] = b"boatyard step key 1\n";
const HIDDEN_CONTEXT: &str = "boatyard step key 1: value of a variable that looks secret";

/// What decides whether an earlier result of a step can be used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key([u8; 32]);

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a step's key is 64 lower-case hexadecimal digits")]
pub struct KeyError;

impl Key {
    /// Returns the first digits: enough for people to tell keys apart.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(KeyError);
        }
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes())).map_err(|_| KeyError)
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        key.to_string()
    }
}

/// One thing that a key is made of, such as `env PATH` or `source src/`.
///
/// The first word of the name says what it is, and [`super::differences`] goes by it: `parent`,
/// `command`, `text`, `env`, `arg`, `user`, `directory`, `shell`, `platform`, `hostname`, `network`,
/// `mount`, `security`, `source`. Other words are fine: they are shown as they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Part {
    /// What it is.
    pub name: String,
    /// What it says.
    pub value: String,
}

/// All that a key is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    kind: String,
    parts: Vec<Part>,
}

impl Parts {
    /// Returns the parts of a step that has none yet; `kind` is its instruction, such as `RUN`.
    pub fn new(kind: &str) -> Parts {
        Parts { kind: kind.to_owned(), parts: Vec::new() }
    }

    /// Adds a part.
    ///
    /// Parts are written to disk and shown. The value of a variable (`env NAME` and `arg NAME`)
    /// whose name looks secret is replaced by a hash of it here.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, mut value) = (name.into(), value.into());
        if variable(&name).is_some_and(is_secret_name) {
            value = hide(&name, &value);
        }
        self.parts.push(Part { name, value });
    }

    /// Returns the instruction.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Returns the value of the first part of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|part| part.name == name).map(|part| part.value.as_str())
    }

    /// Returns the parts, in the order in which they were pushed.
    pub fn iter(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter()
    }

    /// Returns the key.
    pub fn key(&self) -> Key {
        let mut sorted: Vec<&Part> = self.parts.iter().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        let mut hasher = blake3::Hasher::new();
        hasher.update(FORMAT);
        text(&mut hasher, &self.kind);
        hasher.update(&(sorted.len() as u64).to_le_bytes());
        for part in sorted {
            text(&mut hasher, &part.name);
            text(&mut hasher, &part.value);
        }
        Key(*hasher.finalize().as_bytes())
    }
}

/// Returns the variable that a part is about.
pub(super) fn variable(name: &str) -> Option<&str> {
    name.strip_prefix("env ").or_else(|| name.strip_prefix("arg "))
}

fn hide(name: &str, value: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(HIDDEN_CONTEXT);
    text(&mut hasher, name);
    text(&mut hasher, value);
    format!("hidden {}", hasher.finalize().to_hex())
}

fn text(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(kind: &str, pairs: &[(&str, &str)]) -> Parts {
        let mut parts = Parts::new(kind);
        for (name, value) in pairs {
            parts.push(*name, *value);
        }
        parts
    }

    #[test]
    fn golden_vectors() {
        let all = [
            parts("RUN", &[]),
            parts("RUN", &[("parent", "scratch"), ("command", "make"), ("env PATH", "/bin")]),
            parts("RUN", &[("env API_TOKEN", "hunter2")]),
            parts("COPY", &[("source a", "1"), ("source a", "2")]),
        ];
        let keys: Vec<String> = all.iter().map(|parts| parts.key().to_string()).collect();
        assert_eq!(
            keys,
            [
                "6593c7f8891dc715af656415ba2576a3ad7a2857985a305fbe19787b7c4d93df",
                "ccda32b6f9e1e8f460edd9253e3fc66f458ee4bedcdd9c98ed1d6fc8a2dc02db",
                "ba21484224a46d90ecf996ef28a374f504d55b5c393dc9702f85d9c96bd56530",
                "4a245395c8ebd5a66fdd04ef799fbb168287c4114f7de9ed7b0d0874e3b92187",
            ]
        );
    }

    #[test]
    fn order_matters_only_between_parts_of_one_name() {
        let key = |pairs: &[(&str, &str)]| parts("RUN", pairs).key();
        assert_eq!(key(&[("a", "1"), ("b", "2")]), key(&[("b", "2"), ("a", "1")]));
        assert_ne!(key(&[("a", "1"), ("a", "2")]), key(&[("a", "2"), ("a", "1")]));
    }

    #[test]
    fn no_two_sequences_of_parts_run_together() {
        let all = [
            parts("RUN", &[("a", "bc")]),
            parts("RUN", &[("ab", "c")]),
            parts("RUNa", &[("bc", "")]),
            parts("RUN", &[("a", "b"), ("c", "")]),
            parts("RUN", &[("a", ""), ("b", "c")]),
            parts("RUN", &[("a", "bc"), ("", "")]),
            parts("COPY", &[("a", "bc")]),
        ];
        let keys: std::collections::HashSet<_> = all.iter().map(Parts::key).collect();
        assert_eq!(keys.len(), all.len());
    }

    #[test]
    fn a_value_that_looks_secret_decides_and_is_not_kept() {
        let parts_of = |value| parts("RUN", &[("env DB_PASSWORD", value), ("arg KEY_FILE", "k")]);
        let (one, other) = (parts_of("hunter2"), parts_of("hunter3"));
        assert_ne!(one.key(), other.key());
        assert!(!serde_json::to_string(&one).unwrap().contains("hunter"));
        assert_eq!(one.get("arg KEY_FILE"), Some("k"));
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let key = parts("RUN", &[]).key();
        assert_eq!(key.to_string().parse(), Ok(key));
        for bad in ["", "ab", &key.to_string().to_uppercase(), &format!("{key}0")] {
            assert_eq!(bad.parse::<Key>(), Err(KeyError), "{bad}");
        }
    }
}
