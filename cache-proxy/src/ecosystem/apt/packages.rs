//! Package files as `Packages` and `Sources` list them.

use std::io::BufRead;

use boatyard_oci::{Algorithm, Digest};

use super::release::entry;
use super::stanza::{Stanza, Stanzas};
use crate::generation::catalogue::{CatalogueError, Listed, Records, Sum};

/// Reads an index, `Packages` or `Sources`.
///
/// # Errors
/// Where it is none.
pub fn read(index: impl BufRead, records: &mut Records) -> Result<(), CatalogueError> {
    let mut stanzas = Stanzas::new(index);
    while let Some(stanza) =
        stanzas.read().map_err(|error| CatalogueError::Index(Box::new(error)))?
    {
        let mut result = Ok(());
        each_file(stanza, |name, size, hex| {
            let digest = Digest::from_parts(Algorithm::Sha256, &hex.to_ascii_lowercase());
            if let (Ok(()), Ok(digest)) = (&result, digest) {
                result = records.add(name, &Listed { size, sum: Sum::Whole(digest) });
            }
        });
        result?;
    }
    Ok(())
}

/// Tells the files that a paragraph lists: one of `Packages`, several of `Sources`.
///
/// > "Checksums-Sha256: [...] the checksum, the size and the file name" of each file of a source
/// > package (Debian Policy, 5.6.24), below its "Directory".
fn each_file(stanza: Stanza<'_>, mut tell: impl FnMut(&str, u64, &str)) {
    if let Some(name) = stanza.field("Filename") {
        let size = stanza.field("Size").and_then(|size| size.parse().ok());
        if let (Some(size), Some(hex)) = (size, stanza.field("SHA256")) {
            tell(name, size, hex);
        }
    } else if let Some(directory) = stanza.field("Directory") {
        let list = stanza.field("Checksums-Sha256").unwrap_or_default();
        for (hex, size, name) in list.lines().filter_map(|line| entry(line.trim(), 64)) {
            tell(&format!("{directory}/{name}"), size, hex);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::catalogue::look_up;

    #[test]
    fn sources_list_several_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalogue");
        let (a, b) = ("a".repeat(64), "B".repeat(64));
        let index = format!(
            "Package: x\nDirectory: pool/main/x\nFiles:\n {c} 3 x.dsc\nChecksums-Sha256:\n {a} 3 x.dsc\n {b} 4 x.tar.xz\n\n\
             Package: y\nDirectory: ../..\nChecksums-Sha256:\n {a} 3 passwd\n\nPackage: z\nFilename: z.deb\n\n\
             Package: v\nFilename: ./v.deb\nSize: 7\nSHA256: {a}\n",
            c = "c".repeat(32)
        );
        let mut records = Records::default();
        read(index.as_bytes(), &mut records).unwrap();
        assert_eq!(records.write(&path).unwrap(), 3);
        let digest = |hex: &str| Sum::Whole(Digest::from_parts(Algorithm::Sha256, hex).unwrap());
        let found = look_up(&path, "pool/main/x/x.tar.xz").unwrap();
        assert_eq!(found, [Listed { size: 4, sum: digest(&b.to_ascii_lowercase()) }]);
        assert_eq!(look_up(&path, "v.deb").unwrap(), [Listed { size: 7, sum: digest(&a) }]);
        assert_eq!(look_up(&path, "x.dsc").unwrap(), []);
    }
}
