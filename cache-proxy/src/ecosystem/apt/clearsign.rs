//! The frame of an `InRelease`: a text that is signed in place.
//!
//! > "The cleartext signed message consists of: the header '-----BEGIN PGP SIGNED MESSAGE-----' on a
//! > single line; one or more "Hash" armor headers; an empty line [...]; the dash-escaped cleartext
//! > [...]; the ASCII armored signature(s)" (RFC 9580, 7)

const BEGIN: &[u8] = b"-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE: &[u8] = b"-----BEGIN PGP SIGNATURE-----";
const END: &[u8] = b"-----END PGP SIGNATURE-----";

/// A signed text, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clearsigned {
    /// The text, its dashes unescaped, each line with its line feed.
    pub text: Vec<u8>,
    /// The armored signature, with its frame.
    pub signature: Vec<u8>,
}

/// Why a text is not a signed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClearsignError {
    /// It does not begin like one.
    #[error("it does not begin with a line `-----BEGIN PGP SIGNED MESSAGE-----`")]
    Begin,
    /// A line of the text is not escaped, or the head is none.
    #[error("its frame is damaged")]
    Frame,
    /// It ends before its signature does: it was cut short.
    #[error("it ends before its signature does")]
    Short,
    /// Something follows the signature.
    #[error("something follows its signature")]
    More,
}

/// Says whether a text begins like a signed one.
pub fn is_clearsigned(bytes: &[u8]) -> bool {
    bytes.starts_with(BEGIN)
}

/// Takes a signed text apart. Whether the signature is right, it does not say.
///
/// # Errors
/// Where the frame is not whole, or something stands outside of it: apt refuses that too.
pub fn parse(bytes: &[u8]) -> Result<Clearsigned, ClearsignError> {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let line = |line: &[u8]| line.trim_ascii_end().to_vec();
    if lines.next().map(line).as_deref() != Some(BEGIN) {
        return Err(ClearsignError::Begin);
    }
    loop {
        let header = lines.next().map(line).ok_or(ClearsignError::Short)?;
        if header.is_empty() {
            break;
        }
        if !header.starts_with(b"Hash:") {
            return Err(ClearsignError::Frame);
        }
    }
    let mut text = Vec::with_capacity(bytes.len());
    let mut signature = loop {
        let found = lines.next().ok_or(ClearsignError::Short)?;
        if found.trim_ascii_end() == SIGNATURE {
            break found.to_vec();
        }
        match found.strip_prefix(b"- ") {
            Some(escaped) => text.extend_from_slice(escaped),
            None if found.starts_with(b"-") => return Err(ClearsignError::Frame),
            None => text.extend_from_slice(found),
        }
    };
    loop {
        let found = lines.next().ok_or(ClearsignError::Short)?;
        signature.extend_from_slice(found);
        if found.trim_ascii_end() == END {
            break;
        }
    }
    if lines.any(|rest| !rest.trim_ascii().is_empty()) {
        return Err(ClearsignError::More);
    }
    Ok(Clearsigned { text, signature })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNED: &str = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nOrigin: x\n- - dash\n\
        -----BEGIN PGP SIGNATURE-----\n\niQ==\n=aaaa\n-----END PGP SIGNATURE-----\n";

    #[test]
    fn takes_a_signed_text_apart() {
        let parsed = parse(SIGNED.as_bytes()).unwrap();
        assert_eq!(parsed.text, b"Origin: x\n- dash\n");
        assert!(parsed.signature.starts_with(SIGNATURE) && parsed.signature.ends_with(b"-----\n"));
        assert_eq!(parse(SIGNED.replace('\n', "\r\n").as_bytes()).unwrap().text.len(), 19);
    }

    #[test]
    fn refuses_every_other_frame() {
        for cut in 0..SIGNED.len() - 1 {
            assert!(parse(&SIGNED.as_bytes()[..cut]).is_err(), "{cut}");
        }
        let table = [
            (format!("x\n{SIGNED}"), ClearsignError::Begin),
            (SIGNED.replace("Hash", "Charset"), ClearsignError::Frame),
            (SIGNED.replace("- - dash", "- dash\n-dash"), ClearsignError::Frame),
            (format!("{SIGNED}Origin: y\n"), ClearsignError::More),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text.as_bytes()), Err(expected));
        }
    }
}
