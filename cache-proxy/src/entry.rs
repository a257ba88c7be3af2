//! An entry: what is known of a target's bytes that are kept.
//!
//! ```text
//! entry 1\n
//! url <target>\n
//! from <URL that answered, after redirects>\n
//! requested <time>\n
//! received <time>\n
//! size <bytes>\n
//! verified <what vouched>\n            absent where nothing did
//! varied <name>: <value>\n             a header of the request that chose this variant
//! header <name>: <value>\n             a header of the answer, its bytes as they came
//! ```
//!
//! It is the note of a variant among [`boatyard_content::entries`], which hold the bytes.

use std::fmt::Write as _;

use boatyard_content::entries::{EntryKey, Variant};
use boatyard_oci::Digest;
use boatyard_upstream::freshness::Policy;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;

use crate::target::Target;

/// What is kept of one variant of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub target: Target,
    /// The URL that answered, after redirects, without what may be secret in it.
    pub from: String,
    /// The bytes.
    pub blob: Digest,
    /// Their number.
    pub size: u64,
    /// What vouched for them, where something did.
    pub verified: Option<String>,
    /// Headers, times, and the request's headers that chose it.
    pub policy: Policy,
}

impl Entry {
    /// Returns the names of the request's headers that choose between variants, in order.
    pub fn vary(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.policy.varied.iter().map(|(name, _)| name.as_str().to_owned()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Returns its form among the entries of a root.
    pub fn to_variant(&self) -> Variant {
        let key = variant_key(&self.vary(), |name| {
            let known = self.policy.varied.iter().find(|(known, _)| known.as_str() == name);
            known.map(|(_, values)| values.clone()).unwrap_or_default()
        });
        Variant { key, blob: self.blob.clone(), note: self.to_note() }
    }

    fn to_note(&self) -> Vec<u8> {
        let policy = &self.policy;
        let mut head = format!("entry 1\nurl {}\nfrom {}\n", self.target, self.from);
        let times = (policy.requested, policy.received);
        let _ = writeln!(head, "requested {}\nreceived {}\nsize {}", times.0, times.1, self.size);
        if let Some(by) = &self.verified {
            let _ = writeln!(head, "verified {}", by.replace('\n', " "));
        }
        let mut note = head.into_bytes();
        let mut line = |kind: &str, name: &HeaderName, value: &HeaderValue| {
            note.extend_from_slice(format!("{kind} {name}: ").as_bytes());
            note.extend_from_slice(value.as_bytes());
            note.push(b'\n');
        };
        for (name, values) in &policy.varied {
            for value in values {
                line("varied", name, value);
            }
        }
        for (name, value) in &policy.headers {
            line("header", name, value);
        }
        note
    }

    /// Reads a variant; `None` where another version of us wrote it, or it is broken. `vary` are
    /// the names that choose: one without a value was absent from the request.
    pub fn of_variant(vary: &[String], variant: &Variant) -> Option<Entry> {
        let mut lines = variant.note.strip_suffix(b"\n")?.split(|byte| *byte == b'\n');
        if lines.next()? != b"entry 1" {
            return None;
        }
        let (mut target, mut from, mut requested, mut received) = (None, None, None, None);
        let (mut size, mut verified) = (None, None);
        let mut varied: Vec<(HeaderName, Vec<HeaderValue>)> = vary
            .iter()
            .map(|name| Some((HeaderName::from_bytes(name.as_bytes()).ok()?, Vec::new())))
            .collect::<Option<_>>()?;
        let mut headers = HeaderMap::new();
        for line in lines {
            let space = line.iter().position(|byte| *byte == b' ')?;
            let (kind, value) = (&line[..space], &line[space + 1..]);
            let text = || std::str::from_utf8(value).ok();
            match kind {
                b"url" => target = Some(text()?.parse().ok()?),
                b"from" => from = Some(text()?.to_owned()),
                b"requested" => requested = Some(text()?.parse::<Timestamp>().ok()?),
                b"received" => received = Some(text()?.parse::<Timestamp>().ok()?),
                b"size" => size = Some(text()?.parse().ok()?),
                b"verified" => verified = Some(text()?.to_owned()),
                b"varied" => {
                    let (name, value) = header(value)?;
                    varied.iter_mut().find(|(known, _)| *known == name)?.1.push(value);
                }
                b"header" => {
                    let (name, value) = header(value)?;
                    headers.append(name, value);
                }
                _ => return None,
            }
        }
        let (requested, received) = (requested?, received?);
        let policy = Policy { status: StatusCode::OK, headers, requested, received, varied };
        Some(Entry {
            target: target?,
            from: from?,
            blob: variant.blob.clone(),
            size: size?,
            verified,
            policy,
        })
    }
}

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    Some((name, HeaderValue::from_bytes(line.get(colon + 2..)?).ok()?))
}

/// Returns the name of the variant that a request's headers choose.
pub fn variant_key(vary: &[String], values: impl Fn(&str) -> Vec<HeaderValue>) -> EntryKey {
    let mut text = String::new();
    for name in vary {
        let _ = write!(text, "{name}");
        for value in values(name) {
            let _ = write!(text, ": {}", value.as_bytes().escape_ascii());
        }
        text.push('\n');
    }
    EntryKey::of(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let mut headers = HeaderMap::new();
        headers.append("etag", HeaderValue::from_static("\"a: b\""));
        headers.append("x", HeaderValue::from_bytes(b"\xff").unwrap());
        headers.append("x", HeaderValue::from_static(""));
        let accept = HeaderName::from_static("accept");
        let absent = HeaderName::from_static("accept-language");
        Entry {
            target: "http://deb.example/a?b".parse().unwrap(),
            from: "https://cdn.example/a".to_owned(),
            blob: Digest::sha256(b"x"),
            size: 1,
            verified: Some("an index".to_owned()),
            policy: Policy {
                status: StatusCode::OK,
                headers,
                requested: "2026-01-01T00:00:00Z".parse().unwrap(),
                received: "2026-01-01T00:00:01.5Z".parse().unwrap(),
                varied: vec![
                    (accept, vec![HeaderValue::from_static("text/html")]),
                    (absent, vec![]),
                ],
            },
        }
    }

    #[test]
    fn notes_say_what_was_known() {
        let entry = entry();
        let variant = entry.to_variant();
        assert_eq!(Entry::of_variant(&entry.vary(), &variant), Some(entry));
        for bad in ["", "entry 1\n", "entry 2\nurl x\n", "entry 1\nurl\n", "entry 1\nwhat x\n"] {
            let bad = Variant { note: bad.as_bytes().to_vec(), ..variant.clone() };
            assert_eq!(Entry::of_variant(&[], &bad), None);
        }
    }

    #[test]
    fn variants_differ_by_the_headers_that_choose() {
        let vary = ["accept".to_owned()];
        let of = |value: Option<&str>| {
            variant_key(&vary, |_| {
                value.map(|value| HeaderValue::from_str(value).unwrap()).into_iter().collect()
            })
        };
        assert_ne!(of(Some("a")), of(Some("b")));
        assert_ne!(of(None), of(Some("")));
        assert_eq!(of(Some("text/html")), {
            let mut entry = entry();
            entry.policy.varied.pop();
            entry.to_variant().key
        });
    }
}
