//! What is kept, as people look for it: by a part of the address, or by a pattern.

use std::time::SystemTime;

use boatyard_content::Root;
use boatyard_content::entries::EntryKey;
use boatyard_content::store::StoreError;

use crate::entry::Entry;
use crate::target::Target;

/// All variants of a target that are kept.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its key among the entries of the root.
    pub key: EntryKey,
    /// What it is.
    pub target: Target,
    /// The variants, at least one.
    pub entries: Vec<Entry>,
    /// When it was last used, give or take an hour, where that was noted.
    pub used: Option<SystemTime>,
}

impl Listed {
    /// Returns the bytes of all variants.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.size).sum()
    }
}

/// Returns all that matches, in the order of the addresses. What cannot be read counts as absent,
/// as it does for the proxy. Blocking.
///
/// # Errors
/// Where entries cannot be listed.
pub fn find(root: &Root, pattern: &Pattern) -> Result<Vec<Listed>, StoreError> {
    let keys = root.entries().keys()?;
    let mut found: Vec<Listed> = keys.into_iter().filter_map(|key| read(root, key)).collect();
    found.retain(|listed| pattern.matches(listed.target.as_str()));
    found.sort_by(|one, other| one.target.as_str().cmp(other.target.as_str()));
    Ok(found)
}

/// Returns what is kept of a target. Blocking.
pub fn of(root: &Root, target: &Target) -> Option<Listed> {
    read(root, target.key())
}

fn read(root: &Root, key: EntryKey) -> Option<Listed> {
    let kept = root.entries().get(&key).ok()?;
    let entries: Vec<Entry> =
        kept.variants.iter().filter_map(|variant| Entry::of_variant(&kept.vary, variant)).collect();
    let target = entries.first()?.target.clone();
    let used = root.entries().last_used(&key).ok().flatten();
    Some(Listed { key, target, entries, used })
}

/// What addresses are looked for: a text that they contain, or, where it has `*` or `?`, a pattern
/// that they match from end to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Returns the pattern of a text.
    pub fn new(text: &str) -> Pattern {
        let is_pattern = text.contains(['*', '?']);
        Pattern(if is_pattern { text.to_owned() } else { format!("*{text}*") })
    }

    /// Says whether an address matches.
    pub fn matches(&self, address: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), address.as_bytes());
        let (mut at, mut from) = (0, 0);
        // Where the last `*` stands, and how far it reaches.
        let mut star: Option<(usize, usize)> = None;
        while from < text.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, from));
                    at += 1;
                }
                Some(byte) if *byte == b'?' || *byte == text[from] => {
                    at += 1;
                    from += 1;
                }
                _ => match star {
                    Some((of_star, reach)) => {
                        star = Some((of_star, reach + 1));
                        (at, from) = (of_star + 1, reach + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let matches = |pattern: &str, address: &str| Pattern::new(pattern).matches(address);
        let url = "http://deb.example/pool/a/app_1.deb";
        for pattern in ["", "app", url, "*.deb", "http://*/pool/*", "*app_?.deb", "*a*a*.d*", "**"]
        {
            assert!(matches(pattern, url), "{pattern}");
        }
        for pattern in ["apt", "*.dsc", "app*", "*app_??.deb", "?"] {
            assert!(!matches(pattern, url), "{pattern}");
        }
        assert!(matches("*?x", "http://xx"), "a star gives back what it took");
    }
}
