//! `primary.xml`: the packages of a repository.
//!
//! ```xml
//! <metadata>
//!   <package type="rpm">
//!     <checksum type="sha256" pkgid="YES">HEX</checksum>
//!     <size package="1234" installed="..." archive="..."/>
//!     <location href="Packages/h/hello-2.10-1.x86_64.rpm"/>
//!   </package>
//! </metadata>
//! ```

use std::io::BufRead;

use boatyard_oci::{Algorithm, Digest};

use super::repomd::algorithm;
use super::xml::{self, Piece, XmlError, attribute};
use crate::generation::catalogue::{CatalogueError, Listed, Records, Sum};

#[derive(Default)]
struct Package {
    algorithm: Option<Algorithm>,
    digest: Option<Digest>,
    size: Option<u64>,
    location: Option<String>,
}

/// Reads the packages that can be checked. One whose file is elsewhere (`xml:base`) is left out.
///
/// # Errors
/// Where it is no `primary.xml`.
pub fn read(index: impl BufRead, records: &mut Records) -> Result<(), CatalogueError> {
    let mut package = Package::default();
    let read = xml::read(index, |piece| {
        match piece {
            Piece::Begin([_, at], _) if &**at == "package" => package = Package::default(),
            Piece::Begin([_, _, at], element) => match &**at {
                "checksum" => {
                    package.algorithm =
                        attribute(element, "type").and_then(|name| algorithm(&name));
                }
                "size" => {
                    package.size = attribute(element, "package").and_then(|size| size.parse().ok());
                }
                "location" if attribute(element, "xml:base").is_none() => {
                    package.location = attribute(element, "href");
                }
                _ => {}
            },
            Piece::Text([_, _, at], text) if &**at == "checksum" => {
                let hex = String::from_utf8_lossy(text).trim().to_ascii_lowercase();
                let digest = |algorithm| Digest::from_parts(algorithm, &hex).ok();
                package.digest = package.algorithm.and_then(digest).or(package.digest.take());
            }
            Piece::End([_, at]) if &**at == "package" => {
                let Package { digest, size, location, .. } = std::mem::take(&mut package);
                if let (Some(digest), Some(size), Some(name)) = (digest, size, location) {
                    let listed = Listed { size, sum: Sum::Whole(digest) };
                    let added = records.add(&name, &listed);
                    added.map_err(|error| XmlError::Refused(Box::new(error)))?;
                }
            }
            _ => {}
        }
        Ok(())
    });
    read.map_err(|error| CatalogueError::Index(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::catalogue::look_up;

    #[test]
    fn packages_and_what_they_hash_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalogue");
        let (a, b) = ("a".repeat(64), "b".repeat(128));
        let text = format!(
            "<metadata><package type='rpm'><name>x</name><checksum type='sha256' pkgid='YES'>{a}</checksum>\
             <size package='7' installed='9'/><location href='x-1~2+3.rpm'/>\
             <format><rpm:entry name='y'/><checksum type='sha256'>{c}</checksum><location href='no.rpm'/></format>\
             </package><package><checksum type='sha512'>{b}</checksum><size package='8'/>\
             <location href='Packages/y.rpm'/></package><package><checksum type='sha'>00</checksum>\
             <size package='8'/><location href='z.rpm'/></package></metadata>",
            c = "c".repeat(64)
        );
        let mut records = Records::default();
        read(text.as_bytes(), &mut records).unwrap();
        assert_eq!(records.write(&path).unwrap(), 2);
        let found = look_up(&path, "x-1~2+3.rpm").unwrap();
        let digest = Digest::from_parts(Algorithm::Sha256, &a).unwrap();
        assert_eq!(found, [Listed { size: 7, sum: Sum::Whole(digest) }]);
        assert_eq!(look_up(&path, "Packages/y.rpm").unwrap()[0].size, 8);
        assert!(read(&b"<metadata><package>"[..], &mut Records::default()).is_err());
    }
}
