//! Passwords that were verified lately: bcrypt takes a tenth of a second, and clients send the
//! password with each of hundreds of requests.
//!
//! Kept is a keyed digest, under a key of this process, of the user, the password and the line of
//! the users' file that it agreed with. So nothing here leads back to a password, and a line that
//! is changed or removed takes what was verified with it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key, Tag};

use crate::identity::Name;
use crate::password::PasswordHash;

/// For how long a verified password is not computed again.
const KEPT_SECONDS: u64 = 10 * 60;
const KEPT_MAX: usize = 10_000;

/// The passwords that were verified. Time comes as that since the start.
pub(crate) struct Verified {
    key: Key,
    until: Mutex<HashMap<[u8; 32], u64>>,
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verified")
    }
}

impl Verified {
    /// Returns an empty one, if the system has randomness.
    pub(crate) fn new() -> Option<Verified> {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).ok()?;
        Some(Verified { key: Key::new(HMAC_SHA256, &secret), until: Mutex::default() })
    }

    /// Says whether this was verified lately.
    pub(crate) fn has(
        &self,
        user: &Name,
        hash: &PasswordHash,
        password: &str,
        now: Duration,
    ) -> bool {
        let key = self.digest(user.as_str(), hash.as_str(), password);
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.get(&key).is_some_and(|until| *until > now.as_secs())
    }

    /// Notes that this was verified.
    pub(crate) fn put(&self, user: &Name, hash: &PasswordHash, password: &str, now: Duration) {
        let key = self.digest(user.as_str(), hash.as_str(), password);
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() >= KEPT_MAX {
            until.retain(|_, until| *until > now.as_secs());
            if until.len() >= KEPT_MAX {
                until.clear();
            }
        }
        until.insert(key, now.as_secs() + KEPT_SECONDS);
    }

    /// Returns a number below `count` that is always the same for a name, and that nobody can
    /// foresee.
    pub(crate) fn choose(&self, name: &str, count: usize) -> usize {
        let tag = self.tag(&["choose", name]);
        let number = tag.as_ref().iter().take(8).fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
        (number % count.max(1) as u64) as usize
    }

    fn digest(&self, user: &str, hash: &str, password: &str) -> [u8; 32] {
        let tag = self.tag(&["verified", user, hash, password]);
        let mut digest = [0; 32];
        digest.copy_from_slice(tag.as_ref());
        digest
    }

    fn tag(&self, parts: &[&str]) -> Tag {
        let mut context = Context::with_key(&self.key);
        for part in parts {
            // With its length: what one part ends with is not what the next begins with.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.sign()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::Cost;

    #[test]
    fn only_what_was_verified_is_known_and_not_for_ever() {
        let verified = Verified::new().unwrap();
        let hash = |p| PasswordHash::of(p, Cost { memory_kib: 8, passes: 1 }).unwrap();
        let (alice, bob): (Name, Name) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let (line, at) = (hash("secret"), Duration::from_secs);
        verified.put(&alice, &line, "secret", at(0));
        assert!(verified.has(&alice, &line, "secret", at(599)));
        assert!(!verified.has(&alice, &line, "secret", at(600)));
        assert!(!verified.has(&alice, &line, "Secret", at(0)));
        assert!(!verified.has(&bob, &line, "secret", at(0)));
        assert!(!verified.has(&alice, &hash("secret"), "secret", at(0)), "another line");
    }
}
