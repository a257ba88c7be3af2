//! API tokens: made once, shown once, kept as digests.
//!
//! A token is `boatyard_` and 46 letters and digits: 40 of chance (238 bits) and 6 that check
//! them, so that a scanner of sources finds one and knows that it is none by mistake. A file under
//! the SHA-256 of the token says what it is for; nothing that is kept leads back to the token. The
//! chance in it is why one round of SHA-256 is enough, where passwords need thousands.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::identity::Name;
use crate::private::{self, Doing as _, FileError, Locked};
use crate::rules::Scope;

/// What every token begins with.
pub const TOKEN_PREFIX: &str = "boatyard_";
const RANDOM_LETTERS: usize = 40;
const CHECK_LETTERS: usize = 6;
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// How old the note of the last use may become.
const USED_SECONDS: i64 = 3600;

/// What is kept of a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// What it is called, in rules and logs.
    pub name: Name,
    /// Whose it is, if it is a user's: it is gone when they are.
    pub user: Option<Name>,
    /// What it is limited to; `None`: to nothing but the rules.
    pub scopes: Option<Vec<Scope>>,
    /// When it was made.
    pub created: Timestamp,
    /// Until when it is good.
    pub expires: Option<Timestamp>,
    /// What it is for, in its maker's words.
    #[serde(default)]
    pub note: String,
    /// No rule applies to it: it is the way back in.
    #[serde(default)]
    pub rescue: bool,
}

impl Token {
    /// Says whether it is no longer good.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// The file's name of a token: the digest of its text, in hex.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenId(String);

impl TokenId {
    /// Returns that of a token's text.
    pub fn of(text: &str) -> TokenId {
        TokenId(hex(digest(&SHA256, text.as_bytes()).as_ref()))
    }

    /// Says whether it has the form of one: what comes from outside must not be a path.
    fn is_well_formed(&self) -> bool {
        self.0.len() == 64 && self.0.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    }
}

/// Says whether a text is meant as a token, whether there is such a one or not.
pub fn is_token(text: &str) -> bool {
    text.starts_with(TOKEN_PREFIX)
}

/// Tokens that could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not as we write it.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// There is one of this name.
    #[error("there is a token {0} already")]
    Exists(Name),
    /// There is none of this name.
    #[error("there is no token {0}")]
    Unknown(Name),
    /// The system has no randomness.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// The tokens of a root.
#[derive(Clone, Debug)]
pub struct Tokens {
    directory: PathBuf,
}

impl Tokens {
    /// Returns those in the directory `access` of a root.
    pub fn new(directory: impl Into<PathBuf>) -> Tokens {
        Tokens { directory: directory.into() }
    }

    fn path(&self, id: &TokenId) -> PathBuf {
        self.directory.join("tokens").join(&id.0)
    }

    fn used_path(&self, id: &TokenId) -> PathBuf {
        self.directory.join("used").join(&id.0)
    }

    /// Makes a token and returns its text, which is not kept; durable when it returns.
    ///
    /// # Errors
    /// Where there is one of this name, or its file cannot be written.
    pub fn create(&self, token: &Token) -> Result<String, TokensError> {
        let _locked = Locked::wait(&self.directory).doing("lock the tokens")?;
        if self.list()?.iter().any(|(_, kept)| kept.name == token.name) {
            return Err(TokensError::Exists(token.name.clone()));
        }
        let text = new_text()?;
        let bytes = serde_json::to_vec_pretty(token).expect("a token is plain JSON");
        private::write(&self.path(&TokenId::of(&text)), &bytes, true).doing("write a token")?;
        Ok(text)
    }

    /// Finds a token. Whether there is one is read from the files each time: one that was revoked
    /// is gone at once.
    ///
    /// # Errors
    /// Where its file cannot be read.
    pub fn find(&self, id: &TokenId) -> Result<Option<Token>, TokensError> {
        if !id.is_well_formed() {
            return Ok(None);
        }
        read(&self.path(id))
    }

