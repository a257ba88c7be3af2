//! Digests: `algorithm:hex` of some bytes, and the hashers that make them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256, Sha512};

/// A digest algorithm that image-spec registers and Boatyard stores.
///
/// > "The following algorithm identifiers are currently defined by this specification: sha256,
/// > sha512, blake3" (image-spec, descriptor.md, "Registered algorithms"). `blake3` is not
/// > accepted: no client sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256: what practically everything uses.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Every algorithm, in the order of their names.
    pub const ALL: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

    /// Returns the name that stands before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Returns how many hex digits follow the colon.
    pub fn hex_len(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Algorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == text)
            .ok_or_else(|| DigestError::Algorithm { algorithm: shorten(text) })
    }
}

/// The digest of some bytes, as `algorithm:hex`.
///
/// - The algorithm is one that we can compute.
/// - The hex part is lower case and exactly as long as the algorithm's output.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// Returns the SHA-256 digest of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Digest {
        Digest::of(Algorithm::Sha256, bytes)
    }

    /// Returns the digest of `bytes` under `algorithm`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Returns a digest from its two parts, as they stand in a file's path.
    ///
    /// # Errors
    /// Where `hex` is not lower-case hex of the algorithm's length.
    pub fn from_parts(algorithm: Algorithm, hex: &str) -> Result<Digest, DigestError> {
        if hex.len() != algorithm.hex_len() {
            return Err(DigestError::Length {
                algorithm,
                expected: algorithm.hex_len(),
                got: hex.len(),
            });
        }
        if !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Hex { hex: shorten(hex) });
        }
        Ok(Digest { algorithm, hex: hex.into() })
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the lower-case hex part.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Returns the first twelve hex digits: what people are shown.
    pub fn short(&self) -> &str {
        &self.hex[..12]
    }

    fn from_output(algorithm: Algorithm, output: &[u8]) -> Digest {
        use fmt::Write as _;
        let mut hex = String::with_capacity(output.len() * 2);
        for byte in output {
            write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
        }
        Digest { algorithm, hex: hex.into() }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) =
            text.split_once(':').ok_or_else(|| DigestError::Form { text: shorten(text) })?;
        Digest::from_parts(algorithm.parse()?, hex)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no colon in it.
    #[error("`{text}` is not a digest: write it as sha256:<64 hex digits>")]
    Form {
        /// What was given, shortened.
        text: String,
    },
    /// The algorithm is not one we can compute.
    #[error("digest algorithm `{algorithm}` is not supported: use sha256 or sha512")]
    Algorithm {
        /// What was given, shortened.
        algorithm: String,
    },
    /// The hex part has the wrong length.
    #[error("a {algorithm} digest has {expected} hex digits, not {got}")]
    Length {
        /// The algorithm that was named.
        algorithm: Algorithm,
        /// Its number of hex digits.
        expected: usize,
        /// How many bytes there were.
        got: usize,
    },
    /// Something else than `0-9a-f` stands in the hex part.
    #[error("`{hex}` is not lower-case hex")]
    Hex {
        /// What was given, shortened.
        hex: String,
    },
}

/// Cuts what came from outside to a length that fits in a message.
fn shorten(text: &str) -> String {
    const MOST: usize = 80;
    if text.chars().count() <= MOST {
        return text.escape_debug().to_string();
    }
    let head: String = text.chars().take(MOST).collect();
    format!("{}...", head.escape_debug())
}

/// Computes a [`Digest`] while bytes pass, and can be put aside and taken up again.
///
/// ```
/// use boatyard_oci::{Algorithm, Digest, Hasher};
/// let mut first = Hasher::new(Algorithm::Sha256);
/// first.update(b"hello ");
/// let mut second = Hasher::restore(Algorithm::Sha256, &first.save()).unwrap();
/// second.update(b"world");
/// assert_eq!(second.finish(), Digest::sha256(b"hello world"));
/// ```
#[derive(Clone, Debug)]
pub enum Hasher {
    /// A running SHA-256.
    Sha256(Sha256),
    /// A running SHA-512.
    Sha512(Sha512),
}

impl Hasher {
    /// Returns a hasher that has seen nothing.
    pub fn new(algorithm: Algorithm) -> Hasher {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Hasher::Sha256(_) => Algorithm::Sha256,
            Hasher::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Hashes further bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(state) => state.update(bytes),
            Hasher::Sha512(state) => state.update(bytes),
        }
    }

    /// Returns the digest of all that was hashed.
    pub fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(state) => Digest::from_output(Algorithm::Sha256, &state.finalize()),
            Hasher::Sha512(state) => Digest::from_output(Algorithm::Sha512, &state.finalize()),
        }
    }

    /// Returns the running state, for [`Hasher::restore`] (about 100 or 200 bytes).
    pub fn save(&self) -> Vec<u8> {
        match self {
            Hasher::Sha256(state) => state.serialize().to_vec(),
            Hasher::Sha512(state) => state.serialize().to_vec(),
        }
    }

    /// Returns a hasher that goes on where [`Hasher::save`] was called, or `None` where `state`
    /// is not such a state.
    pub fn restore(algorithm: Algorithm, state: &[u8]) -> Option<Hasher> {
        match algorithm {
            Algorithm::Sha256 => {
                Sha256::deserialize(state.try_into().ok()?).ok().map(Hasher::Sha256)
            }
            Algorithm::Sha512 => {
                Sha512::deserialize(state.try_into().ok()?).ok().map(Hasher::Sha512)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests() {
        assert_eq!(
            Digest::sha256(b"").to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert!(Digest::of(Algorithm::Sha512, b"abc").to_string().starts_with("sha512:ddaf35a1"));
    }

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let digest = Digest::sha256(b"x");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        let upper = digest.to_string().to_uppercase().replace("SHA", "sha");
        for bad in ["", "sha256", "sha256:", "sha256:abc", "md5:abcd", &upper, "sha256:../../x"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_saved_state_of_another_algorithm_is_refused() {
        let state = Hasher::new(Algorithm::Sha256).save();
        assert!(Hasher::restore(Algorithm::Sha512, &state).is_none());
        assert!(Hasher::restore(Algorithm::Sha256, &state[1..]).is_none());
    }
}
