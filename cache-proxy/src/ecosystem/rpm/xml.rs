//! XML as metadata of repositories has it, read piece by piece with a limit on each.

use std::io::{self, BufRead, Read};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// The most bytes of one tag or text: descriptions of packages have some 100,000.
const PIECE_LEN_MAX: usize = 4 << 20;
/// How deep elements lie within one another at most.
const DEPTH_MAX: usize = 64;

/// Why a document could not be read.
#[derive(Debug, thiserror::Error)]
pub enum XmlError {
    /// It is none.
    #[error("it is no XML")]
    Syntax(#[from] quick_xml::Error),
    /// An attribute of it is none.
    #[error("an attribute makes no sense")]
    Attribute(#[from] quick_xml::events::attributes::AttrError),
    /// It ends in the middle of something.
    #[error("it ends before it is whole")]
    Short,
    /// It is meant to fill the memory.
    #[error("its elements lie more than {DEPTH_MAX} deep within one another")]
    TooDeep,
    /// Whoever reads it has had enough.
    #[error("{0}")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A piece of a document. Names have no prefix.
#[derive(Debug)]
pub enum Piece<'a> {
    /// An element begins; the names of those around it come first.
    Begin(&'a [Box<str>], &'a BytesStart<'a>),
    /// A text within these elements.
    Text(&'a [Box<str>], &'a [u8]),
    /// An element has ended; it is the last one named.
    End(&'a [Box<str>]),
}

/// Returns the value of an attribute of an element.
pub fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = element.try_get_attribute(name).ok()??;
    attribute.unescape_value().ok().map(std::borrow::Cow::into_owned)
}

/// Reads a document, and tells its pieces.
///
/// # Errors
/// Where it is none, or `tell` does not like it.
pub fn read(
    from: impl BufRead,
    mut tell: impl FnMut(Piece<'_>) -> Result<(), XmlError>,
) -> Result<(), XmlError> {
    let mut reader = Reader::from_reader(Bounded { inner: from, left: PIECE_LEN_MAX });
    reader.config_mut().expand_empty_elements = true;
    let (mut within, mut buffer): (Vec<Box<str>>, _) = (Vec::new(), Vec::new());
    let mut is_empty = true;
    loop {
        buffer.clear();
        reader.get_mut().left = PIECE_LEN_MAX;
        match reader.read_event_into(&mut buffer)? {
            Event::Start(element) => {
                is_empty = false;
                let local = element.local_name();
                within.push(String::from_utf8_lossy(local.as_ref()).into());
                if within.len() > DEPTH_MAX {
                    return Err(XmlError::TooDeep);
                }
                tell(Piece::Begin(&within, &element))?;
            }
            Event::Text(text) => tell(Piece::Text(&within, &text))?,
            Event::End(_) => {
                tell(Piece::End(&within))?;
                within.pop();
            }
            Event::Eof if is_empty || !within.is_empty() => return Err(XmlError::Short),
            Event::Eof => return Ok(()),
            _ => {}
        }
    }
}

/// A reader that gives so many bytes and no more until it is told to.
struct Bounded<R> {
    inner: R,
    left: usize,
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        self.consume(len);
        Ok(len)
    }
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            let error = format!("a piece of it has more than {PIECE_LEN_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        let bytes = self.inner.fill_buf()?;
        Ok(&bytes[..bytes.len().min(self.left)])
    }

    fn consume(&mut self, amount: usize) {
        self.left = self.left.saturating_sub(amount);
        self.inner.consume(amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &[u8]) -> Result<String, XmlError> {
        let mut all = String::new();
        read(text, |piece| {
            match piece {
                Piece::Begin(within, element) => {
                    let a = attribute(element, "a").unwrap_or_default();
                    all.push_str(&format!("<{} {a}>", within.join("/")));
                }
                Piece::Text(_, text) => all.push_str(&String::from_utf8_lossy(text)),
                Piece::End(within) => all.push_str(&format!("</{}>", within.last().unwrap())),
            }
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn elements_texts_and_attributes() {
        let text = "<?xml version='1.0'?><!-- <no> --><x:a><b a='1 &amp; 2'/>t</x:a>";
        assert_eq!(pieces(text.as_bytes()).unwrap(), "<a ><a/b 1 & 2></b>t</a>");
    }

    #[test]
    fn what_is_no_document() {
        for bad in ["", "text", "<a>", "<a></b>", "<a", "<html><p>", "<a b='", "\0"] {
            assert!(pieces(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(matches!(pieces("<a>".repeat(100).as_bytes()), Err(XmlError::TooDeep)));
        let long = [b"<a>".to_vec(), vec![b'x'; PIECE_LEN_MAX + 1], b"</a>".to_vec()].concat();
        assert!(pieces(&long).is_err());
        assert!(pieces(&[b"<a ".to_vec(), vec![b'x'; PIECE_LEN_MAX + 1]].concat()).is_err());
    }
}
