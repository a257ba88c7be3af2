//! `repomd.xml`: the root of a repository.
//!
//! ```xml
//! <repomd>
//!   <revision>1700000000</revision>
//!   <data type="primary">
//!     <checksum type="sha256">HEX</checksum>   of the file, as it is packed
//!     <location href="repodata/HEX-primary.xml.gz"/>
//!     <timestamp>1700000000</timestamp>
//!     <size>1234</size>
//!   </data>
//! </repomd>
//! ```

use boatyard_oci::{Algorithm, Digest};
use jiff::Timestamp;

use super::format::named;
use super::xml::{self, Piece, XmlError, attribute};
use crate::generation::sets::split;
use crate::generation::{Child, Listing};

/// The most files that one lists.
const FILES_MAX: usize = 10_000;

/// Why a text is no `repomd.xml`.
#[derive(Debug, thiserror::Error)]
pub enum RepomdError {
    /// It is no XML.
    #[error("repomd.xml: {0}")]
    Xml(#[from] XmlError),
    /// It is another document.
    #[error("repomd.xml: it is another document: `{0}`")]
    Other(Box<str>),
    /// It lists more than any repository has.
    #[error("repomd.xml lists more than {FILES_MAX} files")]
    TooMany,
}

/// One `<data>`.
#[derive(Default)]
struct Data {
    digest: Option<Digest>,
    location: Option<String>,
    size: Option<u64>,
    algorithm: Option<Algorithm>,
}

/// Reads the root of a repository. Files without a digest that is still trusted are left out: nobody
/// can check them.
///
/// # Errors
/// Where it is none.
pub fn parse(text: &[u8]) -> Result<Listing, RepomdError> {
    let mut listing = Listing::default();
    let (mut data, mut other) = (Data::default(), None);
    let (mut newest, mut count) = (None::<i64>, 0);
    xml::read(text, |piece| {
        match piece {
            Piece::Begin([root], _) if &**root != "repomd" => other = Some(root.clone()),
            Piece::Begin([_, at], _) if &**at == "data" => data = Data::default(),
            Piece::Begin([_, _, at], element) => match &**at {
                "checksum" => {
                    data.algorithm = attribute(element, "type").and_then(|name| algorithm(&name));
                }
                "location" if attribute(element, "xml:base").is_none() => {
                    data.location = attribute(element, "href");
                }
                _ => {}
            },
            Piece::Text([_, _, at], text) => {
                let text = String::from_utf8_lossy(text);
                let text = text.trim();
                match (&**at, data.algorithm) {
                    ("checksum", Some(algorithm)) => {
                        let hex = text.to_ascii_lowercase();
                        data.digest =
                            data.digest.take().or_else(|| Digest::from_parts(algorithm, &hex).ok());
                    }
                    ("size", _) => data.size = text.parse().ok(),
                    ("timestamp", _) => newest = newest.max(seconds(text)),
                    _ => {}
                }
            }
            Piece::End([_, at]) if &**at == "data" => {
                count += 1;
                let Data { digest, location, size, .. } = std::mem::take(&mut data);
                if let (Some(digest), Some(path), Some(size)) = (digest, location, size)
                    && is_below(&path)
                    && count <= FILES_MAX
                {
                    let child = Child { size, digest, aliases: Vec::new() };
                    listing.children.insert(path.into(), child);
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    if let Some(other) = other {
        return Err(RepomdError::Other(other));
    }
    if count > FILES_MAX {
        return Err(RepomdError::TooMany);
    }
    // Clients name the generation that they have with each file that they ask for.
    let mut names = listing.children.keys().map(|path| split(path).1);
    listing.by_digest = names.all(|name| named(name).is_some());
    listing.date = newest.and_then(|newest| Timestamp::from_second(newest).ok());
    Ok(listing)
}

/// Returns the algorithm of a checksum's type, where it is one that is still trusted.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "sha256" => Some(Algorithm::Sha256),
        "sha512" => Some(Algorithm::Sha512),
        _ => None,
    }
}

/// Reads `<timestamp>`, which some tools write with a fraction.
fn seconds(text: &str) -> Option<i64> {
    text.split('.').next()?.parse().ok()
}

fn is_below(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\0', '\\', '\t', '\n', '%', '?', '#'])
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_what_can_be_checked() {
        let (a, b) = ("a".repeat(64), "B".repeat(128));
        let text = format!(
            "<?xml version=\"1.0\"?><repomd xmlns='x'><revision>1</revision>\
             <data type='primary'><checksum type='sha256'>{a}</checksum>\
             <open-checksum type='sha256'>{c}</open-checksum>\
             <location href='repodata/{a}-primary.xml.gz'/><timestamp>1700000001</timestamp>\
             <size>7</size><open-size>9</open-size></data>\
             <data type='comps'><checksum type='sha512'> {b}\n</checksum>\
             <location href='repodata/comps.xml'/><timestamp>1700000000.5</timestamp><size>8</size></data>\
             <data type='old'><checksum type='sha'>{d}</checksum><location href='repodata/old'/><size>8</size></data>\
             <data type='up'><checksum type='sha256'>{a}</checksum><location href='../up'/><size>8</size></data>\
             <data type='far'><checksum type='sha256'>{a}</checksum>\
             <location xml:base='http://far.example/' href='far'/><size>8</size></data></repomd>",
            c = "c".repeat(64),
            d = "d".repeat(40)
        );
        let listing = parse(text.as_bytes()).unwrap();
        assert!(!listing.by_digest, "comps.xml has none in its name");
        assert_eq!(listing.date, Timestamp::from_second(1_700_000_001).ok());
        let names: Vec<_> = listing.children.keys().map(|path| &**path).collect();
        assert_eq!(names, [&format!("repodata/{a}-primary.xml.gz"), "repodata/comps.xml"]);
        let primary = &listing.children[names[0]];
        assert_eq!((primary.size, primary.digest.hex()), (7, a.as_str()));
        assert_eq!(listing.children["repodata/comps.xml"].digest.hex(), b.to_ascii_lowercase());
    }

    #[test]
    fn what_is_none() {
        for bad in ["", "<html><body>Log in</body></html>", "<repomd><data>", "Not found"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(parse(b"<repomd/>").unwrap().children.len(), 0);
    }
}
