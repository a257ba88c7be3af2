//! The key of the token service, and the tokens that it signs.
//!
//! They are JSON Web Tokens, because clients expect three parts with dots between them. Only we
//! read them, so the first part, which is where forged ones come in (`alg: none`, another
//! algorithm, a key of the forger's own), is not read at all: it is compared with the one that we
//! write.

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::private::{self, Doing as _, FileError};

/// Who issues tokens, and what they are for: what clients call `service`.
pub const SERVICE: &str = "boatyard";
/// What the tokens are for that only get further tokens.
const REFRESH: &str = "boatyard-refresh";
/// The most bytes of a token: no header is larger, and no list of scopes either.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How far the clocks of several servers on one root may be apart.
const LEEWAY_SECONDS: i64 = 5;

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// Its file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no key.
    #[error("the signing key is damaged: remove it, and everybody logs in again")]
    Damaged,
    /// No key could be made.
    #[error("cannot make a signing key")]
    NotMade,
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be shown with requests.
    Access,
    /// To get further tokens.
    Refresh,
}

impl Purpose {
    fn audience(self) -> &'static str {
        match self {
            Purpose::Access => SERVICE,
            Purpose::Refresh => REFRESH,
        }
    }
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) aud: String,
    /// Whose it is, as logs write it.
    pub(crate) sub: String,
    pub(crate) exp: i64,
    pub(crate) nbf: i64,
    pub(crate) iat: i64,
    pub(crate) jti: String,
    /// What vouches for the subject, to be looked up again each time.
    pub(crate) proof: Proof,
    #[serde(default)]
    pub(crate) access: Vec<AccessClaim>,
}

/// What vouches for the subject of a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Proof {
    /// Nothing: it is anybody's.
    Nothing,
    /// A user's password, as it is kept: another password ends the token.
    Password {
        /// The user.
        user: String,
        /// A digest of the hash.
        digest: String,
    },
    /// An API token.
    Token {
        /// The digest under which it is kept.
        id: crate::tokens::TokenId,
    },
    /// A certificate that the connection had.
    Certificate {
        /// Its holder's names.
        names: Vec<crate::identity::CertificateName>,
    },
}

/// > "The access claim is an array of objects with type, name and actions." (distribution,
/// > docs/spec/auth/jwt.md)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccessClaim {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) actions: Vec<String>,
}