    /// Returns all tokens, by name.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn list(&self) -> Result<Vec<(TokenId, Token)>, TokensError> {
        let directory = self.directory.join("tokens");
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).doing("list the tokens")?,
        };
        let mut tokens = Vec::new();
        for entry in entries {
            let entry = entry.doing("list the tokens")?;
            let id = TokenId(entry.file_name().to_string_lossy().into_owned());
            if let Some(token) = self.find(&id)? {
                tokens.push((id, token));
            }
        }
        tokens.sort_by(|(_, one), (_, other)| one.name.cmp(&other.name));
        Ok(tokens)
    }

    /// Revokes a token; durable when it returns.
    ///
    /// # Errors
    /// Where there is none of this name, or its file cannot be deleted.
    pub fn revoke(&self, name: &Name) -> Result<(), TokensError> {
        let _locked = Locked::wait(&self.directory).doing("lock the tokens")?;
        let tokens = self.list()?;
        let (id, _) = tokens
            .iter()
            .find(|(_, token)| token.name == *name)
            .ok_or_else(|| TokensError::Unknown(name.clone()))?;
        private::remove(&self.path(id)).doing("revoke a token")?;
        private::remove(&self.used_path(id)).doing("forget when a token was used")?;
        Ok(())
    }

    /// Returns when a token was last used, to the hour.
    pub fn last_used(&self, id: &TokenId) -> Option<Timestamp> {
        let modified = fs::metadata(self.used_path(id)).ok()?.modified().ok()?;
        Timestamp::try_from(modified).ok()
    }

    /// Notes that a token is used. A note that cannot be written is lost.
    pub(crate) fn mark_used(&self, id: &TokenId, now: Timestamp) {
        let recent = |used: Timestamp| now.as_second() - used.as_second() < USED_SECONDS;
        if self.last_used(id).is_some_and(recent) {
            return;
        }
        let path = self.used_path(id);
        let noted = private::make_directory(&self.directory.join("used"))
            .and_then(|()| fs::write(&path, b""));
        if let Err(error) = noted {
            tracing::warn!("cannot note that a token is used: {error}");
        }
    }
}

fn read(path: &Path) -> Result<Option<Token>, TokensError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).doing("read a token")?,
    };
    let damaged = |source| TokensError::Damaged { path: path.to_owned(), source };
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

fn new_text() -> Result<String, TokensError> {
    let mut letters = String::with_capacity(RANDOM_LETTERS);
    let mut bytes = [0; 64];
    while letters.len() < RANDOM_LETTERS {
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| TokensError::NoRandomness)?;
        // 248 is the largest multiple of 62 in a byte: what is above would make some letters
        // likelier than others.
        let fair = bytes.iter().filter(|byte| **byte < 248);
        let wanted = RANDOM_LETTERS - letters.len();
        letters.extend(fair.take(wanted).map(|byte| char::from(LETTERS[usize::from(byte % 62)])));
    }
    let check = check_letters(&letters);
    Ok(format!("{TOKEN_PREFIX}{letters}{check}"))
}

fn check_letters(letters: &str) -> String {
    let sum = digest(&SHA256, letters.as_bytes());
    let letter = |byte: &u8| char::from(LETTERS[usize::from(byte % 62)]);
    sum.as_ref().iter().take(CHECK_LETTERS).map(letter).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str) -> Token {
        Token {
            name: name.parse().unwrap(),
            user: None,
            scopes: None,
            created: Timestamp::UNIX_EPOCH,
            expires: None,
            note: String::new(),
            rescue: false,
        }
    }

    #[test]
    fn a_token_is_found_until_it_is_revoked() {
        let directory = tempfile::tempdir().unwrap();
        let tokens = Tokens::new(directory.path());
        assert!(tokens.list().unwrap().is_empty());
        let text = tokens.create(&token("ci")).unwrap();
        let letters = text.strip_prefix(TOKEN_PREFIX).unwrap();
        assert!(
            letters.len() == 46 && letters.bytes().all(|b| b.is_ascii_alphanumeric()),
            "{text}"
        );
        assert_eq!(check_letters(&letters[..40]), letters[40..]);
        assert!(matches!(tokens.create(&token("ci")), Err(TokensError::Exists(_))));
        let id = TokenId::of(&text);
        assert_eq!(tokens.find(&id).unwrap().unwrap().name.as_str(), "ci");
        assert_eq!(tokens.find(&TokenId::of("boatyard_x")).unwrap(), None);
        assert_eq!(tokens.find(&TokenId("../users".to_owned())).unwrap(), None);
        assert_eq!(tokens.last_used(&id), None);
        tokens.mark_used(&id, Timestamp::now());
        assert!(tokens.last_used(&id).is_some());
        let kept: Vec<u8> = fs::read(tokens.path(&id)).unwrap();
        assert!(!String::from_utf8(kept).unwrap().contains(letters), "it is not kept");
        tokens.revoke(&"ci".parse().unwrap()).unwrap();
        assert_eq!(tokens.find(&id).unwrap(), None);
        assert!(matches!(tokens.revoke(&"ci".parse().unwrap()), Err(TokensError::Unknown(_))));
    }

    #[test]
    fn a_token_ends_when_its_time_has_come() {
        let ending = Token { expires: Some(Timestamp::from_second(10).unwrap()), ..token("x") };
        assert!(!ending.is_expired(Timestamp::from_second(9).unwrap()));
        assert!(ending.is_expired(Timestamp::from_second(10).unwrap()));
    }
}
