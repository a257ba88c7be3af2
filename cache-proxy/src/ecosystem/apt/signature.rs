//! Whether a signature was made of these bytes, told without any key.
//!
//! A signature packet carries the first two octets of the hash that was signed. They vouch for
//! nobody, but they tell a `Release` that was replaced from its own `Release.gpg`, and an
//! `InRelease` whose bytes were damaged, 65,535 times of 65,536. Who signed, the client checks.
//!
//! > "Two-octet field holding the left 16 bits of the signed hash value." (RFC 9580, 5.2.3)

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Sha224, Sha256, Sha384, Sha512};

use super::clearsign::Clearsigned;

/// What a signature says of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It was made of them, as far as two octets say.
    Fits,
    /// It was made of others.
    Differs,
    /// It has a form that we do not read.
    Unknown,
}

/// Looks whether an armored or binary detached signature was made of these bytes.
pub fn detached(signature: &[u8], bytes: &[u8]) -> Fit {
    match dearmor(signature) {
        Some(packets) => check(&packets, bytes),
        None => check(signature, bytes),
    }
}

/// Looks whether a text in a frame is the one that was signed.
pub fn clearsigned(signed: &Clearsigned) -> Fit {
    let Some(packets) = dearmor(&signed.signature) else { return Fit::Unknown };
    let mut text = signed.text.as_slice();
    // > "The line ending (i.e., the <CR><LF>) before the '-----BEGIN PGP SIGNATURE-----' line that
    // > terminates the signed text is not considered part of the signed text." (RFC 9580, 7.1)
    text = text.strip_suffix(b"\n").unwrap_or(text);
    text = text.strip_suffix(b"\r").unwrap_or(text);
    let mut stripped = Vec::with_capacity(text.len());
    for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if at > 0 {
            stripped.push(b'\n');
        }
        let end = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
        stripped.extend_from_slice(&line[..end.map_or(0, |end| end + 1)]);
    }
    check(&packets, &stripped)
}

fn check(mut packets: &[u8], bytes: &[u8]) -> Fit {
    let mut fit = Fit::Unknown;
    while let Some((tag, body, rest)) = packet(packets) {
        packets = rest;
        if tag != 2 {
            continue;
        }
        match fits(body, bytes) {
            Some(true) => return Fit::Fits,
            Some(false) => fit = Fit::Differs,
            None => {}
        }
    }
    fit
}

/// Says whether a signature of version 4 fits; `None` where it is another.
fn fits(body: &[u8], bytes: &[u8]) -> Option<bool> {
    let [4, kind, _, algorithm, high, low, ..] = *body else { return None };
    let hashed = 6 + usize::from(u16::from_be_bytes([high, low]));
    let unhashed = body.get(hashed..hashed + 2)?;
    let left = hashed + 2 + usize::from(u16::from_be_bytes([unhashed[0], unhashed[1]]));
    let left = body.get(left..left + 2)?;
    let canonical;
    let bytes = match kind {
        0 => bytes,
        1 => {
            canonical = with_network_line_ends(bytes);
            &canonical
        }
        _ => return None,
    };
    let head = body.get(..hashed)?;
    let [a, b, c, d] = u32::try_from(hashed).ok()?.to_be_bytes();
    let parts = [bytes, head, &[4, 0xff, a, b, c, d]];
    let start = match algorithm {
        8 => hash::<Sha256>(parts),
        9 => hash::<Sha384>(parts),
        10 => hash::<Sha512>(parts),
        11 => hash::<Sha224>(parts),
        _ => return None,
    };
    Some(start == left)
}

fn hash<H: sha2::Digest>(parts: [&[u8]; 3]) -> [u8; 2] {
    let mut hasher = H::new();
    for part in parts {
        hasher.update(part);
    }
    let output = hasher.finalize();
    [output[0], output[1]]
}

fn with_network_line_ends(bytes: &[u8]) -> Vec<u8> {
    let mut canonical = Vec::with_capacity(bytes.len() + bytes.len() / 16);
    for &byte in bytes {
        if byte == b'\n' && canonical.last() != Some(&b'\r') {
            canonical.push(b'\r');
        }
        canonical.push(byte);
    }
    canonical
}