/// The key pair of a root.
pub(crate) struct Signer {
    key: Ed25519KeyPair,
    /// The first part of every token of this key.
    header: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// Reads the key, and makes it where there is none. Several processes may do so at once: all
    /// have the same.
    pub(crate) fn open(directory: &Path) -> Result<Signer, SignerError> {
        let path = directory.join("signing-key");
        if !path.try_exists().doing("look for the signing key")? {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new())
                .map_err(|_| SignerError::NotMade)?;
            private::write(&path, pkcs8.as_ref(), true).doing("write the signing key")?;
        }
        let pkcs8 = fs::read(&path).doing("read the signing key")?;
        let key = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| SignerError::Damaged)?;
        let id = URL_SAFE_NO_PAD.encode(&digest(&SHA256, key.public_key().as_ref()).as_ref()[..12]);
        let header = format!(r#"{{"typ":"JWT","alg":"EdDSA","kid":"{id}"}}"#);
        Ok(Signer { key, header: URL_SAFE_NO_PAD.encode(header) })
    }

    /// Signs a token that is good for some seconds from now.
    pub(crate) fn sign(
        &self,
        purpose: Purpose,
        (sub, proof): (String, Proof),
        access: Vec<AccessClaim>,
        now: Timestamp,
        seconds: i64,
    ) -> String {
        let now = now.as_second();
        let claims = Claims {
            iss: SERVICE.to_owned(),
            aud: purpose.audience().to_owned(),
            sub,
            exp: now.saturating_add(seconds),
            nbf: now,
            iat: now,
            jti: uuid::Uuid::new_v4().to_string(),
            proof,
            access,
        };
        let claims = serde_json::to_vec(&claims).expect("claims are plain JSON");
        self.seal(&claims)
    }

    fn seal(&self, claims: &[u8]) -> String {
        let signed = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()).as_ref());
        format!("{signed}.{signature}")
    }

    /// Reads a token; `None` where it is none of ours, not for this, or not good now.
    pub(crate) fn verify(&self, purpose: Purpose, token: &str, now: Timestamp) -> Option<Claims> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        if header != self.header {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let key = UnparsedPublicKey::new(&ED25519, self.key.public_key().as_ref());
        key.verify(signed.as_bytes(), &signature).ok()?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        let now = now.as_second();
        let good = claims.iss == SERVICE
            && claims.aud == purpose.audience()
            && claims.nbf <= now.saturating_add(LEEWAY_SECONDS)
            && now < claims.exp;
        good.then_some(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn signer() -> (tempfile::TempDir, Signer) {
        let directory = tempfile::tempdir().unwrap();
        let signer = Signer::open(directory.path()).unwrap();
        (directory, signer)
    }

    fn sign(signer: &Signer, purpose: Purpose) -> String {
        signer.sign(purpose, ("anonymous".to_owned(), Proof::Nothing), Vec::new(), at(NOW), 300)
    }

    #[test]
    fn a_restart_keeps_the_key() {
        let (directory, signer) = signer();
        let token = sign(&signer, Purpose::Access);
        let again = Signer::open(directory.path()).unwrap();
        assert!(again.verify(Purpose::Access, &token, at(NOW)).is_some());
        fs::write(directory.path().join("signing-key"), "x").unwrap();
        assert!(matches!(Signer::open(directory.path()), Err(SignerError::Damaged)));
    }

    #[test]
    fn a_token_is_good_for_its_time_and_its_purpose() {
        let (_directory, signer) = signer();
        let token = sign(&signer, Purpose::Access);
        for (second, good) in
            [(NOW - 6, false), (NOW - 5, true), (NOW + 299, true), (NOW + 300, false)]
        {
            let read = signer.verify(Purpose::Access, &token, at(second));
            assert_eq!(read.is_some(), good, "{second}");
        }
        assert_eq!(signer.verify(Purpose::Refresh, &token, at(NOW)), None);
        let refresh = sign(&signer, Purpose::Refresh);
        assert_eq!(signer.verify(Purpose::Access, &refresh, at(NOW)), None);
    }

    /// Each way in which tokens are forged. The signature is right wherever the forger can have it
    /// so.
    #[test]
    fn cve_2025_24976_forged_tokens_are_refused() {
        let (_directory, signer) = signer();
        let (_other_directory, other) = self::signer();
        let good = sign(&signer, Purpose::Access);
        let parts: Vec<&str> = good.split('.').collect();
        let (claims, signature) = (parts[1], parts[2]);
        let public = URL_SAFE_NO_PAD.encode(signer.key.public_key().as_ref());
        let kid = {
            let header = URL_SAFE_NO_PAD.decode(parts[0]).unwrap();
            let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
            header["kid"].as_str().unwrap().to_owned()
        };
        let hmac = |header: &str| {
            let signed = format!("{}.{claims}", URL_SAFE_NO_PAD.encode(header));
            let key = aws_lc_rs::hmac::Key::new(
                aws_lc_rs::hmac::HMAC_SHA256,
                signer.key.public_key().as_ref(),
            );
            let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
        };
        let by_other = |header: &str| {
            let signed = format!("{}.{claims}", URL_SAFE_NO_PAD.encode(header));
            let signature = other.key.sign(signed.as_bytes());
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
        };
        let none = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"none"}"#);
        let other_public = URL_SAFE_NO_PAD.encode(other.key.public_key().as_ref());
        let jwk = format!(r#""jwk":{{"kty":"OKP","crv":"Ed25519","x":"{other_public}"}}"#);
        let mut forged = vec![
            ("no algorithm", format!("{none}.{claims}.")),
            ("no algorithm, a signature", format!("{none}.{claims}.{signature}")),
            ("another case", format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"nOnE"}"#))),
            ("the public key as a secret", hmac(&format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#))),
            ("another key", sign(&other, Purpose::Access)),
            (
                "another key, our kid",
                by_other(&format!(r#"{{"typ":"JWT","alg":"EdDSA","kid":"{kid}"}}"#)),
            ),
            (
                "a key of its own",
                by_other(&format!(r#"{{"typ":"JWT","alg":"EdDSA","kid":"{kid}",{jwk}}}"#)),
            ),
            ("a path as kid", by_other(r#"{"typ":"JWT","alg":"EdDSA","kid":"../../dev/null"}"#)),
            ("no signature", format!("{}.{claims}.", parts[0])),
            ("two parts", format!("{}.{claims}", parts[0])),
            ("four parts", format!("{good}.{signature}")),
            ("padding", format!("{good}==")),
            ("white space", format!("{good} ")),
            ("the key", public),
            ("nothing", String::new()),
            ("dots", "..".to_owned()),
            ("huge", format!("{good}{}", "A".repeat(1 << 20))),
        ];
        let mut changed: Vec<char> = claims.chars().collect();
        changed[10] = if changed[10] == 'A' { 'B' } else { 'A' };
        let changed: String = changed.into_iter().collect();
        forged.push(("other claims", format!("{}.{changed}.{signature}", parts[0])));
        for (what, token) in &forged {
            assert_eq!(signer.verify(Purpose::Access, token, at(NOW)), None, "{what}");
        }
        // What the key itself signed, with claims that are not ours.
        let now = NOW;
        for (what, claims) in [
            ("another issuer", format!(r#"{{"iss":"x","aud":"boatyard","sub":"a","exp":{0},"nbf":0,"iat":0,"jti":"","proof":"nothing"}}"#, now + 9)),
            ("another audience", format!(r#"{{"iss":"boatyard","aud":"x","sub":"a","exp":{0},"nbf":0,"iat":0,"jti":"","proof":"nothing"}}"#, now + 9)),
            ("expired", format!(r#"{{"iss":"boatyard","aud":"boatyard","sub":"a","exp":{now},"nbf":0,"iat":0,"jti":"","proof":"nothing"}}"#)),
            ("not yet", format!(r#"{{"iss":"boatyard","aud":"boatyard","sub":"a","exp":{0},"nbf":{1},"iat":0,"jti":"","proof":"nothing"}}"#, now + 99, now + 9)),
            ("no end", r#"{"iss":"boatyard","aud":"boatyard","sub":"a","nbf":0,"iat":0,"jti":"","proof":"nothing"}"#.to_owned()),
            ("no JSON", "x".to_owned()),
        ] {
            let token = signer.seal(claims.as_bytes());
            assert_eq!(signer.verify(Purpose::Access, &token, at(NOW)), None, "{what}");
        }
    }
}
