//! `APKINDEX.tar.gz`: a tar of a signature and one of the index, packed one behind the other.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Cursor, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::ecosystem::apt::stanza::{StanzaError, Stanzas};
use crate::generation::catalogue::{CatalogueError, Listed, Records, Sum};
use crate::generation::unpack::{Limits, Unpacked, unpack};
use crate::generation::{Child, Format, Listing, RootFile};

/// The root, and all there is of a set.
pub const APKINDEX: &str = "APKINDEX.tar.gz";
/// The member of the archive that lists the packages.
const MEMBER: &str = "APKINDEX";
/// The most bytes of an index, unpacked: the largest have 10 million.
const UNPACKED_MAX: u64 = 256 << 20;

/// The indexes of repositories.
#[derive(Clone, Copy, Debug, Default)]
pub struct Indexes;

/// Why a file is no index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It is no archive.
    #[error("APKINDEX.tar.gz cannot be unpacked: {0}")]
    Unpack(#[from] io::Error),
    /// It has no index in it.
    #[error("APKINDEX.tar.gz has no {MEMBER} in it")]
    NoMember,
    /// A paragraph of it is none.
    #[error("APKINDEX: {0}")]
    Stanza(#[from] StanzaError),
    /// It does not list packages.
    #[error("APKINDEX lists a package without a name and a version")]
    NoName,
    /// The catalogue takes no more.
    #[error(transparent)]
    Full(#[from] CatalogueError),
}

impl Format for Indexes {
    fn kind(&self) -> &'static str {
        "apk"
    }

    fn forms(&self) -> &'static [&'static [&'static str]] {
        &[&[APKINDEX]]
    }

    fn read(&self, files: &[RootFile<'_>]) -> Result<Listing, Box<dyn Error + Send + Sync>> {
        let [file] = files else { return Err(Box::new(IndexError::NoMember)) };
        let limits = Limits { bytes_max: UNPACKED_MAX, ..Limits::default() };
        let unpacked = unpack(Cursor::new(file.bytes.to_vec()), limits)?;
        each_package(unpacked, |_, _| Ok(()))?;
        // There are no children, and so none that could be of another generation.
        Ok(Listing { by_digest: true, ..Listing::default() })
    }

    fn agrees(&self, _root: &[RootFile<'_>], _other: RootFile<'_>) -> bool {
        false
    }

    fn index_of(&self, _path: &str) -> Option<String> {
        None
    }

    fn read_index(&self, _path: &str, _bytes: &[u8]) -> BTreeMap<Box<str>, Child> {
        BTreeMap::new()
    }

    fn places(&self, path: &str, _child: &Child, _by_digest: bool) -> Vec<String> {
        vec![path.to_owned()]
    }

    fn lists_packages(&self, path: &str) -> bool {
        path == APKINDEX
    }

    fn packages(
        &self,
        _path: &str,
        index: Unpacked,
        records: &mut Records,
    ) -> Result<(), CatalogueError> {
        let read = each_package(index, |name, listed| Ok(records.add(name, &listed)?));
        read.map_err(|error| CatalogueError::Index(Box::new(error)))
    }

    fn keeps_connection(&self, _agent: &str) -> bool {
        false
    }
}

/// Tells the packages of an index by their file names.
fn each_package(
    mut unpacked: impl Read,
    mut tell: impl FnMut(&str, Listed) -> Result<(), IndexError>,
) -> Result<(), IndexError> {
    let mut archive = tar::Archive::new(&mut unpacked);
    // Some tools end the signature's archive as if nothing came behind it.
    archive.set_ignore_zeros(true);
    let mut is_there = false;
    for entry in archive.entries()? {
        let entry = entry?;
        if entry.path_bytes().as_ref() == MEMBER.as_bytes() {
            each_stanza(BufReader::new(entry), &mut tell)?;
            is_there = true;
        }
    }
    // What is behind it says whether it was damaged.
    io::copy(&mut unpacked, &mut io::sink())?;
    if is_there { Ok(()) } else { Err(IndexError::NoMember) }
}

/// > "P: package name, V: version, C: Q1 and the base64 of the SHA-1 of the control segment, S: size of
/// > the whole package" (Alpine's format of APKINDEX)
fn each_stanza(
    index: impl BufRead,
    tell: &mut impl FnMut(&str, Listed) -> Result<(), IndexError>,
) -> Result<(), IndexError> {
    let mut stanzas = Stanzas::new(index);
    while let Some(stanza) = stanzas.read()? {
        // Upper and lower case are different fields here.
        let field =
            |name| stanza.fields().find(|(found, _)| *found == name).map(|(_, value)| value);
        let (Some(name), Some(version)) = (field("P"), field("V")) else {
            return Err(IndexError::NoName);
        };
        let sum = field("C").and_then(|sum| STANDARD.decode(sum.strip_prefix("Q1")?).ok());
        let sum = sum.and_then(|sum| <[u8; 20]>::try_from(sum).ok());
        let size = field("S").and_then(|size| size.parse().ok());
        if let (Some(sum), Some(size)) = (sum, size) {
            tell(&format!("{name}-{version}.apk"), Listed { size, sum: Sum::Control(sum) })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn segment(name: &str, bytes: &[u8]) -> Vec<u8> {
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut builder = tar::Builder::new(gzip);
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).unwrap();
        builder.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn packages_of_an_index() {
        let sum = STANDARD.encode([7; 20]);
        let text = format!(
            "C:Q1{sum}\nP:hello\nV:2.12-r0\nA:x86_64\nS:123\nI:9\np:cmd:hello=1\nc:abc\n\n\
             P:old\nV:1\nS:5\n\nC:Q2AAAA\nP:new\nV:1\nS:5\n"
        );
        let index =
            [segment(".SIGN.RSA.key.rsa.pub", b"sig"), segment(MEMBER, text.as_bytes())].concat();
        let mut found = Vec::new();
        let unpacked = unpack(Cursor::new(index.clone()), Limits::default()).unwrap();
        each_package(unpacked, |name, listed| {
            found.push((name.to_owned(), listed));
            Ok(())
        })
        .unwrap();
        let listed = Listed { size: 123, sum: Sum::Control([7; 20]) };
        assert_eq!(found, [("hello-2.12-r0.apk".to_owned(), listed)]);
        let read = |bytes: &[u8]| Indexes.read(&[RootFile { name: APKINDEX, bytes }]);
        assert_eq!(read(&index).unwrap().children.len(), 0);
        assert!(read(&index[..index.len() - 9]).is_err(), "it is cut short");
        assert!(read(b"<html>").is_err());
        assert!(read(&segment("other", b"x")).is_err());
        assert!(read(&segment(MEMBER, b"A:x86\n")).is_err());
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"no tar").unwrap();
        assert!(read(&gzip.finish().unwrap()).is_err());
    }
}
