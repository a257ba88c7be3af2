//! What is known of an object before its bytes are there, and the note that tells it to the other
//! processes of the root.
//!
//! ```text
//! <size, or `-`>\n
//! <name>: <value>\n      each header of the upstream's answer, its bytes as they came
//! ```

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// What the upstream said of an object before its first byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The number of its bytes, where it was promised or said.
    pub size: Option<u64>,
    /// The headers of the answer; empty where the object was in the store.
    pub headers: HeaderMap,
}

impl Head {
    pub(super) fn to_note(&self) -> Bytes {
        let mut note = self.size.map_or("-".to_owned(), |size| size.to_string()).into_bytes();
        note.push(b'\n');
        for (name, value) in &self.headers {
            note.extend_from_slice(name.as_str().as_bytes());
            note.extend_from_slice(b": ");
            note.extend_from_slice(value.as_bytes());
            note.push(b'\n');
        }
        note.into()
    }

    /// Reads a note; `None` where another version of us wrote it.
    pub(super) fn from_note(note: &[u8]) -> Option<Head> {
        let mut lines = note.strip_suffix(b"\n")?.split(|byte| *byte == b'\n');
        let size = match std::str::from_utf8(lines.next()?).ok()? {
            "-" => None,
            digits => Some(digits.parse().ok()?),
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            let value = HeaderValue::from_bytes(line.get(colon + 2..)?).ok()?;
            headers.append(name, value);
        }
        Some(Head { size, headers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_say_what_was_said() {
        let mut headers = HeaderMap::new();
        headers.append("etag", HeaderValue::from_static("\"a: b\""));
        headers.append("link", HeaderValue::from_static(""));
        headers.append("link", HeaderValue::from_bytes(b"\xff").unwrap());
        for size in [None, Some(0), Some(u64::MAX)] {
            let head = Head { size, headers: headers.clone() };
            assert_eq!(Head::from_note(&head.to_note()), Some(head));
        }
        assert_eq!(Head::from_note(&Head::default().to_note()), Some(Head::default()));
        for bad in ["", "-", "x\n", "1\nno colon\n", "1\na b: c\n", "1\na:\n"] {
            assert_eq!(Head::from_note(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
