//! Paragraphs of `Name: value` lines, as every index of Debian has them.
//!
//! > "A control file consists of one or more stanzas of fields. The stanzas are separated by empty
//! > lines. [...] Field names are not case-sensitive" (Debian Policy, 5.1)

use std::io::{self, BufRead, Read as _};

/// The longest paragraph that is read, in bytes: those of the largest packages have some 100,000.
pub const STANZA_LEN_MAX: usize = 4 << 20;

/// Why a paragraph could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StanzaError {
    /// The bytes could not be read, or not be unpacked.
    #[error("cannot read the index")]
    Read(#[source] io::Error),
    /// It is no index, or meant to fill the memory.
    #[error("a paragraph has more than {STANZA_LEN_MAX} bytes")]
    TooLong,
}

/// One paragraph.
#[derive(Clone, Copy, Debug)]
pub struct Stanza<'a>(&'a [u8]);

impl<'a> Stanza<'a> {
    /// Takes a text as one paragraph.
    pub fn of(text: &'a [u8]) -> Stanza<'a> {
        Stanza(text)
    }

    /// Returns the fields, each with the whole of its value: further lines keep the space that they
    /// begin with.
    pub fn fields(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            loop {
                if rest.is_empty() {
                    return None;
                }
                let end = field_len(rest);
                let (field, after) = rest.split_at(end);
                rest = after;
                let Ok(field) = std::str::from_utf8(field) else { continue };
                let Some((name, value)) = field.split_once(':') else { continue };
                if !name.starts_with([' ', '\t', '#']) {
                    return Some((name.trim_end(), value.trim()));
                }
            }
        })
    }

    /// Returns the first value of a field.
    pub fn field(self, name: &str) -> Option<&'a str> {
        self.fields().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Returns how long the first field is, with all its lines.
fn field_len(text: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match text[at..].iter().position(|byte| *byte == b'\n') {
            None => return text.len(),
            Some(end) => at += end + 1,
        }
        if !matches!(text.get(at), Some(b' ' | b'\t')) {
            return at;
        }
    }
}

/// Reads an index paragraph by paragraph; the memory is that of one.
#[derive(Debug)]
pub struct Stanzas<R> {
    from: R,
    text: Vec<u8>,
}

impl<R: BufRead> Stanzas<R> {
    /// Begins to read.
    pub fn new(from: R) -> Stanzas<R> {
        Stanzas { from, text: Vec::new() }
    }

    /// Returns the next paragraph, `None` at the end.
    ///
    /// # Errors
    /// Where the bytes cannot be read, or a paragraph has no end.
    pub fn read(&mut self) -> Result<Option<Stanza<'_>>, StanzaError> {
        self.text.clear();
        loop {
            let start = self.text.len();
            let left = (STANZA_LEN_MAX + 1).saturating_sub(start) as u64;
            let mut line = (&mut self.from).take(left);
            let read = line.read_until(b'\n', &mut self.text).map_err(StanzaError::Read)?;
            if self.text.len() > STANZA_LEN_MAX {
                return Err(StanzaError::TooLong);
            }
            let is_empty = self.text[start..].iter().all(u8::is_ascii_whitespace);
            if is_empty {
                self.text.truncate(start);
            }
            match (read, is_empty, start) {
                (0, _, 0) => return Ok(None),
                (0, ..) => break,
                (_, true, 0) => {}
                (_, true, _) => break,
                _ => {}
            }
        }
        Ok(Some(Stanza(&self.text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_and_their_fields() {
        let text = "\n\nPackage: a\nDescription: one\n two\n .\n\tthree\nSIZE:  7 \n# no: field\n\n \n\
                    nothing\nPackage: b\r\n\r\nPackage: c";
        let mut stanzas = Stanzas::new(text.as_bytes());
        let first = stanzas.read().unwrap().unwrap();
        assert_eq!(first.field("package"), Some("a"));
        assert_eq!(first.field("Description"), Some("one\n two\n .\n\tthree"));
        assert_eq!(first.field("Size"), Some("7"));
        assert_eq!(first.field("no"), None);
        assert_eq!(stanzas.read().unwrap().unwrap().field("Package"), Some("b"));
        assert_eq!(stanzas.read().unwrap().unwrap().field("Package"), Some("c"));
        assert!(stanzas.read().unwrap().is_none());
    }

    #[test]
    fn no_paragraph_fills_the_memory() {
        let endless = io::repeat(b'x');
        let mut stanzas = Stanzas::new(io::BufReader::new(endless));
        assert!(matches!(stanzas.read(), Err(StanzaError::TooLong)));
    }

    #[test]
    fn bytes_that_are_no_text_hide_one_field_only() {
        let stanza = Stanza::of(b"A: \xff\nB: 1\n");
        assert_eq!((stanza.field("A"), stanza.field("B")), (None, Some("1")));
    }
}
