//! Pages as HTML: what is read of an upstream's, and how ours are written.
//!
//! Reading is left to a tokenizer that follows the HTML standard: pages come from many programs,
//! and what a browser makes of them is what pip makes of them. Ours are written anew from what was
//! understood, so that nothing else of a page reaches a client.

use std::io::{self, Read, Write};

use html5gum::{DefaultEmitter, IoReader, Token, Tokenizer};

/// The longest page that is read.
const LENGTH_MAX: u64 = 512 * 1024 * 1024;

/// A link to a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// The address, without what follows `#`.
    pub(super) url: String,
    /// What follows `#`: `sha256=...`.
    pub(super) fragment: String,
    /// The attributes that say something of the file: `data-requires-python`.
    pub(super) data: Vec<(String, String)>,
}

/// What a page has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// What addresses are relative to, instead of the page.
    Base(String),
    /// Something about the page, such as `pypi:repository-version`.
    Meta(String, String),
    /// A file.
    Link(Link),
}

impl Link {
    /// Returns an attribute.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.data.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the last segment of the address, decoded.
    pub(super) fn file_name(&self) -> String {
        let path = self.url.split('?').next().unwrap_or_default();
        let last = path.rsplit('/').next().unwrap_or_default();
        // `%2B` and `%21` are all that a file's name is encoded for.
        last.replace("%2B", "+").replace("%2b", "+").replace("%21", "!")
    }
}

/// Reads a page.
///
/// # Errors
/// Where it cannot be read, or `item` fails.
pub(super) fn read(
    from: impl Read,
    mut item: impl FnMut(Item) -> io::Result<()>,
) -> io::Result<()> {
    let mut emitter = DefaultEmitter::default();
    // What looks like a tag within a script or a comment is none.
    emitter.naively_switch_states(true);
    let reader = IoReader::new(from.take(LENGTH_MAX));
    for token in Tokenizer::new_with_emitter(reader, emitter) {
        let Token::StartTag(tag) = token? else { continue };
        let attribute = |name: &[u8]| {
            let value = tag.attributes.get(name)?;
            Some(String::from_utf8_lossy(&value.value).into_owned())
        };
        match tag.name.as_slice() {
            b"base" => {
                if let Some(href) = attribute(b"href") {
                    item(Item::Base(href))?;
                }
            }
            b"meta" => {
                if let (Some(name), Some(content)) = (attribute(b"name"), attribute(b"content"))
                    && name.starts_with("pypi:")
                {
                    item(Item::Meta(name, content))?;
                }
            }
            b"a" => {
                let Some(href) = attribute(b"href") else { continue };
                let (url, fragment) = href.trim().split_once('#').unwrap_or((href.trim(), ""));
                let data = tag.attributes.iter().filter_map(|(name, value)| {
                    let name = std::str::from_utf8(name).ok()?;
                    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
                    let known = name.starts_with("data-") && name.bytes().all(plain);
                    let value = String::from_utf8_lossy(&value.value).into_owned();
                    known.then(|| (name.to_owned(), value))
                });
                let (url, fragment) = (url.to_owned(), fragment.to_owned());
                item(Item::Link(Link { url, fragment, data: data.collect() }))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes a page.
pub(super) struct Writer<'w> {
    to: io::BufWriter<&'w mut dyn Write>,
    has_body: bool,
}

impl<'w> Writer<'w> {
    /// Begins a page.
    pub(super) fn new(to: &'w mut dyn Write) -> io::Result<Writer<'w>> {
        let mut to = io::BufWriter::with_capacity(256 * 1024, to);
        to.write_all(b"<!DOCTYPE html>\n<html>\n<head>\n<title>Links</title>\n")?;
        Ok(Writer { to, has_body: false })
    }

    /// Says something about the page. Once a link is written, it is too late for that.
    pub(super) fn meta(&mut self, name: &str, content: &str) -> io::Result<()> {
        if self.has_body {
            return Ok(());
        }
        let (name, content) = (escape(name), escape(content));
        writeln!(self.to, "<meta name=\"{name}\" content=\"{content}\">")
    }

    /// Writes a link to a file, whose name is shown.
    pub(super) fn link(&mut self, link: &Link, file: &str) -> io::Result<()> {
        self.body()?;
        write!(self.to, "<a href=\"{}", escape(&link.url))?;
        if !link.fragment.is_empty() {
            write!(self.to, "#{}", escape(&link.fragment))?;
        }
        self.to.write_all(b"\"")?;
        for (name, value) in &link.data {
            write!(self.to, " {name}=\"{}\"", escape(value))?;
        }
        writeln!(self.to, ">{}</a><br>", escape(file))
    }

    /// Ends the page.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.body()?;
        self.to.write_all(b"</body>\n</html>\n")?;
        self.to.flush()
    }

    fn body(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.has_body, true) {
            self.to.write_all(b"</head>\n<body>\n")?;
        }
        Ok(())
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_was_read() {
        let page = "<!doctype html><BASE href='/b/'><meta name=pypi:repository-version content=1.1>\
            <meta name=viewport content=x><!-- <a href=no> --><script>'<a href=no>'</script>\
            <A HREF=\"../p/six-1%2Bl.whl#sha256=00\" data-requires-python='&gt;=3 &amp; \"x\"'\
            onclick=evil() data-yanked>six</A><a name=x>";
        let mut items = Vec::new();
        read(page.as_bytes(), |item| {
            items.push(item);
            Ok(())
        })
        .unwrap();
        let [Item::Base(base), Item::Meta(name, version), Item::Link(link)] = &items[..] else {
            panic!("{items:?}")
        };
        assert_eq!(
            (base.as_str(), name.as_str(), version.as_str()),
            ("/b/", "pypi:repository-version", "1.1")
        );
        assert_eq!(link.file_name(), "six-1+l.whl");
        assert_eq!(link.get("data-requires-python"), Some(">=3 & \"x\""));
        assert_eq!(link.get("data-yanked"), Some(""));
        let mut written = Vec::new();
        let mut writer = Writer::new(&mut written).unwrap();
        writer.meta(name, version).unwrap();
        writer.link(link, "<six>").unwrap();
        writer.finish().unwrap();
        let text = String::from_utf8(written.clone()).unwrap();
        assert!(!text.contains("onclick") && text.contains("&lt;six&gt;"), "{text}");
        let mut again = Vec::new();
        read(&written[..], |item| {
            again.push(item);
            Ok(())
        })
        .unwrap();
        assert_eq!(again, items[1..]);
    }
}
