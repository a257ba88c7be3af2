//! What a client's certificate calls its holder.
//!
//! The TLS library has verified the certificate by the time it gets here; what is left is to find
//! the names in it. This reads as much of X.509 as that takes, over a slice, and nothing of it is
//! believed that does not fit into what is around it.

use crate::identity::CertificateName;

/// How many names of one certificate count.
const NAMES_MAX: usize = 64;

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0]` and `[3]` of a certificate: its version, its extensions.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// The alternative names that are text: mail address, DNS name, URI.
const TEXT_NAMES: [u8; 3] = [0x81, 0x82, 0x86];
/// The kinds of strings that a common name may be and that are UTF-8: UTF8String,
/// PrintableString, IA5String.
const STRINGS: [u8; 3] = [0x0c, 0x13, 0x16];
/// 2.5.4.3 and 2.5.29.17
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

/// Returns the names of a certificate's holder: the common name first, then the alternative names
/// that are text.
pub fn names(certificate: &[u8]) -> Vec<CertificateName> {
    let mut names = Vec::new();
    // What cannot be read has no names, and then no rights.
    let _ = collect(certificate, &mut names);
    names
}

fn collect(certificate: &[u8], names: &mut Vec<CertificateName>) -> Option<()> {
    let mut outer = Der(certificate).next_as(SEQUENCE)?;
    let mut inner = outer.next_as(SEQUENCE)?;
    if inner.tag() == Some(VERSION) {
        inner.next()?;
    }
    inner.next_as(INTEGER)?;
    // Signature algorithm, issuer, validity.
    for _ in 0..3 {
        inner.next_as(SEQUENCE)?;
    }
    common_names(inner.next_as(SEQUENCE)?, names)?;
    inner.next_as(SEQUENCE)?;
    while let Some((tag, extensions)) = inner.next() {
        if tag == EXTENSIONS {
            alternative_names(Der(extensions).next_as(SEQUENCE)?, names)?;
        }
    }
    Some(())
}

fn common_names(mut subject: Der<'_>, names: &mut Vec<CertificateName>) -> Option<()> {
    while !subject.is_empty() {
        let mut set = subject.next_as(SET)?;
        while !set.is_empty() {
            let mut attribute = set.next_as(SEQUENCE)?;
            let kind = attribute.next_as(OID)?;
            let (tag, value) = attribute.next()?;
            if kind.0 == COMMON_NAME && STRINGS.contains(&tag) {
                push(names, value);
            }
        }
    }
    Some(())
}

fn alternative_names(mut extensions: Der<'_>, names: &mut Vec<CertificateName>) -> Option<()> {
    while !extensions.is_empty() {
        let mut extension = extensions.next_as(SEQUENCE)?;
        if extension.next_as(OID)?.0 != ALTERNATIVE_NAMES {
            continue;
        }
        // Whether it is critical may stand in between.
        while let Some((tag, value)) = extension.next() {
            if tag != OCTETS {
                continue;
            }
            let mut list = Der(value).next_as(SEQUENCE)?;
            while let Some((tag, value)) = list.next() {
                if TEXT_NAMES.contains(&tag) {
                    push(names, value);
                }
            }
        }
    }
    Some(())
}

fn push(names: &mut Vec<CertificateName>, value: &[u8]) {
    let name = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    if let Some(name) = name
        && names.len() < NAMES_MAX
        && !names.contains(&name)
    {
        names.push(name);
    }
}

/// Elements one after the other, as DER has them.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// Takes the next element if it is of this kind.
    fn next_as(&mut self, wanted: u8) -> Option<Der<'a>> {
        let (tag, value) = self.next()?;
        (tag == wanted).then_some(Der(value))
    }

    /// Takes the next element: its tag and what is in it.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Certificates have at most a few thousand bytes: three bytes of length are plenty.
            0x81..=0x83 => {
                let (len, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
                (len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let value = parts.concat();
        let mut bytes = vec![tag, 0x82];
        bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        bytes.extend(value);
        bytes
    }

    fn certificate() -> Vec<u8> {
        let name = |oid: &[u8], text: &str| {
            let attribute = [element(OID, &[oid]), element(0x0c, &[text.as_bytes()])].concat();
            element(SET, &[&element(SEQUENCE, &[&attribute])])
        };
        let empty = element(SEQUENCE, &[]);
        let subject =
            element(SEQUENCE, &[&name(&[0x55, 4, 10], "Team"), &name(COMMON_NAME, "runner-7")]);
        let list = element(
            SEQUENCE,
            &[
                &element(0x82, &[b"runner.example"]),
                &element(0x87, &[&[127, 0, 0, 1]]),
                &element(0x86, &[b"spiffe://example/runner"]),
                &element(0x81, &[b"a\nb"]),
            ],
        );
        let alternative = element(
            SEQUENCE,
            &[
                &element(OID, &[ALTERNATIVE_NAMES]),
                &element(1, &[&[255]]),
                &element(OCTETS, &[&list]),
            ],
        );
        let inner = [
            element(VERSION, &[&element(INTEGER, &[&[2]])]),
            element(INTEGER, &[&[1]]),
            empty.clone(),
            empty.clone(),
            empty.clone(),
            subject,
            empty.clone(),
            element(EXTENSIONS, &[&element(SEQUENCE, &[&alternative])]),
        ];
        element(SEQUENCE, &[&element(SEQUENCE, &[&inner.concat()]), &empty])
    }

    #[test]
    fn all_names_that_are_text_are_found() {
        let found = names(&certificate());
        let found: Vec<&str> = found.iter().map(CertificateName::as_str).collect();
        assert_eq!(found, ["runner-7", "runner.example", "spiffe://example/runner"]);
    }

    #[test]
    fn what_is_cut_or_changed_panics_nobody() {
        let whole = certificate();
        for len in 0..whole.len() {
            let _ = names(&whole[..len]);
        }
        for at in 0..whole.len() {
            for value in [0, 0x30, 0x7f, 0x80, 0x83, 0x84, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                assert!(names(&changed).len() <= 8);
            }
        }
    }
}
