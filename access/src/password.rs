//! Passwords as they are kept: bcrypt and argon2, each with its own salt.

use std::fmt;
use std::str::FromStr;

use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The largest hashes that are computed for a stranger: a line that asks for more is refused.
const BCRYPT_COST_MAX: u32 = 16;
const ARGON2_MEMORY_KIB_MAX: u32 = 1024 * 1024;
const ARGON2_PASSES_MAX: u32 = 32;
/// The most bytes of a password. Longer ones are refused before anything is computed.
pub const PASSWORD_BYTES_MAX: usize = 4096;

/// The hash of a password, in the form of its line.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    text: Box<str>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bcrypt,
    Argon2,
}

/// What makes a new hash expensive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// How much memory it takes.
    pub memory_kib: u32,
    /// How often it goes through it.
    pub passes: u32,
}

/// > "m=19456 (19 MiB), t=2, p=1" (OWASP Password Storage Cheat Sheet, Argon2id)
impl Default for Cost {
    fn default() -> Self {
        Cost { memory_kib: 19_456, passes: 2 }
    }
}

/// A text that is no hash that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// A form that is broken: it can be computed backwards.
    #[error("it is {0}, which is too weak: make bcrypt with `htpasswd -B`, or use `boatyard user`")]
    Weak(&'static str),
    /// No form that we know.
    #[error("it is neither bcrypt ($2y$...) nor argon2 ($argon2id$...)")]
    Unknown,
    /// It would take too long.
    #[error("it takes more time or memory than one login may have")]
    Dear,
    /// The password cannot be hashed.
    #[error("a password has 1 to {PASSWORD_BYTES_MAX} bytes")]
    Password,
}

impl PasswordHash {
    /// Returns the argon2id hash of a password, with a new salt.
    ///
    /// # Errors
    /// Where the password is empty or too long.
    pub fn of(password: &str, cost: Cost) -> Result<PasswordHash, HashError> {
        if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
            return Err(HashError::Password);
        }
        let params =
            Params::new(cost.memory_kib, cost.passes, 1, None).map_err(|_| HashError::Dear)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut salt = [0; 16];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| HashError::Unknown)?;
        let hash = argon2.hash_password_with_salt(password.as_bytes(), &salt);
        hash.map_err(|_| HashError::Password)?.to_string().parse()
    }

    /// Says whether this is the hash of a password. Slow on purpose: blocking.
    pub fn verify(&self, password: &str) -> bool {
        match self.kind {
            Kind::Bcrypt => bcrypt::verify(password, &self.text).unwrap_or(false),
            Kind::Argon2 => phc::PasswordHash::new(&self.text).is_ok_and(|hash| {
                Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
            }),
        }
    }

    /// Returns what tells this hash from any other, and no more.
    pub(crate) fn fingerprint(&self) -> String {
        let digest = digest(&SHA256, self.text.as_bytes());
        URL_SAFE_NO_PAD.encode(&digest.as_ref()[..16])
    }

    /// Returns the text as it stands in the file.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The hash is no secret like the password, but near enough.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordHash({:?})", self.kind)
    }
}

impl FromStr for PasswordHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<PasswordHash, HashError> {
        let kind = match text {
            _ if text.starts_with("$2") => check_bcrypt(text)?,
            _ if text.starts_with("$argon2") => check_argon2(text)?,
            _ if text.starts_with("$apr1$") || text.starts_with("$1$") => {
                return Err(HashError::Weak("MD5"));
            }
            _ if text.starts_with("{SHA}") => return Err(HashError::Weak("SHA-1")),
            _ if text.starts_with("$5$") || text.starts_with("$6$") => {
                return Err(HashError::Weak("crypt's SHA-2"));
            }
            _ if text.len() == 13 && !text.contains('$') => {
                return Err(HashError::Weak("DES crypt"));
            }
            _ => return Err(HashError::Unknown),
        };
        Ok(PasswordHash { text: text.into(), kind })
    }
}

/// `$2b$<cost>$<22 characters of salt><31 of hash>`
fn check_bcrypt(text: &str) -> Result<Kind, HashError> {
    let mut parts = text.split('$').skip(1);
    let (version, cost, rest) = (parts.next(), parts.next(), parts.next());
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'/';
    let well = matches!(version, Some("2a" | "2b" | "2y"))
        && parts.next().is_none()
        && rest.is_some_and(|rest| rest.len() == 53 && rest.bytes().all(base64));
    let cost = cost.filter(|cost| cost.len() == 2).and_then(|cost| cost.parse::<u32>().ok());
    match cost {
        Some(4..=BCRYPT_COST_MAX) if well => Ok(Kind::Bcrypt),
        Some(17..) if well => Err(HashError::Dear),
        _ => Err(HashError::Unknown),
    }
}

fn check_argon2(text: &str) -> Result<Kind, HashError> {
    let hash = phc::PasswordHash::new(text).map_err(|_| HashError::Unknown)?;
    let params = Params::try_from(&hash).map_err(|_| HashError::Unknown)?;
    if hash.hash.is_none() || hash.salt.is_none() {
        return Err(HashError::Unknown);
    }
    if params.m_cost() > ARGON2_MEMORY_KIB_MAX || params.t_cost() > ARGON2_PASSES_MAX {
        return Err(HashError::Dear);
    }
    Ok(Kind::Argon2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 8, passes: 1 };

    #[test]
    fn what_was_hashed_is_verified() {
        let hash = PasswordHash::of("correct horse", CHEAP).unwrap();
        assert!(hash.as_str().starts_with("$argon2id$"), "{}", hash.as_str());
        assert!(hash.verify("correct horse") && !hash.verify("correct") && !hash.verify(""));
        assert_ne!(hash, PasswordHash::of("correct horse", CHEAP).unwrap(), "salts differ");
        assert!(!format!("{hash:?}").contains("argon2id$"));
        assert_eq!(PasswordHash::of("", CHEAP), Err(HashError::Password));
    }

    #[test]
    fn what_htpasswd_wrote_is_verified() {
        // htpasswd -nbB -C 4 x password
        let hash = bcrypt::hash("password", 4).unwrap();
        for version in ["$2b$", "$2y$", "$2a$"] {
            let hash: PasswordHash = hash.replacen("$2b$", version, 1).parse().unwrap();
            assert!(hash.verify("password") && !hash.verify("Password"), "{version}");
        }
    }

    #[test]
    fn weak_and_dear_lines_are_refused() {
        let rest = "a".repeat(53);
        let table = [
            ("$apr1$salt$hash".to_owned(), HashError::Weak("MD5")),
            ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=".to_owned(), HashError::Weak("SHA-1")),
            ("$6$salt$hash".to_owned(), HashError::Weak("crypt's SHA-2")),
            ("rqXexS6ZhobKA".to_owned(), HashError::Weak("DES crypt")),
            ("password".to_owned(), HashError::Unknown),
            (String::new(), HashError::Unknown),
            (format!("$2b$31${rest}"), HashError::Dear),
            (format!("$2b$3${rest}"), HashError::Unknown),
            (format!("$2z$10${rest}"), HashError::Unknown),
            (
                "$argon2id$v=19$m=2000000,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA".to_owned(),
                HashError::Dear,
            ),
            ("$argon2id$".to_owned(), HashError::Unknown),
        ];
        for (text, error) in table {
            assert_eq!(text.parse::<PasswordHash>(), Err(error), "{text}");
        }
    }
}