/// Returns the first packet's tag and body, and what follows.
fn packet(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first & 0x80 == 0 {
        return None;
    }
    let (tag, len, rest) = if first & 0x40 != 0 {
        let (&short, after) = rest.split_first()?;
        let (len, after) = match short {
            0..=191 => (usize::from(short), after),
            192..=223 => {
                let (&low, after) = after.split_first()?;
                (((usize::from(short) - 192) << 8) + usize::from(low) + 192, after)
            }
            255 => (number(after.get(..4)?), &after[4..]),
            // Partial lengths are for data.
            _ => return None,
        };
        (first & 0x3f, len, after)
    } else {
        let octets = match first & 3 {
            0 => 1,
            1 => 2,
            2 => 4,
            _ => return Some(((first >> 2) & 0xf, rest, &[])),
        };
        ((first >> 2) & 0xf, number(rest.get(..octets)?), &rest[octets..])
    };
    Some((tag, rest.get(..len)?, &rest[len..]))
}

fn number(octets: &[u8]) -> usize {
    octets.iter().fold(0, |number, octet| (number << 8) | usize::from(*octet))
}

/// Returns the packets of an armored signature; several in a row are taken together.
fn dearmor(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut packets = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while lines.by_ref().any(|line| line == "-----BEGIN PGP SIGNATURE-----") {
        // Headers, up to an empty line.
        lines.by_ref().find(|line| line.is_empty())?;
        let body = lines.by_ref().take_while(|line| !line.starts_with(['=', '-']));
        packets.extend(STANDARD.decode(body.collect::<String>()).ok()?);
    }
    (!packets.is_empty()).then_some(packets)
}

#[cfg(test)]
mod tests {
    use super::super::clearsign;
    use super::*;

    /// Makes the part of a signature that is looked at.
    fn signature(kind: u8, bytes: &[u8]) -> Vec<u8> {
        let head = [4, kind, 1, 8, 0, 3, 2, 0x11, 0x22];
        let left = hash::<Sha256>([bytes, &head, &[4, 0xff, 0, 0, 0, head.len() as u8]]);
        let body = [&head[..], &[0, 0], &left, &[0, 0]].concat();
        [&[0x88, body.len() as u8][..], &body].concat()
    }

    fn armored(packets: &[u8]) -> String {
        format!(
            "-----BEGIN PGP SIGNATURE-----\n\n{}\n=abcd\n-----END PGP SIGNATURE-----\n",
            STANDARD.encode(packets)
        )
    }

    #[test]
    fn a_detached_signature_is_of_its_own_bytes() {
        let release = b"Origin: x\nSuite: y\n";
        let packets = signature(0, release);
        let other = signature(0, b"Origin: z\n");
        let text = armored(&packets);
        assert_eq!(detached(text.as_bytes(), release), Fit::Fits);
        assert_eq!(detached(&packets, release), Fit::Fits);
        assert_eq!(detached(text.as_bytes(), b"Origin: z\n"), Fit::Differs);
        // One of two will do: archives sign with two keys while they change one.
        assert_eq!(detached(&[other.clone(), packets].concat(), release), Fit::Fits);
        assert_eq!(detached(&other, release), Fit::Differs);
        assert_eq!(detached(b"", release), Fit::Unknown);
        assert_eq!(detached(b"<html>", release), Fit::Unknown);
    }

    #[test]
    fn a_signed_text_is_canonical() {
        let packets = signature(1, b"Origin: x\r\n\r\n- dash");
        let text = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: x \t\n\n- - dash\n{}",
            armored(&packets)
        );
        let signed = clearsign::parse(text.as_bytes()).unwrap();
        assert_eq!(clearsigned(&signed), Fit::Fits);
        let damaged = clearsign::parse(text.replace("Origin", "Prigin").as_bytes()).unwrap();
        assert_eq!(clearsigned(&damaged), Fit::Differs);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let packets = signature(0, b"x");
        for cut in 0..packets.len() {
            assert_ne!(detached(&packets[..cut], b"x"), Fit::Fits);
            for bit in 0..8 {
                let mut bytes = packets.clone();
                bytes[cut] ^= 1 << bit;
                detached(&bytes, b"x");
            }
        }
        for first in 0..=255 {
            detached(&[first, 255, 255, 255, 255, 255], b"x");
        }
    }
}
